# SPDX-License-Identifier: BSD-3-Clause
"""A peer that is plain WireGuard: no disco, no relay, addresses as the control server gives them. The other side is the original
WireGuard engine alone."""
import json

from lab import ORIGINAL, Lab, wait_for
from wg_pair import KEYS, PUBLIC, A

ADDRESS, FIRST, SECOND, PORT = "100.64.7.7", "10.50.3.1", "10.50.3.77", 51820


def peer(*endpoints, routes=()):
    """As a map message. Nothing listens at 10.50.9.9."""
    return {"PeersChanged": [{
        "ID": 77, "StableID": "n77", "Name": "plain.mesh.test.", "User": 1, "Key": f"nodekey:{PUBLIC[A]}", "Addresses": [f"{ADDRESS}/32"],
        "AllowedIPs": [f"{ADDRESS}/32", *routes], "Endpoints": list(endpoints), "IsWireGuardOnly": True, "MachineAuthorized": True, "Online": True,
        "Hostinfo": {"OS": "linux", "Hostname": "plain"}}]}


def test_a_plain_wireguard_peer():
    with Lab("plain") as lab:
        lab.flat("far", "a")
        lab.derper()
        lab.control()
        a = lab.node("a").start()
        a.join("--accept-routes")
        ours = a.status()["Self"]["PublicKey"].removeprefix("nodekey:")
        lab.start("far", [ORIGINAL / "wg-original", "-tun", "wg0", "-key", KEYS[A], "-peer", ours, "-allowed", f"{a.ip()}/32", "-port", PORT,
                          "-control", lab.dir / "wg.sock"], label="wg-original")
        wait_for("wg0", lambda: lab.run("far", "ip link show wg0", check=False).returncode == 0)
        for command in (f"ip addr add {ADDRESS}/32 dev wg0", "ip addr add 192.168.77.1/32 dev lo", "ip link set wg0 up mtu 1280", f"ip route add {a.ip()}/32 dev wg0"):
            lab.run("far", command)

        lab.tell_nodes(peer(f"{FIRST}:{PORT}", routes=["192.168.77.0/24"]))
        wait_for("the peer", lambda: a.peer(ADDRESS) is not None)
        run = a.ping_through(ADDRESS, count=20).finish()
        assert run.lost == 0, run.process.text()
        assert a.ping_through("192.168.77.1", count=5).finish().lost == 0, "a network behind it"
        assert lab.run("far", ["ping", "-c", "3", "-W", "2", a.ip()]).returncode == 0
        about = a.peer(ADDRESS)
        assert about["CurAddr"] == f"{FIRST}:{PORT}" and about["Relay"] == "", about
        assert "active; direct 10.50.3.1:51820" in a.cli("status").stdout
        said = a.cli("ping", "-c", "1", "--timeout=2s", ADDRESS, check=False)
        assert said.returncode == 1, said.stdout
        assert a.cli("ping", "--icmp", "-c", "1", ADDRESS).stdout.startswith("pong from plain (100.64.7.7) via ICMP in ")
        assert "direct" in {f["Code"] for f in json.loads(a.cli("doctor", "--json", "--quick", ADDRESS, check=False).stdout)["Peer"]["Findings"]}

        # It moves, and the control server knows; then one of its addresses is of no use.
        lab.run("far", f"ip addr del {FIRST}/16 dev eth0")
        lab.run("far", f"ip addr add {SECOND}/16 dev eth0")
        lab.tell_nodes(peer(f"{SECOND}:{PORT}", routes=["192.168.77.0/24"]))
        wait_for("the new address", lambda: (a.ping_through(ADDRESS, count=2).finish(), a.peer(ADDRESS)["CurAddr"])[1] == f"{SECOND}:{PORT}")
        lab.tell_nodes(peer("10.50.9.9:51820", f"{SECOND}:{PORT}"))
        wait_for("the address that works", lambda: a.ping_through(ADDRESS, count=3, interval=0.3).finish().lost == 0, timeout=25)
