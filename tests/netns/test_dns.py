# SPDX-License-Identifier: BSD-3-Clause
"""DNS: what is answered at 100.100.100.100, what is forwarded where, and that the host's own resolver comes back whatever happens."""
import json
import random
import signal
import time

import pytest
from dns_lab import OWN, Host, dns_lab, dnsmasq, start, up
from lab import Lab, wait_for

V6 = "fd7a:115c:a1e0::53"
EXTRA = {"ExtraRecords": [{"Name": "grafana.tail.example", "Value": "100.64.0.2"}]}


@pytest.fixture(scope="module")
def pair():
    """Hosts a and b; the tailnet has a split domain, an extra record and no resolvers of its own."""
    with Lab("dns") as lab:
        config = {**EXTRA, "Routes": {"corp.example": [{"Addr": "10.50.0.3"}], "half.example": [{"Addr": "10.50.0.99"}, {"Addr": "10.50.0.3"}],
                                      "dead.example": [{"Addr": "10.50.0.99"}]}}
        lab.a, lab.b = dns_lab(lab, config)
        dnsmasq(lab, "10.50.0.3", "--address=/host.corp.example/10.9.9.9", "--address=/host.half.example/10.9.9.8",
                *(f"--host-record=many.corp.example,10.8.0.{i}" for i in range(1, 60)))
        for host in (lab.a, lab.b):
            host.node = start(host.node())
            up(host.node)
        lab.a.node.wait_peer(lab.b.node)
        lab.a4, lab.b4 = lab.a.node.ip(), lab.b.node.ip()
        yield lab
        for host in (lab.a, lab.b):
            if host.node.daemon.popen.poll() is None:
                host.node.stop()


def reverse(ip):
    return ".".join(reversed(ip.split("."))) + ".in-addr.arpa"


@pytest.mark.parametrize("server, tcp", [("100.100.100.100", False), ("100.100.100.100", True), (V6, False), (V6, True)])
def test_own_names(pair, server, tcp):
    """The recorded queries (flags, counts); the table of all of them is a unit test of the answers' room."""
    for name, kind, flags, an, ns, value in [
            ("b.tail.example", "A", "8580", 1, 0, pair.b4), ("B.Tail.Example", "A", "8580", 1, 0, pair.b4),
            ("a.tail.example", "A", "8580", 1, 0, pair.a4), ("b", "A", "8580", 1, 0, pair.b4),
            ("b.tail.example", "AAAA", "8580", 0, 1, None), ("b.tail.example", "TXT", "8580", 0, 0, None),
            ("b.tail.example", "NS", "8584", 0, 0, None), ("nope.tail.example", "A", "8583", 0, 1, None),
            ("grafana.tail.example", "A", "8580", 1, 0, "100.64.0.2"), (reverse(pair.b4), "PTR", "8580", 1, 0, "b.tail.example"),
            ("9.9.64.100.in-addr.arpa", "PTR", "8583", 0, 1, None), ("10-1-2-3-via-7", "AAAA", "8580", 1, 0, "fd7a:115c:a1e0:b1a:0:7:a01:203"),
            ("foo.onion", "A", "8583", 0, 0, None), ("b._dns-sd._udp.0.1.168.192.in-addr.arpa", "PTR", "8183", 0, 0, None)]:
        got = pair.a.ask(name, kind, server, tcp)
        assert (got["flags"], got["an"], got["ns"]) == (flags, an, ns), (name, kind, got)
        assert value is None or got["values"] == [value], (name, kind, got)


def test_other_names_go_where_they_went_before(pair):
    assert pair.a.ask("www.example.org")["values"] == ["192.0.2.80"]
    assert pair.a.ask("www.example.org", server=V6, tcp=True)["values"] == ["192.0.2.80"]


def test_split_dns(pair):
    assert pair.a.ask("host.corp.example")["values"] == ["10.9.9.9"]
    assert pair.a.ask("nope.corp.example")["rcode"] in (3, 5), "what that server says, not what another one would"


def test_one_dead_server_beside_a_living_one(pair):
    began = time.monotonic()
    assert pair.a.ask("host.half.example")["values"] == ["10.9.9.8"]
    assert time.monotonic() - began < 2, "the dead one was not waited for"


