# SPDX-License-Identifier: BSD-3-Clause
"""The service: units, scripts, the container's entry point, and a daemon within the walls of its unit."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from lab import OURS, ROOT, Lab, wait_for

PACKAGING = ROOT / "packaging"
SCRIPTS = ["container/entrypoint.sh", "openrc/tailscaled.initd", "openwrt/tailscaled.init", "debian/postinst", "debian/prerm", "debian/postrm"]


def tool(name):
    if not shutil.which(name):
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing")
        pytest.skip(f"{name} is not installed")
    return name


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_clean(script):
    done = subprocess.run([tool("shellcheck"), PACKAGING / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_units_are_right_and_hardened(tmp_path):
    tool("systemd-analyze")
    for name in ("tailscaled", "derper", "tailscale-wait-online"):
        unit = tmp_path / f"{name}.service"
        text = (PACKAGING / "systemd" / unit.name).read_text()
        for program in ("tailscaled", "tailscale", "derper"):
            text = re.sub(rf"/usr/s?bin/{program}\b", str(OURS / program), text)
        unit.write_text(text)
    for name, exposure in (("tailscaled", 30), ("derper", 20)):  # tenths
        unit = tmp_path / f"{name}.service"
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if name in line]
        assert done.returncode == 0 and not said, done.stderr
        done = subprocess.run(["systemd-analyze", "security", "--offline=true", f"--threshold={exposure}", "--no-pager", unit], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_cmake_install(tmp_path):
    for component in ("tailmesh", "derper"):
        subprocess.run(["cmake", "--install", OURS.parent, "--prefix", "/usr", "--component", component], check=True, capture_output=True,
                       env={**os.environ, "DESTDIR": str(tmp_path)})
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {"usr/bin/tailscale", "usr/sbin/tailscaled", "usr/sbin/derper", "usr/lib/systemd/system/tailscaled.service",
            "usr/lib/systemd/system/derper.service", "etc/default/tailscaled", "etc/default/derper"} <= files, files
    assert not any(f.endswith((".a", ".h", "_test")) for f in files), files


def test_the_daemon_needs_no_more_than_its_unit_gives():
    """The capabilities of the unit; reading only outside of its folders is not tried here."""
    unit = (PACKAGING / "systemd/tailscaled.service").read_text()
    names = re.search(r"^CapabilityBoundingSet=(.+)$", unit, re.M).group(1).lower().replace("cap_", "+").split()
    with Lab("walls") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        before = lab.host_state("a")
        a, b = lab.node("a"), lab.node("b").start()
        a.start(wrap=["setpriv", "--bounding-set=-all," + ",".join(names), "--inh-caps=-all", "--no-new-privs"])
        a.join()
        b.join()
        a.wait_peer(b)
        wait_for("traffic", lambda: a.ping_through(b.ip(), count=1).finish().lost == 0)
        assert not a.status()["Health"]
        assert "-A ts-input -i tailscale0 -j ACCEPT" in lab.run("a", "iptables-save").stdout
        assert a.stop() == 0
        assert lab.host_state("a") == before


def test_wait_ends_when_the_addresses_are_there():
    with Lab("wait") as lab:
        lab.flat("a")
        lab.derper()
        lab.control()
        a = lab.node("a").start()
        early = a.cli("wait", "--timeout=1s", check=False)
        assert early.returncode == 1 and early.stderr
        waiting = lab.start("a", [a.cli_path, f"--socket={a.socket}", "wait", "--timeout=30s"], label="wait")
        a.join()
        assert waiting.popen.wait(10) == 0


@pytest.fixture
def container():
    with Lab("container") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control(["--auth-key", "container-key"])
        lab.before = lab.host_state("a")
        b = lab.node("b").start()
        b.join("--auth-key=container-key")

        def start(**variables):
            env = {"PATH": f"{OURS}:{os.environ['PATH']}", "TS_EXTRA_ARGS": f"--login-server={lab.url}", **variables}
            command = ["sh", PACKAGING / "container/entrypoint.sh"]
            if root := os.environ.get("CONTAINER_ROOT"):  # the image's files (tests/packaging/container.sh), sharing /tmp with the test
                env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                mounts = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && mount --bind /tmp "$0/tmp" && exec chroot "$0" /usr/local/bin/entrypoint'
                command = ["sh", "-c", mounts, root]
            return lab.start("a", command, label="entrypoint", env=env)
        lab.entry, lab.b = start, b
        yield lab


def test_the_containers_variables(container):
    lab = container
    state, socket = lab.dir / "state", lab.dir / "run" / "tailscaled.sock"
    variables = {"TS_AUTHKEY": "container-key", "TS_HOSTNAME": "box", "TS_ROUTES": "192.0.2.0/24", "TS_STATE_DIR": str(state), "TS_SOCKET": str(socket)}
    entry = lab.entry(**variables)
    entry.wait_text("entrypoint: running", timeout=30)
    node = lab.node("a", name="box")
    node.socket = socket
    status = node.status()
    assert status["Self"]["HostName"] == "box" and status["BackendState"] == "Running"
    assert "192.0.2.0/24" in node.cli("debug", "prefs").stdout
    assert lab.run("a", "sysctl -n net.ipv4.ip_forward").stdout == "1\n"
    lines = [p.read_bytes().decode(errors="replace") for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not any("container-key" in line for line in lines if "lab-control" not in line)
    key = status["Self"]["PublicKey"]
    assert entry.stop() == 0
    after = lab.host_state("a")
    assert "tailscale0" not in str(after) and "ts-" not in str(after)
    # The second start knows the node: no key, a setting less.
    entry = lab.entry(**{**variables, "TS_AUTHKEY": "", "TS_AUTH_ONCE": "true", "TS_ROUTES": ""})
    wait_for("running again", lambda: "running" in entry.text().split("shutting down")[-1])
    assert node.status()["Self"]["PublicKey"] == key
    assert "192.0.2.0/24" not in node.cli("debug", "prefs").stdout
    assert entry.stop() == 0


def test_a_refused_key_ends_the_container(container):
    entry = container.entry(TS_AUTHKEY="wrong")
    assert entry.popen.wait(30) == 1
    assert "tailscale0" not in str(container.host_state("a"))
