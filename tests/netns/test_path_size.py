# SPDX-License-Identifier: BSD-3-Clause
"""Links that are narrower than they say: pings pass, full packets do not."""
import contextlib
import json

import pytest
from endurance import TRANSFER, receiver
from lab import Lab, wait_for


@contextlib.contextmanager
def narrow(name, rule=None, space="nat1"):
    with Lab(name) as lab:
        lab.home_and_office()
        lab.derper()
        lab.control()
        if rule:
            lab.run(space, rule)
        lab.a, lab.b = lab.laptop_and_router()
        yield lab


def transfer(lab, here, there):
    """Two seconds of TCP from one node to the other; ends with an error after a minute without progress."""
    run = lab.run(here.space, ["python3", TRANSFER, "send", there.ip(), receiver(there), 2, 20], check=False, timeout=90)
    assert '"whole": true' in run.stdout, run.stderr[-1000:]


def sizes(node, peer):
    """What is known of the peer's addresses that answered."""
    report = json.loads(node.cli("debug", "localapi", f"debug-paths?peer={peer.ip()}").stdout)
    return [c["Size"] for c in report[0]["Candidates"] if c["Pongs"]]


def test_a_black_hole_for_full_packets_is_gone_round():
    """A router that drops UDP packets longer than 1300 bytes, both ways, and tells nobody."""
    with narrow("hole", "iptables -I FORWARD -p udp -m length --length 1301:65535 -j DROP") as lab:
        a, b = lab.a, lab.b
        small = a.ping_through(b.ip(), count=400)
        transfer(lab, a, b)
        transfer(lab, b, a)
        assert not a.direct(b.ip()) and not b.direct(a.ip())
        assert sizes(a, b) == sizes(b, a) == ["too small"]
        ping = a.cli("ping", "--verbose", "-c", "2", b.ip(), check=False)
        assert ping.returncode == 1 and ping.stdout.count("via DERP(lab)") == 2, ping.stdout
        lost = "packets of full size (1340 bytes) get lost without a word; 1280 bytes arrive"
        assert lost in ping.stderr, ping.stderr
        findings = json.loads(a.cli("doctor", "--json", b.ip(), check=False).stdout)["Peer"]["Findings"]
        assert "path-mtu" in [f["Code"] for f in findings], findings
        assert "not used: packets of 1340 bytes get lost, 1280 bytes arrive" in a.cli("debug", "paths", b.ip()).stdout
        assert small.finish().lost == 0, small.process.text()
        # Somebody mends it, and our network moves.
        lab.run("nat1", "iptables -D FORWARD 1")
        for node in (a, b):
            node.cli("debug", "rebind")
        transfer(lab, a, b)
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()))


def test_a_narrow_link_that_says_so_stays_in_use():
    """The router answers long packets with ICMP, the kernel fragments, and fragments pass."""
    with narrow("honest", "ip route add 10.50.2.1/32 dev wan mtu 1300") as lab:
        a, b = lab.a, lab.b
        run = a.ping_through(b.ip(), count=40)
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()))
        transfer(lab, a, b)
        assert run.finish().lost == 0, run.process.text()
        assert a.direct(b.ip()) and sizes(a, b) == ["whole"]


@pytest.mark.full
def test_a_link_that_narrows_under_traffic_is_left():
    with narrow("later") as lab:
        a, b = lab.a, lab.b
        run = a.ping_through(b.ip(), count=2000)
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()))
        lab.run("nat1", "iptables -I FORWARD -p udp -m length --length 1301:65535 -j DROP")
        wait_for("the relay", lambda: not a.direct(b.ip()) and not b.direct(a.ip()), timeout=90)
        transfer(lab, a, b)
        transfer(lab, b, a)
        assert run.finish().lost == 0, run.process.text()
