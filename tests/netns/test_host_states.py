# SPDX-License-Identifier: BSD-3-Clause
"""The host in every state of a node, word for word as the original leaves it (iptables; nftables is in test_host.py). Where ours is better
the line says so:
 * connections that are older than the rules are marked too (the original saves the mark of new ones only);
 * a tailnet without addresses of 100.64.0.0/10 claims nothing of that range;
 * with an exit node and no access to the LAN the default route alone covers the LAN's networks, and loopback needs no throw route, as table
   local is asked first;
 * after `down` the link is up and the rules stay, as with the original; after --cleanup neither ip rules nor mangle rules stay.
 * there is one way to set routes, so TS_DEBUG_USE_IP_COMMAND changes nothing; the sample differs from it in the scope of IPv4 routes only.
Not there: --tun=userspace-networking."""
import re

from lab import OURS, Lab, wait_for

RULES = ["5210:\tfrom all fwmark 0x80000/0xff0000 lookup main", "5230:\tfrom all fwmark 0x80000/0xff0000 lookup default",
         "5250:\tfrom all fwmark 0x80000/0xff0000 unreachable", "5270:\tfrom all lookup 52"]
MANGLE = ["-A PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -m connmark ! --mark 0x0/0xff0000 -j CONNMARK --restore-mark --nfmask 0xff0000 "
          "--ctmask 0xff0000",
          "-A OUTPUT -m mark ! --mark 0x0/0xff0000 -m connmark --mark 0x0/0xff0000 -j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000"]
HOOKS = ["-A INPUT -j ts-input", "-A FORWARD -j ts-forward", "-A POSTROUTING -j ts-postrouting"]


def forward(v6, stateful=False):
    return ["-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000", "-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT",
            *([] if v6 else ["-A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP"]),
            *(["-A ts-forward -o tailscale0 -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP"] if stateful else []),
            "-A ts-forward -o tailscale0 -j ACCEPT"]


def incoming(own, v6):
    return [f"-A ts-input -s {own}/{128 if v6 else 32} -i lo -j ACCEPT", "-A ts-input -i tailscale0 -j ACCEPT",
            "-A ts-input -p udp -m udp --dport 41641 -j ACCEPT",
            *([] if v6 else ["-A ts-input -s 100.115.92.0/23 ! -i tailscale0 -j RETURN", "-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP"])]


def firewall(own, v6, hooks=True, stateful=False, snat=True):
    rules = [*(MANGLE if hooks else []), *(HOOKS if hooks else []), *forward(v6, stateful), *incoming(own, v6),
             *(["-A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE"] if snat else [])]
    return sorted(rules)


class Host:
    def __init__(self, lab, space):
        self.lab, self.space = lab, space

    def run(self, command):
        return [line.rstrip() for line in self.lab.run(self.space, command, check=False).stdout.splitlines()]

    def rules(self, v6=False):
        return [line for line in self.run(f"ip {'-6 ' if v6 else ''}rule") if re.match(r"5\d\d\d:", line)]

    def table(self, v6=False):
        lines = self.run(f"ip {'-6 ' if v6 else ''}route show table 52")
        return sorted(re.sub(r" dev lo| dev tailscale0| metric 1024| pref medium", "", line) for line in lines)

    def firewall(self, v6=False):
        return sorted(line for line in self.run(f"ip{'6' if v6 else ''}tables-save") if line.startswith("-A"))

    def address(self):
        return [line for line in self.run("ip -br addr show dev tailscale0")]


