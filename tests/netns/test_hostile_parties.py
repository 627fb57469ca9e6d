# SPDX-License-Identifier: BSD-3-Clause
"""Parties of the network that mean harm: control server, relay, local user. What they send is refused, bounded or escaped, and said."""
import json
import os
import pathlib
import re
import struct
import sys
import time

import pytest
from lab import DERP_PORT, Lab, wait_for
from probes import StatusWatch, ask, rss_kib

ATTACKER = pathlib.Path(__file__).with_name("attacker.py")
EVIL = "\x1b[2J\x1b]0;owned\x07../../../etc/cron.d/x\r\n\u202e"
NOBODY = 65534


@pytest.fixture(scope="module")
def lab():
    with Lab("parties") as lab:
        lab.flat("a", "b", "c")
        lab.derper()
        lab.control()
        lab.a, lab.b, lab.c = (lab.node(n).start() for n in "abc")
        for node in (lab.c, lab.b, lab.a):
            node.join("--accept-routes")
        lab.a.wait_peer(lab.b)
        lab.a.wait_peer(lab.c)
        lab.a.ping_through(lab.b.ip(), count=3, interval=0.1).finish()
        for folder in (lab.dir, lab.a.dir):  # local users other than root can reach the socket, as they can in /run
            folder.chmod(0o711)
        yield lab


def told(node):
    """The peers as the control server described them to this node, by address."""
    return {a.split("/")[0]: n for n in json.loads(node.cli("debug", "netmap").stdout)["Peers"] for a in n["Addresses"]}


def peer_message(lab, node, **changes):
    """The peer `node` as lab.a knows it, with changes."""
    n = told(lab.a)[node.ip()]
    n.update(changes)
    return n


def again(lab):
    """The server's own map once more."""
    lab.tell_control("/lab/drop")
    wait_for("the first map again", lambda: lab.a.peer(lab.b.ip()) and lab.a.peer(lab.c.ip()))


def routes(lab):
    return lab.run("a", "ip route show table 52").stdout


def control_bytes(text):
    return sorted({c for c in text if ord(c) < 0x20 and c not in "\n\t" or 0x7f <= ord(c) < 0xa0})


def test_control_overlapping_addresses_go_to_their_owner(lab):
    run = lab.a.ping_through(lab.b.ip(), count=30, interval=0.05)
    thief = peer_message(lab, lab.c)
    thief["AllowedIPs"] = [*thief["AllowedIPs"], f"{lab.b.ip()}/32", f"{lab.a.ip()}/32"]
    lab.tell_nodes({"PeersChanged": [thief]})
    wait_for("it is said", lambda: f"The route {lab.b.ip()}/32 is offered by more than one node" in str(lab.a.status().get("Health")))
    assert run.finish().lost == 0, run.process.text()
    assert f"{lab.a.ip()}" not in routes(lab)
    again(lab)


def test_control_a_default_route_nobody_asked_for(lab):
    before = lab.run("a", "ip route get 198.51.100.1", check=False)
    gate = peer_message(lab, lab.c)
    gate["AllowedIPs"] = [*gate["AllowedIPs"], "0.0.0.0/0", "::/0"]
    lab.tell_nodes({"PeersChanged": [gate]})
    wait_for("it is offered, not used", lambda: lab.a.peer(lab.c.ip())["ExitNodeOption"])
    assert not lab.a.peer(lab.c.ip())["ExitNode"]
    assert "default" not in routes(lab) and "default" not in lab.run("a", "ip -6 route show table 52").stdout
    after = lab.run("a", "ip route get 198.51.100.1", check=False)
    assert (after.returncode, after.stdout) == (before.returncode, before.stdout)
    again(lab)


def test_control_a_million_routes(lab):
    greedy = []
    for index, node in enumerate((lab.b, lab.c)):
        n = peer_message(lab, node)
        n["AllowedIPs"] = [*n["AllowedIPs"], *(f"{11 + index * 100 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.0/24" for i in range(500_000))]
        greedy.append(n)
    before = rss_kib(lab.a.daemon)
    run = lab.a.ping_through(lab.b.ip(), count=100, interval=0.05)
    with StatusWatch(lab.a) as watch:
        lab.tell_nodes({"PeersChanged": greedy})
        wait_for("the bound is said", lambda: re.search(r"routes|left out an entry|too large|too many", lab.a.daemon.text()), timeout=30)
        run.finish()
    count = len(routes(lab).splitlines())
    print(f"\n{count} routes in the kernel; memory {before} -> {rss_kib(lab.a.daemon)} KiB; status {watch}; {run.lost} pings lost")
    assert count <= 16384 + 10
    assert rss_kib(lab.a.daemon) - before < 64 * 1024
    assert run.lost <= 2, run.process.text()
    watch.check()
    again(lab)
    wait_for("they are gone again", lambda: len(routes(lab).splitlines()) < 10, timeout=30)


