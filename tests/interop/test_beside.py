# SPDX-License-Identifier: BSD-3-Clause
"""Our daemon and the original's on one host, each in a network of its own, with names of its own: neither hurts the other."""
import signal

import pytest
from lab import ORIGINAL, OURS, Lab, wait_for


@pytest.fixture
def both():
    with Lab("beside") as lab:
        lab.flat("h", "x", "y")
        lab.derper()
        lab.untouched = lab.host_state("h")
        lab.testcontrol()
        lab.their_peer = lab.node("x", ORIGINAL).start()
        lab.their_peer.join()
        lab.theirs = lab.node("h", ORIGINAL, name="theirs").start()
        lab.theirs.join()
        lab.theirs.wait_peer(lab.their_peer)
        lab.control(prefix="10.1.0.0/16", v6="off", listen="10.50.0.2:8090")
        lab.url = "http://10.50.0.2:8090"
        lab.our_peer = lab.node("y").start()
        lab.our_peer.join()
        lab.without_us = lab.host_state("h")
        lab.ours = lab.node("h", name="ours", tun="mesh0", port=41700).start()
        lab.ours.join()
        lab.ours.wait_peer(lab.our_peer)
        yield lab


def talks(node, peer):
    wait_for(f"{node.name} reaches {peer.name}", lambda: node.ping_through(peer.ip(), count=1).finish().lost == 0)
    return node.ping_through(peer.ip(), count=40)


def test_we_end_and_the_original_goes_on(both):
    theirs, back = talks(both.theirs, both.their_peer), talks(both.their_peer, both.theirs)
    ours = talks(both.ours, both.our_peer)
    assert ours.finish().lost == 0
    assert both.ours.stop() == 0
    assert both.host_state("h") == both.without_us
    both.ours.start()
    both.ours.stop(signal.SIGKILL)
    assert both.run("h", [OURS / "tailscaled", "--cleanup", f"--socket={both.ours.socket}", "--tun=mesh0"]).returncode == 0
    assert both.host_state("h") == both.without_us
    assert theirs.finish().lost == 0 and back.finish().lost == 0, theirs.process.text()


def test_the_original_ends_and_we_go_on(both):
    """The original's clean-up removes ip rules that we share: ours are there again at once."""
    talks(both.ours, both.our_peer).finish()
    both.theirs.stop()
    run = talks(both.ours, both.our_peer)
    assert run.finish().lost == 0, run.process.text()
    assert both.ours.stop() == 0
    assert both.host_state("h") == both.untouched
