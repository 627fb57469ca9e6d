# SPDX-License-Identifier: BSD-3-Clause
"""What goes wrong in the field: one clear line, an exit code that is not 0, and nothing lost."""
import json
import shutil
import signal
import subprocess

import pytest
from lab import CONTROL_PORT, DERP_PORT, OURS, Lab, wait_for

TIMEOUT = 'timeout waiting for Tailscale service to enter a Running state; check health with "tailscale status"\n'
KEY = "--auth-key=right"


@pytest.fixture(scope="module")
def lab():
    with Lab("errors") as lab:
        lab.flat()
        lab.derper()
        lab.control(["--auth-key", "right"])
        lab.page("srv", port=8081)
        yield lab


@pytest.fixture
def host(lab):
    """A fresh host per test, with a node that is not started."""
    name = f"h{lab.flat_hosts + 1}"
    address = lab.on_core(name)
    node = lab.node(name)
    node.address = address
    node.free = lab.host_state(name)
    yield node
    if node.daemon and node.daemon.popen.poll() is None:
        node.stop()


@pytest.fixture(scope="module")
def other(lab):
    """A running peer to talk to."""
    name = f"h{lab.flat_hosts + 1}"
    lab.on_core(name)
    node = lab.node(name).start()
    node.join(KEY, "--advertise-routes=192.168.77.0/24")
    yield node
    node.stop()


def answers(node, other):
    return node.lab.run(node.space, ["ping", "-c", "1", "-W", "1", other.ip()], check=False).returncode == 0


# joining --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["up", "login"])
def test_an_interrupted_wait_ends_in_one_line(host, command, sig):
    host.start()
    cli = host.lab.start(host.space, [host.cli_path, f"--socket={host.socket}", command, "--login-server=http://10.50.0.2:9"],
                         label=f"interrupted-{host.lab.count}")
    wait_for("the daemon tries", lambda: "10.50.0.2:9" in host.daemon.text())
    assert cli.stop(sig) == 1
    assert cli.text() == "context canceled\n"


def test_https_for_a_plain_server_and_the_other_way_round(host):
    host.start()
    for scheme, other_scheme, port in (("https", "http", CONTROL_PORT), ("http", "https", DERP_PORT)):
        done = host.cli("up", f"--login-server={scheme}://10.50.0.2:{port}", KEY, "--timeout=2s", check=False)
        assert done.returncode == 1 and f"use --login-server={other_scheme}://10.50.0.2:{port}" in done.stderr, done.stderr


def test_a_login_that_is_over_before_up_asks_for_it_is_not_begun_again(host):
    host.start()

    def post(what, body=""):
        host.lab.run(host.space, ["curl", "-sS", "-f", "--unix-socket", host.socket, "-d", body, f"http://local-tailscaled.sock/localapi/v0/{what}"])
    # The two calls of `up`, the second one late.
    post("start", json.dumps({"AuthKey": "right", "UpdatePrefs": {"ControlURL": host.lab.url, "WantRunning": True, "NetfilterMode": 2}}))
    wait_for("running", lambda: host.status()["BackendState"] == "Running")
    post("login-interactive")
    # Had a login without a key begun, its end would be told first.
    host.lab.tell_control(f"/lab/expire?id={host.status()['Self']['ID']}")
    wait_for("expired", lambda: host.status()["BackendState"] == "NeedsLogin")
    assert "login refused" not in host.daemon.text() and "login page" not in host.daemon.text(), host.daemon.text()
    assert host.up(KEY).returncode == 0


def test_a_wrong_auth_key_is_refused_in_one_line_and_the_right_one_still_works(host):
    host.start()
    machine_key = json.loads((host.dir / "tailscaled.state").read_text())["_machinekey"]
    bad = host.up("--auth-key=wrong", check=False)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("backend error: ") and bad.stderr.count("\n") == 1, bad.stderr
    assert host.status()["BackendState"] == "NeedsLogin"
    host.join(KEY)
    assert host.status()["BackendState"] == "Running"
    assert json.loads((host.dir / "tailscaled.state").read_text())["_machinekey"] == machine_key


