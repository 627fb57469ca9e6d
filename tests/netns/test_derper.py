# SPDX-License-Identifier: BSD-3-Clause
"""The relay as people run it: from nothing but an address, in a mesh with original derpers, with admission, and under attack."""
import contextlib
import json
import re
import subprocess

import pytest
from lab import DERP_PORT, ORIGINAL, OURS, STUN_PORT, Lab, Node, wait_for

MESH_KEY = "5f" * 32


@contextlib.contextmanager
def flat(name, *hosts):
    """Hosts beside the server that hear UDP from the server only: everything between them is relayed."""
    with Lab(name) as lab:
        lab.flat(*hosts)
        for host in hosts:
            lab.run(host, "iptables -t raw -A PREROUTING -i eth0 -p udp ! -s 10.50.0.0/24 -j DROP")
        yield lab


def bare_derper(lab, *args, space="srv", label="derper-bare", port=DERP_PORT):
    """`derper` without host name or certificates; home and state in the lab's folder."""
    home = lab.dir / label
    p = lab.start(space, [OURS / "derper", "-a", f":{port}", "-stun-port", STUN_PORT, "-http-port", "-1", "-c", home / "derper.key", *args],
                  label=label, env={"HOME": str(home), "XDG_CACHE_HOME": ""})
    p.wait_text("serving on")
    return p


def printed_map(process):
    return json.loads(process.wait_text(r'\n  (\{"Regions":.*\})\n').group(1))


def pair_over_relay(a, b, code):
    # The originals may drop what comes before they know the other's keys; what counts is the relay after that.
    wait_for("first contact", lambda: a.ping_through(b.ip(), count=2, interval=0.2).finish().lost == 0, timeout=15)
    run = a.ping_through(b.ip(), count=10, interval=0.02).finish()
    assert run.lost == 0, run.process.text()
    assert not a.direct(b.ip())
    assert f"via DERP({code})" in a.cli("ping", "-c", "1", "--until-direct=false", b.ip()).stdout


def metric(lab, port=DERP_PORT, space="srv"):
    code = ("import ssl,sys,urllib.request as u; c=ssl._create_unverified_context();"
            "print(u.urlopen(f'https://127.0.0.1:{sys.argv[1]}/metrics', context=c, timeout=10).read().decode())")
    text = lab.run(space, ["python3", "-c", code, port]).stdout
    return {k: float(v) for k, v in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.M)}


def test_nothing_but_an_address_serves_our_nodes_and_the_originals():
    """The relay prints a map with the hash of its certificate; two of our nodes and two original ones use it as it is."""
    with flat("bare", "a", "b", "c", "d") as lab:
        derper = bare_derper(lab)
        derp_map = printed_map(derper)
        node = derp_map["Regions"]["900"]["Nodes"][0]
        assert node["HostName"] == "10.50.0.2" and node["CertName"].startswith("sha256-raw:"), node
        lab.control(derp_map=derp_map)
        nodes = [Node(lab, s, OURS if s in "ab" else ORIGINAL).start() for s in "abcd"]
        for n in nodes:
            n.join()
        for n in nodes:
            wait_for("a home relay", lambda n=n: n.status()["Self"]["Relay"] == "custom")
        a, b, c, d = nodes
        for left, right in ((a, b), (c, d), (a, d)):
            left.wait_peer(right)
            right.wait_peer(left)
            pair_over_relay(left, right, "custom")
        seen = metric(lab)
        assert seen["derp_current_home_connections"] == 4 and seen["derp_packets_sent"] > 60, seen
        assert seen['stun_requests{disposition="success"}'] > 0
        check = lab.run("a", [OURS / "derper", "-check", f"10.50.0.2:{DERP_PORT}", "-stun-port", STUN_PORT], check=False)
        assert check.returncode == 0 and node["CertName"] in check.stdout, check.stdout + check.stderr
        # The same certificate after a restart.
        assert derper.stop() == 0
        assert printed_map(bare_derper(lab)) == derp_map
        pair_over_relay(a, b, "custom")


def authority(lab):
    """A root, and a certificate signed by it, as an operator would have from a public one; returns the folder."""
    d = lab.dir / "ca"
    d.mkdir()

    def openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-days", 2, "-subj", "/CN=Lab root", "-keyout", d / "root.key", "-out", d / "root.crt")
    openssl("req", *key, "-subj", "/CN=relay", "-keyout", d / "leaf.key", "-out", d / "leaf.csr")
    (d / "ext").write_text("subjectAltName=IP:10.50.0.2,IP:10.50.0.3,DNS:relay.example\n")
    openssl("x509", "-req", "-in", d / "leaf.csr", "-CA", d / "root.crt", "-CAkey", d / "root.key", "-days", 2, "-extfile", d / "ext",
            "-out", d / "leaf.crt")
    (d / "fullchain.pem").write_text((d / "leaf.crt").read_text() + (d / "root.crt").read_text())
    return d


