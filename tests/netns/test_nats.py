# SPDX-License-Identifier: BSD-3-Clause
"""Nodes behind every kind of NAT and firewall, all pairs at once: direct exactly where theory allows, nothing lost on the way there."""
import itertools

import pytest
from lab import OURS
from nat_matrix import KINDS, SOME, play

def within_a_second(times):
    """In 95 of 100 cells; the machine may be busy, so the worst of few are forgiven."""
    late = [t for t in times if t > 1]
    return len(late) <= max(1, len(times) // 20)


def test_fourteen_pairs_of_networks():
    assert within_a_second(play("nats", SOME, OURS))


@pytest.mark.full
def test_all_pairs_of_networks():
    assert within_a_second(play("nats", list(itertools.combinations_with_replacement(KINDS, 2)), OURS))