def test_a_wrong_auth_key_on_a_running_node_changes_nothing(host, other):
    host.start().join(KEY)
    before = host.status()["Self"]
    host.up("--auth-key=wrong", check=False)
    wait_for("still running", lambda: host.status()["BackendState"] == "Running")
    after = host.status()["Self"]
    assert (after["PublicKey"], after["TailscaleIPs"]) == (before["PublicKey"], before["TailscaleIPs"])
    assert answers(host, other)


def test_an_expired_key_is_replaced_by_up_with_a_key_and_by_a_person(host, other):
    host.start().join(KEY)
    node = host.status()["Self"]
    for way in (KEY, "--timeout=20s"):
        host.lab.tell_control(f"/lab/expire?id={host.status()['Self']['ID']}")
        wait_for("the daemon knows", lambda: host.status()["BackendState"] == "NeedsLogin")
        assert host.cli("status", check=False).stdout == "Logged out.\n"
        if way == KEY:
            host.up(way)
        else:
            up = host.lab.start(host.space, [host.cli_path, f"--socket={host.socket}", "up", f"--login-server={host.lab.url}", "--accept-dns=false", way],
                                label="visit")
            url = up.wait_text(r"\nTo authenticate, visit:\n\n\t(http://\S+)\n\n").group(1)
            assert host.lab.fetch("srv", url).returncode == 0
            assert up.popen.wait(10) == 0 and "\n\nSuccess.\n" in up.text()
            assert host.status()["Self"]["PublicKey"] != node["PublicKey"]
        assert host.status()["BackendState"] == "Running"
        assert host.cli("ping", "--until-direct=false", "-c", "1", other.ip()).returncode == 0


def test_a_node_that_was_deleted_comes_back_by_up_with_a_key(host, other):
    """The server keeps its stream open, so nothing is noticed until the node says something."""
    host.start().join(KEY)
    host.lab.tell_control(f"/lab/remove?id={host.status()['Self']['ID']}")
    wait_for("it is gone for others", lambda: not any(p["HostName"] == host.space for p in (other.status()["Peer"] or {}).values()))
    assert host.status()["BackendState"] == "Running"
    assert host.up(KEY).returncode == 0
    wait_for("it is there for others", lambda: any(p["HostName"] == host.space and p["Online"] for p in (other.status()["Peer"] or {}).values()))
    wait_for("running again", lambda: host.status()["BackendState"] == "Running")
    wait_for("traffic", lambda: answers(host, other))


def test_a_node_that_was_deleted_says_so_when_somebody_asks(host):
    host.start().join(KEY)
    host.lab.tell_control(f"/lab/remove?id={host.status()['Self']['ID']}")
    host.cli("set", "--hostname=another")
    wait_for("it is told", lambda: host.status()["BackendState"] == "NeedsLogin")
    assert "this node is not known to the server any more" in host.daemon.text()


@pytest.mark.parametrize("url,why", [
    ("http://10.50.0.2:9", "Connection refused"),
    ("http://10.50.0.2:8081", "is not a control server"),
    (f"https://10.50.0.2:{CONTROL_PORT}", "nothing on this port speaks TLS"),
    ("http://nowhere.invalid:8080", "nowhere.invalid"),
])
def test_a_server_that_does_not_serve_is_told_and_another_one_can_be_tried(host, url, why):
    host.start()
    up = host.cli("up", f"--login-server={url}", "--timeout=1s", KEY, check=False)
    assert (up.returncode, up.stdout) == (1, "") and up.stderr.endswith(TIMEOUT) and why in up.stderr, up
    assert up.stderr.count("\n") == 2, up.stderr
    assert any(why in text for text in host.status()["Health"]), host.status()["Health"]
    assert host.up("--reset", "--timeout=5s", KEY).returncode == 0
    assert not any("coordination server" in text for text in host.status()["Health"])


def test_a_server_that_never_answers_is_told(host):
    host.start()
    host.lab.run(host.space, "iptables -A OUTPUT -p tcp --dport 8080 -j DROP")
    up = host.up("--timeout=1s", KEY, check=False)
    assert up.returncode == 1 and up.stderr.endswith(TIMEOUT) and up.stderr.count("\n") <= 2, up


