# SPDX-License-Identifier: BSD-3-Clause
"""Three sites for tests of peer relays: two nodes behind hard NATs, which cannot reach each other, and one that both can reach and
that may relay for them."""
import hashlib
import json
import os
import re

from lab import OURS, Lab, wait_for

PORT = 40000
RULES = [{"SrcIPs": ["*"], "CapGrant": [{"Dsts": ["0.0.0.0/0", "::/0"], "CapMap": {"tailscale.com/cap/relay": [], "tailscale.com/cap/relay-target": []}}]}]
V4, V6 = f"10.50.3.1:{PORT}", f"[2001:db8:50::33]:{PORT}"


class Sites:
    """`clients` and `server`: folders of programs. `by_v6`: the first node reaches the relay by IPv6 only; the second has none."""

    def __init__(self, name, clients=OURS, server=OURS, by_v6=False):
        self.lab = lab = Lab(name)
        lab.home_and_office(left="hard", right="hard")
        lab.on_core("relay")
        self.at = {"laptop": V6 if by_v6 else V4, "router": V4}
        if by_v6:
            self.add_v6()
        lab.derper()
        rules = lab.dir / "rules.json"
        rules.write_text(json.dumps(RULES))
        lab.control(args=["--rules", rules])
        self.a, self.b, self.server = lab.node("laptop", clients).start(), lab.node("router", clients).start(), lab.node("relay", server).start()
        for node in (self.server, self.b, self.a):
            node.join()
        self.server.cli("set", f"--relay-server-port={PORT}")
        for one, other in ((self.a, self.b), (self.b, self.a)):
            one.wait_peer(other)
            wait_for("the home relay is known", lambda: one.peer(other.ip())["Relay"])
        wait_for("the relay listens", lambda: f":{PORT} " in lab.run("relay", "ss -lunH").stdout)
        if server == OURS:
            wait_for("it knows its addresses", lambda: "relay server: reachable at 10.50.3.1" in self.server.daemon.text())
        wait_for("its home relay is known", lambda: self.a.peer(self.server.ip())["Relay"])

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.lab.__exit__(*what)

    def add_v6(self):
        """IPv6 for the first node and the relay; its IPv4 does not get there."""
        lab = self.lab
        lab.add_v6()
        lab.run("router", "ip -6 addr flush dev eth0 scope global")
        lab.run("relay", f"ip addr add {V6[1:].split(']')[0]}/64 dev eth0 nodad")
        lab.run("relay", "ip route add 2001:db8:1::/64 via 2001:db8:50::11")
        lab.run("nat1", f"iptables -I FORWARD -p udp -d {V4.split(':')[0]} --dport {PORT} -j DROP")

    def relayed(self, node, other):
        """The relay's address as the status of `node` names it; false if it is not used."""
        peer = node.peer(other.ip())
        return not peer["CurAddr"] and peer["PeerRelay"]

    def wait_relayed(self, timeout=40):
        """Traffic until both sides use the relay; both must see the same endpoint."""
        run = self.a.ping_through(self.b.ip(), count=2000)
        via = wait_for("the first uses the peer relay", lambda: self.relayed(self.a, self.b), timeout)
        other = wait_for("so does the second", lambda: self.relayed(self.b, self.a), timeout)
        vni = via.rsplit(":", 1)[1]
        assert [via, other] == [f"{self.at[n.space]}:vni:{vni}" for n in (self.a, self.b)]
        run.process.stop()
        return via

    def pings_say_so(self):
        for one, other in ((self.a, self.b), (self.b, self.a)):
            text = one.cli("ping", "-c", "1", "--until-direct=false", other.ip()).stdout
            assert re.search(rf"via peer-relay\({re.escape(self.at[one.space])}:vni:\d+\) in ", text), text
        assert re.search(rf"active; peer-relay {re.escape(self.at['laptop'])}:vni:\d+", self.a.cli("status").stdout)

    def transfer(self, megabytes=8):
        """A file by TCP through the tunnel, both ways; what arrives must be what was sent, and must have gone through the relay."""
        before = self.forwarded()
        for one, other in ((self.a, self.b), (self.b, self.a)):
            folder = self.lab.dir / f"files-{one.name}"
            folder.mkdir()
            content = os.urandom(megabytes << 20)
            (folder / "file").write_bytes(content)
            server = self.lab.start(one.space, ["python3", "-m", "http.server", 8000, "--directory", folder], label=f"http-{one.name}")
            wait_for("the web server listens", lambda: self.lab.listening(one.space, 8000))
            got = self.lab.dir / f"got-{other.name}"
            self.lab.run(other.space, ["curl", "-s", "--max-time", 60, "-o", got, f"http://{one.ip()}:8000/file"], timeout=70)
            assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(content).digest()
            server.stop()
        return self.forwarded() - before

    def forwarded(self):
        """Bytes that the relay has forwarded."""
        metrics = self.server.cli("metrics", "print").stdout
        return sum(int(n) for n in re.findall(r"^tailscaled_peer_relay_forwarded_bytes_total\{.*\} (\d+)$", metrics, re.M))
