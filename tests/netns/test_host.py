# SPDX-License-Identifier: BSD-3-Clause
"""A good guest: firewall, rules and routes on a host that others use as well. Each test ends with the host as it was."""
import re
import threading
import time

import pytest
from lab import ORIGINAL, OURS, TAILNETS, Lab, wait_for

FIREWALLS = {"iptables": {}, "nft": {"TS_DEBUG_FIREWALL_MODE": "nftables"}}
# The second in the long tier, where another test of the short one covers it.
BOTH = pytest.mark.parametrize("tailnet", ["usual", pytest.param("small", marks=pytest.mark.full)])

def opposite(tailnet):
    """Whose program the other node runs: the original's, except in the small tailnet, where it does not work (test_routes.CASES)."""
    return ORIGINAL if tailnet == "usual" else OURS


# What the samples of the original say in its nftables mode. Ours differs where it is better: names of interfaces are compared
# whole, not as prefixes, and the connmark rules touch our own mark only instead of wiping everybody's bits.
NFT_CLIENT = """
ip filter FORWARD: counter jump ts-forward
ip filter INPUT: counter jump ts-input
ip filter ts-forward: iifname "tailscale0" counter meta mark set meta mark & 0xff04ffff | 0x00040000
ip filter ts-forward: meta mark & 0x00ff0000 == 0x00040000 counter accept
ip filter ts-forward: oifname "tailscale0" ip saddr 100.64.0.0/10 counter drop
ip filter ts-forward: oifname "tailscale0" counter accept
ip filter ts-input: iifname "lo" ip saddr OWN4 counter accept
ip filter ts-input: iifname "tailscale0" counter accept
ip filter ts-input: udp dport 41641 counter accept
ip filter ts-input: iifname != "tailscale0" ip saddr 100.115.92.0/23 counter return
ip filter ts-input: iifname != "tailscale0" ip saddr 100.64.0.0/10 counter drop
ip mangle OUTPUT: meta mark & 0x00ff0000 == 0x00080000 ct mark & 0x00ff0000 != 0x00080000 counter ct mark set ct mark & 0xff08ffff | 0x00080000
ip mangle PREROUTING: ct state established,related ct mark & 0x00ff0000 == 0x00080000 counter meta mark set meta mark & 0xff08ffff | 0x00080000
ip nat POSTROUTING: counter jump ts-postrouting
ip nat ts-postrouting: meta mark & 0x00ff0000 == 0x00040000 counter masquerade
ip6 filter FORWARD: counter jump ts-forward
ip6 filter INPUT: counter jump ts-input
ip6 filter ts-forward: iifname "tailscale0" counter meta mark set meta mark & 0xff04ffff | 0x00040000
ip6 filter ts-forward: meta mark & 0x00ff0000 == 0x00040000 counter accept
ip6 filter ts-forward: oifname "tailscale0" counter accept
ip6 filter ts-input: iifname "lo" ip6 saddr OWN6 counter accept
ip6 filter ts-input: iifname "tailscale0" counter accept
ip6 filter ts-input: udp dport 41641 counter accept
ip6 mangle OUTPUT: meta mark & 0x00ff0000 == 0x00080000 ct mark & 0x00ff0000 != 0x00080000 counter ct mark set ct mark & 0xff08ffff | 0x00080000
ip6 mangle PREROUTING: ct state established,related ct mark & 0x00ff0000 == 0x00080000 counter meta mark set meta mark & 0xff08ffff | 0x00080000
ip6 nat POSTROUTING: counter jump ts-postrouting
ip6 nat ts-postrouting: meta mark & 0x00ff0000 == 0x00040000 counter masquerade
""".strip().splitlines()


def nft_rules(lab, space):
    """The ruleset as lines "family table chain: rule", without counts and comments, sorted by chain."""
    out, table, chain = {}, None, None
    for line in lab.run(space, "nft list ruleset").stdout.splitlines():
        line = line.strip()
        if found := re.match(r"table (\S+ \S+) \{", line):
            table = found.group(1)
        elif found := re.match(r"chain (\S+) \{", line):
            chain = found.group(1)
        elif line and line != "}" and not line.startswith(("type ", "#")):
            line = re.sub(r"counter packets \d+ bytes \d+", "counter", re.sub(r' comment ".*"$', "", line))
            out.setdefault(f"{table} {chain}", []).append(line)
    return [f"{key}: {rule}" for key in sorted(out) for rule in out[key]]


