# SPDX-License-Identifier: BSD-3-Clause
"""Every way to reach a relay, with ours and the original's on either end: original nodes on our relay, ours on the original's,
and the original's own prober. One lab; between the cases only the relay map changes, as when an operator replaces a relay."""
import json
import re
import urllib.parse

import pytest
from lab import DERP_PORT, ORIGINAL, OURS, STUN_PORT, Lab, wait_for

NAME, V4, V6 = "relay.lab.test", "10.50.0.2", "2001:db8:50::2"
KINDS = ["name", "address", "insecure", "pinned", "v6", "proxy"]
PROXY = """
global
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    option forwardfor
frontend relay
    bind {address}:{port} ssl crt {pem}
    default_backend derper
backend derper
    server one 127.0.0.1:{inner}
"""
# Says yes to everybody and writes down who asks from where.
ADMISSION = ("import http.server,json,sys\n"
             "class H(http.server.BaseHTTPRequestHandler):\n"
             "    def do_POST(self):\n"
             "        print(json.loads(self.rfile.read(int(self.headers['Content-Length'])))['Source'], flush=True)\n"
             "        self.send_response(200); self.end_headers(); self.wfile.write(b'{\"Allow\":true}')\n"
             "    def log_message(self, *a): pass\n"
             "http.server.HTTPServer(('127.0.0.1', 9000), H).serve_forever()\n")


@pytest.fixture(scope="module")
def matrix():
    with Lab("matrix") as lab:
        hosts = ("o1", "o2", "u1", "u2")
        lab.flat(*hosts)
        lab.hosts[NAME] = V4
        lab.run("srv", f"ip addr add {V6}/64 dev eth0 nodad")
        for n, host in enumerate(hosts):
            lab.run(host, f"ip addr add 2001:db8:50::3:{n}/64 dev eth0 nodad")
            lab.run(host, f"ip6tables -t raw -A PREROUTING -i eth0 -p udp ! -s {V6} -j DROP")
        lab.relayed_only(*hosts)
        lab.ca = lab.authority(f"DNS:{NAME}", "DNS:relay1.lab.test", "DNS:relay2.lab.test", f"IP:{V4}", f"IP:{V6}")
        lab.env = {"SSL_CERT_FILE": str(lab.ca / "root.crt")}
        lab.regions = 900
        # The original does not get through `up` without any relay.
        first, node = start_relay(lab, "insecure", OURS)
        lab.control(derp_map=regions("first", node))
        lab.nodes = {h: lab.node(h, ORIGINAL if h[0] == "o" else OURS, env=lab.env).start() for h in hosts}
        for n in lab.nodes.values():
            n.join()
        for p in first:
            p.stop()
        yield lab


def regions(code, *nodes):
    n = nodes[0]["RegionID"]
    return {"Regions": {str(n): {"RegionID": n, "RegionCode": code, "RegionName": code, "Nodes": nodes}}}


def start_relay(lab, kind, binary):
    """Returns the processes and the node of the relay map."""
    lab.regions += 1
    n, processes = lab.regions, []
    certs = lab.dir / f"certs-{n}"
    certs.mkdir()
    own = {"pinned": V4, "insecure": V4, "v6": V6}.get(kind)
    host = own or {"name": NAME, "address": V4, "proxy": NAME}[kind]
    if not own:
        (certs / f"{host}.crt").write_bytes((lab.ca / "fullchain.pem").read_bytes())
        (certs / f"{host}.key").write_bytes((lab.ca / "leaf.key").read_bytes())
    secure = ["-a", f":{DERP_PORT}", "-hostname", host, "-certmode", "manual", "-certdir", certs]
    if kind == "proxy":
        secure = ["-a", ":3340"]  # plain HTTP; STUN beside it
        if binary == OURS:
            processes.append(lab.start("srv", ["python3", "-c", ADMISSION], label=f"admission-{n}"))
            wait_for("the admission controller", lambda: lab.listening("srv", 9000))
            secure += ["-trusted-proxies", "127.0.0.1", "-verify-client-url", "http://127.0.0.1:9000/", "-verify-client-url-fail-open=false"]
        pem = lab.dir / f"proxy-{n}.pem"
        pem.write_text((lab.ca / "fullchain.pem").read_text() + (lab.ca / "leaf.key").read_text())
        config = lab.dir / f"proxy-{n}.cfg"
        config.write_text(PROXY.format(address=V4, port=DERP_PORT, pem=pem, inner=3340))
        processes.append(lab.start("srv", ["haproxy", "-db", "-f", config], label=f"haproxy-{n}"))
    # The same flags for both programs.
    processes.append(lab.start("srv", [binary / "derper", *secure, "-http-port", "-1", "-stun-port", STUN_PORT, "-c", lab.dir / f"{n}.key"], env=lab.env,
                               label=f"derper-{kind}-{n}"))
    wait_for("the relay listens", lambda: lab.listening("srv", DERP_PORT) and (kind != "proxy" or lab.listening("srv", 3340)))
    node = {"Name": f"{n}a", "RegionID": n, "HostName": host, "IPv4": "none" if kind == "v6" else V4, "IPv6": V6 if kind == "v6" else "none",
            "DERPPort": DERP_PORT, "STUNPort": STUN_PORT}
    if kind == "insecure":
        node["InsecureForTests"] = True
    if kind in ("pinned", "v6"):
        shown = wait_for("the hash", lambda: re.search(r'"CertName":"(sha256-raw:[0-9a-f]{64})"', processes[-1].text()))
        node["CertName"] = shown.group(1)
    return processes, node


