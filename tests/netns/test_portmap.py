# SPDX-License-Identifier: BSD-3-Clause
"""Routers that open ports on request: the real miniupnpd, by UPnP, NAT-PMP and PCP; and one that is not our gateway."""
import contextlib
import json
import os
import signal
import time

import pytest
from lab import ROOT, Lab, wait_for

MINIUPNPD = ROOT / "build/debs/miniupnpd-nftables/usr/sbin/miniupnpd"
# miniupnpd opens no ports behind an address that is not public: the WAN looks like the Internet, inside these namespaces.
WAN = {"nat1": "9.50.1.1", "nat2": "9.50.2.1"}
RULES = """
table inet filter {
    chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 90; policy accept; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
"""

pytestmark = pytest.mark.skipif(not MINIUPNPD.exists() and "CI" not in os.environ, reason="./dev debs fetches miniupnpd")


@contextlib.contextmanager
def hard_homes(name):
    """home_and_office with hard NATs, whose WAN addresses are public ones."""
    with Lab(name) as lab:
        lab.core()
        lab.space("srv")
        lab.uplink("srv", "10.50.0.2/16", "10.50.0.3/16", "9.50.0.2/16")
        for n, host in ((1, "laptop"), (2, "router")):
            lab.nat(f"nat{n}", WAN[f"nat{n}"], f"192.168.{n}.1/24", "hard")
            lab.run(f"nat{n}", "ip route add 10.50.0.0/16 dev wan")
            lab.run(f"nat{n}", "iptables -I FORWARD -i wan -m conntrack --ctstate DNAT -j ACCEPT")
            lab.host(host, f"192.168.{n}.10/24", f"nat{n}", f"192.168.{n}.1")
        lab.derper()
        lab.control()
        yield lab


def port_mapper(lab, space, wan="wan", lan="lan", upnp="yes", pxp="yes"):
    """miniupnpd; returns its process."""
    rules, config = lab.dir / f"{space}.nft", lab.dir / f"{space}.conf"
    rules.write_text(RULES)
    lab.run(space, ["nft", "-f", rules])
    config.write_text(f"ext_ifname={wan}\nlistening_ip={lan}\nenable_upnp={upnp}\nenable_natpmp={pxp}\nsecure_mode=yes\n"
                      "min_lifetime=120\nmax_lifetime=86400\nuuid=6b5ad3ec-0b2d-4d4d-8b9c-0123456789ab\nhttp_port=5000\nipv6_disable=yes\n"
                      "allow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n")
    process = lab.start(space, [MINIUPNPD, "-d", "-f", config, "-P", lab.dir / f"{space}.pid"], label=f"miniupnpd-{space}")
    port = 5000 if upnp == "yes" else 5351
    wait_for("miniupnpd listens", lambda: f":{port} " in lab.run(space, f"ss -{'t' if upnp == 'yes' else 'u'}lnH").stdout)
    return process


def opened(lab, space):
    """What leads through the router into the LAN."""
    return [line.strip() for line in lab.run(space, "nft list chain inet filter prerouting_miniupnpd").stdout.splitlines() if "dnat" in line]


def mapping(node):
    return json.loads(node.cli("debug", "localapi", "debug-portmap").stdout)


def looked_at(sees):
    """netcheck gives routers a short time, which a busy machine may not keep; and miniupnpd is silent to whoever asks several times a second."""
    for _ in range(5):
        if sees():
            return True
        time.sleep(2)
    return False


def test_two_hard_nats_go_direct_by_upnp_and_nat_pmp():
    with hard_homes("upnp") as lab:
        port_mapper(lab, "nat1", pxp="no")
        port_mapper(lab, "nat2")
        a, b = lab.laptop_and_router()
        wait_for("both have a port", lambda: mapping(a)["Endpoint"] and mapping(b)["Endpoint"])
        assert mapping(a)["Protocol"] == "UPnP" and mapping(a)["Endpoint"].startswith(WAN["nat1"] + ":"), mapping(a)
        assert mapping(b)["Protocol"] == "NAT-PMP" and mapping(b)["Endpoint"].startswith(WAN["nat2"] + ":"), mapping(b)
        assert len(opened(lab, "nat1")) == 1 and "192.168.1.10" in opened(lab, "nat1")[0]
        run = a.ping_through(b.ip(), count=60)
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()), timeout=7)
        assert run.finish().lost == 0, run.process.text()
        assert looked_at(lambda: "\t* PortMapping: UPnP\n" in a.cli("netcheck").stdout)
        assert looked_at(lambda: [json.loads(b.cli("netcheck", "--format=json").stdout)[k] for k in ("UPnP", "PMP", "PCP")] == [True] * 3)

        # Taken back by `down`, there again by `up`; taken back by the end of the daemon.
        a.cli("down")
        wait_for("the port is closed", lambda: not opened(lab, "nat1"))
        a.up()
        wait_for("the port is open again", lambda: opened(lab, "nat1"))
        assert a.stop() == 0 and b.stop() == 0
        wait_for("both ports are closed", lambda: not opened(lab, "nat1") and not opened(lab, "nat2"))