def test_every_state_of_a_node():
    with Lab("states") as lab:
        lab.home_and_office()
        lab.add_v6()
        lab.derper()
        lab.control()
        host = Host(lab, "laptop")
        before = lab.host_state("laptop")
        b = lab.node("router").start()
        lab.run("router", "sysctl -qw net.ipv6.conf.all.forwarding=1")
        b.join("--advertise-routes=192.168.55.0/24,fd55::/64", "--advertise-exit-node")
        a = lab.node("laptop").start()
        # 01 NeedsLogin
        assert host.rules() == RULES and host.rules(v6=True) == RULES
        assert host.table() == host.table(v6=True) == host.firewall() == host.firewall(v6=True) == []
        assert "UP" in lab.run("laptop", "ip link show dev tailscale0").stdout
        # 02 a client
        a.join()
        a.wait_peer(b)
        own4, own6 = a.cli("ip").stdout.split()
        peer = sorted([b.ip(), "100.100.100.100"])
        ula = sorted(["fd7a:115c:a1e0::/48", "fd7a:115c:a1e0::53"])
        assert (host.table(), host.table(v6=True)) == (peer, ula)
        assert host.firewall() == firewall(own4, False) and host.firewall(v6=True) == firewall(own6, True)
        assert (host.rules(), host.rules(v6=True)) == (RULES, RULES)
        address = lab.run("laptop", "ip addr show dev tailscale0").stdout
        assert f"inet {own4}/32 scope global tailscale0" in address and f"inet6 {own6}/128 scope global" in address and "mtu 1280" in address
        # 03 a subnet router and exit node: no rule more
        router = Host(lab, "router")
        b4, b6 = b.cli("ip").stdout.split()
        assert router.firewall() == firewall(b4, False) and router.firewall(v6=True) == firewall(b6, True)
        assert (router.table(), router.table(v6=True)) == (sorted([own4, "100.100.100.100"]), ula)
        # 04 routes are accepted
        a.cli("set", "--accept-routes")
        assert (host.table(), host.table(v6=True)) == (sorted([*peer, "192.168.55.0/24"]), sorted([*ula, "fd55::/64"]))
        # 05 by an exit node, 06 with the own LAN
        a.cli("set", f"--exit-node={b.ip()}")
        assert host.table() == sorted([*peer, "192.168.55.0/24", "default"])
        assert host.table(v6=True) == sorted([*ula, "fd55::/64", "default"])
        a.cli("set", "--exit-node-allow-lan-access")
        assert host.table() == sorted([*peer, "192.168.55.0/24", "default", "throw 192.168.1.0/24"])
        assert host.table(v6=True) == sorted([*ula, "fd55::/64", "default", "throw 2001:db8:1::/64"])
        assert host.firewall() == firewall(own4, False)
        a.cli("set", "--exit-node=", "--accept-routes=false")
        assert (host.table(), host.table(v6=True)) == (peer, ula)
        # 07 modes, with what the command says
        done = a.cli("set", "--netfilter-mode=nodivert")
        assert host.firewall() == firewall(own4, False, hooks=False) and host.firewall(v6=True) == firewall(own6, True, hooks=False)
        assert "Warning: netfilter=nodivert; add iptables calls to ts-* chains manually." in done.stdout + done.stderr
        done = a.cli("set", "--netfilter-mode=off")
        assert host.firewall() == host.firewall(v6=True) == []
        assert "Warning: netfilter=off; configure iptables yourself." in done.stdout + done.stderr
        # 08 knobs
        a.cli("set", "--netfilter-mode=on", "--snat-subnet-routes=false", "--stateful-filtering")
        assert host.firewall() == firewall(own4, False, stateful=True, snat=False)
        assert host.firewall(v6=True) == firewall(own6, True, stateful=True, snat=False)
        a.cli("set", "--snat-subnet-routes", "--stateful-filtering=false")
        # 09 down
        a.cli("down")
        assert host.firewall() == host.firewall(v6=True) == host.table() == host.table(v6=True) == []
        assert (host.rules(), host.rules(v6=True)) == (RULES, RULES)
        assert own4 not in str(host.address()) and own6 not in str(host.address())
        a.cli("up")
        # 10 after SIGTERM
        assert a.stop() == 0
        assert lab.host_state("laptop") == before
        # 11 after SIGKILL, 12 after --cleanup
        a.start()
        wait_for("running", lambda: a.status()["BackendState"] == "Running" and host.firewall())
        a.stop(9)
        assert host.rules() == RULES and host.firewall() == firewall(own4, False) and host.table() == []
        lab.run("laptop", [OURS / "tailscaled", "--cleanup", f"--socket={a.socket}"])
        assert lab.host_state("laptop") == before
        # 13 the mode that calls `ip`
        a.env = {"TS_DEBUG_USE_IP_COMMAND": "1"}
        a.start()
        a.cli("set", "--accept-routes")
        wait_for("the routes", lambda: host.table() == sorted([*peer, "192.168.55.0/24"]) and host.table(v6=True) == sorted([*ula, "fd55::/64"]))
        assert (host.rules(), host.rules(v6=True)) == (RULES, RULES) and host.firewall() == firewall(own4, False)


def test_states_of_a_small_tailnet():
    """10.1.0.0/16 without IPv6: nothing of 100.64.0.0/10 but the service address."""
    with Lab("states2") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control(prefix="10.1.0.0/16", v6="off")
        host = Host(lab, "laptop")
        before = lab.host_state("laptop")
        a, b = lab.node("laptop").start(), lab.node("router").start()
        b.join("--advertise-routes=192.168.55.0/24", "--advertise-exit-node")
        a.join()
        a.wait_peer(b)
        own = a.ip()
        expected = [rule for rule in firewall(own, False) if "-s 100." not in rule]
        assert host.firewall() == expected
        assert [rule for rule in host.firewall(v6=True) if "ts-input" in rule and " -s " in rule] == []
        assert (host.table(), host.table(v6=True)) == (sorted([b.ip(), "100.100.100.100"]), [])
        a.cli("set", "--accept-routes", f"--exit-node={b.ip()}", "--exit-node-allow-lan-access")
        assert host.table() == sorted([b.ip(), "100.100.100.100", "192.168.55.0/24", "default", "throw 192.168.1.0/24"])
        assert host.table(v6=True) == ["default"], "nothing goes past the exit node"
        assert a.stop() == 0
        assert lab.host_state("laptop") == before
