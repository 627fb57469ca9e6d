# SPDX-License-Identifier: BSD-3-Clause
"""Userspace networking: a node without TUN and without root beside one with both.

    alan 192.168.66.2 --- a (uid 65534, --tun=userspace-networking, SOCKS5 and HTTP proxy on 127.0.0.1:1055)
                          |  core
    blan 192.168.55.2 --- b (TUN, root)
"""
import hashlib
import os
import re

import pytest
from http_from import curl, web
from lab import Lab, wait_for

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
PROXY = "127.0.0.1:1055"
# Who asked, and how many bytes.
UDP_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    data, who = s.recvfrom(65536)
    s.sendto(f"{who[0]} ".encode().ljust(16) + data, who)
"""
UDP_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect((sys.argv[1], int(sys.argv[2])))
for i in range(5):
    s.send(b"x" * int(sys.argv[3]))
    try:
        data = s.recv(65536)
    except TimeoutError:
        continue
    print(data[:16].decode().strip(), len(data) - 16)
    break
"""

# A name or IPv4 address by UDP ASSOCIATE: who asked, how many bytes came back, from which port.
UDP_BY_SOCKS = """
import socket, struct, sys
tcp = socket.create_connection(("127.0.0.1", 1055), timeout=5)
tcp.sendall(bytes.fromhex("050100"))
assert tcp.recv(2) == bytes.fromhex("0500")
tcp.sendall(bytes.fromhex("05030001000000000000"))
reply = tcp.recv(64)
assert reply[:4] == bytes.fromhex("05000001"), reply
relay = (socket.inet_ntoa(reply[4:8]), struct.unpack("!H", reply[8:10])[0])
host, port = sys.argv[1], int(sys.argv[2])
try:
    where = bytes([1]) + socket.inet_aton(host)
except OSError:
    where = bytes([3, len(host)]) + host.encode()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(1)
for i in range(5):
    udp.sendto(bytes(3) + where + struct.pack("!H", port) + b"x" * 400, relay)
    try:
        data = udp.recv(65536)
    except TimeoutError:
        continue
    assert data[:4] == bytes([0, 0, 0, 1]), data
    print(data[10:26].decode().strip(), len(data) - 26, struct.unpack("!H", data[8:10])[0])
    break
"""


def v6(node):
    return node.status()["TailscaleIPs"][1]


def lan(lab, host, prefix):
    lab.space(f"{host}lan")
    lab.veth(host, "lan0", f"{host}lan", "eth0")
    lab.run(host, f"ip addr add {prefix}.1/24 dev lan0")
    lab.run(f"{host}lan", f"ip addr add {prefix}.2/24 dev eth0")
    web(lab, f"{host}lan", f"{prefix}.2", 80)


@pytest.fixture(scope="module")
def net():
    with Lab("user") as lab:
        os.chmod(lab.dir, 0o711)
        lab.flat("a", "b")
        lan(lab, "a", "192.168.66")
        lan(lab, "b", "192.168.55")
        lab.run("b", "sysctl -qw net.ipv4.ip_forward=1")
        lab.derper()
        lab.control()
        lab.a, lab.b = lab.node("a", tun="userspace-networking"), lab.node("b")
        os.chown(lab.a.dir, 65534, 65534)
        lab.before = lab.host_state("a")
        lab.a.start(f"--socks5-server={PROXY}", f"--outbound-http-proxy-listen={PROXY}", wrap=NOBODY)
        lab.b.start(f"--socks5-server={PROXY}")
        lab.a.join("--accept-routes", "--advertise-routes=192.168.66.0/24")
        lab.b.join("--accept-routes", "--advertise-routes=192.168.55.0/24")
        lab.a.wait_peer(lab.b)
        lab.b.wait_peer(lab.a)
        web(lab, "a", "127.0.0.1", 8077)
        web(lab, "b", "::", 8078)
        yield lab


def test_nothing_on_the_host_changes(net):
    assert net.host_state("a") == net.before
    status = net.a.status()
    assert status["TUN"] is False and status["BackendState"] == "Running"
    assert f"pong from b ({net.b.ip()})" in net.a.cli("ping", "-c", "1", "b").stdout


@pytest.mark.parametrize("how", [["--socks5"], ["--socks5-hostname"], ["--proxy"], ["--proxytunnel", "--proxy"]])
def test_outgoing_through_the_proxy(net, how):
    for host in (net.b.ip(), f"[{v6(net.b)}]", "b"):
        if how == ["--socks5"] and host == "b":
            continue  # there curl looks the name up itself
        page = curl(net, "a", *how, PROXY, f"http://{host}:8078/").stdout
        assert "200 OK" in page and page.endswith("hello"), (how, host, page)
        assert f"X-From: {v6(net.a) if '[' in host else net.a.ip()}" in page or host == "b", page


