# SPDX-License-Identifier: BSD-3-Clause
"""Which way packets go: IPv6, blocked UDP, relays of every kind, paths that die and come back."""
import contextlib
import re
import signal
import time

import pytest
from lab import DERP_PORT, OURS, STUN_PORT, Lab, wait_for


@contextlib.contextmanager
def homes(name, left="easy", right="easy"):
    with Lab(name) as lab:
        lab.home_and_office(left, right)
        yield lab


def becomes_direct_without_loss(a, b, count=80):
    run = a.ping_through(b.ip(), count=count)
    wait_for("a direct path", lambda: a.direct(b.ip()), timeout=7)
    assert run.finish().lost == 0, run.process.text()
    return a.direct(b.ip())


def stays_relayed_without_loss(a, b, code="lab", count=60):
    run = a.ping_through(b.ip(), count=count).finish()
    assert run.lost == 0, run.process.text()
    assert not a.direct(b.ip())
    assert f"via DERP({code})" in a.cli("ping", "-c", "1", "--until-direct=false", b.ip()).stdout


# IPv6 -----------------------------------------------------------------------------------------------------------------
def test_an_internet_without_ipv4():
    """Control, relay and both nodes have IPv6 only; firewalls on both sides let only answers in."""
    with homes("six") as lab:
        lab.add_v6()
        lab.drop_v4()
        lab.url = "http://[2001:db8:50::2]:8080"
        lab.derper(host="2001:db8:50::2")
        lab.control(listen="[2001:db8:50::2]:8080",
                    derp_map=lab.derp_map(host="2001:db8:50::2", IPv4="none", IPv6="2001:db8:50::2"))
        a, b = lab.laptop_and_router()
        assert becomes_direct_without_loss(a, b).startswith("[2001:db8:2::10]:")
        lab.page("router", port=8000)
        assert lab.fetch("laptop", f"http://{b.ip()}:8000/").stdout == "hello from the LAN\n"
        report = a.cli("netcheck").stdout
        assert "\t* IPv4: (no addr found)\n" in report and "\t* IPv6: yes, [2001:db8:1::10]:" in report, report


def test_hard_nats_with_ipv6_beside_go_direct_by_ipv6():
    with homes("dual", left="hard", right="hard") as lab:
        lab.add_v6()
        lab.derper()
        lab.control(derp_map=lab.derp_map(IPv6="2001:db8:50::2"))
        a, b = lab.laptop_and_router()
        assert becomes_direct_without_loss(a, b).startswith("[2001:db8:2::10]:")


# relay only -----------------------------------------------------------------------------------------------------------
def test_blocked_udp_finds_its_home_by_https_and_stays_on_the_relay():
    with homes("noudp", left="blocked") as lab:
        lab.derper()
        lab.control()
        a, b = lab.laptop_and_router()
        wait_for("the home relay", lambda: a.status()["Self"]["Relay"] == "lab", timeout=10)
        stays_relayed_without_loss(a, b)
        report = a.cli("netcheck").stdout
        assert "\t* UDP: false\n" in report, report
        assert re.search(r"\t\t- +lab: +[\d.]+(µs|ms|s)\b", report), f"relays are measured by TCP: {report}"


def test_udp_that_opens_later_leads_to_a_direct_path():
    with homes("opens", left="blocked") as lab:
        lab.derper()
        lab.control()
        a, b = lab.laptop_and_router()
        run = a.ping_through(b.ip(), count=400)
        wait_for("answers by the relay", lambda: len(run.answers()) > 60)
        assert not a.direct(b.ip())
        lab.run("nat1", "iptables -D FORWARD -p udp -j DROP")
        opened = time.monotonic()
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()), timeout=12)
        print(f"\ndirect {time.monotonic() - opened:.1f} s after UDP was opened")
        run.process.stop(signal.SIGINT)
        last = run.answers()[-1][0]
        assert not [n for n in run.missing if n < last], run.process.text()


def test_an_easy_and_a_hard_nat_stay_on_the_relay():
    with homes("mixed", right="hard") as lab:
        lab.derper()
        lab.control()
        a, b = lab.laptop_and_router()
        stays_relayed_without_loss(a, b)
        assert not b.direct(a.ip())


