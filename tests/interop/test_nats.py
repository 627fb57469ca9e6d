# SPDX-License-Identifier: BSD-3-Clause
"""As tests/netns/test_nats.py, with the original on the other side: the same pairs are direct, the same are relayed."""
import itertools

import pytest
from lab import ORIGINAL
from nat_matrix import KINDS, SOME, play

PINGS = 160  # the original repeats its own probes after 5 s only


def test_fourteen_pairs_of_networks():
    play("natsorig", SOME, ORIGINAL, PINGS)


@pytest.mark.full
def test_all_pairs_of_networks():
    play("natsorig", list(itertools.product(KINDS, KINDS)), ORIGINAL, PINGS)
