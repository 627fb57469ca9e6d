# SPDX-License-Identifier: BSD-3-Clause
"""The main job with our programs alone: join, relay, direct, LAN."""
import signal

import pytest
from lab import Failure, Lab, wait_for


@pytest.fixture(scope="module")
def pair():
    with Lab("pair") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control(["--auth-key", "secret-key"])
        lab.page()
        lab.laptop, lab.router = lab.node("laptop").start(), lab.node("router").start()
        lab.router_took = lab.router.join("--auth-key=secret-key", "--advertise-routes=192.168.50.0/24")
        lab.laptop_took = lab.laptop.join("--auth-key=secret-key", "--accept-routes")
        lab.laptop.wait_peer(lab.router)
        yield lab


def test_pings_flow_at_once_and_the_path_becomes_direct_without_loss(pair):
    run = pair.laptop.ping_through(pair.router.ip())
    wait_for("a direct path", lambda: pair.laptop.direct(pair.router.ip()), timeout=7)
    run.finish()
    assert run.lost == 0, run.process.text()
    assert run.answers()[0][1] < 1.5
    pong = pair.laptop.cli("ping", "-c", "1", "router").stdout
    assert pong.startswith(f"pong from router ({pair.router.ip()}) via 10.50.2.1:41641 in "), pong


def test_both_sides_show_the_direct_path_and_traffic(pair):
    for here, there in ((pair.laptop, pair.router), (pair.router, pair.laptop)):
        peer = here.peer(there.ip())
        assert peer["CurAddr"] and peer["RxBytes"] > 0 and peer["TxBytes"] > 0 and peer["Active"] and peer["Online"]


def test_a_page_from_the_lan_behind_the_subnet_router(pair):
    wait_for("the subnet route", lambda: "192.168.50.0/24" in pair.run("laptop", "ip route show table 52").stdout)
    page = pair.fetch("laptop", "http://192.168.50.20/")
    assert page.stdout == "hello from the LAN\n", page.stderr


def test_bare_up_on_a_running_node_succeeds(pair):
    assert pair.laptop.cli("up", check=False).returncode == 0


def test_routes_go_when_they_are_not_accepted_any_more(pair):
    said = "Some peers are advertising routes but --accept-routes is false"
    assert said not in (pair.laptop.status()["Health"] or [])
    pair.laptop.cli("set", "--accept-routes=false")
    assert said in pair.laptop.status()["Health"]
    assert "192.168.50.0/24" not in pair.run("laptop", "ip route show table 52").stdout
    assert pair.fetch("laptop", "http://192.168.50.20/", timeout=1).returncode != 0
    pair.laptop.cli("set", "--accept-routes=true")
    assert pair.fetch("laptop", "http://192.168.50.20/").stdout == "hello from the LAN\n"


def test_down_and_up_again(pair):
    assert pair.laptop.cli("down").returncode == 0
    status = pair.laptop.cli("status", check=False)
    assert (status.stdout, status.returncode) == ("Tailscale is stopped.\n", 1)
    assert pair.laptop.cli("up").returncode == 0
    pair.laptop.wait_peer(pair.router)
    run = pair.laptop.ping_through(pair.router.ip(), count=10, interval=0.1).finish()
    assert run.lost <= 5 and run.answers(), run.process.text()


def test_whois_ip_and_netcheck(pair):
    assert "Name:      " in pair.laptop.cli("whois", pair.router.ip()).stdout
    report = pair.laptop.cli("netcheck").stdout
    assert "\t* UDP: true\n" in report and "\t* Nearest DERP: Lab DERP\n" in report, report


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_restart_keeps_the_identity_and_traffic_resumes(pair, sig):
    before = pair.router.status()["Self"]["PublicKey"]
    run = pair.laptop.ping_through(pair.router.ip(), count=100, interval=0.1)
    wait_for("traffic", run.answers)
    assert pair.router.stop(sig) == 0
    pair.router.start()
    wait_for("the router is back", lambda: pair.router.status()["BackendState"] == "Running")
    run.finish()
    assert pair.router.status()["Self"]["PublicKey"] == before
    assert run.longest_gap < 5, run.process.text()


def test_stopping_leaves_nothing_behind(pair):
    """Last: it stops the laptop."""
    def host(name):
        return {c: pair.run(name, c).stdout for c in
                ("ip rule", "ip -6 rule", "ip route show table all", "iptables-save -t filter", "iptables-save -t nat", "ip -br link")}
    assert pair.laptop.stop() == 0
    after = host("laptop")
    assert "tailscale0" not in after["ip -br link"]
    for text in after.values():
        assert "ts-" not in text and "lookup 52" not in text and "table 52" not in text, text
    assert not pair.laptop.socket.exists()