# the path changes under traffic ---------------------------------------------------------------------------------------
def test_a_direct_path_dies_and_comes_back_under_traffic():
    with homes("flip") as lab:
        lab.derper()
        lab.control()
        lab.run("nat1", "iptables -I FORWARD -p udp -d 10.50.2.1 -j DROP")
        a, b = lab.laptop_and_router()
        run = a.ping_through(b.ip(), count=700)
        wait_for("answers by the relay", lambda: len(run.answers()) > 20)
        assert not a.direct(b.ip())
        lab.run("nat1", "iptables -D FORWARD -p udp -d 10.50.2.1 -j DROP")
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()), timeout=10)
        blocked_at = run.sent()
        assert not [n for n in run.missing if n < blocked_at - 10], run.process.text()
        lab.run("nat1", "iptables -I FORWARD -p udp -j DROP")
        wait_for("answers by the relay", lambda: [n for n, _ in run.answers() if n > blocked_at + 5])
        wait_for("the relay is shown", lambda: not a.direct(b.ip()), timeout=10)
        opened_at = run.sent()
        lab.run("nat1", "iptables -D FORWARD -p udp -j DROP")
        wait_for("a direct path again", lambda: a.direct(b.ip()), timeout=12)
        time.sleep(1)
        run.process.stop(signal.SIGINT)
        last = run.answers()[-1][0]
        assert run.longest_gap < 3, run.process.text()
        assert not [n for n in run.missing if opened_at + 5 < n < last], run.process.text()


def test_the_relay_restarts_under_traffic():
    with homes("rerun", left="hard", right="hard") as lab:
        derper = lab.derper()
        lab.control()
        a, b = lab.laptop_and_router()
        run = a.ping_through(b.ip(), count=160)
        wait_for("answers", lambda: len(run.answers()) > 20)
        derper.stop(signal.SIGKILL)
        time.sleep(1)
        lab.derper()
        back = time.time() - run.began
        run.finish()
        first = next(at for _, at in run.answers() if at > back)
        assert first - back < 2, run.process.text()
        assert run.longest_gap < 3.5 and run.answers()[-1][0] == run.count, run.process.text()


# relays of every kind -------------------------------------------------------------------------------------------------
def test_home_is_a_region_whose_stun_answers():
    with homes("two", left="hard", right="hard") as lab:
        lab.derper(bind="10.50.0.2")
        lab.derper(bind="10.50.0.3", host="10.50.0.3", args=["-stun=false"])
        lab.control(derp_map=lab.derp_regions([lab.derp_node("901a", 901, "10.50.0.3")], [lab.derp_node()]))
        a, b = lab.laptop_and_router()
        wait_for("home", lambda: a.status()["Self"]["Relay"] == "lab2")
        stays_relayed_without_loss(a, b, code="lab2")


def test_two_homes_in_different_regions():
    """Each side can measure one region only; packets go to the region of the receiver."""
    with homes("cross", left="hard", right="hard") as lab:
        for last in (2, 3):
            lab.derper(bind=f"10.50.0.{last}", host=f"10.50.0.{last}")
            lab.run(f"nat{last - 1}", f"iptables -I FORWARD -p udp -d 10.50.0.{5 - last} -j DROP")
        lab.control(derp_map=lab.derp_regions([lab.derp_node()], [lab.derp_node("901a", 901, "10.50.0.3")]))
        a, b = lab.laptop_and_router()
        wait_for("the homes", lambda: (a.status()["Self"]["Relay"], b.status()["Self"]["Relay"]) == ("lab", "lab2"))
        wait_for("the peer's home", lambda: a.peer(b.ip())["Relay"] == "lab2")
        stays_relayed_without_loss(a, b, code="lab2")
        assert "via DERP(lab" in b.cli("ping", "-c", "1", "--until-direct=false", a.ip()).stdout