def test_control_names_with_escapes_and_paths(lab):
    files = {p.name for p in lab.a.dir.iterdir()}
    evil = peer_message(lab, lab.c, Name=EVIL + ".")
    evil["Hostinfo"] = {**(evil.get("Hostinfo") or {}), "Hostname": EVIL, "OS": EVIL, "Services": [{"Proto": EVIL, "Port": 1, "Description": EVIL}]}
    lab.tell_nodes({"PeersChanged": [evil], "Domain": EVIL, "Health": [EVIL],
               "UserProfiles": [{"ID": 1, "LoginName": EVIL, "DisplayName": EVIL}],
               "DisplayMessages": {EVIL: {"Title": EVIL, "Text": EVIL, "Severity": "high", "PrimaryAction": {"URL": "javascript:x", "Label": EVIL}}}})
    wait_for("the name arrived", lambda: "etc/cron.d" in lab.a.cli("status", "--json").stdout)
    for command in ("status", "status --json", "ip", f"whois {lab.c.ip()}", f"ping -c 1 --timeout=1s {lab.c.ip()}", "exit-node list", "debug paths",
                    "debug metrics", "debug prefs", "debug netmap", "bugreport", "netcheck", "get"):
        done = lab.a.cli(*command.split(), check=False, timeout=20)
        assert not control_bytes(done.stdout + done.stderr), f"{command}: {control_bytes(done.stdout + done.stderr)}"
        assert "\u202e" not in done.stdout or "json" in command or "debug" in command or command == "bugreport", command
    json.loads(lab.a.cli("status", "--json").stdout)
    assert not control_bytes(lab.a.daemon.text())
    assert {p.name for p in lab.a.dir.iterdir()} == files and not pathlib.Path("/etc/cron.d/x").exists()
    again(lab)


def zstd_bomb(gib):
    """A zstd frame of RLE blocks: 4 bytes for each 128 KiB."""
    count = gib * 8192
    blocks = b"".join(struct.pack("<I", (i == count - 1) | 1 << 1 | 131072 << 3)[:3] + b" " for i in range(count))
    frame = b"\x28\xb5\x2f\xfd\x00\x38" + blocks
    return struct.pack("<I", len(frame)) + frame


def test_control_a_compressed_bomb(lab):
    before = rss_kib(lab.a.daemon)
    said = lab.a.daemon.text().count("control: map of")
    run = lab.a.ping_through(lab.b.ip(), count=40, interval=0.05)
    with StatusWatch(lab.a) as watch:
        lab.tell_nodes(zstd_bomb(4), how="frame")
        wait_for("it is said", lambda: lab.a.daemon.text().count("control: map of") > said)
        run.finish()
    wait_for("connected again", lambda: lab.a.status()["Self"]["Online"] and lab.a.peer(lab.b.ip()))
    after = rss_kib(lab.a.daemon)
    line = [x for x in lab.a.daemon.text().splitlines() if "control: map of" in x][-1]
    print(f"\n{line}; memory {before} -> {after} KiB; status {watch}")
    assert after - before < 16 * 1024
    assert run.lost == 0, run.process.text()
    watch.check()


def test_control_deltas_that_contradict(lab):
    ids = {n: told(lab.a)[n.ip()]["ID"] for n in (lab.b, lab.c)}
    b, c = peer_message(lab, lab.b), peer_message(lab, lab.c)
    lab.tell_nodes({"PeersRemoved": [ids[lab.c], ids[lab.c], 99, -1], "PeersChanged": [c, b, c],
               "PeersChangedPatch": [{"NodeID": 99, "Online": True}, {"NodeID": ids[lab.c], "Key": "nodekey:zz"}],
               "OnlineChange": {str(ids[lab.c]): True, "98": False, "x": True}})
    lab.tell_nodes({"PeersRemoved": [ids[lab.c]]})
    wait_for("the peer is gone", lambda: not lab.a.peer(lab.c.ip()))
    lab.tell_nodes({"PeersChangedPatch": [{"NodeID": ids[lab.c], "Online": True, "DERPRegion": 900}], "PeersRemoved": [ids[lab.c]]})
    run = lab.a.ping_through(lab.b.ip(), count=10, interval=0.05).finish()
    assert run.lost == 0 and not lab.a.peer(lab.c.ip())
    assert lab.c.ip() not in routes(lab)
    again(lab)
    assert lab.a.ping_through(lab.c.ip(), count=10, interval=0.1).finish().lost <= 2


