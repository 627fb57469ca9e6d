# SPDX-License-Identifier: BSD-3-Clause
"""Names by way of an exit node: its user sends every question to the node's HTTP service for peers, none to the servers around."""
import pytest
from dns_lab import dns_lab, dnsmasq, start, up
from lab import ORIGINAL, OURS, TAILNETS, Lab, wait_for


@pytest.mark.parametrize("tailnet, client, node", [
    pytest.param("usual", OURS, ORIGINAL, id="ours-by-original"), pytest.param("usual", ORIGINAL, OURS, id="original-by-ours"),
    pytest.param("usual", OURS, OURS, id="ours-by-ours", marks=pytest.mark.full), pytest.param("small", OURS, ORIGINAL, id="ours-by-original-small", marks=pytest.mark.full),
    pytest.param("small", OURS, OURS, id="ours-by-ours-small")])
def test_names_come_from_the_exit_node(tailnet, client, node):
    with Lab("exitdns") as lab:
        c, e = dns_lab(lab, names=("c", "e"), **TAILNETS[tailnet])
        # The exit node's own name server knows another address; only that node can ask it.
        lab.run("srv", "ip addr add 10.50.0.4/16 dev eth0")
        there = dnsmasq(lab, "10.50.0.4", "--address=/www.example.org/192.0.2.99", "--address=/far.example.org/192.0.2.98")
        e.write("nameserver 10.50.0.4\n")
        lab.run("e", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        exit_node, user = e.node(binaries=node), c.node(binaries=client)
        start(exit_node)
        exit_node.up("--advertise-exit-node", "--accept-dns=false")
        start(user)
        up(user)
        user.wait_peer(exit_node)
        wait_for("the offer", lambda: user.peer(exit_node.ip()).get("ExitNodeOption"))
        assert c.resolves("www.example.org") == "192.0.2.80", "by the own server so far"
        user.cli("set", f"--exit-node={exit_node.ip()}")
        wait_for("the exit node's answer", lambda: c.resolves("www.example.org") == "192.0.2.99", timeout=20)
        assert c.resolves("far.example.org") == "192.0.2.98"
        assert c.ask("far.example.org", tcp=True)["values"] == ["192.0.2.98"], "TCP too"
        assert c.resolves("e.tail.example") == exit_node.ip(), "names of the tailnet need nobody"
        assert "e.tail.example" not in there.text()
        user.cli("set", "--exit-node=")
        wait_for("by the own server again", lambda: c.resolves("www.example.org") == "192.0.2.80")
        assert c.resolves("far.example.org") == ""
