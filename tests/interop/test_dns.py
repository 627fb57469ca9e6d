# SPDX-License-Identifier: BSD-3-Clause
"""DNS beside the original: on one host it keeps resolv.conf; on two hosts both answer the same."""
import pytest
from dns_lab import OWN, dns_lab, start, up
from lab import ORIGINAL, Lab


def test_on_one_host_the_original_keeps_resolv_conf():
    with Lab("dnsbes") as lab:
        host, = dns_lab(lab, names=("a",))
        theirs = host.node(binaries=ORIGINAL, name="theirs")
        start(theirs)
        up(theirs)
        text = host.resolv_conf()
        assert host.ours() and host.resolves("a.tail.example") == theirs.ip()
        ours = host.node(name="ours", tun="mesh0", port=41700)
        start(ours)
        up(ours, "--hostname=second")
        assert host.resolv_conf() == text and host.resolves("www.example.org") == "192.0.2.80"
        assert any("Another client on this host keeps its DNS settings" in line for line in ours.status()["Health"])
        ours.stop()
        assert host.resolv_conf() == text
        theirs.stop()
        assert host.resolv_conf() == OWN and host.leftovers() == ""


# Where the original and we differ on purpose: it asks strangers for the PTR, TXT and NS of names that are ours, and says that a reverse name with a
# pointer does not exist when asked for something else.
QUERIES = [*((name, kind) for name in ("o.tail.example", "O.Tail.Example", "o", "m.tail.example", "nope.tail.example", "x.o.tail.example",
                                       "tail.example", "extra.tail.example", "foo.onion", "www.example.org", "printer.office.example")
             for kind in ("A", "AAAA", "TXT", "NS", "ANY")),
           *((name, "PTR") for name in ("9.9.64.100.in-addr.arpa", "2.0.64.100.in-addr.arpa", "100.100.100.100.in-addr.arpa")),
           *((name, kind) for name in ("10-1-2-3-via-7", "10-1-2-3-via-7.foo.ts.net", "magicdns.localhost-tailscale-daemon") for kind in ("A", "AAAA")),
           *(("b._dns-sd._udp.0.1.168.192.in-addr.arpa", kind) for kind in ("A", "PTR", "TXT", "ANY"))]


def test_both_answer_the_same():
    with Lab("dnssame") as lab:
        o, m = dns_lab(lab, {"ExtraRecords": [{"Name": "extra.tail.example", "Value": "100.64.0.77"}]}, names=("o", "m"))
        nodes = [o.node(binaries=ORIGINAL), m.node()]
        for node in nodes:
            start(node)
            up(node)
        nodes[0].wait_peer(nodes[1])
        nodes[1].wait_peer(nodes[0])
        different = []
        for name, kind in QUERIES:
            theirs, ours = o.ask(name, kind), m.ask(name, kind)
            if theirs != ours:
                different.append((name, kind, theirs, ours))
        assert not different, "\n".join(map(str, different))


@pytest.mark.parametrize("words", [["dns", "status"], ["dns", "status", "--json"], ["dns", "query", "a.tail.example"], ["dns", "query", "x", "MX"]])
def test_the_original_command_on_our_daemon(words):
    with Lab("dnscli") as lab:
        host, = dns_lab(lab, names=("a",))
        node = host.node(cli=ORIGINAL / "tailscale")
        start(node)
        up(node)
        done = node.cli(*words)
        assert done.stderr == "" and ("tail.example" in done.stdout or "RCode" in done.stdout), done
