#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Our programs beside the original ones, in one run on one machine: throughput, CPU, memory, time of `up`.

Pairs of nodes stand side by side without NAT: ours, the original's, and ours once more (A against A shows the noise of this
machine). Short measurements alternate between them and each is compared with its neighbour only. Nothing here passes or fails."""
import argparse
import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "netns"))
from figures import machine, tell  # noqa: E402
from lab import ORIGINAL, OURS, Failure, Lab, wait_for  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
GIB = 1 << 30
PAIRS = {"ours": (OURS, 8080, "10.50.0.2"), "original": (ORIGINAL, 8081, "10.50.0.3"), "ours again": (OURS, 8082, "10.50.0.4")}


def cpu_seconds(pids):
    """User and system time of processes so far."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory_mib(pid, what="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


class Pair:
    def __init__(self, lab, name, relayed):
        self.lab, self.name, self.relayed = lab, name, relayed
        self.binaries, self.port, self.server = PAIRS[name]
        slug = name.replace(" ", "")
        derp_map = lab.derp_regions([lab.derp_node(host=self.server)])
        lab.run("srv", f"ip addr add {self.server}/16 dev eth0", check=False)
        self.relay = lab.derper(self.binaries / "derper", bind=self.server, host=self.server)
        self.derp_map = lab.dir / f"derp-{slug}.json"
        self.derp_map.write_text(json.dumps(derp_map))
        lab.start("srv", [ORIGINAL / "testcontrol", "-listen", f"10.50.0.2:{self.port}", "-derp-map", self.derp_map, "-auth-key", "bench"])
        wait_for("control listens", lambda: lab.listening("srv", self.port))
        self.nodes = []
        for side in "ab":
            space = f"{slug}-{side}"
            lab.on_core(space)
            if relayed:
                lab.run(space, "iptables -t mangle -A PREROUTING -s 10.50.3.0/24 -p udp -i eth0 -j DROP")
            self.nodes.append(lab.node(space, self.binaries))

    def up(self, node):
        begin = time.monotonic()
        node.cli("up", f"--login-server=http://10.50.0.2:{self.port}", "--auth-key=bench", "--accept-dns=false")
        return time.monotonic() - begin

    def start(self):
        for node in self.nodes:
            node.start()
            self.up(node)
        a, b = self.nodes
        a.wait_peer(b)
        self.ip = b.ip()
        a.ping_through(self.ip, count=20).finish()
        if self.relayed:
            if a.direct(self.ip):
                raise Failure(f"{self.name}: not relayed")
        else:
            wait_for(f"{self.name}: a direct path", lambda: a.direct(self.ip) and b.direct(a.ip()), timeout=20)
        self.lab.start(b.space, ["iperf3", "-s", "--forceflush"])
        wait_for("iperf3 listens", lambda: self.lab.listening(b.space, 5201))

    def pids(self):
        return [n.daemon.popen.pid for n in self.nodes]

    def load(self, *args, seconds):
        """One iperf3 run: received Gbit/s, CPU seconds of both daemons (and of the relay) per GiB received, loss in percent."""
        pids, relay = self.pids(), [self.relay.popen.pid]
        before, relay_before = cpu_seconds(pids), cpu_seconds(relay)
        done = self.lab.run(self.nodes[0].space, ["iperf3", "-c", self.ip, "-t", seconds, "-J", *args], check=False)
        used, relay_used = cpu_seconds(pids) - before, cpu_seconds(relay) - relay_before
        result = json.loads(done.stdout)
        if "error" in result:
            raise Failure(f"{self.name}: iperf3: {result['error']}")
        end = result["end"]
        received = end.get("sum_received") or end["sum"]
        lost = end["sum"].get("lost_percent", 0.0) if "-u" in args else None
        gib = max(received["bytes"], 1) / GIB
        if lost is not None and "sum_received" not in end:
            gib *= 1 - lost / 100
        out = {"gbit_s": received["bits_per_second"] / 1e9, "cpu_s_per_gib": used / gib}
        if self.relayed:
            out["relay_cpu_s_per_gib"] = relay_used / gib
        if lost is not None:
            out["lost_percent"] = lost
        return out

    def memory(self):
        return statistics.mean(memory_mib(pid) for pid in self.pids())


LOADS = {
    "TCP to the other": [],
    "TCP from the other": ["-R"],
    "UDP 300 Mbit/s, 1200 B": ["-u", "-b", "300M", "-l", "1200"],
}
UNITS = {"gbit_s": "Gbit/s", "cpu_s_per_gib": "CPU s/GiB", "relay_cpu_s_per_gib": "relay CPU s/GiB", "lost_percent": "lost %"}


def measure_loads(lab, relayed, rounds, seconds, report, progress):
    where = "relay" if relayed else "direct"
    pairs = {name: Pair(lab, name, relayed) for name in PAIRS}
    for pair in pairs.values():
        pair.start()
    time.sleep(1)
    idle = {name: pair.memory() for name, pair in pairs.items()}
    rows = {}
    for n in range(rounds):
        for load, args in LOADS.items():
            # The order turns, so that nobody always runs after the same neighbour.
            names = list(pairs)[n % len(pairs):] + list(pairs)[:n % len(pairs)]
            for name in names:
                progress(f"{where}, {load}, round {n + 1} of {rounds}: {name}")
                for key, value in pairs[name].load(*args, seconds=seconds).items():
                    rows.setdefault((load, key), {}).setdefault(name, []).append(value)
    for (load, key), values in rows.items():
        report.append({"what": f"{where}: {load}", "unit": UNITS[key], "values": values})
    after = {name: [pair.memory()] for name, pair in pairs.items()}
    report.append({"what": f"{where}: memory idle", "unit": "MiB", "values": {name: [v] for name, v in idle.items()}})
    report.append({"what": f"{where}: memory after load", "unit": "MiB", "values": after})


def measure_up(lab, rounds, report, progress):
    """New nodes, one after another: start to answering local API, then `up` with an auth key."""
    pairs = {name: Pair(lab, name, False) for name in PAIRS}
    start, up = {name: [] for name in PAIRS}, {name: [] for name in PAIRS}
    for n in range(rounds):
        for name, pair in pairs.items():
            progress(f"up, round {n + 1} of {rounds}: {name}")
            node = lab.node(pair.nodes[0].space, pair.binaries, name=f"{pair.nodes[0].space}-{n}")
            begin = time.monotonic()
            node.start()
            start[name].append(time.monotonic() - begin)
            up[name].append(pair.up(node))
            node.stop()
    report.append({"what": "start to local API", "unit": "s", "values": start})
    report.append({"what": "up with an auth key", "unit": "s", "values": up})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement (default 2)")
    parser.add_argument("--only", choices=["direct", "relay", "up"], action="append", help="only this part (repeatable)")
    parser.add_argument("--json", metavar="FILE", help="also write everything here; - for standard output instead of the table")
    args = parser.parse_args()
    parts = args.only or ["direct", "relay", "up"]
    about, report = machine(), []

    def progress(text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    try:
        for part in parts:
            with Lab("bench") as lab:
                lab.flat()
                if part == "up":
                    measure_up(lab, max(args.rounds, 5), report, progress)
                else:
                    measure_loads(lab, part == "relay", args.rounds, args.seconds, report, progress)
    except Failure as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    progress("")
    tell("bench", "Throughput, processor time, memory and time of `up`",
         [f"{args.rounds} rounds of {args.seconds} s, one TCP flow, MTU 1280; each pair has the relay program of its own side",
          "Medians; CPU is user + system time of both daemons; ratios are median (least..most) of neighbouring measurements"],
         about, report, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