@pytest.mark.parametrize("url", ["javascript:alert(1)//", "file:///etc/passwd?", "https://x\x1b[2J/"], ids=["javascript", "file", "escape"])
def test_control_a_login_address_that_is_none(url):
    with Lab("url") as lab:
        lab.flat("a")
        lab.derper()
        lab.control(["--require-login", "--public-url", url])
        a = lab.node("a").start()
        done = a.up("--timeout=5s", check=False)
        assert done.returncode == 1 and "not a web address" in done.stderr, done.stderr
        for text in (done.stdout, done.stderr, a.daemon.text(), a.cli("status", check=False).stdout):
            assert url[:12] not in text.replace(f"--public-url {url}", "") and not control_bytes(text), text


def test_control_a_page_to_open_that_is_none(lab):
    watch = lab.start("a", [lab.a.cli_path, f"--socket={lab.a.socket}", "debug", "watch-ipn"], label=f"watch-{lab.count}")
    watch.wait_text("Connected.")
    for url in ("javascript:alert(1)", "file:///etc/passwd", "https://example.com/\x1b[2J", "https://example.com/fine"):
        lab.tell_nodes({"PopBrowserURL": url})
    wait_for("the good one is shown", lambda: "https://example.com/fine" in watch.text())
    assert not re.search(r"javascript:|file:|\\u001b|\x1b", watch.text())
    wait_for("the others are said", lambda: 'wants "javascript:alert(1)" opened' in lab.a.daemon.text())
    watch.stop()


# the relay ------------------------------------------------------------------------------------------------------------
def test_a_relay_that_drops_repeats_reorders_replays_and_lies():
    """A relay's stream in the clear passes through a program that mistreats it; no UDP between the nodes."""
    with Lab("badrelay") as lab:
        lab.flat("a", "b")
        lab.derper(tls=False)
        bad = lab.start("srv", [sys.executable, ATTACKER, "relay", f"10.50.0.2:{DERP_PORT + 1}", f"10.50.0.2:{DERP_PORT}", "3"], label="bad-relay")
        bad.wait_text("listening")
        lab.control(derp_map=lab.derp_map(DERPPort=DERP_PORT + 1))
        a, b = (lab.node(n, env={"TS_DEBUG_USE_DERP_HTTP": "1"}).start() for n in "ab")
        lab.run("a", "iptables -A OUTPUT -p udp -d 10.50.3.2 -j DROP")
        lab.run("b", "iptables -A OUTPUT -p udp -d 10.50.3.1 -j DROP")
        b.join()
        a.join()
        a.wait_peer(b)
        wait_for("a path", lambda: a.cli("ping", "-c", "1", "--timeout=2s", "--until-direct=false", b.ip(), check=False).returncode == 0, timeout=20)
        before = rss_kib(a.daemon)
        with StatusWatch(a) as watch:
            run = a.ping_through(b.ip(), count=200, interval=0.05).finish()
        drops = dict(re.findall(r"(\w+)\W+(\d+)", a.cli("debug", "drops").stdout))
        bad.stop()
        print(f"\n{bad.text().splitlines()[-1]}; {run.lost} of {run.count} pings lost; memory {before} -> {rss_kib(a.daemon)} KiB; "
              f"status {watch}; drops { {k: v for k, v in drops.items() if v != '0'} }")
        assert "DUP!" not in run.process.text(), "no packet is delivered twice"
        assert int(drops["wg_replayed"]) > 20, f"repeats and replays are counted: {drops}"
        assert run.count // 4 < len(run.answers()) < run.count, "what it lets through arrives, a PeerGone is not believed"
        assert rss_kib(a.daemon) - before < 4096
        watch.check()