@pytest.mark.full
def test_home_is_the_nearest_of_three_regions_and_comes_back_without_flapping():
    """Round trips of 10, 50 and 200 ms; a node in use looks at them every half a minute."""
    with Lab("regions") as lab:
        lab.flat("x", "y")
        regions, near = [], None
        for n, delay in enumerate((100, 25, 5)):  # one way; the farthest is the first of the map
            space, host = f"r{n}", f"10.50.4.{n + 1}"
            lab.space(space)
            lab.uplink(space, f"{host}/16", delay=delay)
            near = lab.derper(space=space, host=host)
            regions.append([lab.derp_node(f"90{n}a", 900 + n, host)])
        lab.control(derp_map=lab.derp_regions(*regions))
        x, y = lab.pair("x", "y")
        x.ping_through(y.ip(), count=10_000)
        homes = lambda: re.findall(r"home is now derp-(\d+)", x.daemon.text())  # noqa: E731

        def settles(region):
            wait_for("the home", lambda: homes()[-1] == region, timeout=90)
            for _ in range(3):
                x.cli("netcheck")
                x.cli("debug", "restun")
            return homes()
        before = settles("902")
        assert before in (["902"], ["901", "902"], ["900", "902"]), before  # who answered first may have been home for a moment
        near.stop(signal.SIGKILL)
        assert settles("901") == [*before, "901"]
        lab.derper(space="r2", host="10.50.4.3")
        assert settles("902") == [*before, "901", "902"]


def test_the_second_node_of_a_region_serves_when_the_first_is_down():
    with homes("nodes", left="hard", right="hard") as lab:
        lab.derper(bind="10.50.0.3", host="10.50.0.3")
        lab.control(derp_map=lab.derp_regions([lab.derp_node(), lab.derp_node("900b", 900, "10.50.0.3")]))
        a, b = lab.laptop_and_router()
        stays_relayed_without_loss(a, b)


@pytest.mark.full
@pytest.mark.parametrize("death", ["the program ends", "the host vanishes"])
def test_a_region_dies_under_traffic_and_another_becomes_home(death):
    with homes("dying", left="hard", right="hard") as lab:
        first = lab.derper(bind="10.50.0.2")
        lab.derper(bind="10.50.0.3", host="10.50.0.3")
        lab.control(derp_map=lab.derp_regions([lab.derp_node()], [lab.derp_node("901a", 901, "10.50.0.3")]))
        for n in (1, 2):
            lab.run(f"nat{n}", "iptables -I FORWARD -p udp -d 10.50.0.3 -j DROP")
        a, b = lab.laptop_and_router()
        wait_for("home", lambda: a.status()["Self"]["Relay"] == b.status()["Self"]["Relay"] == "lab")
        for n in (1, 2):
            lab.run(f"nat{n}", "iptables -D FORWARD -p udp -d 10.50.0.3 -j DROP")
        run = a.ping_through(b.ip(), count=1200)
        wait_for("answers", lambda: len(run.answers()) > 20)
        if death == "the program ends":
            first.stop(signal.SIGKILL)
        else:
            lab.run("srv", "iptables -A INPUT -d 10.50.0.2 ! -p tcp -j DROP")
            lab.run("srv", f"iptables -A INPUT -d 10.50.0.2 -p tcp --dport {DERP_PORT} -j DROP")
            lab.run("srv", f"iptables -A OUTPUT -s 10.50.0.2 -p tcp --sport {DERP_PORT} -j DROP")
        dead = time.time() - run.began
        wait_for("answers by the other region", lambda: run.answers()[-1][1] > dead + 1, timeout=40)
        wait_for("the new home", lambda: a.status()["Self"]["Relay"] == b.status()["Self"]["Relay"] == "lab2", timeout=40)
        run.process.stop(signal.SIGINT)
        print(f"\n{death}: {run.longest_gap:.1f} s without answers")
        assert run.longest_gap < 8


def test_a_relay_known_by_the_hash_of_its_certificate():
    with homes("pin", left="hard", right="hard") as lab:
        lab.derper()
        pin = lab.certificate_hash()
        lab.control(derp_map=lab.derp_map(InsecureForTests=False, CertName=pin))
        a, b = lab.laptop_and_router()
        stays_relayed_without_loss(a, b, count=20)


@pytest.mark.parametrize("name,fields,why", [
    ("a wrong pin", {"CertName": "sha256-raw:" + "ab" * 32}, "certificate"),
    ("no pin", {}, "certificate"),
    ("plain", {"DERPPort": 3340}, ""),
])
def test_a_relay_that_cannot_prove_itself_gets_nothing(name, fields, why):
    with Lab("noproof") as lab:
        lab.flat("h")
        lab.derper()
        lab.derper(port=3340, stun=3478, tls=False)
        lab.control(derp_map=lab.derp_map(InsecureForTests=False, **fields))
        node = lab.node("h").start()
        up = node.up("--timeout=2s", check=False)
        assert up.returncode == 1, up
        assert "connected:" not in node.daemon.text()
        lines = [line for line in node.daemon.text().splitlines() if "derp-900" in line and why in line]
        assert lines, node.daemon.text()
        assert any("Lab DERP" in text for text in node.status()["Health"]), node.status()["Health"]


