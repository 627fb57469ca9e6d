# SPDX-License-Identifier: BSD-3-Clause
"""The relay as people run it: from nothing but an address, in a mesh with original derpers, with admission, and under attack."""
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest
from lab import DERP_PORT, ORIGINAL, OURS, STUN_PORT, Lab, Node, wait_for

MESH_KEY = "5f" * 32
HERE = pathlib.Path(__file__).resolve().parent


@contextlib.contextmanager
def flat(name, *hosts):
    """Hosts beside the server that hear UDP from the server only: everything between them is relayed."""
    with Lab(name) as lab:
        lab.flat(*hosts)
        lab.relayed_only(*hosts)
        yield lab


def bare_derper(lab, *args, space="srv", label="derper-bare", port=DERP_PORT):
    """`derper` without host name or certificates; home and state in the lab's folder. With several loops, whatever this machine has."""
    home = lab.dir / label
    p = lab.start(space, [OURS / "derper", "-a", f":{port}", "-certmode", "self-signed", "-stun-port", STUN_PORT, "-http-port", "-1", "-c", home / "derper.key", "-threads", 3, *args],
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


def test_files_of_the_operator_are_judged_at_start_and_renewed_without_dropping_anybody():
    with Lab("files") as lab:
        lab.flat()
        d = lab.authority("IP:10.50.0.2", "IP:10.50.0.3", "DNS:relay.example")
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
        d = lab.authority("IP:10.50.0.2", "IP:10.50.0.3", "DNS:relay.example")
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
                                  "-mesh-with", ",".join(f"{h}:{DERP_PORT}" for h in hosts),
                                  *(["-threads", 3] if hosts[host] == OURS / "derper" else [])], label=f"derper-{host}-{lab.count}", env=env)
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
        # The daemon is killed, its socket file stays: closed while nobody answers there, open again for its nodes afterwards.
        node.stop(signal.SIGKILL)
        wait_for("the member is out", lambda: metric(lab, port, "a")["derp_clients_local"] == 0)
        assert node.socket.exists()
        refused = lab.run("b", check, check=False)
        assert refused.returncode == 1 and "it admits only nodes it knows" in refused.stdout, refused.stdout
        node.start()
        wait_for("the member is in again", lambda: metric(lab, port, "a")["derp_clients_local"] == 1, timeout=15)


def sources(lab, host, count):
    """More addresses for a host, so that no limit of one address protects the relay; returns them."""
    found = [f"10.50.66.{i}" for i in range(1, count + 1)]
    for a in found:
        lab.run(host, f"ip addr add {a}/16 dev eth0")
    return found