class Site:
    """home_and_office with a subnet router; `before` is the router's host without us."""

    def __init__(self, lab, firewall, tailnet, router_args=()):
        self.lab = lab
        lab.home_and_office()
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        lab.page()
        self.before = lab.host_state("router")
        self.laptop = lab.node("laptop", env=FIREWALLS[firewall]).start()
        self.router = lab.node("router", env=FIREWALLS[firewall]).start()
        self.router.join("--advertise-routes=192.168.50.0/24", *router_args)
        self.laptop.join("--accept-routes")
        self.laptop.wait_peer(self.router)
        wait_for("the page of the LAN", self.page)

    def page(self):
        return self.lab.fetch("laptop", "http://192.168.50.20/", timeout=1).stdout == "hello from the LAN\n"

    def back_within(self, seconds=2.0):
        """The LAN is reachable again; returns after how long. The probe itself takes up to a second, and the machine is shared."""
        start = time.monotonic()
        wait_for("the LAN is reachable again", self.page, timeout=10)
        took = time.monotonic() - start
        assert took < seconds + 1.5, took
        return took


@pytest.fixture(params=["iptables-usual", "nft-usual", "nft-small"])
def site(request):
    firewall, tailnet = request.param.split("-")
    with Lab("host") as lab:
        s = Site(lab, firewall, tailnet)
        s.firewall, s.tailnet = firewall, tailnet
        yield s


def test_nftables_says_what_the_original_says():
    with Lab("nft") as lab:
        s = Site(lab, "nft", "usual")
        own4, own6 = s.router.cli("ip").stdout.split()
        expected = [line.replace("OWN4", own4).replace("OWN6", own6) for line in NFT_CLIENT]
        assert nft_rules(lab, "router") == expected
        assert lab.run("router", "sysctl -n net.ipv4.conf.all.src_valid_mark").stdout == "1\n"
        # Other knobs.
        s.router.cli("set", "--snat-subnet-routes=false", "--stateful-filtering")
        knobs = [line for line in expected if "ts-postrouting: " not in line]
        for family in ("ip6", "ip"):
            at = knobs.index(f'{family} filter ts-forward: oifname "tailscale0" counter accept')
            knobs.insert(at, f'{family} filter ts-forward: oifname "tailscale0" ct state ! established,related counter drop')
        assert nft_rules(lab, "router") == knobs
        s.router.cli("set", "--snat-subnet-routes", "--stateful-filtering=false", "--netfilter-mode=nodivert")
        assert nft_rules(lab, "router") == [line for line in expected if " jump " not in line and " mangle " not in line]
        s.router.cli("set", "--netfilter-mode=off")
        assert nft_rules(lab, "router") == []
        s.router.cli("set", "--netfilter-mode=on")
        assert nft_rules(lab, "router") == expected
        # Gone when we are, tables included.
        assert s.router.stop() == 0
        assert lab.host_state("router") == s.before


def test_without_iptables_nft_is_used_and_without_both_it_is_said():
    hide = 'for p in $0; do mount --bind /dev/null "$(readlink -f "$(command -v $p)")"; done; exec "$@"'
    with Lab("noipt") as lab:
        lab.flat("a")
        lab.derper()
        lab.control()
        node = lab.node("a").start(wrap=["sh", "-c", hide, "iptables-save ip6tables-save"])
        node.join()
        assert "firewall by nftables" in node.daemon.text()
        assert "ip filter ts-input: udp dport 41641 counter accept" in nft_rules(lab, "a")
        assert not node.status()["Health"]
        node.stop()
        assert nft_rules(lab, "a") == []
        node.start(wrap=["sh", "-c", hide, "iptables-save ip6tables-save nft"])
        wait_for("running", lambda: node.status()["BackendState"] == "Running")
        assert any("Neither iptables nor nft can be run" in text for text in node.status()["Health"])
        node.cli("set", "--netfilter-mode=off")
        assert not node.status()["Health"]


def test_what_others_take_away_comes_back(site):
    """Rules, routes, addresses, chains, the whole ruleset: 2 s, and the host is the same again."""
    lab = site.lab
    good = lab.host_state("router")
    laptop = lab.host_state("laptop")
    flush = ["nft flush ruleset"] if site.firewall == "nft" else ["iptables -F ts-forward", "iptables -t nat -F", "nft flush ruleset"]
    actions = ["ip rule del pref 5270", "ip -6 rule del pref 5270" if site.tailnet == "usual" else "true", "ip route flush table 52",
               "ip link set tailscale0 down", *flush]
    for action in actions:
        for space, state in (("router", good), ("laptop", laptop)):
            lab.run(space, action)
            if action.endswith("down"):
                lab.run(space, "ip link set tailscale0 up")
            start = time.monotonic()
            wait_for(f"{action} is mended on {space}", lambda: lab.host_state(space) == state, timeout=10)
            assert time.monotonic() - start < 4, (action, time.monotonic() - start)
        site.back_within()
    assert site.router.stop() == 0
    assert lab.host_state("router") == site.before


