# SPDX-License-Identifier: BSD-3-Clause
"""What is left when the daemon is killed at any moment, and when its disk is full or read-only."""
import random
import signal
import subprocess
import time

import pytest
from lab import Lab, wait_for
from probes import ask, keys_of, read_state

KEY = "crash-test-key"


def kill_rounds(rounds, seed):
    rnd = random.Random(seed)
    slowest, after_logout, killed_in, plans = 0.0, 0, {}, []
    with Lab("crash") as lab:
        lab.flat("node")
        lab.derper()
        lab.control(["--auth-key", KEY])
        node = lab.node("node").start()
        node.up(f"--auth-key={KEY}")
        for number in range(rounds):
            before = keys_of(node)
            if not plans:
                up = ["up", f"--login-server={lab.url}", "--accept-dns=false", f"--auth-key={KEY}", "--reset"]
                plans = [up, [*up, "--force-reauth"], ["set", f"--hostname=name{number}"], ["set", "--accept-routes"], ["down"],
                         ["logout"], ["logout"]]
                rnd.shuffle(plans)
            action, *args = plans.pop()
            where = f"round {number} of seed {seed}, {action}"
            cli = lab.start("node", [node.cli_path, f"--socket={node.socket}", action, *args], label=f"cli-{number}")
            # Process start included: the daemon works between about 20 and 120 ms from here.
            time.sleep(rnd.uniform(0.0, 0.15))
            node.stop(signal.SIGKILL)
            cli.popen.wait(20)
            for name in ("tailscaled.state", "tailscaled.state.prev"):
                if (node.dir / name).exists():
                    read_state(node, name)
            begin = time.monotonic()
            node.start()
            status, _, _ = ask(node, "status")
            took = time.monotonic() - begin
            slowest = max(slowest, took)
            assert status == 200 and took < 1.0, f"{where}: {took:.2f} s from start to status"
            now = keys_of(node)
            assert now["machine"] == before["machine"], where
            killed_in[action] = killed_in.get(action, 0) + 1
            if action == "logout":
                after_logout += "PrivateNodeKey" not in now
            elif "--force-reauth" not in args and before.get("PrivateNodeKey"):
                assert now.get("PrivateNodeKey") == before["PrivateNodeKey"], where
                assert now["disco"] == before["disco"], where
            if "PrivateNodeKey" not in now or rnd.random() < 0.2:
                node.up(f"--auth-key={KEY}", "--reset", timeout=20)
                assert node.status()["BackendState"] == "Running", where
        node.up(f"--auth-key={KEY}", "--reset", timeout=20)
        assert node.stop() == 0
        log = "".join(p.text() for p in lab.processes if "tailscaled-node" in p.log.name)
        assert "damaged" not in log
    print(f"{rounds} kills {killed_in}, slowest start to status {slowest * 1000:.0f} ms, {after_logout} logouts were complete")


def test_killed_at_any_moment_it_keeps_its_identity():
    kill_rounds(15, seed=7)


@pytest.mark.full
def test_killed_two_hundred_times_it_keeps_its_identity():
    kill_rounds(200, seed=random.SystemRandom().randrange(1 << 30))


@pytest.fixture(scope="module")
def small_disk():
    """Two nodes; the first one's state lies on a file system of 64 KiB."""
    with Lab("disk") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        a, b = lab.node("a"), lab.node("b").start()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", a.dir], check=True)
        a.start()
        b.join()
        a.join()
        a.wait_peer(b)
        lab.a, lab.b = a, b
        yield lab
        a.stop()
        subprocess.run(["umount", a.dir], check=False)


def said(node, text):
    return text in node.daemon.text() and any(text in line for line in node.status()["Health"])


def data_flows(lab):
    run = lab.a.ping_through(lab.b.ip(), count=20, interval=0.05)
    return run


def test_a_full_disk_is_said_and_traffic_goes_on(small_disk):
    lab, a = small_disk, small_disk.a
    before = keys_of(a)
    filler = a.dir / "filler"
    with open(filler, "wb", buffering=0) as f:
        try:
            while f.write(b"x" * 4096):
                pass
        except OSError:
            pass
    run = data_flows(lab)
    a.cli("set", "--hostname=full")
    wait_for("the full disk is said", lambda: said(a, "No space left on device"))
    assert run.finish().lost == 0, run.process.text()
    assert keys_of(a) == before
    # A start from what is there, disk still full.
    a.stop(signal.SIGKILL)
    a.start()
    wait_for("it is back", lambda: a.status()["BackendState"] == "Running")
    assert keys_of(a) == before
    filler.unlink()
    a.cli("set", "--hostname=roomy")
    assert not any("No space left" in line for line in a.status()["Health"])
    assert '"Hostname":"roomy"' in str(read_state(a))


def test_a_read_only_disk_is_said_and_traffic_goes_on(small_disk):
    lab, a = small_disk, small_disk.a
    before = keys_of(a)
    subprocess.run(["mount", "-o", "remount,ro", a.dir], check=True)
    try:
        run = data_flows(lab)
        a.cli("set", "--hostname=readonly")
        wait_for("the read-only disk is said", lambda: said(a, "Read-only file system"))
        assert run.finish().lost == 0, run.process.text()
        assert keys_of(a) == before
    finally:
        subprocess.run(["mount", "-o", "remount,rw", a.dir], check=True)
    a.cli("set", "--hostname=writable")
    assert not any("Read-only" in line for line in a.status()["Health"])
    assert '"Hostname":"writable"' in str(read_state(a))