def test_https_control_on_an_odd_port_needs_a_trusted_certificate(host):
    cert, key = host.lab.certificate()
    control = host.lab.control(["--tls-cert", cert, "--tls-key", key], listen="10.50.0.2:30000")
    url = "--login-server=https://10.50.0.2:30000"
    host.start()
    up = host.cli("up", url, "--timeout=1s", check=False)
    assert up.returncode == 1 and up.stderr.endswith(TIMEOUT) and "self-signed" in up.stderr, up
    assert any("self-signed" in text and "10.50.0.2:30000" in text for text in host.status()["Health"]), host.status()["Health"]
    assert "self-signed" in host.daemon.text()
    host.stop()
    host.env = {"SSL_CERT_FILE": str(cert)}
    host.start()
    assert host.cli("up", url, "--timeout=5s", "--reset").returncode == 0
    assert host.status()["BackendState"] == "Running"
    host.stop()
    control.stop()


def test_an_auth_key_is_read_from_a_file_and_a_missing_file_is_told(host):
    host.start()
    missing = host.up("--auth-key=file:/nowhere/key", check=False)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1) and "/nowhere/key" in missing.stderr, missing.stderr
    path = host.dir / "key"
    path.write_text("  right\n")
    assert host.up(f"--auth-key=file:{path}", "--timeout=5s").returncode == 0


@pytest.mark.parametrize("flag", ["--auth-key=right-and-secret", "--authkey=right-and-secret", "--auth-key right-and-secret"])
def test_an_auth_key_cannot_be_read_from_the_process_list(host, flag):
    host.start()
    up = host.lab.start(host.space, [host.cli_path, f"--socket={host.socket}", "up", "--login-server=http://10.50.0.2:9", *flag.split()])
    wait_for("the daemon was told to join", lambda: host.status()["BackendState"] == "NeedsLogin" and "10.50.0.2:9" in host.daemon.text())
    with open(f"/proc/{up.popen.pid}/cmdline", "rb") as f:
        argv = f.read()
    assert up.popen.poll() is None and b"--login-server" in argv and b"secret" not in argv, argv
    up.stop(signal.SIGINT)
    assert up.popen.returncode != 0 and "secret" not in host.daemon.text() + up.text()


def test_commands_without_a_daemon_say_so(host):
    for command in (["up"], ["status"], ["ping", "1.2.3.4"]):
        done = host.cli(*command, check=False)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done
        assert done.stderr.startswith("failed to connect to local tailscaled"), done


def test_a_user_may_look_but_not_change(host):
    host.lab.dir.chmod(0o711)
    host.dir.chmod(0o711)
    tool = host.lab.dir / "tailscale"
    if not tool.exists():
        shutil.copy(OURS / "tailscale", tool)
    host.start().join(KEY)

    def user(*args):
        return host.lab.run(host.space, ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", tool, f"--socket={host.socket}",
                                         *args], check=False)
    assert host.ip() in user("status").stdout and user("ip", "-4").stdout.strip() == host.ip()
    for args in (["down"], ["set", "--hostname=evil"], ["up"], ["logout"]):
        done = user(*args)
        assert done.returncode == 1 and "ccess denied" in done.stderr and "Use 'sudo tailscale " in done.stderr, done
    assert host.status()["BackendState"] == "Running" and host.status()["Self"]["HostName"] == host.name
    assert (host.dir / "tailscaled.state").stat().st_mode & 0o777 == 0o600
    api = "http://local-tailscaled.sock/localapi/v0/prefs"
    patch = host.lab.run(host.space, ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-s", "-w", "%{http_code}",
                                      "--unix-socket", host.socket, "-X", "PATCH", "-d", "{}", api])
    assert patch.stdout == "prefs write access denied\n403"
    for header in ("Origin: http://evil.example", "Referer: http://evil.example", "Host: evil.example"):
        page = host.lab.run(host.space, ["curl", "-s", "-w", "%{http_code}", "--unix-socket", host.socket, "-H", header, api])
        assert page.stdout == "invalid localapi request\n403", header


# starting -------------------------------------------------------------------------------------------------------------
def test_no_tunnel_device_on_this_machine(host):
    code, lines = host.refuses(wrap=["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"])
    assert code == 1 and len(lines) == 1 and "/dev/net/tun" in lines[0], lines
    assert host.lab.host_state(host.space) == host.free and not host.socket.exists()