def test_a_port_by_pcp_is_enough_for_two_hard_nats():
    with hard_homes("pcp") as lab:
        port_mapper(lab, "nat2", upnp="no")
        lab.run("nat2", "iptables -I INPUT -p udp --dport 5351 -m length --length 30:40 -j DROP")  # NAT-PMP: its requests are shorter
        a, b = lab.laptop_and_router()
        wait_for("a port", lambda: mapping(b)["Endpoint"])
        assert mapping(b)["Protocol"] == "PCP" and not mapping(a)["Endpoint"]
        run = a.ping_through(b.ip(), count=60)
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()), timeout=7)
        assert run.finish().lost == 0, run.process.text()
        assert looked_at(lambda: "\t* PortMapping: PCP\n" in b.cli("netcheck").stdout)
        assert b.stop() == 0
        wait_for("the port is closed", lambda: not opened(lab, "nat2"))


def test_a_router_that_starts_anew_is_asked_at_once():
    """It has forgotten the port, and tells its LAN; otherwise it would be asked after some minutes."""
    with hard_homes("anew") as lab:
        first = port_mapper(lab, "nat1", upnp="no")
        a, _ = lab.laptop_and_router()
        wait_for("a port", lambda: opened(lab, "nat1"))
        given = time.monotonic()
        first.stop(signal.SIGKILL)
        lab.run("nat1", "nft delete table inet filter")
        wait_for("its new age is below the old one", lambda: time.monotonic() - given > 6)
        port_mapper(lab, "nat1", upnp="no").popen.send_signal(signal.SIGUSR1)  # says its address to all
        wait_for("the port is open again", lambda: opened(lab, "nat1"), timeout=15)
        wait_for("it is known", lambda: mapping(a)["Endpoint"])


def test_a_port_mapper_that_is_not_the_gateway_is_not_used_and_named():
    with hard_homes("stranger") as lab:
        lab.space("box")
        lab.uplink("box", "9.50.7.1/16", interface="wan")
        lab.host("box", "192.168.1.7/24", "nat1", interface="lan")
        port_mapper(lab, "box")
        a, _ = lab.laptop_and_router()
        sentence = "192.168.1.7 offers to open ports by UPnP, but it is not this host's gateway (192.168.1.1)"
        wait_for("the sentence", lambda: sentence in a.cli("status").stdout)
        assert not mapping(a)["Endpoint"] and not opened(lab, "box")
        assert sentence in a.cli("netcheck").stdout
        assert sentence in a.cli("doctor", check=False).stdout
        port_mapper(lab, "nat1", pxp="no")
        a.cli("debug", "restun")
        wait_for("a port of the gateway", lambda: mapping(a)["Endpoint"].startswith(WAN["nat1"]), timeout=15)
        assert sentence not in a.cli("status").stdout


def test_an_endpoint_forwarded_by_hand_is_told_to_peers():
    """--static-endpoints: both NATs are hard, one has a port forwarded."""
    with hard_homes("byhand") as lab:
        lab.run("nat2", "iptables -t nat -A PREROUTING -i wan -p udp --dport 50000 -j DNAT --to-destination 192.168.2.10:41641")
        a, b = lab.node("laptop").start(), lab.node("router").start(f"--static-endpoints={WAN['nat2']}:50000")
        b.join()
        a.join()
        a.wait_peer(b)
        b.wait_peer(a)
        run = a.ping_through(b.ip(), count=60)
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()), timeout=7)
        assert a.direct(b.ip()) == f"{WAN['nat2']}:50000"
        assert run.finish().lost == 0, run.process.text()
        code, lines = lab.node("laptop", name="slip", tun="ts9").refuses("--static-endpoints=127.0.0.1:1")
        assert code == 2 and 'invalid value "127.0.0.1:1" for flag -static-endpoints' in lines[0]
