# SPDX-License-Identifier: BSD-3-Clause
"""Our programs beside the original ones: one original tailscaled on either end, the original's test control server, the
original relay on odd ports with a self-signed certificate."""
import json
import re

import pytest
from lab import ORIGINAL, OURS, Lab, wait_for


@pytest.fixture(scope="module", params=["ours-asks", "ours-serves"])
def mixed(request):
    """ours-asks: our laptop, their subnet router; ours-serves: the other way round."""
    with Lab(request.param[5:]) as lab:
        lab.home_and_office()
        lab.derper(ORIGINAL / "derper")
        lab.testcontrol()
        lab.page()
        ours_left = request.param == "ours-asks"
        lab.laptop = lab.node("laptop", OURS if ours_left else ORIGINAL).start()
        lab.router = lab.node("router", ORIGINAL if ours_left else OURS).start()
        lab.router.join("--advertise-routes=192.168.50.0/24")
        lab.laptop.join("--accept-routes")
        lab.laptop.wait_peer(lab.router)
        yield lab


def test_first_pings_by_relay_then_direct_and_nothing_lost(mixed):
    wait_for("the router's home relay is known", lambda: mixed.laptop.peer(mixed.router.ip())["Relay"])
    run = mixed.laptop.ping_through(mixed.router.ip())
    wait_for("a direct path", lambda: mixed.laptop.direct(mixed.router.ip()), timeout=7)
    run.finish()
    # The original drops a peer's sessions when it learns its disco key late; that costs what is in flight just then.
    assert run.lost <= 1, run.process.text()


def test_the_original_answers_pings_as_long_as_a_full_packet(mixed):
    ours, theirs = (mixed.laptop, mixed.router) if mixed.laptop.binaries == OURS else (mixed.router, mixed.laptop)

    def answered():
        ours.cli("ping", "-c", "1", theirs.ip(), check=False)
        report = json.loads(ours.cli("debug", "localapi", f"debug-paths?peer={theirs.ip()}").stdout)
        return [c for c in report[0]["Candidates"] if c["Size"] == "whole" and c["CarriesBytes"] >= 1340]
    wait_for("a full ping is answered", answered)


def test_the_page_through_the_subnet_router(mixed):
    wait_for("the subnet route", lambda: "192.168.50.0/24" in mixed.run("laptop", "ip route show table 52").stdout)
    assert mixed.fetch("laptop", "http://192.168.50.20/").stdout == "hello from the LAN\n"


def test_disco_and_tsmp_pings_both_ways(mixed):
    for here, there in ((mixed.laptop, mixed.router), (mixed.router, mixed.laptop)):
        assert "pong from" in here.cli("ping", "-c", "3", there.ip()).stdout
        assert "via TSMP in" in here.cli("ping", "--tsmp", there.ip()).stdout


@pytest.fixture(scope="module")
def alone():
    """Two of our daemons with the original relay, spoken to by the original command."""
    with Lab("cli") as lab:
        lab.home_and_office()
        lab.derper(ORIGINAL / "derper", args=["-verify-clients", "-socket", lab.dir / "node-verifier" / "tailscaled.sock"])
        lab.testcontrol()
        # The relay's own node: it admits whom this one knows.
        lab.verifier = lab.node("srv", name="verifier", port=41700).start()
        lab.verifier.join()
        lab.laptop = lab.node("laptop", cli=ORIGINAL / "tailscale").start()
        lab.router = lab.node("router").start()
        lab.router.join()
        lab.laptop.up()
        lab.laptop.wait_peer(lab.router)
        yield lab


def test_the_original_command_on_our_socket(alone):
    node, other = alone.laptop, alone.router
    text = node.cli("status").stdout
    assert re.search(rf"^{node.ip()} +\S+ +\S+ +linux +-", text, re.M), text
    status = json.loads(node.cli("status", "--json").stdout)
    assert status["BackendState"] == "Running" and status["Self"]["Online"]
    assert node.ip() in node.cli("ip").stdout
    assert "pong from" in node.cli("ping", "-c", "3", other.ip()).stdout
    assert "Name:" in node.cli("whois", other.ip()).stdout
    assert node.cli("down").returncode == 0
    assert node.cli("status", check=False).stdout == "Tailscale is stopped.\n"
    assert node.cli("up").returncode == 0
    assert node.status()["BackendState"] == "Running"


def test_the_original_relay_asks_our_daemon_who_may_use_it(alone):
    wait_for("the laptop uses the relay", lambda: alone.laptop.peer(alone.router.ip())["Relay"] == "lab")
    log = next(p for p in alone.processes if p.log.name.startswith("derper")).text()
    assert f"client {alone.laptop.status()['Self']['PublicKey']} rejected" not in log
    key = "nodekey:" + "ab" * 32
    ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", alone.verifier.socket,
           f"http://local-tailscaled.sock/localapi/v0/whois?addr={key.replace(':', '%3A')}"]
    assert alone.run("srv", ask).stdout == "404"
    mine = alone.laptop.status()["Self"]["PublicKey"].replace(":", "%3A")
    ask[-1] = f"http://local-tailscaled.sock/localapi/v0/whois?addr={mine}"
    assert alone.run("srv", ask).stdout == "200"


def test_an_original_pair_on_our_relay():
    with Lab("relay") as lab:
        lab.home_and_office(left="hard", right="hard")
        lab.derper()
        lab.testcontrol()
        a, b = lab.node("laptop", ORIGINAL).start(), lab.node("router", ORIGINAL).start()
        b.join()
        a.join()
        a.wait_peer(b)
        wait_for("home relay", lambda: a.peer(b.ip())["Relay"] == "lab")
        run = a.ping_through(b.ip(), count=40).finish()
        assert run.lost <= 25 and run.answers(), run.process.text()
        assert "via DERP(lab)" in a.cli("ping", "-c", "1", "--until-direct=false", b.ip()).stdout


def test_an_original_node_on_our_lab_control_server():
    with Lab("labctl") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control()
        a, b = lab.node("laptop", ORIGINAL).start(), lab.node("router").start()
        b.join()
        a.join()
        a.wait_peer(b)
        assert "pong from" in a.cli("ping", "-c", "5", b.ip()).stdout