def test_not_root(host):
    host.lab.dir.chmod(0o711)
    program = host.lab.dir / "tailscaled"
    shutil.copy(OURS / "tailscaled", program)
    shutil.chown(host.dir, 65534, 65534)
    host.binaries = host.lab.dir
    code, lines = host.refuses(wrap=["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"])
    assert code == 1 and len(lines) == 1 and "ermi" in lines[0] and "root" in lines[0], lines
    assert host.lab.host_state(host.space) == host.free


def test_the_tunnel_name_is_held_by_another_process(host):
    script = ("import fcntl,struct,time; f=open('/dev/net/tun','r+b',0); "
              "fcntl.ioctl(f,0x400454ca,struct.pack('16sH22x',b'tailscale0',0x1001)); print('held',flush=True); time.sleep(60)")
    holder = host.lab.start(host.space, ["python3", "-c", script])
    holder.wait_text("held")
    before = host.lab.host_state(host.space)
    code, lines = host.refuses()
    assert code == 1 and len(lines) == 1 and "tailscale0" in lines[0], lines
    assert host.lab.host_state(host.space) == before
    holder.stop(signal.SIGKILL)


def test_a_link_of_that_name_that_is_no_tunnel(host):
    host.lab.run(host.space, "ip link add tailscale0 type bridge")
    before = host.lab.host_state(host.space)
    code, lines = host.refuses()
    assert code == 1 and len(lines) == 1 and "tailscale0" in lines[0], lines
    assert host.lab.host_state(host.space) == before


def test_a_stray_word_is_refused_in_one_line(host):
    code, lines = host.refuses("stray")
    assert code == 1 and len(lines) == 1 and 'tailscaled does not take non-flag arguments: ["stray"]' in lines[0], lines


def test_both_generations_of_the_state_are_damaged(host):
    for name in ("", ".prev"):
        (host.dir / f"tailscaled.state{name}").write_text("damaged")
    code, lines = host.refuses()
    assert code == 1 and len(lines) == 1 and str(host.dir) in lines[0] and "damaged" in lines[0], lines
    assert all((host.dir / f"tailscaled.state{name}").read_text() == "damaged" for name in ("", ".prev"))
    assert host.lab.host_state(host.space) == host.free


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros"])
def test_only_the_current_state_is_damaged(host, damage):
    """Right after the first login, the youngest that a state can be."""
    host.start().join(KEY)
    before = host.status()["Self"]
    host.stop(signal.SIGKILL)
    path = host.dir / "tailscaled.state"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:len(content) // 2], "empty": b"", "zeros": bytes(len(content))}[damage])
    host.start()
    wait_for("running again", lambda: host.status()["BackendState"] == "Running")
    after = host.status()["Self"]
    assert (after["PublicKey"], after["TailscaleIPs"]) == (before["PublicKey"], before["TailscaleIPs"])
    assert "damaged" in host.daemon.text()
    # The next change writes a sound pair again.
    host.cli("set", f"--hostname={host.name}-new")
    for name in ("", ".prev"):
        json.loads((host.dir / f"tailscaled.state{name}").read_text())


def test_a_second_daemon_on_the_socket_touches_nothing_of_the_first(host, other):
    host.start().join(KEY, "--accept-routes")
    host.wait_peer(other)
    wait_for("traffic", lambda: answers(host, other))
    wait_for("the route", lambda: "192.168.77.0/24" in host.lab.run(host.space, "ip route show table 52").stdout)
    before = host.lab.host_state(host.space)
    run = host.ping_through(other.ip(), count=40, interval=0.02)
    second = host.lab.node(host.space, name=f"{host.name}-second", tun="ts9", port=41999)
    second.socket = host.socket
    for args in ([], ["--tun=tailscale0"]):
        code, lines = second.refuses(*args)
        assert code == 1 and len(lines) == 1 and f"{host.socket}: address already in use" in lines[0], lines
        assert host.lab.host_state(host.space) == before
    assert host.socket.exists() and host.status()["BackendState"] == "Running"
    cleanup = host.lab.run(host.space, [OURS / "tailscaled", "--cleanup", f"--socket={host.socket}"], check=False)
    assert cleanup.returncode == 1 and str(host.socket) in cleanup.stderr and cleanup.stderr.count("\n") == 1, cleanup.stderr
    assert host.lab.host_state(host.space) == before
    assert run.finish().lost == 0, run.process.text()


