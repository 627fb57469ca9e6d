# SPDX-License-Identifier: BSD-3-Clause
"""Firewalls of others on the subnet router, reloaded under traffic: Debian's own firewalld, and a ruleset in the shape that OpenWrt's fw4
generates (written here from its documentation; fw4 itself was not run)."""
import time

import pytest
from dns_lab import Host, debian_package
from lab import TAILNETS, Lab, wait_for
from test_dns_managers import system_bus
from test_host import FIREWALLS


class Firewalld:
    """Of one host, unpacked beside this machine, over a private D-Bus."""

    def __init__(self, lab, space):
        self.host = Host(lab, space)
        files = debian_package("firewalld")
        self.host.sh(f"mount -t overlay overlay -o lowerdir={files}/usr:/usr /usr && cp -a {files}/etc/. /etc/")
        system_bus(lab, self.host)
        lab.start(space, [*self.host.enter, "/usr/bin/python3", "-s", "/usr/sbin/firewalld", "--nofork", "--nopid"], label="firewalld")
        wait_for("firewalld runs", lambda: self.cmd("--state", check=False).stdout == "running\n", timeout=30)

    def cmd(self, *words, check=True):
        return self.host.run(["/usr/bin/python3", "-s", "/usr/bin/firewall-cmd", *words], check=check)


def site(lab, firewall, tailnet):
    """A laptop that reaches the page in the LAN behind `router`."""
    lab.derper()
    lab.control(**TAILNETS[tailnet])
    lab.page()
    router, laptop = lab.node("router", env=FIREWALLS[firewall]).start(), lab.node("laptop").start()
    router.join("--advertise-routes=192.168.50.0/24")
    laptop.join("--accept-routes")
    laptop.wait_peer(router)
    return laptop, router


def survives(lab, laptop, router, reload, times):
    """Reloads under traffic; neither the way out nor the LAN behind the tunnel is lost for long."""
    wait_for("the page of the LAN", lambda: lab.fetch("laptop", "http://192.168.50.20/", timeout=1).returncode == 0)
    wan = lab.start("router", ["ping", "-i", "0.1", "-c", times * 20, "10.50.0.2"], label="wan")
    lan = laptop.ping_through("192.168.50.20", count=times * 20, interval=0.1)
    for _ in range(times):
        reload()
        time.sleep(1)  # a second between reloads is what is tried here
    assert lan.finish().longest_gap < 2, lan.process.text()
    wan.popen.wait(60)
    assert " 0% packet loss" in wan.text(), wan.text()


@pytest.mark.full
@pytest.mark.parametrize("firewall, tailnet", [("iptables", "usual"), ("nft", "small")])
def test_firewalld_reloads(firewall, tailnet):
    with Lab("fwd") as lab:
        lab.home_and_office()
        firewalld = Firewalld(lab, "router")
        # What its administrators do for such a tunnel, and for a LAN that is to be reached.
        for interface in ("tailscale0", "lan0"):
            firewalld.cmd("--permanent", "--zone=trusted", f"--add-interface={interface}")
        firewalld.cmd("--reload")
        before = lab.host_state("router")
        laptop, router = site(lab, firewall, tailnet)
        survives(lab, laptop, router, lambda: firewalld.cmd("--reload"), 4)
        firewalld.cmd("--complete-reload")  # forgets connections too
        wait_for("the page of the LAN", lambda: lab.fetch("laptop", "http://192.168.50.20/", timeout=1).returncode == 0)
        assert router.stop() == 0
        assert lab.host_state("router") == before


FW4 = """table inet fw4
flush table inet fw4
table inet fw4 {
 chain input { type filter hook input priority filter; policy drop;
  iif "lo" accept
  ct state vmap { established : accept, related : accept }
  tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
  iifname "lan0" jump input_lan
  iifname "eth0" jump input_wan
  iifname "tailscale0" jump input_tailscale
  jump handle_reject
 }
 chain forward { type filter hook forward priority filter; policy drop;
  ct state vmap { established : accept, related : accept }
  iifname "lan0" jump forward_lan
  iifname "eth0" jump forward_wan
  iifname "tailscale0" jump forward_tailscale
  jump handle_reject
 }
 chain output { type filter hook output priority filter; policy accept; oif "lo" accept; }
 chain prerouting { type filter hook prerouting priority filter; policy accept; }
 chain handle_reject { meta l4proto tcp reject with tcp reset; reject with icmpx type port-unreachable; }
 chain syn_flood { limit rate 25/second burst 50 packets return; drop; }
 chain input_lan { accept; }
 chain input_tailscale { accept; }
 chain input_wan { meta nfproto ipv4 udp dport 68 accept; icmp type echo-request accept; jump handle_reject; }
 chain forward_lan { accept; }
 chain forward_tailscale { accept; }
 chain forward_wan { jump handle_reject; }
 chain srcnat { type nat hook postrouting priority srcnat; policy accept; oifname "eth0" meta nfproto ipv4 masquerade; }
 chain mangle_forward { type filter hook forward priority mangle; policy accept; oifname "eth0" tcp flags syn tcp option maxseg size set rt mtu; }
}
"""


@pytest.mark.parametrize("firewall, tailnet", [("nft", "usual"), pytest.param("iptables", "small", marks=pytest.mark.full)])
def test_reloads_of_a_ruleset_like_fw4s(firewall, tailnet):
    with Lab("fw4") as lab:
        lab.home_and_office()
        rules = lab.dir / "fw4.nft"
        rules.write_text(FW4)

        def reload():
            lab.run("router", f"nft -f {rules}")
        reload()
        before = lab.host_state("router")
        laptop, router = site(lab, firewall, tailnet)
        survives(lab, laptop, router, reload, 3)
        assert not router.status()["Health"]
        # `fw4 restart`: its table is away for a moment.
        lab.run("router", "nft delete table inet fw4")
        reload()
        wait_for("the page of the LAN", lambda: lab.fetch("laptop", "http://192.168.50.20/", timeout=1).returncode == 0)
        assert router.stop() == 0
        assert lab.host_state("router") == before
