# SPDX-License-Identifier: BSD-3-Clause
"""The wall clock of our host is set while the original, its peer, goes on: it takes a handshake only with a later stamp than any
before, and remembers. lab-clock.so (tests/lab) moves the clock of the daemon alone."""
import struct

import pytest
from lab import ORIGINAL, OURS, Lab, wait_for

HOUR, YEARS = 3600, 10 * 365 * 86400


@pytest.fixture(scope="module")
def lab():
    with Lab("clock") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        clock = lab.dir / "clock"

        def set_clock(seconds):
            with open(clock, "r+b" if clock.exists() else "wb") as f:
                f.write(struct.pack("=q", seconds))
        lab.set_clock = set_clock
        lab.set_clock(0)
        lab.a = lab.node("a", env={"LD_PRELOAD": OURS / "lab-clock.so", "LAB_CLOCK": clock}).start()
        lab.b = lab.node("b", ORIGINAL).start()
        for node in (lab.b, lab.a):
            node.join()
        lab.a.wait_peer(lab.b)
        yield lab


def answered(lab):
    """Three answers to a's own traffic, soon: its first initiation was taken."""
    run = lab.run("a", ["ping", "-n", "-i", "0.2", "-c", "3", "-w", "5", lab.b.ip()], check=False)
    assert run.returncode == 0, run.stdout


def restart(lab, stop, clock):
    if stop == "stopped":
        lab.a.stop()
    else:
        lab.a.daemon.popen.kill()
        lab.a.daemon.popen.wait()
    lab.set_clock(clock)
    lab.a.start()
    wait_for("its state", lambda: lab.a.status()["BackendState"] == "Running", timeout=60)
    answered(lab)


def test_every_restart_is_understood_whatever_the_clock_says(lab):
    answered(lab)
    restart(lab, "stopped", -HOUR)
    restart(lab, "killed", -2 * HOUR)
    restart(lab, "stopped", YEARS)
    restart(lab, "killed", 0)
    restart(lab, "killed", -HOUR)


def test_the_clock_is_set_while_the_daemon_runs(lab):
    """Handshakes come with the traffic after a peer's restart; the third one is with the clock back again."""
    for clock in (YEARS, 0, -HOUR):
        lab.set_clock(clock)
        lab.b.stop()
        lab.b.start()
        wait_for("its state", lambda: lab.b.status()["BackendState"] == "Running", timeout=60)
        answered(lab)
        assert lab.a.status()["BackendState"] == "Running"
    restart(lab, "killed", 0)
