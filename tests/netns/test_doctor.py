# SPDX-License-Identifier: BSD-3-Clause
"""`tailscale doctor` names the cause: one small internet in which each node has another trouble, then servers that fail."""
import concurrent.futures
import json
import re
import struct

import pytest
from lab import OURS, Lab, wait_for

HOURS = 3 * 3600


class Diagnosis:
    """What the command said, by node and peer."""

    def __init__(self, node, peer=None, *flags):
        args = [*flags, *([peer.ip()] if peer else [])]
        run = node.cli("doctor", "--json", *args, check=False)
        self.code, self.report = run.returncode, json.loads(run.stdout)
        self.host = {f["Code"]: f for f in self.report["Node"]}
        about = self.report["Peer"]
        self.path = about and about["Path"]
        self.peer = {f["Code"]: f for f in about["Findings"]} if about else {}

    def sentence(self, code):
        found = {**self.host, **self.peer}
        assert code in found, f"{code} is not among {sorted(found)}"
        assert found[code]["Text"] and found[code].get("Do"), found[code]
        return found[code]["Text"]


def lan(n):
    return f"192.168.{n}.1/24"


@pytest.fixture(scope="module")
def town():
    """Nodes with one trouble each. home and office are well."""
    with Lab("doctor") as lab:
        lab.core()
        lab.space("srv")
        lab.uplink("srv", "10.50.0.2/16", "10.50.0.3/16", "2001:db8:50::2/64")
        for n, (name, kind) in enumerate((("home", "easy"), ("office", "easy"), ("walled", "easy"), ("hard1", "hard"), ("hard2", "hard"),
                                          ("mute", "blocked"), ("gone", "easy"), ("late", "easy"), ("outer", "easy")), start=11):
            lab.nat(f"nat-{name}", f"10.50.{n}.1", lan(n), kind)
            if name != "outer":
                lab.host(name, f"192.168.{n}.10/24", f"nat-{name}", f"192.168.{n}.1")
        lab.nat("nat-deep", "192.168.19.2", lan(20), behind=("nat-outer", "192.168.19.1"))
        lab.host("deep", "192.168.20.10/24", "nat-deep", "192.168.20.1")
        # Only the relays are let through.
        lab.run("nat-walled", "iptables -I FORWARD -p udp -o wan ! -d 10.50.0.0/24 -j DROP")
        lab.run("nat-walled", "iptables -I FORWARD -p udp -i wan ! -s 10.50.0.0/24 -j DROP")
        lab.on_core("six")
        lab.run("six", "ip addr add 2001:db8:50::66/64 dev eth0 nodad")
        lab.run("six", "ip -6 route add default via 2001:db8:50::2")
        lab.run("six", "ip6tables -t raw -A PREROUTING -i eth0 -p udp -j DROP")
        for last in (2, 3):
            setattr(lab, f"relay{last}", lab.derper(bind=f"10.50.0.{last}" if last == 3 else "", host=f"10.50.0.{last}", stun=38894 + last,
                                                    port=12340 + last))
        lab.regions = lab.derp_regions([lab.derp_node(DERPPort=12342, STUNPort=38896, IPv6="2001:db8:50::2")],
                                       [lab.derp_node("901a", 901, "10.50.0.3", DERPPort=12343, STUNPort=38897)])
        lab.server = lab.control(derp_map=lab.regions)
        clock = lab.dir / "clock"
        clock.write_bytes(struct.pack("=q", -HOURS))
        nodes = {}
        for name in ("home", "office", "walled", "hard1", "hard2", "mute", "gone", "late", "deep", "six"):
            env = {"LD_PRELOAD": OURS / "lab-clock.so", "LAB_CLOCK": clock} if name == "late" else None
            nodes[name] = lab.node(name, env=env)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: n.start().join(), nodes.values()))
            list(pool.map(nodes["home"].wait_peer, [n for n in nodes.values() if n is not nodes["home"]]))
        lab.nodes = nodes
        lab.addresses = {name: node.ip() for name, node in nodes.items()}
        nodes["gone"].stop()
        wait_for("gone is offline", lambda: not nodes["home"].peer(lab.addresses["gone"])["Online"], timeout=20)
        for node in nodes.values():
            address = lab.addresses[node.name]
            node.ip = lambda address=address: address  # also of a node that is not there
        pairs = [("home", "office"), ("home", "walled"), ("hard1", "hard2"), ("home", "hard1"), ("home", "mute"), ("mute", "home"), ("home", "gone"),
                 ("late", "home"), ("deep", "office"), ("six", "office")]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            done = pool.map(lambda p: Diagnosis(nodes[p[0]], nodes[p[1]]), pairs)
            lab.said = dict(zip(pairs, done))
        yield lab


