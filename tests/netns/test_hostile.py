# SPDX-License-Identifier: BSD-3-Clause
"""Hostile bytes from the network and from local users while the tunnel is in use: it stays quick, small and up."""
import json
import pathlib
import re
import sys
import time

import pytest
from lab import Lab, wait_for
from probes import StatusWatch, rss_kib

ATTACKER = pathlib.Path(__file__).with_name("attacker.py")
MAX_GROWTH_KIB = 4096


@pytest.fixture(scope="module")
def lab():
    with Lab("hostile") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        lab.a, lab.b = lab.node("a").start(), lab.node("b").start()
        for node in (lab.b, lab.a):
            node.join()
        lab.run("a", "ip route add default via 10.50.0.2")  # where answers to invented addresses go
        lab.a.wait_peer(lab.b)
        lab.a.ping_through(lab.b.ip(), count=5, interval=0.1).finish()
        wait_for("a direct path", lambda: lab.a.direct(lab.b.ip()))
        # Local users other than root can reach the socket, as they can in /run.
        for folder in (lab.dir, lab.a.dir):
            folder.chmod(0o711)
        yield lab


def attack(lab, space, *args):
    return lab.start(space, [sys.executable, ATTACKER, *args], label=f"attack-{args[0]}-{lab.count}")



def warm_up(lab):
    """What is allocated once is there before the measurement starts."""
    with StatusWatch(lab.a):
        lab.a.ping_through(lab.b.ip(), count=20, interval=0.05).finish()
    return rss_kib(lab.a.daemon)


def report(what, watch, before, after, extra=""):
    print(f"\n{what}: status {watch}; memory {before} -> {after} KiB {extra}")


def test_twenty_thousand_hostile_datagrams(lab):
    samples = lab.dir / "samples"
    sniffer = attack(lab, "a", "capture", "eth0", "2.5", samples)
    lab.a.ping_through(lab.b.ip(), count=40, interval=0.05).finish()
    for _ in range(3):
        lab.a.cli("ping", "-c", "1", lab.b.ip(), check=False)
    lab.a.cli("debug", "restun")
    sniffer.popen.wait(10)
    netmap = lab.a.cli("debug", "netmap").stdout
    disco = re.findall(r"discokey:([0-9a-f]{64})", netmap)[-1]
    before = warm_up(lab)
    storm = attack(lab, "srv", "datagrams", "10.50.3.1:41641", "20000", "11", samples, disco, "10.50.3.2:41641")
    run = lab.a.ping_through(lab.b.ip(), count=40, interval=0.05)
    with StatusWatch(lab.a) as watch:
        storm.popen.wait(30)
    run.finish()
    after = rss_kib(lab.a.daemon)
    report(storm.text().strip() + ", " + sniffer.text().strip(), watch, before, after, f"; {run.lost} of {run.count} pings lost")
    assert "20000 datagrams" in storm.text()
    watch.check()
    assert after - before <= MAX_GROWTH_KIB
    assert run.lost <= 2, run.process.text()
    assert lab.a.alive() and lab.a.status()["BackendState"] == "Running"


@pytest.mark.parametrize("uid", ["0", "65534"])
def test_five_hundred_hostile_local_requests(lab, uid):
    before = warm_up(lab)
    settings = lab.a.cli("debug", "prefs").stdout
    run = lab.a.ping_through(lab.b.ip(), count=40, interval=0.05)
    local = attack(lab, "a", "requests", lab.a.socket, "500", "5", uid)
    with StatusWatch(lab.a) as watch:
        local.popen.wait(60)
    run.finish()
    time.sleep(0.2)
    after = rss_kib(lab.a.daemon)
    report(f"as uid {uid}: {local.text().strip()}", watch, before, after, f"; {run.lost} of {run.count} pings lost")
    assert "500 requests" in local.text()
    watch.check()
    assert after - before <= MAX_GROWTH_KIB
    assert run.lost == 0, run.process.text()
    assert lab.a.cli("debug", "prefs").stdout == settings