@pytest.mark.parametrize("how", ["--socks5", "--proxy"])
def test_outgoing_to_a_subnet_and_to_the_rest_of_the_world(net, how):
    wait_for("the subnet route", lambda: "200 OK" in curl(net, "a", how, PROXY, "http://192.168.55.2/", check=False).stdout)
    assert "X-From: 192.168.55.1" in curl(net, "a", how, PROXY, "http://192.168.55.2/").stdout
    # Not in the tailnet: from the host itself.
    assert "X-From: 192.168.66.1" in curl(net, "a", how, PROXY, "http://192.168.66.2/").stdout
    # Our own address is this host.
    assert "X-From: 127.0.0.1" in curl(net, "a", how, PROXY, f"http://{net.a.ip()}:8077/").stdout


def test_the_proxy_beside_a_tun(net):
    assert f"X-From: {net.b.ip()}" in curl(net, "b", "--socks5-hostname", PROXY, f"http://{net.b.ip()}:8078/").stdout
    assert "X-From: 127.0.0.1" in curl(net, "b", "--socks5-hostname", PROXY, "http://a:8077/").stdout


def test_refusals_are_told(net):
    refused = curl(net, "a", "--socks5", PROXY, f"http://{net.b.ip()}:9/", check=False)
    assert refused.returncode == 97 and "5" in refused.stderr, refused
    refused = curl(net, "a", "--proxy", PROXY, f"http://{net.b.ip()}:9/", check=False)
    assert "502 Bad Gateway" in refused.stdout and "Tailscale-Connect-Error" in refused.stdout, refused
    assert curl(net, "a", "--socks5-hostname", PROXY, "http://nosuch.invalid/", check=False).returncode == 97


def test_incoming_reaches_programs_of_the_host(net):
    for host in (net.a.ip(), f"[{v6(net.a)}]"):
        page = curl(net, "b", f"http://{host}:8077/").stdout
        assert "200 OK" in page and "X-From: 127.0.0.1" in page, page
    # A port where nobody listens is refused at once, not left in silence.
    assert curl(net, "b", f"http://{net.a.ip()}:9/", check=False).returncode == 7


def test_subnet_router_without_forwarding(net):
    assert net.run("a", "sysctl -n net.ipv4.ip_forward").stdout == "0\n"
    page = wait_for("the route of a", lambda: curl(net, "b", "http://192.168.66.2/", check=False).stdout)
    assert "200 OK" in page and "X-From: 192.168.66.1" in page, page
    assert curl(net, "b", "http://192.168.66.2:9/", check=False).returncode == 7
    assert "forward" not in " ".join(net.a.status()["Health"] or [])


def test_udp_to_the_host_and_to_its_subnet(net):
    for space, address in (("a", "127.0.0.1"), ("alan", "192.168.66.2")):
        net.start(space, ["python3", "-c", UDP_ECHO, address, 5300], label=f"udp-{space}").wait_text("ready")
    for address, seen_as in ((net.a.ip(), "127.0.0.1"), ("192.168.66.2", "192.168.66.1")):
        for size in (1, 1200):
            said = net.run("b", ["python3", "-c", UDP_ASK, address, 5300, size]).stdout.split()
            assert said == [seen_as, str(size)], said


def test_datagrams_by_the_proxy(net):
    net.start("b", ["python3", "-c", UDP_ECHO, "0.0.0.0", 5301], label="udp-b").wait_text("ready")
    for host, port, seen_as in ((net.b.ip(), 5301, net.a.ip()), ("b", 5301, net.a.ip()), ("192.168.66.2", 5300, "192.168.66.1")):
        said = net.run("a", ["python3", "-c", UDP_BY_SOCKS, host, port]).stdout
        assert said == f"{seen_as} 400 {port}\n", (host, said)