def test_a_taken_udp_port_is_replaced_and_told(host, other):
    holder = host.lab.start(host.space, ["python3", "-c", "import socket,time; s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); "
                                         "s.bind(('::',41641)); print('held',flush=True); time.sleep(60)"])
    holder.wait_text("held")
    host.start().join(KEY)
    assert "41641 is taken" in host.daemon.text()
    assert any("41641 is taken" in text for text in host.status()["Health"])
    assert "41641 is taken" in host.cli("status").stdout
    wait_for("traffic", lambda: answers(host, other))
    holder.stop(signal.SIGKILL)


# after the worst ------------------------------------------------------------------------------------------------------
def test_cleanup_after_a_kill_leaves_the_host_as_it_was(host, other):
    host.start().join(KEY, "--accept-routes", "--advertise-routes=192.168.78.0/24")
    host.wait_peer(other)
    wait_for("the route", lambda: "192.168.77.0/24" in host.lab.run(host.space, "ip route show table 52").stdout)
    host.stop(signal.SIGKILL)
    assert host.lab.host_state(host.space) != host.free
    for _ in range(2):
        done = host.lab.run(host.space, [OURS / "tailscaled", "--cleanup", f"--socket={host.socket}"])
        assert done.returncode == 0
        assert host.lab.host_state(host.space) == host.free


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_end_leaves_the_host_as_it_was_also_beside_rules_of_others(host, other, sig):
    own = ["ip rule add pref 5000 from 203.0.113.0/24 lookup 77", "ip route add 198.51.100.0/24 dev eth0 table 77",
           "iptables -A INPUT -s 203.0.113.0/24 -j DROP", "iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE",
           "nft add table inet mine"]
    for command in own:
        host.lab.run(host.space, command)
    before = host.lab.host_state(host.space)
    host.start().join(KEY, "--accept-routes", "--advertise-routes=192.168.78.0/24")
    wait_for("the route", lambda: "192.168.77.0/24" in host.lab.run(host.space, "ip route show table 52").stdout)
    assert host.stop(sig) == 0
    assert host.lab.host_state(host.space) == before


def test_kill_during_traffic_and_restart_resumes(host, other):
    host.start().join(KEY)
    host.wait_peer(other)
    wait_for("traffic", lambda: answers(host, other))
    key = host.status()["Self"]["PublicKey"]
    run = other.ping_through(host.ip(), count=60, interval=0.1)
    wait_for("answers", lambda: len(run.answers()) > 5)
    host.stop(signal.SIGKILL)
    host.start()
    run.finish()
    assert run.longest_gap < 3, run.process.text()
    assert host.status()["Self"]["PublicKey"] == key


def test_a_restart_while_the_server_is_away_keeps_the_login(host, other):
    host.start().join(KEY)
    key = host.status()["Self"]["PublicKey"]
    host.lab.run(host.space, f"iptables -I OUTPUT -p tcp --dport {CONTROL_PORT} -j REJECT --reject-with tcp-reset")
    host.stop()
    host.start()
    assert host.status()["BackendState"] in ("Starting", "NoState", "Running")
    host.lab.run(host.space, f"iptables -D OUTPUT -p tcp --dport {CONTROL_PORT} -j REJECT --reject-with tcp-reset")
    wait_for("running", lambda: host.status()["BackendState"] == "Running", timeout=15)
    assert host.status()["Self"]["PublicKey"] == key
    wait_for("traffic", lambda: answers(host, other))


@pytest.mark.parametrize("command", ["serve 3000", "funnel 443", "ssh a", "web", "update", "configure kubeconfig x", "drive list", "service list", "lock init",
                                     "systray", "id-token x", "completion powershell", "nosuch"])
def test_commands_that_are_not_here_say_so_in_one_line(command):
    done = subprocess.run([OURS / "tailscale", *command.split()], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done
    assert command.split()[0] in done.stderr


def test_the_shell_completes_commands_and_flags():
    script = subprocess.run([OURS / "tailscale", "completion", "bash"], capture_output=True, text=True, check=True).stdout

    def complete(*words):
        ask = f"{script}\nCOMP_WORDS=({OURS}/tailscale {' '.join(words)}) COMP_CWORD={len(words)}; _tailscale; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    assert complete("sta") == ["status"]
    assert complete("up", "--acc") == ["--accept-dns", "--accept-risk", "--accept-routes"]
    assert complete("--socket", "/x", "stat") == ["status"]
