# SPDX-License-Identifier: BSD-3-Clause
"""Two nodes that cannot reach each other, and a third one that relays for them by UDP."""
import re
import time

from lab import wait_for
from peer_relay import PORT, Sites


def test_a_node_relays_for_two_behind_hard_nats_until_it_dies():
    with Sites("peerrelay") as sites:
        via = sites.wait_relayed()
        sites.pings_say_so()
        assert sites.transfer() > 2 * (8 << 20)
        assert f"by peer relay {via}" in sites.a.cli("debug", "paths", sites.b.name).stdout
        assert f"through the peer relay at {via}" in sites.a.cli("doctor", "--quick", sites.b.name, check=False).stdout
        metrics = sites.server.cli("metrics", "print").stdout
        assert re.search(r'^tailscaled_peer_relay_endpoints\{state="open"\} [1-9]', metrics, re.M), metrics
        assert re.search(r'^tailscaled_outbound_bytes_total\{path="peer_relay_ipv4"\} [1-9]', sites.a.cli("metrics", "print").stdout, re.M)
        sessions = sites.server.cli("debug", "peer-relay-sessions").stdout
        assert sessions.startswith(f"Server port: {PORT}\n") and f"\nVNI: {via.rsplit(':', 1)[1]}\n  10.50." in sessions, sessions
        # The relay dies under traffic: DERP carries it within a second or so, and soon alone.
        run = sites.a.ping_through(sites.b.ip(), count=1000)
        wait_for("some answers", lambda: len(run.answers()) > 5)
        died = time.time()
        sites.lab.run("relay", f"iptables -I INPUT -p udp --dport {PORT} -j DROP")
        back = wait_for("DERP carries the traffic", lambda: (gap := run.back_after(died + 0.3)) < 60 and gap)
        assert back < 3, run.process.text()
        wait_for("the relay is left", lambda: not sites.relayed(sites.a, sites.b), timeout=4)
        run.process.stop()
        assert "via DERP(lab)" in sites.a.cli("ping", "-c", "1", "--until-direct=false", sites.b.ip()).stdout
        # Switched off, it listens no longer and tells nothing.
        sites.server.cli("set", "--relay-server-port=")
        wait_for("the port is closed", lambda: f":{PORT} " not in sites.lab.run("relay", "ss -lunH").stdout)
        assert "peer_relay_endpoints" not in sites.server.cli("metrics", "print").stdout


def test_one_leg_by_ipv6_and_one_by_ipv4():
    with Sites("relayv6", by_v6=True) as sites:
        sites.wait_relayed()
        sites.pings_say_so()
        assert sites.transfer() > 2 * (8 << 20)
        metrics = sites.server.cli("metrics", "print").stdout
        for way in ('transport_in="udp4",transport_out="udp6"', 'transport_in="udp6",transport_out="udp4"'):
            assert re.search(rf"^tailscaled_peer_relay_forwarded_bytes_total\{{{way}\}} [0-9]{{7}}", metrics, re.M), metrics
        assert re.search(r'^tailscaled_outbound_bytes_total\{path="peer_relay_ipv6"\} [1-9]', sites.a.cli("metrics", "print").stdout, re.M)