def test_pings_to_the_node_and_behind_it(net):
    for address in (net.a.ip(), v6(net.a), "192.168.66.2"):
        assert " 0% packet loss" in net.run("b", ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", address]).stdout, address
    # Nobody there: silence, not a lie.
    assert net.run("b", ["ping", "-n", "-c", "1", "-W", "1", "192.168.66.99"], check=False).returncode == 1


def test_nc(net):
    """As ssh uses it: bytes both ways, the end of either side told to the other."""
    request = "GET / HTTP/1.0\r\n\r\n"
    for host, port, text in ((net.b.ip(), 8078, f"X-From: {net.a.ip()}"), ("b", 8078, "200 OK"), ("192.168.55.2", 80, "X-From: 192.168.55.1"),
                             ("192.168.66.2", 80, "X-From: 192.168.66.1")):
        page = net.run("a", [net.a.cli_path, f"--socket={net.a.socket}", "nc", host, port], input=request).stdout
        assert text in page and page.endswith("hello"), (host, page)
    page = net.run("b", [net.b.cli_path, f"--socket={net.b.socket}", "nc", net.a.ip(), "8077"], input=request).stdout
    assert page.endswith("hello"), page
    for node, far in ((net.a, net.b), (net.b, net.a)):
        refused = node.cli("nc", far.ip(), "9", check=False)
        assert refused.returncode == 1 and "refused" in refused.stderr, refused
    assert net.a.cli("nc", "b", "0", check=False).returncode == 1


def test_exit_node(net):
    """Internet and names by way of a node that has no rights on its host."""
    net.run("srv", "ip addr add 203.0.113.7/32 dev lo")
    net.run("a", "ip route add 203.0.113.0/24 via 10.50.0.2")
    web(net, "srv", "203.0.113.7", 80)
    net.a.cli("set", "--advertise-exit-node")
    wait_for("the offer", lambda: net.b.peer(net.a.ip()).get("ExitNodeOption"))
    net.b.cli("set", f"--exit-node={net.a.ip()}")
    try:
        page = wait_for("the internet", lambda: curl(net, "b", "http://203.0.113.7/", check=False).stdout)
        assert "200 OK" in page and "X-From: 10.50.3.1" in page, page
        port = wait_for("its PeerAPI", lambda: [w for w in re.findall(r" 127\.0\.0\.1:(\d+) ", net.run("a", "ss -ltnH").stdout) if int(w) >= 0x8000])[0]
        # A query for "a": whatever the answer is, it is one. Programs of the host itself are nobody's peers.
        query = "dns-query?dns=AAEBAAABAAAAAAAAAWEAAAEAAQ"
        assert "application/dns-message" in curl(net, "b", f"http://{net.a.ip()}:{port}/{query}").stdout
        assert "403" in curl(net, "a", f"http://127.0.0.1:{port}/{query}").stdout
    finally:
        net.b.cli("set", "--exit-node=")
        net.a.cli("set", "--advertise-exit-node=false")
        net.run("a", "ip route del 203.0.113.0/24")


def test_whois_of_a_forwarded_connection(net):
    hold = net.start("b", ["python3", "-c", "import socket, sys; s = socket.create_connection((sys.argv[1], 8077)); print('up', flush=True); sys.stdin.read()"
                           "; import time; time.sleep(60)", net.a.ip()], label="hold")
    hold.wait_text("up")
    lines = net.run("a", "ss -tnH state established sport = :8077").stdout.split()
    port = lines[-1].rsplit(":", 1)[1]
    assert net.b.ip() in net.a.cli("whois", f"127.0.0.1:{port}").stdout
    hold.popen.kill()


def test_megabytes_arrive_whole_both_ways(net):
    blob = net.dir / "blob"
    blob.write_bytes(os.urandom(8 << 20))
    want = hashlib.sha256(blob.read_bytes()).hexdigest()
    for space, args in (("a", ["--socks5", PROXY, f"http://{net.b.ip()}:8078/"]), ("b", [f"http://{net.a.ip()}:8077/"])):
        out = net.dir / f"out-{space}"
        net.run(space, ["curl", "-sS", "--max-time", "30", "-H", "Expect:", "--data-binary", f"@{blob}", "-o", out, *args])
        assert hashlib.sha256(out.read_bytes()).hexdigest() == want


def test_the_policy_counts(net):
    net.a.cli("set", "--shields-up")
    try:
        assert curl(net, "b", "--connect-timeout", "1", f"http://{net.a.ip()}:8077/", check=False).returncode != 0
        assert "200 OK" in curl(net, "a", "--socks5", PROXY, f"http://{net.b.ip()}:8078/").stdout
    finally:
        net.a.cli("set", "--shields-up=false")
    wait_for("open again", lambda: "200 OK" in curl(net, "b", f"http://{net.a.ip()}:8077/", check=False).stdout)


def test_down_closes_and_up_opens(net):
    net.a.cli("down")
    assert curl(net, "a", "--max-time", "2", "--socks5", PROXY, f"http://{net.b.ip()}:8078/", check=False).returncode != 0
    net.a.cli("up")
    wait_for("open again", lambda: "200 OK" in curl(net, "a", "--socks5", PROXY, f"http://{net.b.ip()}:8078/", check=False).stdout)


def test_it_stands_in_where_there_is_no_tun(net):
    """A list of names for --tun: the first that works. Without rights no TUN does."""
    net.space("c")
    c = net.node("c", tun="tailscale0,userspace-networking")
    os.chown(c.dir, 65534, 65534)
    c.start(wrap=NOBODY)
    assert c.status()["TUN"] is False
    assert "; trying userspace-networking" in c.daemon.text()
    c.daemon.stop()
    assert "terminated" in c.daemon.text()


def test_it_ends_in_order(net):
    net.a.daemon.stop()
    assert net.a.daemon.popen.returncode == 0
    assert net.host_state("a") == net.before