@pytest.mark.parametrize("count, tailnet", [(8, "usual"), pytest.param(60, "usual", marks=pytest.mark.full),
                                            pytest.param(60, "small", marks=pytest.mark.full)])
def test_a_reload_of_the_firewall_every_second(count, tailnet):
    """As nftables.service does it: flush, then the administrator's own rules."""
    rules = ("flush ruleset\ntable inet mine {\n chain input {\n  type filter hook input priority 0; policy accept;\n"
             "  tcp dport 22 accept\n }\n}\n")
    with Lab("reload") as lab:
        lab_rules = lab.dir / "rules.nft"
        lab_rules.write_text(rules)
        lab.home_and_office()
        lab.run("router", f"nft -f {lab_rules}")
        before = lab.host_state("router")
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        lab.page()
        a = lab.node("laptop", env=FIREWALLS["nft"]).start()
        b = lab.node("router", env=FIREWALLS["nft"]).start()
        b.join("--advertise-routes=192.168.50.0/24")
        a.join("--accept-routes")
        a.wait_peer(b)
        wait_for("the LAN", lambda: lab.fetch("laptop", "http://192.168.50.20/", timeout=1).returncode == 0)
        wan = lab.start("router", ["ping", "-i", "0.1", "-c", count * 10, "10.50.0.2"], label="wan")
        lan = a.ping_through("192.168.50.20", count=count * 10, interval=0.1)
        for _ in range(count):
            lab.run("router", f"nft -f {lab_rules}")
            time.sleep(1)  # the very thing under test
        wan.popen.wait(30)
        assert " 0% packet loss" in wan.text(), wan.text()
        assert lan.finish().longest_gap < 2, lan.process.text()
        assert b.stop() == 0
        assert lab.host_state("router") == before


def test_beside_docker(site):
    """Docker's chains and its policy DROP for forwarded packets: before us, and set up anew above us."""
    lab = site.lab
    docker = ("iptables -P FORWARD DROP", "iptables -N DOCKER-USER", "iptables -A DOCKER-USER -j RETURN", "iptables -N DOCKER-FORWARD",
              "iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT", "iptables -I FORWARD -j DOCKER-FORWARD", "iptables -I FORWARD -j DOCKER-USER",
              "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE")
    for command in docker:
        lab.run("router", command)
    site.back_within()
    # A restart: its jumps go and come back on top.
    for command in ("iptables -D FORWARD -j DOCKER-USER", "iptables -D FORWARD -j DOCKER-FORWARD", "iptables -I FORWARD -j DOCKER-FORWARD",
                    "iptables -I FORWARD -j DOCKER-USER"):
        lab.run("router", command)
    site.back_within()
    assert site.router.stop() == 0
    left = lab.run("router", "iptables-save").stdout
    assert "ts-" not in left and ":FORWARD DROP" in left and "-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n" in left
    assert "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE" in left


def test_another_firewall_that_drops_is_named():
    with Lab("named") as lab:
        s = Site(lab, "nft", "usual")
        lab.run("router", ["nft", "add table inet fw4; add chain inet fw4 forward { type filter hook forward priority 0; policy drop; }"])
        said = wait_for("the health text", lambda: [t for t in s.router.status()["Health"] or [] if "inet fw4 forward" in t])
        assert "Allow the interface tailscale0 in that firewall." in said[0]
        lab.run("router", ["nft", 'add rule inet fw4 forward iifname "tailscale0" accept; add rule inet fw4 forward ct state established accept'])
        wait_for("the health text goes", lambda: not s.router.status()["Health"])
        s.back_within()


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_a_crash_leaves_chains_and_cleanup_removes_them(firewall):
    with Lab("crash") as lab:
        s = Site(lab, firewall, "usual")
        s.router.stop(9)
        left = lab.host_state("router")
        assert left != s.before
        lab.run("router", [s.router.binaries / "tailscaled", "--cleanup", f"--socket={s.router.socket}"])
        assert lab.host_state("router") == s.before