def test_nodes_that_are_well_get_no_advice(town):
    d = town.said["home", "office"]
    assert d.code == 0 and d.path == "direct", d.report
    assert set(d.host) == {"udp-works"}, d.report


# line by line: who asks about whom, what is said, and what the path is.
CAUSES = [
    ("home", "walled", "firewall", r"none of \d+ pings to .*10\.50\.13\.1:\d+.* was answered", "relay"),
    ("hard1", "hard2", "hard-hard", r"hard NAT here and at hard2", "relay"),
    ("home", "hard1", "hard-easy", r"router of hard1 uses another port", "relay"),
    ("mute", "home", "udp-blocked", r"no relay answers STUN .* while TCP to lab", "relay"),
    ("mute", "home", "no-direct-udp-blocked-here", r"UDP does not get out of this network", "relay"),
    ("home", "mute", "no-direct-udp-blocked-there", r"UDP does not get out of the network of mute", "relay"),
    ("home", "gone", "peer-offline", r"gone is offline", "none"),
    ("late", "home", "clock-wrong", r"clock of this host is 3 hours behind", "direct"),
    ("deep", "office", "double-nat", r"two routers .*192\.168\.20\.1, then 192\.168\.19\.1", "direct"),
    ("six", "office", "ipv6-broken", r"IPv6 does not work: \[2001:db8:50::2\]:38896 did not answer", "direct"),
]


@pytest.mark.parametrize("asks,about,code,says,path", CAUSES, ids=[f"{c[0]}-{c[2]}" for c in CAUSES])
def test_each_cause_has_its_sentence(town, asks, about, code, says, path):
    d = town.said[asks, about]
    text = d.sentence(code)
    print(f"\n{asks} about {about}: {text}")
    assert re.search(says, text), text
    assert d.path == path, d.report
    assert d.code == 1 or {**d.host, **d.peer}[code]["Level"] == "note", d.report


def test_a_trouble_is_told_where_it_is_and_nowhere_else(town):
    special = {"clock-wrong": "late", "double-nat": "deep", "ipv6-broken": "six", "udp-blocked": "mute"}
    for (asks, _), d in town.said.items():
        for code, owner in special.items():
            assert (code in d.host) == (asks == owner), (asks, code, d.report)


def test_the_text_for_people_and_what_was_tried(town):
    home, walled = town.nodes["home"], town.nodes["walled"]
    text = home.cli("doctor", "--quick", walled.ip(), check=False).stdout
    assert text.startswith("this host:\n  ok: UDP works") and f"\nwalled ({walled.ip()}):\n  note: walled is reached by the relay" in text, text
    tried = home.cli("debug", "paths", "walled").stdout
    assert re.search(r"^walled: by relay \(relay lab2?\)\n  addresses:\n(    \S+ +(netmap|call-me-maybe) +.*\n)+  what happened:\n", tried), tried
    assert re.search(r"10\.50\.13\.1:\d+ .* [1-9]\d* pings?, 0 answered", tried), tried
    ping = home.cli("ping", "--verbose", "-c", "2", "hard2", check=False)  # nobody asked for it before
    assert ping.returncode == 1 and "s ago: call-me-maybe sent" in ping.stderr and "the router of hard2" in ping.stderr, ping.stderr
    lines = [json.loads(line) for line in home.cli("ping", "--json", "-c", "2", "office").stdout.splitlines()]
    assert lines[-1]["Endpoint"].startswith("10.50.12.1:"), lines
    assert json.loads(home.cli("debug", "paths", "--json", "walled").stdout)


def test_a_stun_port_that_is_closed(town):
    town.relay3.stop()
    town.relay3 = town.derper(bind="10.50.0.3", host="10.50.0.3", port=12343, args=["-stun=false"])
    text = Diagnosis(town.nodes["office"]).sentence("stun-silent")
    print("\n" + text)
    assert "STUN is silent at udp 10.50.0.3:38897 (lab2)" in text, text


def test_a_control_server_and_relays_that_are_down(town):
    town.server.stop()
    for relay in (town.relay2, town.relay3):
        relay.stop()
    asks, about = town.nodes["hard1"], town.nodes["hard2"]

    def both():
        d = Diagnosis(asks, about)
        return {"control-unreachable", "relay-down"} <= set(d.host) and d
    d = wait_for("both are noticed", both, timeout=40)
    print("\n" + d.sentence("control-unreachable") + "\n" + d.sentence("relay-down"))
    assert "connection refused" in d.sentence("relay-down") and town.url in d.sentence("control-unreachable")

    def silent():
        d = Diagnosis(asks, about, "--quick")
        return d.path == "none" and d
    d = wait_for("what was heard before counts no more", silent, timeout=30)
    assert "no-connection-relay-down" in d.peer, d.report