def test_files_of_the_operator_are_judged_at_start_and_renewed_without_dropping_anybody():
    with Lab("files") as lab:
        lab.flat()
        d = authority(lab)
        certs = lab.dir / "operator"
        certs.mkdir()
        arguments = [OURS / "derper", "-a", f":{DERP_PORT}", "-http-port", "-1", "-stun=false", "-certmode", "manual", "-certdir", certs,
                     "-c", lab.dir / "k", "-hostname"]
        (certs / "relay.example.crt").write_bytes((d / "leaf.crt").read_bytes())
        (certs / "relay.example.key").write_bytes((d / "leaf.key").read_bytes())
        (certs / "other.example.crt").write_bytes((d / "fullchain.pem").read_bytes())
        (certs / "other.example.key").write_bytes((d / "leaf.key").read_bytes())
        wrong = lab.run("srv", [*arguments, "other.example"], check=False, timeout=10)
        assert wrong.returncode == 1 and "relay.example, not for other.example" in wrong.stderr, wrong.stderr
        p = lab.start("srv", [*arguments, "relay.example"])
        p.wait_text("use fullchain.pem")
        p.wait_text("serving on")
        # A connection that stands while the chain is completed.
        script = ("import socket,ssl,sys,time; c=ssl._create_unverified_context(); s=c.wrap_socket(socket.create_connection(('127.0.0.1',"
                  f"{DERP_PORT}))); print('up', flush=True); sys.stdin.read();"
                  "s.sendall(b'GET /generate_204 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(s.recv(100).split()[1].decode())")
        with subprocess.Popen(lab.argv("srv", ["python3", "-c", script]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout.readline() == "up\n"
            (certs / "relay.example.crt").write_bytes((d / "fullchain.pem").read_bytes())
            p.popen.send_signal(1)
            chain = wait_for("the new chain", lambda: [c for c in [lab.run("srv", f"openssl s_client -connect 127.0.0.1:{DERP_PORT} -showcerts",
                                                                           input="", check=False).stdout] if c.count("BEGIN CERT") == 3])
            assert "CN = Lab root" in chain[0]
            assert client.communicate(timeout=10)[0] == "204\n"


def test_mesh_of_our_relay_and_the_originals():
    """One node at ours, one at the original's, both relays in one region: packets cross both ways, also after a restart of each."""
    with flat("mesh", "a", "b") as lab:
        d = authority(lab)
        key = lab.dir / "mesh.key"
        key.write_text(MESH_KEY + "\n")
        env = {"SSL_CERT_FILE": str(d / "root.crt")}
        hosts = {"10.50.0.2": OURS / "derper", "10.50.0.3": ORIGINAL / "derper"}

        def relay(host):
            certs = lab.dir / f"certs-{host}"
            certs.mkdir(exist_ok=True)
            (certs / f"{host}.crt").write_bytes((d / "fullchain.pem").read_bytes())
            (certs / f"{host}.key").write_bytes((d / "leaf.key").read_bytes())
            p = lab.start("srv", [hosts[host], "-a", f"{host}:{DERP_PORT}", "-http-port", "-1", "-hostname", host, "-certmode", "manual",
                                  "-certdir", certs, "-stun-port", STUN_PORT, "-c", lab.dir / f"{host}.key", "-mesh-psk-file", key,
                                  "-mesh-with", ",".join(f"{h}:{DERP_PORT}" for h in hosts)], label=f"derper-{host}-{lab.count}", env=env)
            wait_for("it listens", lambda: f"{host}:{DERP_PORT} " in lab.run("srv", "ss -ltnH").stdout)
            return p
        relays = {host: relay(host) for host in hosts}
        # Each host can reach one of the two relays only, which makes the other node's relay a matter of the mesh.
        for host, closed in (("a", "10.50.0.3"), ("b", "10.50.0.2")):
            lab.run(host, f"iptables -A OUTPUT -p tcp -d {closed} --dport {DERP_PORT} -j REJECT")
        lab.control(derp_map=lab.derp_regions([lab.derp_node("900a", host="10.50.0.2"), lab.derp_node("900b", host="10.50.0.3")]))
        a, b = Node(lab, "a", OURS).start(), Node(lab, "b", ORIGINAL).start()
        a.join()
        b.join()
        a.wait_peer(b)
        b.wait_peer(a)
        relays["10.50.0.2"].wait_text(r"mesh with 10\.50\.0\.3:\d+: connected", timeout=15)

        def crosses():
            return a.cli("ping", "-c", "1", "--until-direct=false", "--timeout=1s", b.ip(), check=False).returncode == 0
        wait_for("the mesh carries packets", crosses, timeout=15)
        pair_over_relay(a, b, "lab")
        pair_over_relay(b, a, "lab")
        assert "that is this server itself" in relays["10.50.0.2"].text()
        # The original goes and comes back: flood of PeerPresent and forwards anew.
        relays["10.50.0.3"].stop()
        relays["10.50.0.3"] = relay("10.50.0.3")
        wait_for("the mesh heals", crosses, timeout=25)
        pair_over_relay(b, a, "lab")


@pytest.mark.parametrize("binaries", [OURS, ORIGINAL], ids=["ours", "original"])
def test_only_nodes_of_the_local_daemon_are_admitted(binaries):
    with flat("verify", "a", "b") as lab:
        port, node = DERP_PORT + 1, lab.node("a", binaries)
        # The relay is there first: nobody gets in until the daemon beside it answers.
        log = lab.derper(space="a", host="10.50.3.1", args=["-verify-clients", "-socket", node.socket], port=port, stun=STUN_PORT + 1)
        check = [OURS / "derper", "-check", f"10.50.3.1:{port}", "-stun=false"]
        refused = lab.run("b", check, check=False)
        assert refused.returncode == 1 and "it admits only nodes it knows" in refused.stdout, refused.stdout
        log.wait_text(r"rejected: failed to query local tailscaled status for nodekey:[0-9a-f]{64}: ")
        lab.control(derp_map=lab.derp_regions([lab.derp_node(host="10.50.3.1", DERPPort=port, STUNPort=STUN_PORT + 1)]))
        node.start()
        node.join()
        wait_for("the member is in", lambda: metric(lab, port, "a")["derp_clients_local"] == 1, timeout=15)
        assert lab.run("b", check, check=False).returncode == 1
        log.wait_text(r"client nodekey:[0-9a-f]{64} rejected: peer nodekey:[0-9a-f]{64} not authorized \(not found in local tailscaled\)")
        assert metric(lab, port, "a")["derp_clients_local"] == 1


ATTACK = r'''
import os, random, socket, ssl, struct, sys, time
address, count, seed = ("10.50.0.2", int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
r = random.Random(seed)
context = ssl._create_unverified_context()
upgrade = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
websocket = (b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: derp\r\n\r\n")
def tls(s):
    s.settimeout(20)
    return context.wrap_socket(s)
def garbage(s): s.sendall(r.randbytes(r.randrange(1, 3000)))
def half_hello(s): s.sendall(bytes.fromhex("16030100c8010000c40303") + r.randbytes(20))
def silent(s): pass
def slow_head(s):
    t = tls(s); t.sendall(b"GET /derp HT"); return t
def half_upgrade(s):
    t = tls(s); t.sendall(upgrade[:-2]); return t
def no_login(s):
    t = tls(s); t.sendall(upgrade); return t
def giant(s):
    t = tls(s); t.sendall(upgrade + b"\x02" + struct.pack(">I", 0x7fffffff) + b"x" * 5000); return t
def long_head(s):
    t = tls(s); t.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 60000); return t
def bad_box(s):
    t = tls(s); t.sendall(upgrade + b"\x02" + struct.pack(">I", 200) + r.randbytes(200)); return t
def bad_websocket(s):
    t = tls(s); t.sendall(websocket + r.randbytes(300)); return t
def reset(s):
    t = tls(s); t.sendall(upgrade); s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); t.close(); return t
kinds = [garbage, half_hello, silent, slow_head, half_upgrade, no_login, giant, long_head, bad_box, bad_websocket, reset]
held = []
for i in range(count):
    try:
        s = socket.create_connection(address, timeout=20)
        held.append(s)
        held.append(kinds[i % len(kinds)](s))
    except OSError:
        pass
print("attached", flush=True)
sys.stdin.read()
os._exit(0)
'''


def test_five_hundred_hostile_connections_do_not_hurt_an_honest_pair():
    with flat("siege", "a", "b", "evil") as lab:
        derper = bare_derper(lab)
        lab.control(derp_map=printed_map(derper))
        a, b = lab.node("a").start(), lab.node("b").start()
        a.join()
        b.join()
        a.wait_peer(b)
        b.wait_peer(a)
        pair_over_relay(a, b, "custom")
        before = metric(lab)
        script = lab.dir / "attack.py"
        script.write_text(ATTACK)
        with contextlib.ExitStack() as stack:
            attackers = [stack.enter_context(subprocess.Popen(lab.argv("evil", ["python3", script, DERP_PORT, 100, seed]),
                                                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
                         for seed in range(5)]
            run = a.ping_through(b.ip(), count=200, interval=0.02)
            for p in attackers:
                assert p.stdout.readline() == "attached\n"
            run.finish()
            assert run.lost <= 2, run.process.text()
            during = metric(lab)
            assert during["derper_tcp_accepted"] - before["derper_tcp_accepted"] >= 500
            assert during["derp_clients_local"] == before["derp_clients_local"]
            for p in attackers:
                p.stdin.close()
        wait_for("descriptors return", lambda: metric(lab)["process_open_fds"] <= before["process_open_fds"] + 2, timeout=15, interval=0.2)
        after = metric(lab)
        assert after["process_resident_memory_bytes"] < before["process_resident_memory_bytes"] + 20e6, (before, after)
        pair_over_relay(a, b, "custom")
        assert derper.stop() == 0