@pytest.mark.parametrize("fields,env", [({}, None), ({"InsecureForTests": False}, {"TS_DEBUG_USE_DERP_HTTP": "1"})])
def test_a_relay_over_plain_http_where_the_map_or_the_user_says_so(fields, env):
    with homes("plain", left="hard", right="hard") as lab:
        lab.derper(port=3340, tls=False)
        lab.control(derp_map=lab.derp_map(DERPPort=3340, **fields))
        a, b = lab.laptop_and_router(env=env)
        stays_relayed_without_loss(a, b, count=20)
        assert "(plain HTTP)" in a.daemon.text()


def test_a_relay_with_a_name_and_a_certificate_of_its_own():
    with homes("named", left="hard", right="hard") as lab:
        cert, key = lab.certificate("derp.lab.test", "DNS")
        (lab.dir / "certs").mkdir()
        for source, end in ((cert, "crt"), (key, "key")):
            (lab.dir / "certs" / f"derp.lab.test.{end}").write_text(source.read_text())
        lab.hosts["derp.lab.test"] = "10.50.0.2"
        lab.derper(host="derp.lab.test")
        lab.control(derp_map=lab.derp_map(host="derp.lab.test", IPv4="", InsecureForTests=False))
        a, b = lab.laptop_and_router(env={"SSL_CERT_FILE": str(cert)})
        stays_relayed_without_loss(a, b, count=20)


# beside others on the same host ---------------------------------------------------------------------------------------
def test_beside_a_tailscale0_of_somebody_else():
    with Lab("beside") as lab:
        lab.flat("h1", "h2")
        lab.derper()
        lab.control()
        for command in ("ip tuntap add tailscale0 mode tun", "ip addr add 100.100.1.1/32 dev tailscale0", "ip link set tailscale0 up",
                        "ip route add 100.99.0.0/16 dev tailscale0"):
            lab.run("h1", command)
        before = lab.host_state("h1")
        a, b = lab.node("h1", tun="mesh0").start(), lab.node("h2").start()
        b.join()
        a.join()
        a.wait_peer(b)
        becomes_direct_without_loss(a, b, count=30)
        assert "100.99.0.0/16 dev tailscale0" in lab.run("h1", "ip route").stdout
        assert a.stop() == 0
        assert lab.host_state("h1") == before


@pytest.mark.parametrize("first_out", [0, 1])
def test_two_daemons_on_one_host(first_out):
    """Two networks with different prefixes; either daemon may end first, by force too, without hurting the other."""
    with Lab("twin") as lab:
        lab.flat("h", "x0", "x1")
        lab.derper()
        before = lab.host_state("h")
        peers, nodes = [], []
        for i, (prefix, port) in enumerate((("100.64.0.0/10", 8080), ("10.1.0.0/16", 8090))):
            lab.control(prefix=prefix, v6="off", listen=f"10.50.0.2:{port}")
            lab.url = f"http://10.50.0.2:{port}"
            peer = lab.node(f"x{i}").start()
            peer.join()
            node = lab.node("h", name=f"twin{i}", tun=f"mesh{i}", port=41641 + i).start()
            node.join()
            node.wait_peer(peer)
            peers.append(peer)
            nodes.append(node)
        for node, peer in zip(nodes, peers):
            assert node.ping_through(peer.ip(), count=5).finish().lost == 0
        stays = 1 - first_out
        run = nodes[stays].ping_through(peers[stays].ip(), count=80, interval=0.05)
        answers_from = peers[stays].ping_through(nodes[stays].ip(), count=80, interval=0.05)
        assert nodes[first_out].stop() == 0
        nodes[first_out].start()
        nodes[first_out].stop(signal.SIGKILL)
        cleanup = lab.run("h", [OURS / "tailscaled", "--cleanup", f"--socket={nodes[first_out].socket}", f"--tun=mesh{first_out}"])
        assert cleanup.returncode == 0
        assert run.finish().lost == 0 and answers_from.finish().lost == 0, run.process.text()
        assert nodes[stays].stop() == 0
        assert lab.host_state("h") == before
