# SPDX-License-Identifier: BSD-3-Clause
"""Files to and from the original: by TUN and without one, by either command, and on with what a broken transfer left."""
import pytest
from files import OURS_GOES_ON, exchange, goes_on
from lab import ORIGINAL, Lab


@pytest.fixture(scope="module")
def mixed():
    with Lab("ifiles") as lab:
        lab.flat("ours", "theirs", "user")
        lab.derper()
        lab.testcontrol()
        lab.ours = lab.node("ours").start()
        lab.theirs = lab.node("theirs", ORIGINAL).start()
        lab.user = lab.node("user", tun="userspace-networking").start()
        for node in (lab.ours, lab.theirs, lab.user):
            node.join()
        lab.ours.wait_peer(lab.theirs)
        yield lab


@pytest.mark.parametrize("sender, receiver", [("ours", "theirs"), ("theirs", "ours"), ("user", "theirs"), ("theirs", "user")])
def test_files_arrive_whole(mixed, sender, receiver):
    exchange(mixed, getattr(mixed, sender), getattr(mixed, receiver))


def test_the_original_command_on_our_sockets(mixed):
    exchange(mixed, mixed.ours, mixed.user, cli=ORIGINAL / "tailscale")


@pytest.mark.parametrize("sender, receiver", [("ours", "theirs"), ("theirs", "ours")])
def test_a_broken_transfer_goes_on_where_it_ended(mixed, sender, receiver):
    goes_on(mixed, getattr(mixed, sender), getattr(mixed, receiver), OURS_GOES_ON if sender == "ours" else r"resuming put at offset [1-9]\d{5,}")