@pytest.mark.parametrize("firewall, tailnet", [("iptables", "usual"), ("nft", "usual"), ("iptables", "small")])
def test_a_wan_in_the_carriers_range(firewall, tailnet):
    """The provider gives addresses of 100.64.0.0/10 and has its DHCP and name servers there."""
    with Lab("cgnat") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        # The carrier's side: gateway, name server, neighbours.
        lab.run("srv", "ip addr add 100.72.0.1/16 dev eth0")
        lab.run("srv", "ip addr add 100.100.2.136/32 dev lo")
        lab.run("a", "ip addr add 100.72.5.5/16 dev eth0")
        lab.run("a", "ip route add 100.90.0.1 via 100.72.0.1")
        lab.run("a", "ip route add 100.100.2.136 via 100.72.0.1")
        server = ("import socket,threading\n"
                  "def serve(addr, port):\n"
                  " s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((addr, port))\n"
                  " while True:\n"
                  "  data, who = s.recvfrom(2000)\n"
                  "  if port == 67:\n"
                  "   t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
                  "   s.sendto(b'lease', (who[0], 68))\n"
                  "  else: s.sendto(b'answer', who)\n"
                  "threading.Thread(target=serve, args=('100.100.2.136', 53)).start()\n"
                  "serve('100.72.0.1', 67)\n")
        lab.start("srv", ["python3", "-c", server], label="carrier")
        wait_for("the carrier listens", lambda: "100.72.0.1:67 " in lab.run("srv", "ss -lunH").stdout)
        ask = ("import socket,sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)\n"
               "addr, port = sys.argv[1], int(sys.argv[2])\n"
               "if port == 67: s.bind(('', 68))\n"
               "s.sendto(b'?', (addr, port)); print(s.recv(2000).decode())\n")

        def works():
            dns = lab.run("a", ["python3", "-c", ask, "100.100.2.136", 53], check=False).stdout
            lease = lab.run("a", ["python3", "-c", ask, "100.72.0.1", 67], check=False).stdout
            ping = lab.run("srv", "ping -c 1 -W 1 100.72.5.5", check=False).returncode
            return (dns, lease, ping)

        assert works() == ("answer\n", "lease\n", 0)
        before = lab.host_state("a")
        a, b = lab.node("a", env=FIREWALLS[firewall]).start(), lab.node("b", opposite(tailnet)).start()
        a.join()
        b.join()
        a.wait_peer(b)
        assert works() == ("answer\n", "lease\n", 0)
        assert a.ping_through(b.ip(), count=3).finish().lost < 3
        said = any("eth0 uses addresses of 100.64.0.0/10" in t for t in a.status()["Health"] or [])
        assert said == (tailnet == "usual")
        # Elsewhere in the range the tunnel alone speaks for it, if the tailnet lives there.
        lab.run("srv", "ip addr add 100.90.0.1/32 dev lo")
        lab.run("srv", "ip route add 100.72.5.5 dev eth0 src 100.90.0.1")
        assert lab.run("srv", "ping -c 1 -W 1 -I 100.90.0.1 100.72.5.5", check=False).returncode == (1 if tailnet == "usual" else 0)
        assert a.stop() == 0
        assert lab.host_state("a") == before


@BOTH
def test_what_an_administrator_deletes_is_back_in_two_seconds(tailnet):
    """Under traffic, each harm by itself: rules, chains, the whole ruleset, routes, the tunnel's link and addresses."""
    with Lab("harm") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        a, b = lab.pair("a", "b", opposite(tailnet))
        # Without our chain before it this rule lets nothing in; without our route nothing goes out.
        admins = "INPUT -i tailscale0 -j DROP"
        lab.run("a", f"iptables -A {admins}")
        ip = a.ip()
        wait_for("traffic", lambda: lab.run("b", f"ping -c 1 -W 1 {ip}", check=False).returncode == 0)
        wait_for("a direct path", lambda: a.direct(b.ip()))
        good = lab.host_state("a")
        for harm in ("ip rule del pref 5270", "ip route flush table 52", "iptables -F ts-input", "iptables -D INPUT -j ts-input", "nft flush ruleset",
                     "ip link set tailscale0 down; ip link set tailscale0 up", f"ip addr del {ip}/32 dev tailscale0"):
            pings = b.ping_through(ip, count=25, interval=0.1)
            wait_for("pings flow", pings.answers)
            lab.run("a", ["sh", "-c", harm])
            assert pings.finish().longest_gap < 2, (harm, pings.process.text())
            if lab.run("a", f"iptables -C {admins}", check=False).returncode != 0:
                lab.run("a", f"iptables -A {admins}")
            wait_for(f"all is as it was before {harm}", lambda: lab.host_state("a") == good)
        assert a.stop() == 0