def test_interactive_login():
    with Lab("login") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control(["--require-login"])
        node = lab.node("laptop").start()
        up = lab.start("laptop", [node.cli_path, f"--socket={node.socket}", "up", f"--login-server={lab.url}", "--accept-dns=false"], label="up")
        found = up.wait_text(r"\nTo authenticate, visit:\n\n\t(http://\S+)\n\n")
        assert lab.fetch("srv", found.group(1)).returncode == 0
        assert up.popen.wait(10) == 0
        assert up.text().endswith("Success.\n")
        assert node.status()["BackendState"] == "Running"
        assert node.cli("logout").returncode == 0
        assert node.status()["BackendState"] == "NeedsLogin"


def test_custom_prefix_without_ipv6():
    with Lab("prefix") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control(prefix="10.1.0.0/16", v6="off")
        a, b = lab.node("laptop").start(), lab.node("router").start()
        b.join()
        a.join()
        assert a.ip().startswith("10.1.") and a.cli("ip").stdout.count("\n") == 1
        a.wait_peer(b)
        run = a.ping_through(b.ip(), count=60)
        wait_for("a direct path", lambda: a.direct(b.ip()), timeout=7)
        assert run.finish().lost == 0, run.process.text()


def test_hard_nats_stay_on_the_relay_and_work():
    with Lab("hard") as lab:
        lab.home_and_office(left="hard", right="hard")
        lab.derper()
        lab.control()
        a, b = lab.node("laptop").start(), lab.node("router").start()
        b.join()
        a.join()
        a.wait_peer(b)
        run = a.ping_through(b.ip(), count=60).finish()
        assert run.lost == 0, run.process.text()
        assert not a.direct(b.ip())
        done = a.cli("ping", "-c", "2", b.ip(), check=False)
        assert "via DERP(lab)" in done.stdout and done.stderr == "direct connection not established\n" and done.returncode == 1


def test_two_sites_with_routers_beside_their_gateways():
    """LAN hosts without a client; each LAN's gateway has a static route to the other site by its router; no SNAT."""
    with Lab("sites") as lab:
        lab.core()
        lab.space("srv")
        lab.uplink("srv", "10.50.0.2/16", "10.50.0.3/16")
        routers = []
        for n, other in ((1, 2), (2, 1)):
            lab.nat(f"gw{n}", f"10.50.{n}.1", f"192.168.{n}.1/24")
            lab.run(f"gw{n}", f"ip route add 192.168.{other}.0/24 via 192.168.{n}.10")
            lab.host(f"r{n}", f"192.168.{n}.10/24", f"gw{n}", f"192.168.{n}.1")
            lab.run(f"r{n}", "sysctl -qw net.ipv4.ip_forward=1")
            lab.host(f"h{n}", f"192.168.{n}.20/24", f"gw{n}", f"192.168.{n}.1")
        lab.derper()
        lab.control()
        for n in (1, 2):
            r = lab.node(f"r{n}").start()
            r.join("--accept-routes", f"--advertise-routes=192.168.{n}.0/24", "--snat-subnet-routes=false")
            routers.append(r)
        routers[0].wait_peer(routers[1])
        lab.page("h2")
        for n, other in ((1, 2), (2, 1)):
            wait_for("the route", lambda: f"192.168.{other}.0/24" in lab.run(f"r{n}", "ip route show table 52").stdout)
        assert lab.fetch("h1", "http://192.168.2.20/").stdout == "hello from the LAN\n"
        seen = next(p for p in lab.processes if p.log.name.startswith("page-h2"))
        assert "192.168.1.20" in seen.text(), "without SNAT the far host sees the real source"
        # The own LAN stays reachable on both sides.
        assert lab.run("r1", "ping -c 1 -W 1 192.168.1.20").returncode == 0


def test_clear_refusals():
    with Lab("errors") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control(["--auth-key", "right"])
        node = lab.node("laptop").start()
        bad = node.up("--auth-key=wrong", check=False)
        assert bad.returncode == 1 and bad.stderr.startswith("backend error: "), bad
        slow = node.cli("up", "--login-server=http://10.50.0.99:8080", "--timeout=2s", "--reset", check=False)
        assert slow.returncode == 1
        assert slow.stderr.endswith('timeout waiting for Tailscale service to enter a Running state; check health with "tailscale status"\n'), slow
        before = lab.run("laptop", "iptables-save").stdout + lab.run("laptop", "ip rule").stdout
        second = lab.run("laptop", [node.binaries / "tailscaled", f"--socket={node.socket}", f"--statedir={node.dir}-2", "--tun=ts9"], check=False)
        assert second.returncode == 1 and "address already in use" in second.stderr and second.stderr.count("\n") == 2, second.stderr
        assert lab.run("laptop", "iptables-save").stdout + lab.run("laptop", "ip rule").stdout == before
        node.stop()
        state = node.dir / "tailscaled.state"
        for name in ("", ".prev"):
            (node.dir / f"tailscaled.state{name}").write_text("damaged")
        with pytest.raises(Failure):
            node.start()
        assert "damaged" in node.daemon.text() and node.daemon.popen.wait(5) == 1
        assert state.read_text() == "damaged"