def test_a_relay_that_hangs_up_after_each_login():
    with Lab("hangup") as lab:
        lab.flat("a")
        lab.derper(tls=False)
        bad = lab.start("srv", [sys.executable, ATTACKER, "relay", f"10.50.0.2:{DERP_PORT + 1}", f"10.50.0.2:{DERP_PORT}", "hangup"], label="bad-relay")
        bad.wait_text("listening")
        lab.control(derp_map=lab.derp_map(DERPPort=DERP_PORT + 1))
        a = lab.node("a", env={"TS_DEBUG_USE_DERP_HTTP": "1"}).start()
        a.join()
        wait_for("several logins", lambda: a.daemon.text().count("derp-900 connected") >= 5, timeout=20)
        began, before = time.monotonic(), a.daemon.text().count("derp-900 connected")
        time.sleep(3)
        rate = (a.daemon.text().count("derp-900 connected") - before) / (time.monotonic() - began)
        bad.stop()
        print(f"\n{bad.text().splitlines()[-1]}; {rate:.1f} logins a second")
        assert rate < 3, "the node does not hammer at it"
        assert "derp-900 lost" in a.daemon.text()


# a peer ---------------------------------------------------------------------------------------------------------------
def test_a_peer_that_sends_from_the_address_of_another(lab):
    """b takes c's address for itself: its own daemon may stop that, and a's must."""
    sender = "import socket,struct,sys\n" \
             "s=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_RAW)\n" \
             "s.setsockopt(socket.SOL_SOCKET,socket.SO_BINDTODEVICE,b'tailscale0')\n" \
             "src,dst=map(socket.inet_aton,sys.argv[1:3])\n" \
             "for n in range(50): s.sendto(struct.pack('!BBHHHBBH4s4sHHHH',0x45,0,36,n,0,64,17,0,src,dst,9,9,16,0)+b'spoofed!',(sys.argv[2],0))\n"
    heard = lab.start("a", [sys.executable, "-c", "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('',9))\n"
                            "print('ready',flush=True)\nwhile 1: print(s.recvfrom(99),flush=True)"], label="heard")
    heard.wait_text("ready")

    def count(node):
        return sum(int(v) for k, v in re.findall(r"(\w+)\W+(\d+)", node.cli("debug", "drops").stdout) if "source" in k or "src" in k)

    before = count(lab.a) + count(lab.b)
    assert lab.b.ping_through(lab.a.ip(), count=3, interval=0.1).finish().lost == 0
    lab.run("b", [sys.executable, "-c", sender, lab.c.ip(), lab.a.ip()])
    wait_for("all are counted", lambda: count(lab.a) + count(lab.b) >= before + 50)
    lab.run("b", [sys.executable, "-c", sender, lab.b.ip(), lab.a.ip()])
    wait_for("its own address is fine", lambda: lab.b.ip() in heard.text())
    assert lab.c.ip() not in heard.text()
    heard.stop()


# a local user ---------------------------------------------------------------------------------------------------------
def as_user(lab, *args, uid=NOBODY):
    return lab.run("a", ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", lab.a.cli_path, f"--socket={lab.a.socket}", *args],
                   check=False, timeout=20)


def test_a_local_user_may_look_but_not_touch_unless_operator(lab):
    prefs = lab.a.cli("debug", "prefs").stdout
    for words in ("status", "status --json", "ip", "netcheck", "debug prefs", f"whois {lab.b.ip()}", f"ping -c 1 {lab.b.ip()}", "get"):
        done = as_user(lab, *words.split())
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    for words in ("set --hostname=x", "down", "logout", f"up --reset --login-server={lab.url} --hostname=x", f"login --login-server={lab.url}", "set --operator=nobody",
                  "debug restun", "debug rebind"):
        done = as_user(lab, *words.split())
        assert done.returncode != 0 and "ccess denied" in done.stderr, f"{words}: {done.returncode} {done.stdout}{done.stderr}"
    assert lab.a.cli("debug", "prefs").stdout == prefs and lab.a.status()["BackendState"] == "Running"
    lab.a.cli("set", f"--operator={NOBODY}" if not os.path.exists("/etc/passwd") else "--operator=nobody")
    try:
        assert as_user(lab, "set", "--hostname=operated").returncode == 0
        assert '"Hostname": "operated"' in lab.a.cli("debug", "prefs").stdout
        assert as_user(lab, "set", "--hostname=y", uid=12345).returncode != 0, "the operator only"
    finally:
        lab.a.cli("set", "--operator=", "--hostname=")


def test_a_local_user_cannot_read_state_or_memory(lab):
    pid = lab.a.daemon.popen.pid
    for path in (lab.a.dir / "tailscaled.state", f"/proc/{pid}/environ", f"/proc/{pid}/mem", f"/proc/{pid}/maps"):
        done = lab.run("a", ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "cat", path], check=False)
        assert done.returncode != 0 and not done.stdout, path
    status, _, _ = ask(lab.a, "status")
    assert status == 200