def test_no_living_server_is_servfail_not_silence(pair):
    for tcp in (False, True):
        assert pair.a.ask("host.dead.example", tcp=tcp)["rcode"] == 2


def test_long_answers_come_by_tcp(pair):
    assert pair.a.ask("many.corp.example")["tc"] == 1
    got = pair.a.ask("many.corp.example", tcp=True)
    assert got["an"] == 59 and got["tc"] == 0


def test_the_listener_takes_nobody_but_the_host(pair):
    """DNS over TCP ends at a kernel socket: a peer that finds its port gets nothing."""
    ports = {line.split()[3].rsplit(":", 1)[1] for line in pair.run("a", "ss -ltnH").stdout.splitlines() if "%tailscale0" in line.split()[3]}
    ports -= {url.rsplit(":", 1)[1] for url in pair.a.node.status()["Self"]["PeerAPIURL"]}  # for peers; says itself who may what
    assert len(ports) == 1, ports
    script = ("import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),3)\ns.settimeout(3)\ns.sendall(b'\\0\\x1d')\n"
              "print(s.recv(9))")
    done = pair.run("b", ["python3", "-c", script, pair.a4, ports.pop()], check=False)
    assert done.stdout in ("", "b''\n"), done


def test_programs_reach_each_other_by_name(pair):
    for here, there in ((pair.a, "b"), (pair.b, "a")):
        for name in (there, f"{there}.tail.example"):
            assert "1 received" in here.run(["ping", "-c", "1", "-W", "5", name]).stdout
        assert here.resolves("www.example.org") == "192.0.2.80"
        assert here.resolves("printer") == "192.0.2.81", "the host's own search list still holds"


def test_containers_of_the_host_are_answered_too(pair):
    """A neighbour whose packets the host forwards: by UDP and by TCP."""
    pair.space("guest")
    pair.veth("a", "guest0", "guest", "eth0")
    pair.run("a", "ip addr add 172.17.0.1/16 dev guest0")
    pair.run("a", "sysctl -qw net.ipv4.ip_forward=1")
    pair.run("guest", "ip addr add 172.17.0.2/16 dev eth0")
    pair.run("guest", "ip route add default via 172.17.0.1")
    guest = Host(pair, "guest")
    assert guest.ask("b.tail.example")["values"] == [pair.b4]
    assert guest.ask("b.tail.example", tcp=True)["values"] == [pair.b4]


def test_status_and_query_for_people(pair):
    node = pair.a.node
    text = node.cli("dns", "status").stdout
    for line in ("Tailscale DNS: enabled.", "MagicDNS: enabled tailnet-wide (suffix = tail.example)", "  - tail.example", "  - 10.50.0.2",
                 "  - office.example"):
        assert line in text.splitlines(), (line, text)
    assert "corp.example" in text and "-> 10.50.0.3" in text
    j = json.loads(node.cli("dns", "status", "--json").stdout)
    assert j["TailscaleDNS"] is True and j["SplitDNSRoutes"]["corp.example"] == [{"Addr": "10.50.0.3"}]
    assert j["SystemDNS"] == {"Nameservers": ["10.50.0.2"], "SearchDomains": ["office.example"], "MatchDomains": []}
    assert "Additional DNS Records:" in node.cli("dns", "status", "--all").stdout
    text = node.cli("dns", "query", "b.tail.example").stdout
    assert text == (f'DNS query for "b.tail.example" (A) using internal resolver:\n\nForwarding to resolver: 10.50.0.2\n\n'
                    f"Response code: RCodeSuccess\n\nName             TTL  Class      Type   Body\n"
                    f"----             ---  -----      ----   ----\nb.tail.example.  5    ClassINET  TypeA  {pair.b4}\n\n")
    j = json.loads(node.cli("dns", "query", "--json", "host.corp.example", "a").stdout)
    assert j["Resolvers"] == [{"Addr": "10.50.0.3"}] and j["Answers"][0]["Body"] == "10.9.9.9"
    bad = node.cli("dns", "query", "x", "FOO", check=False)
    assert bad.returncode == 1 and "FOO" in bad.stderr


