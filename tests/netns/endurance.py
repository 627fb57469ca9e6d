# SPDX-License-Identifier: BSD-3-Clause
"""Long experiments on a laptop and a router that know each other; used with our programs alone and beside the originals."""
import json
import pathlib
import random
import re
import signal
import time

from lab import wait_for

TRANSFER = pathlib.Path(__file__).resolve().parent / "transfer.py"
PORT = 9200


def receiver(there):
    """Something at that node takes transfers; its port."""
    if not there.lab.listening(there.space, PORT):
        there.lab.start(there.space, ["python3", TRANSFER, "serve", PORT])
        wait_for("the receiver listens", lambda: there.lab.listening(there.space, PORT))
    return PORT


class Transfer:
    """A paced TCP stream from one node to another, with pings beside it."""

    def __init__(self, here, there, seconds, mbit=40, pings_per_second=50):
        lab = here.lab
        self.here, self.there = here, there
        receiver(there)
        self.ip = there.ip()
        self.stream = lab.start(here.space, ["python3", TRANSFER, "send", self.ip, PORT, seconds, mbit], label=f"send-{here.name}-{lab.count}")
        self.pings = here.ping_through(self.ip, count=int(seconds * pings_per_second), interval=1 / pings_per_second)
        self.handshakes = set()

    def look(self):
        """Notes when the last handshake was; the originals tell it for the peer as we do."""
        seen = self.here.peer(self.ip)["LastHandshake"]
        if not seen.startswith("0001"):
            # Both ends round differently; one handshake per ten seconds is fine enough here.
            self.handshakes.add(seen[:18])

    def result(self, timeout=120):
        self.stream.popen.wait(timeout)
        self.pings.finish()
        lines = self.stream.text().splitlines()
        return {**(json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {"whole": False, "error": self.stream.text()}),
                "pings": self.pings.count, "lost": self.pings.missing, "handshakes": len(self.handshakes)}


def restart_gaps(restarted, traffic_from, other, times=10, sig=signal.SIGTERM, seed=1):
    """Restarts one daemon under 20 pings/s, `times` times at odd moments. Returns a list of (seconds from the moment the new
    daemon's local API answers to the next answered ping, length of the whole silence)."""
    rng, out = random.Random(seed), []
    ip = (other if traffic_from is restarted else restarted).ip()
    for _ in range(times):
        run = traffic_from.ping_through(ip, count=2000)
        wait_for("traffic", lambda: len(run.answers()) > 10, timeout=30)
        time.sleep(rng.uniform(0.5, 3))
        restarted.stop(sig)
        restarted.start()
        ready = time.time() - run.began
        wait_for("traffic again", lambda: run.answers()[-1][1] > ready, timeout=40)
        first = next(at for _, at in run.answers() if at > ready)
        time.sleep(1)
        run.process.stop(signal.SIGINT)
        out.append((round(first - ready, 2), round(run.longest_gap, 2)))
    return out


def first_contact(lab, space, binaries, target, times=10, page=None, up=()):
    """A new node joins and at once sends one ping to `target` or asks for the page. Returns the seconds each took."""
    out = []
    for i in range(times):
        node = lab.node(space, binaries, name=f"{space}-first-{'page' if page else 'ping'}-{i}").start()
        node.join(*up)
        begin = time.monotonic()
        if page:
            done = lab.fetch(space, page, timeout=20)
            took = time.monotonic() - begin if done.returncode == 0 else float("inf")
        else:
            # One packet only: a retry would hide that the first was lost.
            text = lab.run(space, ["ping", "-n", "-c", "1", "-W", "20", target], check=False).stdout
            took = float(m.group(1)) / 1000 if (m := re.search(r"time=([\d.]+) ms", text)) else float("inf")
        out.append(round(took, 4))
        node.stop()
        time.sleep(0.5)
    return out
