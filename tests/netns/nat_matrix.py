# SPDX-License-Identifier: BSD-3-Clause
"""Every kind of NAT against every other, in one internet: two sites of each kind, a node in each, and all pairs begin to talk in
the same moment. What must come out is asked of the simulator (`sim --predict`), not written down here twice."""
import concurrent.futures
import json
import subprocess
import time

from lab import OURS, Lab, wait_for

# open: no NAT. easy: one port for all, kept. range: another port, for all the same. hard: one per destination. double: easy behind easy.
# blocked: no UDP. six: IPv6 alone. dual: hard, and IPv6 behind a firewall that lets only answers in.
KINDS = ["open", "easy", "range", "hard", "double", "blocked", "six", "dual"]
INTERVAL = 0.05
# Each kind some times, each outcome, IPv6 beside and without IPv4.
SOME = [("open", "hard"), ("open", "blocked"), ("easy", "easy"), ("easy", "range"), ("easy", "hard"), ("easy", "double"), ("hard", "hard"),
        ("double", "double"), ("blocked", "easy"), ("six", "six"), ("six", "dual"), ("six", "easy"), ("dual", "dual"), ("dual", "range")]


def predictions():
    return json.loads(subprocess.run([OURS / "sim", "--predict"], check=True, capture_output=True, text=True).stdout)


class Matrix:
    def __init__(self, lab, right):
        """`right`: the folder of the programs on the right side."""
        self.lab, self.right, self.nodes = lab, right, {}
        lab.core()
        lab.space("srv")
        lab.uplink("srv", "10.50.0.2/16", "10.50.0.3/16", "2001:db8:50::2/64", "2001:db8:50::3/64", "fd50::2/64")
        self.behind_v6 = []  # (network, gateway on the core)

    def site(self, kind, side):
        lab, name = self.lab, f"{kind}{side}"
        n = 10 + 2 * KINDS.index(kind) + side
        if kind == "open":
            lab.on_core(name)
        elif kind == "six":
            lab.space(name)
            lab.uplink(name, f"2001:db8:50::{n}/64", f"fd50::{n}/64")
        else:
            base = "hard" if kind == "dual" else "easy" if kind == "double" else kind
            lab.nat(f"nat-{name}", f"10.50.{n}.1", f"192.168.{n}.1/24", base)
            gateway = f"nat-{name}"
            inner = n
            if kind == "double":
                inner, gateway = 100 + n, f"inner-{name}"
                lab.nat(gateway, f"192.168.{n}.2", f"192.168.{inner}.1/24", base, behind=(f"nat-{name}", f"192.168.{n}.1"))
            lab.host(name, f"192.168.{inner}.10/24", gateway, f"192.168.{inner}.1")
            if kind == "dual":
                self.add_v6(name, gateway, n)
        return name

    def add_v6(self, name, gateway, n):
        lab = self.lab
        lab.run(gateway, "sysctl -qw net.ipv6.conf.all.forwarding=1")
        for address, device in ((f"2001:db8:50::{n}/64", "wan"), (f"fd50::{n}/64", "wan"), (f"2001:db8:{n}::1/64", "lan")):
            lab.run(gateway, f"ip addr add {address} dev {device} nodad")
        for chain in ("INPUT", "FORWARD"):
            lab.run(gateway, f"ip6tables -A {chain} -i wan -p udp -m conntrack --ctstate NEW -j DROP")
        lab.run(name, f"ip addr add 2001:db8:{n}::10/64 dev eth0 nodad")
        lab.run(name, f"ip route add default via 2001:db8:{n}::1")
        self.behind_v6.append((f"2001:db8:{n}::/64", f"2001:db8:50::{n}", gateway))

    def start(self, cells):
        """The sites of these pairs, their nodes, up and knowing each other."""
        lab = self.lab
        wanted = sorted({(a, 0) for a, _ in cells} | {(b, 1) for _, b in cells})
        names = {key: self.site(*key) for key in wanted}
        on_core = ["srv"] + [names[key] for key in wanted if key[0] == "six"]
        for network, via, gateway in self.behind_v6:
            for space in on_core + [g for _, _, g in self.behind_v6 if g != gateway]:
                lab.run(space, f"ip -6 route add {network} via {via}")
        regions = []
        for region, last in ((900, 2), (901, 3)):
            lab.derper(host=f"10.50.0.{last}", port=12340 + last, stun=38890 + last)
            regions.append([lab.derp_node(f"{region}a", region, f"10.50.0.{last}", DERPPort=12340 + last, STUNPort=38890 + last,
                                          IPv6=f"2001:db8:50::{last}")])
        lab.control(derp_map=lab.derp_regions(*regions), listen="[::]:8080")

        def join(key):
            node = lab.node(names[key], OURS if key[1] == 0 else self.right).start()
            url = "[fd50::2]" if key[0] == "six" else "10.50.0.2"
            node.cli("up", f"--login-server=http://{url}:8080", "--accept-dns=false", timeout=60)
            return key, node, node.ip()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for key, node, address in pool.map(join, wanted):
                node.address = address
                self.nodes[key] = node
        for a, b in cells:
            left, right = self.nodes[a, 0], self.nodes[b, 1]
            wait_for(f"{a} knows {b}", lambda: left.peer(right.address), 15)
            wait_for(f"{b} knows {a}", lambda: right.peer(left.address), 15)

    def talk(self, cells, pings):
        """All pairs at once; returns what became of each: {(a, b): Cell}."""
        runs = {(a, b): self.nodes[a, 0].ping_through(self.nodes[b, 1].address, count=pings, interval=INTERVAL) for a, b in cells}
        out = {c: Cell() for c in cells}
        end = time.monotonic() + pings * INTERVAL + 1
        while time.monotonic() < end:
            for left in {a for a, _ in cells}:
                paths = {p["Peer"]: p for p in json.loads(self.nodes[left, 0].cli("debug", "paths", "--json").stdout)}
                for a, b in cells:
                    if a == left and (p := paths.get(f"{b}1")):
                        out[a, b].look(p)
        for cell, run in runs.items():
            out[cell].lost = run.finish().missing
            out[cell].log = run.process.text()
        for a, b in cells:
            out[a, b].direct = bool(self.nodes[a, 0].direct(self.nodes[b, 1].address))
        return out