def test_control_gone_and_every_name_still_resolves(pair):
    pair.control_process.stop(signal.SIGKILL)
    assert pair.a.resolves("www.example.org") == "192.0.2.80"
    assert pair.a.resolves("control.example") == "10.50.0.2"
    assert pair.a.resolves("b") == pair.b4
    # A start without control: the host keeps its own resolver until the first map.
    assert pair.b.ours()
    pair.b.node.stop()
    assert pair.b.resolv_conf() == OWN
    start(pair.b.node)
    assert pair.b.resolv_conf() == OWN and pair.b.resolves("www.example.org") == "192.0.2.80"


# ---- the host's resolver ------------------------------------------------------------------------------------------------

def test_direct_mode_and_every_way_back():
    with Lab("dnsback") as lab:
        host, = dns_lab(lab, names=("a",))
        node = start(host.node())
        node.up()
        assert host.resolv_conf() == OWN and host.leftovers() == "", "--accept-dns=false touches nothing"
        node.cli("set", "--accept-dns=true")
        text = host.resolv_conf()
        assert text.startswith("# resolv.conf(5) file generated by tailscale\n")
        assert "\nnameserver 100.100.100.100\nnameserver fd7a:115c:a1e0::53\nsearch tail.example office.example\n" in text
        assert 'dns: using "direct" mode' in node.daemon.text()
        assert host.resolves("www.example.org") == "192.0.2.80" and host.resolves("a.tail.example") == node.ip()

        def back(what):
            assert host.resolv_conf() == OWN, what
            assert host.leftovers() == "", what
        node.cli("set", "--accept-dns=false")
        back("accept-dns=false")
        node.cli("set", "--accept-dns=true")
        node.cli("down")
        back("down")
        node.cli("up")
        assert host.ours()
        node.stop()
        back("SIGTERM")
        start(node)
        wait_for("ours after a restart", host.ours)
        node.stop(signal.SIGKILL)
        assert host.ours(), "nobody was there to give it back"
        host.run([node.binaries / "tailscaled", "--cleanup", f"--socket={node.socket}"])
        back("--cleanup")
        start(node)
        wait_for("ours after a restart", host.ours)
        node.stop(signal.SIGKILL)
        lab.control_process.stop(signal.SIGKILL)
        start(node)
        back("the start after a kill, control server gone")
        lab.control_process = lab.control(["--domain", "tail.example"])
        up(node)
        assert host.ours()
        node.cli("logout")
        back("logout")


def test_a_link_stays_a_link_and_options_stay():
    with Lab("dnslink") as lab:
        host, = dns_lab(lab, names=("a",))
        host.sh("printf 'nameserver 10.50.0.2\\noptions ndots:3 edns0\\n' >/etc/real.conf; ln -sf real.conf /etc/resolv.conf")
        node = start(host.node())
        up(node)
        assert host.resolv_conf().endswith("\noptions ndots:3 edns0\n")
        node.stop()
        assert host.run("readlink /etc/resolv.conf").stdout == "real.conf\n"


def test_another_writer_of_resolv_conf():
    with Lab("dnsfight") as lab:
        host, = dns_lab(lab, names=("a",))
        dnsmasq(lab, "10.50.0.3", "--address=/new.example.org/192.0.2.90")
        node = start(host.node())
        up(node)
        host.write("nameserver 10.50.0.3\n")
        wait_for("ours again", host.ours)
        wait_for("its server is used", lambda: host.ask("new.example.org").get("values") == ["192.0.2.90"])
        assert any("System DNS config not ideal. " in line for line in node.status()["Health"])
        for _ in range(30):
            host.write("nameserver 10.50.0.3\n")
        wait_for("the fight ends", lambda: "leaving it alone for a while" in node.daemon.text())
        assert host.resolves("new.example.org") == "192.0.2.90", "whoever won, the host resolves"
        node.stop()
        assert host.resolv_conf() == "nameserver 10.50.0.3\n" and host.leftovers() == ""


def test_read_only_etc_is_said_and_the_tunnel_works():
    with Lab("dnsro") as lab:
        a, b = dns_lab(lab)
        a.run("mount -o remount,ro /etc")
        nodes = [start(h.node()) for h in (a, b)]
        for n in nodes:
            up(n)
        assert a.resolv_conf() == OWN
        assert any("could not be changed" in line and "Read-only file system" in line for line in nodes[0].status()["Health"]), nodes[0].status()["Health"]
        nodes[0].wait_peer(nodes[1])
        assert "1 received" in a.run(["ping", "-c", "1", "-W", "5", nodes[1].ip()]).stdout
        assert a.ask("b.tail.example")["values"] == [nodes[1].ip()]


