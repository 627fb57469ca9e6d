# SPDX-License-Identifier: BSD-3-Clause
"""A laptop that moves: another address, another way out, no network for a while. Traffic goes on soon after the network does."""
import signal
import time

import pytest
from lab import Lab, wait_for

RESUME = 2.0  # seconds after the network is back
NOTICE = 10.0  # a relay that vanishes without a word


@pytest.fixture(scope="module")
def pair():
    """The laptop has two ways out: its LAN behind nat1, and wlan0 behind nat3. It pings the router all the time."""
    with Lab("roam") as lab:
        lab.home_and_office()
        lab.nat("nat3", "10.50.3.1", "192.168.3.1/24")
        lab.host("laptop", "192.168.3.10/24", "nat3", interface="wlan0")
        lab.derper()
        lab.control()
        a, b = lab.node("laptop").start(), lab.node("router").start()
        b.join()
        a.join()
        a.wait_peer(b)
        b.wait_peer(a)
        lab.a, lab.b, lab.address = a, b, b.ip()
        run = a.ping_through(lab.address, count=4000, interval=0.02)
        wait_for("a direct path", lambda: a.direct(lab.address) and b.direct(a.ip()))
        lab.ping = run
        yield lab
        run.process.stop(signal.SIGINT)


def resumed(lab, what, back):
    """Seconds from `back` (monotonic) to the first answer to a ping sent after it."""
    at = back - time.monotonic() + time.time() - lab.ping.began
    first = wait_for("answers", lambda: next((t for _, t in lab.ping.answers() if t > at + 0.002), None), timeout=20)
    print(f"\n{what}: {first - at:.2f} s")
    return first - at


def direct_again(lab):
    wait_for("a direct path again", lambda: lab.a.direct(lab.address) and lab.b.direct(lab.a.ip()), timeout=20)


def test_another_address(pair):
    pair.run("laptop", "ip addr del 192.168.1.10/24 dev eth0")
    pair.run("laptop", "ip addr add 192.168.1.77/24 dev eth0")
    pair.run("laptop", "ip route add default via 192.168.1.1")
    assert resumed(pair, "another address", time.monotonic()) < RESUME
    direct_again(pair)


def test_another_way_out(pair):
    pair.run("laptop", "ip route replace default via 192.168.3.1 dev wlan0")
    assert resumed(pair, "another way out", time.monotonic()) < RESUME
    direct_again(pair)
    # At once, and the way that is left does not even exist any more.
    pair.run("laptop", "ip route replace default via 192.168.1.1 dev eth0")
    pair.run("laptop", "ip link set wlan0 down")
    assert resumed(pair, "and back", time.monotonic()) < RESUME
    direct_again(pair)


def test_no_network_for_a_while(pair):
    pair.run("laptop", "ip link set eth0 down")
    time.sleep(4)  # the outage itself
    pair.run("laptop", "ip link set eth0 up")
    pair.run("laptop", "ip route replace default via 192.168.1.1 dev eth0")
    assert resumed(pair, "the network is back", time.monotonic()) < RESUME
    direct_again(pair)


def test_a_relay_that_vanishes_without_a_word():
    """The host of the home relay is cut off under traffic that depends on it; its connections stay open and say nothing."""
    with Lab("vanish") as lab:
        lab.home_and_office("hard", "hard")
        lab.derper(bind="10.50.0.2")
        lab.derper(bind="10.50.0.3", host="10.50.0.3")
        lab.control(derp_map=lab.derp_regions([lab.derp_node()], [lab.derp_node("901a", 901, "10.50.0.3")]))
        for n in (1, 2):
            lab.run(f"nat{n}", "iptables -I FORWARD -p udp -d 10.50.0.3 -j DROP")
        a, b = lab.node("laptop").start(), lab.node("router").start()
        b.join()
        a.join()
        a.wait_peer(b)
        b.wait_peer(a)
        wait_for("home", lambda: a.status()["Self"]["Relay"] == b.status()["Self"]["Relay"] == "lab")
        for n in (1, 2):
            lab.run(f"nat{n}", "iptables -D FORWARD -p udp -d 10.50.0.3 -j DROP")
        run = a.ping_through(b.ip(), count=2000)
        wait_for("answers", lambda: len(run.answers()) > 20)
        for rule in ("INPUT -d 10.50.0.2 -p udp", "INPUT -d 10.50.0.2 -p tcp --dport 12345", "OUTPUT -s 10.50.0.2 -p tcp --sport 12345"):
            lab.run("srv", f"iptables -A {rule} -j DROP")
        dead = time.time() - run.began
        first = wait_for("answers by the other relay", lambda: next((t for _, t in run.answers() if t > dead + 0.2), None), timeout=40)
        run.process.stop(signal.SIGINT)
        print(f"\nnoticed and replaced after {first - dead:.1f} s")
        assert first - dead < NOTICE