def siege(lab, *args, nice=0):
    return subprocess.Popen(lab.argv("evil", ["nice", "-n", nice, "python3", HERE / "siege.py", "10.50.0.2", DERP_PORT, *args]),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_five_hundred_hostile_connections_do_not_hurt_an_honest_pair():
    with flat("siege", "a", "b", "evil") as lab:
        derper = bare_derper(lab)
        lab.control(derp_map=printed_map(derper))
        a, b = lab.pair("a", "b")
        b.wait_peer(a)
        pair_over_relay(a, b, "custom")
        before = metric(lab)
        from_ = sources(lab, "evil", 5)
        with contextlib.ExitStack() as stack:
            attackers = [stack.enter_context(siege(lab, 100, seed, 0, *from_)) for seed in range(5)]
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


HOLDER = """
import os, signal, socket, sys
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("::", int(sys.argv[1]))); s.listen(100); os.dup2(s.fileno(), 9)
def start(*_):
    child = os.fork()
    if child: return child
    os.dup2(9, 3, inheritable=True)
    os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "derp"})
child = start()
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
print("ended with", os.waitpid(child, 0)[1], flush=True)
child = start()
os.waitpid(child, 0)
"""


def test_a_restart_behind_a_socket_of_the_service_manager():
    """The relay gets its port passed, says when it is up and when it goes, goes on SIGTERM in peace, and its next run finds the
    clients of the last."""
    with flat("held", "a", "b") as lab, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        home = lab.dir / "held"
        manager.bind(str(lab.dir / "notify"))
        manager.settimeout(10)
        holder = lab.start("srv", ["python3", "-c", HOLDER, DERP_PORT, OURS / "derper", "-certmode", "self-signed", "-stun-port", STUN_PORT,
                                   "-http-port", "-1", "-c", home / "derper.key", "-certdir", home / "certs"],
                           env={"HOME": str(home), "NOTIFY_SOCKET": str(lab.dir / "notify")})
        # Whoever waits for that finds the entry for Headscale.
        assert manager.recv(100) == b"READY=1" and (home / "certs" / "derp.yaml").exists()
        holder.wait_text(rf"socket \[::\]:{DERP_PORT} comes from the service manager(.|\n)*serving on :{DERP_PORT} with TLS")
        lab.control(derp_map=printed_map(holder))
        a, b = lab.node("a").start(), lab.node("b", ORIGINAL).start()
        for n in (a, b):
            n.join()
        a.wait_peer(b)
        b.wait_peer(a)
        pair_over_relay(a, b, "custom")
        carried = metric(lab)["derp_packets_sent"]
        holder.popen.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        # Connections are taken by the kernel meanwhile: the question is answered by the next run.
        assert metric(lab)["derp_packets_sent"] < carried
        holder.wait_text(r"ended with 0\n")
        wait_for("both are back", lambda: metric(lab)["derp_clients_local"] == 2, timeout=20, interval=0.1)
        pair_over_relay(a, b, "custom")
        assert holder.stop() == 0


def test_a_low_port_without_root():
    with Lab("low") as lab:
        lab.flat()
        home = lab.dir / "nobody"
        home.mkdir()
        os.chown(home, 65534, 65534)
        os.chmod(lab.dir, 0o755)
        command = [OURS / "derper", "-stun=false", "-http-port", "-1", "-c", home / "key", "-certdir", home / "certs"]
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        refused = lab.run("srv", [*nobody, *command], check=False, timeout=10)
        assert refused.returncode == 1 and "CAP_NET_BIND_SERVICE" in refused.stderr, refused.stderr
        capable = [*nobody, "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
        p = lab.start("srv", [*capable, *command])
        p.wait_text("serving on :443 with TLS")
        assert lab.listening("srv", 443)
        assert p.stop() == 0


@pytest.mark.full
def test_a_siege_of_twenty_minutes():
    """Thousands of hostile connections, key collisions, clients killed in the middle: an honest pair keeps four fifths of its
    goodput, and everything returns to the start. SIEGE_SECONDS changes the length."""
    seconds = int(os.environ.get("SIEGE_SECONDS", "1200"))
    with flat("siege", "a", "b", "evil") as lab:
        derper = bare_derper(lab)
        lab.control(derp_map=printed_map(derper))
        a, b = lab.pair("a", "b")
        b.wait_peer(a)
        pair_over_relay(a, b, "custom")
        lab.start("b", ["iperf3", "-s"])
        wait_for("iperf3 listens", lambda: lab.listening("b", 5201))

        def goodput(length):
            """Mbit/s of one TCP connection that would like to have 20."""
            done = lab.run("a", ["iperf3", "-c", b.ip(), "-t", length, "-b", "20M", "-J"], timeout=length + 60)
            return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e6
        quiet = goodput(10)
        wait_for("warm", lambda: lab.run("srv", ["nice", OURS / "derp_load", "idle", "10.50.0.2", DERP_PORT, "--clients", 300], input="").returncode == 0)
        wait_for("quiet again", lambda: metric(lab)["derp_clients_local"] == 2, timeout=15)
        time.sleep(16)  # the relay looks every 15 s whether memory can go back
        before = metric(lab)
        from_ = sources(lab, "evil", 20)
        during = []
        with contextlib.ExitStack() as stack:
            attackers = [stack.enter_context(siege(lab, 1000, seed, seconds, *from_, nice=19)) for seed in range(5)]
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                # Fifty connections with one key, killed a moment later, beside the rest.
                with subprocess.Popen(lab.argv("evil", ["nice", "-n", 19, OURS / "derp_load", "idle", "10.50.0.2", DERP_PORT, "--clients", 50, "--same-key"]),
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as twins:
                    twins.stdout.readline()
                    during.append(goodput(10))
                    twins.kill()
            seen = metric(lab)
            print(f"quiet {quiet:.2f} Mbit/s; under siege {min(during):.2f}..{max(during):.2f}, mean {sum(during) / len(during):.2f} of {len(during)}")
            opened = sum(int(p.communicate(timeout=120)[0].split()[-1]) for p in attackers)
        print(f"{opened} hostile connections; before, under siege: "
              f"{ {k: (before[k], v) for k, v in seen.items() if 'tcp' in k or 'process' in k} }")
        assert opened >= 5000 and sum(during) / len(during) >= 0.8 * quiet, (quiet, during)
        wait_for("descriptors return", lambda: metric(lab)["process_open_fds"] <= before["process_open_fds"] + 2, timeout=45, interval=0.5)
        wait_for("memory returns", lambda: metric(lab)["process_resident_memory_bytes"] <= before["process_resident_memory_bytes"] + 8e6,
                 timeout=45, interval=1)
        after = metric(lab)
        print("after:", {k: after[k] for k in ("process_open_fds", "process_resident_memory_bytes")})
        assert after["derp_clients_local"] == 2
        pair_over_relay(a, b, "custom")
        assert derper.stop() == 0