@BOTH
def test_the_link_comes_and_goes(tailnet):
    """The uplink of a node vanishes and comes back: so does the tunnel, two seconds later at most. (An original at the other
    end goes on trusting an address that is gone for up to 6.5 s.)"""
    with Lab("link") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        a, b = lab.pair("a", "b")
        wait_for("a direct path", lambda: a.ping_through(b.ip(), count=1).finish().lost == 0 and a.direct(b.ip()))
        for down, up in (("ip link set eth0 down", "ip link set eth0 up"),
                         ("ip addr flush dev eth0", "ip addr add 10.50.3.77/16 dev eth0")):
            lab.run("a", down)
            wait_for("the loss is noticed", lambda: lab.run("a", ["ping", "-c", "1", "-W", "0.3", b.ip()], check=False).returncode != 0)
            pings = a.ping_through(b.ip(), count=60, interval=0.1)
            time.sleep(1)  # without a link, so that the monitor has judged that too
            lab.run("a", up)
            back = time.time()
            assert pings.finish().back_after(back) < 2, (up, pings.process.text())


@pytest.mark.parametrize("tailnet, relayed", [("usual", False), ("usual", True), pytest.param("small", True, marks=pytest.mark.full)])
def test_the_default_route_moves(tailnet, relayed):
    """A laptop goes from one network to another, and the old one is gone: the relay, the control server and a direct path follow
    within two seconds."""
    with Lab("moves") as lab:
        lab.home_and_office()
        lab.host("laptop", "192.168.2.77/24", "nat2", interface="wlan0")
        lab.on_core("far")
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        if relayed:
            lab.relayed_only("far")
        a, b = lab.pair("laptop", "far")
        wait_for("a path", lambda: a.ping_through(b.ip(), count=1).finish().lost == 0 and (relayed or a.direct(b.ip())))
        for old, new, gateway in (("eth0", "wlan0", "192.168.2.1"), ("wlan0", "eth0", "192.168.1.1")):
            lab.run("laptop", f"ip link set {new} up")
            pings = a.ping_through(b.ip(), count=60, interval=0.1)
            wait_for("pings flow", pings.answers)
            lab.run("laptop", ["sh", "-c", f"ip route replace default via {gateway} dev {new}; ip link set {old} down"])
            gap = pings.finish().longest_gap
            print(f"\nto {new}: {gap:.2f} s")
            assert gap < 2, (new, pings.process.text())
            a.cli("set", f"--hostname=on-{new}")
            wait_for("the control server heard of it", lambda: b.peer(a.ip())["HostName"] == f"on-{new}", timeout=4)
            if not relayed:
                wait_for("the peer sees the new address", lambda: (b.direct(a.ip()) or "").startswith("10.50.2.1:" if new == "wlan0" else "10.50.1.1:"))


def test_legacy_iptables_is_watched_too():
    """It announces nothing, so its tables are looked at."""
    legacy = ('for p in iptables-save iptables-restore ip6tables-save ip6tables-restore; do f=$(command -v $p); '
              'mount --bind "$(command -v xtables-legacy-multi)" "$(readlink -f "$f")"; break; done; exec "$@"')
    with Lab("legacy") as lab:
        lab.flat("a")
        lab.derper()
        lab.control()

        def saved():
            return [re.sub(r"\[\d+:\d+\]", "", line) for v in ("", "6") for line in lab.run("a", f"ip{v}tables-legacy-save").stdout.splitlines()
                    if not line.startswith("#")]
        node = lab.node("a").start(wrap=["sh", "-c", legacy, "sh"])
        node.join()
        good = saved()
        assert "-A ts-input -i tailscale0 -j ACCEPT" in good and "ts-input" not in lab.run("a", "nft list ruleset").stdout
        for harm in ("iptables-legacy -F ts-input", "iptables-legacy -t nat -F", "ip6tables-legacy -F FORWARD"):
            lab.run("a", harm)
            start = time.monotonic()
            wait_for(f"{harm} is mended", lambda: saved() == good)
            assert time.monotonic() - start < 4
        assert node.stop() == 0
        assert not any("ts-" in line or "CONNMARK" in line for line in saved())


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_cleanup_after_a_crash_of_the_original(firewall):
    """Rules and mangle chains too, which its own --cleanup leaves."""
    with Lab("theirs") as lab:
        lab.flat("a")
        lab.derper()
        lab.control()
        before = lab.host_state("a")
        node = lab.node("a", ORIGINAL, env=FIREWALLS[firewall]).start()
        node.join()
        node.stop(9)
        assert lab.host_state("a") != before
        lab.run("a", [OURS / "tailscaled", "--cleanup", f"--socket={node.socket}"])
        assert lab.host_state("a") == before
