# SPDX-License-Identifier: BSD-3-Clause
"""Peer relays beside the original: its server for ours, ours for its clients."""
from lab import ORIGINAL, OURS
from peer_relay import Sites


def test_two_of_ours_through_an_original_relay():
    with Sites("relayours", clients=OURS, server=ORIGINAL) as sites:
        sites.wait_relayed()
        sites.pings_say_so()
        assert sites.transfer() > 2 * (8 << 20)


def test_two_originals_through_our_relay():
    with Sites("relayorig", clients=ORIGINAL, server=OURS) as sites:
        sites.wait_relayed()
        sites.pings_say_so()
        assert sites.transfer() > 2 * (8 << 20)