def use(lab, code, node):
    """Everybody gets a map with this relay only, and is at home there in the end."""
    path = lab.dir / f"map-{code}.json"
    path.write_text(json.dumps(regions(code, node)))
    lab.run("srv", ["curl", "-fsS", "-X", "POST", f"{lab.url}/lab/derp-map?file={urllib.parse.quote(str(path))}"])

    def at_home(n):
        if n.status()["Self"]["Relay"] == code:
            return True
        if n.binaries == ORIGINAL:
            n.cli("debug", "restun")  # it would look around again in half a minute
        return False
    for n in lab.nodes.values():
        wait_for(f"{n.name} is at home there", lambda n=n: at_home(n), timeout=40, interval=1)
    return path


def meets(a, b, code):
    wait_for(f"{a.name} knows where {b.name} is", lambda: (a.peer(b.ip()) or {}).get("Relay") == code, timeout=15)
    # The originals drop what comes before they know the other's keys; what counts is the relay after that.
    wait_for("first contact", lambda: a.ping_through(b.ip(), count=2, interval=0.2).finish().lost == 0, timeout=20)
    run = a.ping_through(b.ip(), count=10, interval=0.02).finish()
    assert run.lost == 0, run.process.text()
    assert f"via DERP({code})" in a.cli("ping", "-c", "1", "--until-direct=false", b.ip()).stdout
    assert not a.direct(b.ip())


CASES = [(kind, binary) for binary in (OURS, ORIGINAL) for kind in KINDS]
QUICK = [("name", OURS), ("pinned", OURS), ("v6", OURS), ("proxy", OURS), ("pinned", ORIGINAL)]


@pytest.mark.parametrize("kind,binary", [pytest.param(kind, binary, id=f"{kind}-on-{'ours' if binary == OURS else 'the-originals'}",
                                                      marks=[] if (kind, binary) in QUICK else pytest.mark.full) for kind, binary in CASES])
def test_pairs_meet(matrix, kind, binary):
    processes, node = start_relay(matrix, kind, binary)
    try:
        code = f"{kind}{node['RegionID']}"
        use(matrix, code, node)
        o1, o2, u1, u2 = matrix.nodes.values()
        pairs = [(o1, o2), (u1, o1)] if binary == OURS else [(u1, u2), (o1, u1)]
        for a, b in pairs:
            meets(a, b, code)
        if kind == "proxy" and binary == OURS:
            # What the proxy says about its clients is believed.
            assert set(processes[0].text().split()) == {f"10.50.3.{i}" for i in (1, 2, 3, 4)}
    finally:
        for p in processes:
            p.stop()


def test_the_originals_prober_is_content(matrix):
    """TLS, STUN, packets between nodes of a region over the mesh link, bandwidth and queuing delay."""
    key = matrix.dir / "mesh.key"
    key.write_text("5f" * 32 + "\n")
    certs = matrix.dir / "certs-probe"
    certs.mkdir()
    ports = {"relay1.lab.test": DERP_PORT, "relay2.lab.test": DERP_PORT + 1}
    matrix.hosts.update({host: V4 for host in ports})
    relays, nodes = [], []
    for host in ports:
        (certs / f"{host}.crt").write_bytes((matrix.ca / "fullchain.pem").read_bytes())
        (certs / f"{host}.key").write_bytes((matrix.ca / "leaf.key").read_bytes())
    for n, (host, port) in enumerate(ports.items()):
        relays.append(matrix.start("srv", [OURS / "derper", "-a", f":{port}", "-hostname", host, "-certmode", "manual", "-certdir", certs,
                                           "-http-port", "-1", "-stun-port", STUN_PORT + n, "-c", matrix.dir / f"probe-{n}.key", "-mesh-psk-file",
                                           key, "-mesh-with", ",".join(f"{h}:{p}" for h, p in ports.items())], env=matrix.env, label=f"probed-{n}"))
        nodes.append({"Name": f"99{n}", "RegionID": 990, "HostName": host, "IPv4": V4, "IPv6": V6, "DERPPort": port, "STUNPort": STUN_PORT + n})
    for r in relays:
        r.wait_text(r"mesh with relay\d.lab.test:\d+: connected", timeout=15)
    path = matrix.dir / "map-probe.json"
    path.write_text(json.dumps(regions("probe", *nodes)))
    probe = matrix.start("o1", [ORIGINAL / "derpprobe", "-once", "-spread=false", "-derp-map", f"file://{path}", "-mesh-psk-file", key,
                                "-bw-interval", "15s", "-bw-probe-size-bytes", "10000000"], env=matrix.env, label="derpprobe")
    probe.popen.wait(90)
    good, bad = re.findall(r"good: (\S+): ", probe.text()), re.findall(r"bad: .*", probe.text())
    assert probe.popen.returncode == 0 and not bad, probe.text()
    for what in ("990/tls", "991/udp", "991/udp6", "990/991/mesh", "991/990/mesh", "990/991/bw", "991/991/bw"):
        assert f"derp/probe/{what}" in good, (what, good)
    for r in relays:
        assert r.stop() == 0