def test_a_file_mounted_by_a_container_engine():
    with Lab("dnsmount") as lab:
        host, = dns_lab(lab, names=("a",))
        mounted = lab.dir / "mounted"
        mounted.write_text(OWN)
        host.run(["mount", "--bind", mounted, "/etc/resolv.conf"])
        node = start(host.node())
        up(node)
        assert host.ours() and host.resolves("a.tail.example") == node.ip()
        node.stop(signal.SIGKILL)
        start(node)
        wait_for("ours again", host.ours)
        node.stop()
        assert mounted.read_text() == OWN and host.leftovers() == ""


def test_custom_prefix_without_ipv6():
    with Lab("dnsprefix") as lab:
        a, b = dns_lab(lab, prefix="10.1.0.0/16", v6="off")
        nodes = [start(h.node()) for h in (a, b)]
        for n in nodes:
            up(n)
        nodes[0].wait_peer(nodes[1])
        assert "nameserver 100.100.100.100\nsearch" in a.resolv_conf() and "fd7a" not in a.resolv_conf()
        assert "1 received" in a.run(["ping", "-c", "1", "-W", "5", "b"]).stdout
        assert a.ask(reverse(nodes[1].ip()), "PTR")["values"] == ["b.tail.example"]
        assert a.ask("b.tail.example", tcp=True)["values"] == [nodes[1].ip()]
        assert a.ask("b.tail.example", "AAAA")["an"] == 0


def test_resolvers_of_the_tailnet_replace_the_hosts():
    with Lab("dnsover") as lab:
        host, = dns_lab(lab, {"Resolvers": [{"Addr": "10.50.0.3"}, {"Addr": "tls://10.50.0.4"}]}, names=("a",))
        dnsmasq(lab, "10.50.0.3", "--address=/www.example.org/192.0.2.99")
        node = start(host.node())
        up(node)
        assert host.resolves("www.example.org") == "192.0.2.99"
        assert any("tls://10.50.0.4 is not used" in line for line in node.status()["Health"])


def random_kills(rounds, seed):
    rnd = random.Random(seed)
    with Lab("dnskill") as lab:
        host, = dns_lab(lab, names=("a",))
        node = start(host.node())
        up(node)
        seen_ours, ip = 0, node.ip()
        for number in range(rounds):
            where = f"round {number} of seed {seed}"
            if rnd.random() < 0.8:  # most kills shall find our file in place
                node.cli("set", "--accept-dns=true")
                node.cli("up", timeout=20)
            action = rnd.choice([["set", "--accept-dns=false"], ["set", "--accept-dns=true"], ["down"], ["up"], ["set", f"--hostname=n{number}"]])
            cli = lab.start("a", [*host.enter, node.cli_path, f"--socket={node.socket}", *action], label=f"cli-{number}")
            time.sleep(rnd.uniform(0.0, 0.12))
            node.stop(signal.SIGKILL)
            cli.popen.wait(20)
            text = host.resolv_conf()
            assert "nameserver" in text, f"{where}: there is always a whole file, here {text!r}"
            seen_ours += "generated by tailscale" in text
            start(node)
            prefs = json.loads(node.cli("debug", "prefs").stdout)
            if prefs["WantRunning"] and prefs["CorpDNS"]:
                wait_for(f"{where}: our names resolve", lambda: host.ours() and host.resolves(node.status()["Self"]["DNSName"]) == ip)
            else:
                assert host.resolv_conf() == OWN, where
            assert host.resolves("www.example.org") == "192.0.2.80", where
        node.cli("set", "--accept-dns=true")
        node.stop()
        assert host.resolv_conf() == OWN and host.leftovers() == ""
    print(f"{rounds} kills, resolv.conf was ours after {seen_ours} of them")


def test_killed_at_any_moment_the_host_resolves_after_the_next_start():
    random_kills(8, seed=11)


@pytest.mark.full
def test_killed_a_hundred_times_the_host_resolves_after_the_next_start():
    random_kills(100, seed=random.SystemRandom().randrange(1 << 30))