class Cell:
    """What a pair came to; `seconds`: from the first packet to the first direct path, None if there was none."""

    def __init__(self):
        self.seconds, self.direct, self.lost, self.log, self.paths = None, False, None, "", None

    def look(self, paths):
        self.paths = paths
        events = paths.get("Events", [])
        first = [e["SecondsAgo"] for e in events if e["What"] == "discovery round"]
        using = [e["SecondsAgo"] for e in events if e["What"] == "now using"]
        if first and using and self.seconds is None:
            self.seconds = max(0.0, max(first) - max(using))  # the other side may have found it before


def judge(cells, found, predicted):
    """Prints the table and returns what is wrong with it, and the times to a direct path."""
    wrong, times = [], []
    for a, b in cells:
        c = found[a, b]
        want = predicted[a][b]
        if c.seconds is not None:
            times.append(c.seconds)
        print(f"{a:>8} {b:<8} {'direct' if c.direct else 'relay ':<6} {'' if c.seconds is None else f'{c.seconds * 1000:7.0f} ms'}"
              f"{f'  lost {c.lost}' if c.lost else ''}")
        if c.direct != want:
            wrong.append(f"{a}-{b} is {'direct' if c.direct else 'relayed'}, predicted {'direct' if want else 'relayed'}: {c.paths}")
        if not want and c.seconds is not None:
            wrong.append(f"{a}-{b} was direct for a while: {c.paths}")
        if c.lost:
            wrong.append(f"{a}-{b} lost {c.lost}\n{c.log}")
    times.sort()
    if times:
        print(f"{len(times)} direct paths: median {times[len(times) // 2] * 1000:.0f} ms, 95 % within {times[int(len(times) * 0.95)] * 1000:.0f} ms, "
              f"slowest {times[-1] * 1000:.0f} ms")
    return wrong, times


def play(name, cells, right, pings=100):
    """Builds and judges it; the times from the first packet to a direct path."""
    with Lab(name) as lab:
        matrix = Matrix(lab, right)
        matrix.start(cells)
        wrong, times = judge(cells, matrix.talk(cells, pings), predictions())
        assert not wrong, "\n".join(wrong)
        return times
