#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One node of ours, and one of the original, with thousands of peers: the cost of the first map, of a change, of a question.

Each run is a fresh daemon that joins the lab's control server (lab-control --crowd); runs alternate between the programs, and
ours runs twice a round (A against A shows the noise of this machine). Nothing here passes or fails."""
import argparse
import http.client
import json
import pathlib
import socket
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "netns"))
from pairs import PROGRAMS, memory_mib  # noqa: E402
from figures import machine, tell  # noqa: E402
from lab import Failure, Lab, wait_for  # noqa: E402

QUIET_SECONDS = 10
STIR_MS = 20


def cpu_ns(pid):
    """Processor time of all threads so far."""
    return sum(int(f.read_text().split()[0]) for f in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))


class Question(http.client.HTTPConnection):
    """The local API as a program asks it, without the start of a process."""

    def __init__(self, node):
        super().__init__("local-tailscaled.sock", timeout=60)
        self.path = str(node.socket)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def status(node):
    """(seconds, the answer)"""
    begin = time.monotonic()
    q = Question(node)
    q.request("GET", "/localapi/v0/status")
    text = q.getresponse().read()
    took = time.monotonic() - begin
    q.close()
    return took, json.loads(text)


def measure(binaries, peers, stir):
    with Lab("peers") as lab:
        lab.flat("a")
        lab.derper()
        lab.control(args=["--crowd", peers, "--stir", stir])
        node = lab.node("a", binaries)
        node.start()
        pid = node.daemon.popen.pid
        before = cpu_ns(pid)
        node.up(timeout=120)
        first = (cpu_ns(pid) - before) / 1e9  # `up` returns when the map is in force
        wait_for("all peers are known", lambda: len(status(node)[1].get("Peer") or {}) == peers, 120)
        asked = statistics.median(status(node)[0] for _ in range(9))
        time.sleep(3)  # what follows a login (relays, STUN) is over
        begin = cpu_ns(pid)
        time.sleep(QUIET_SECONDS)
        quiet = (cpu_ns(pid) - begin) / 1e9
        return {"first map, processor": first, "memory": memory_mib(pid), "status --json": asked * 1000, "quiet": quiet}


def main():
    parser = argparse.ArgumentParser(prog="./dev bench peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="also write everything here; - for standard output instead of the table")
    args = parser.parse_args()
    about = machine()
    units = {"first map, processor": "s", "memory": "MiB", "status --json": "ms", "a change": "ms of processor"}
    values = {what: {name: [] for name in PROGRAMS} for what in units}
    try:
        for _ in range(args.rounds):
            for name, binaries in PROGRAMS.items():
                still, stirred = measure(binaries, args.peers, 0), measure(binaries, args.peers, STIR_MS)
                for what in units:
                    if what in still:
                        values[what][name].append(still[what])
                values["a change"][name].append((stirred["quiet"] - still["quiet"]) / (QUIET_SECONDS * 1000 / STIR_MS) * 1000)
    except Failure as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    report = [{"what": f"{args.peers} peers: {what}", "unit": unit, "values": values[what]} for what, unit in units.items()]
    tell("peers", f"One node with {args.peers} peers", [f"{args.peers} peers, {args.rounds} rounds; the first map includes the login"], about, report, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
