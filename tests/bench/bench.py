#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Our programs beside the original ones, in one run on one machine.

  direct   throughput, CPU and memory over a direct path       relay    the same over the original's relay
  own      over the relay of each program's own side           idle     memory and wake-ups of quiet nodes
  latency  pings through the tunnel, idle and beside a flow    up       time of start and `up`, CPU of the command
  floor    ours, ours without cryptography, and wireguard-go   crypto   ns per packet, µs per handshake

Pairs of nodes stand side by side without NAT: ours, the original's, and ours once more (A against A shows the noise of this
machine). Short measurements alternate between them and each is compared with its neighbour only. Nothing here passes or fails."""
import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from figures import machine, tell  # noqa: E402
from pairs import (FLOOR, LOADS, ORIGINAL, OURS, PROGRAMS, WIREGUARD, Failure, Tailnet, WireGuard, forget_most_memory,  # noqa: E402
                   percentile, wake_ups)
from lab import Lab  # noqa: E402

UNITS = {"gbit_s": "Gbit/s", "cpu_s_per_gib": "CPU s/GiB", "relay_cpu_s_per_gib": "relay CPU s/GiB", "lost_percent": "lost %",
         "retransmits_s": "retransmits/s", "kpps": "1000 packets/s", "cpu_us_per_packet": "CPU µs/packet"}
# What a load is measured for; the others are not told.
PACED, FLAT, SMALL = ("gbit_s", "cpu_s_per_gib", "relay_cpu_s_per_gib", "lost_percent"), ("gbit_s", "cpu_s_per_gib"), ("kpps", "cpu_us_per_packet")
KEYS = {"UDP 300 Mbit/s, 1200 B": PACED, "UDP flat out, 1200 B": FLAT, "UDP flat out, 64 B packets": SMALL}
TCP_KEYS = ("gbit_s", "cpu_s_per_gib", "relay_cpu_s_per_gib", "retransmits_s")
SOME_LOADS = ["TCP to the other", "UDP 300 Mbit/s, 1200 B"]
SETTLE, QUIET = 60, 20  # seconds; paths are kept warm for 45 s after the last packet


class Rows:
    """Values of rows, in the order in which they appear first."""

    def __init__(self):
        self.rows = {}

    def add(self, what, unit, name, value):
        self.rows.setdefault((what, unit), {}).setdefault(name, []).append(value)

    def report(self):
        return [{"what": what, "unit": unit, "values": values} for (what, unit), values in self.rows.items()]


class Run:
    def __init__(self, args):
        self.rounds, self.seconds, self.rows = args.rounds, args.seconds, Rows()

    def turns(self, part, names):
        """(round, name); the order turns, so that nobody always runs after the same neighbour."""
        names = list(names)
        for n in range(self.rounds):
            for name in names[n % len(names):] + names[:n % len(names)]:
                if sys.stderr.isatty():
                    print(f"\r\033[K{part}, round {n + 1} of {self.rounds}: {name}", end="", file=sys.stderr, flush=True)
                yield n, name

    def loads(self, part, pairs, loads):
        for load in loads:
            for _, name in self.turns(f"{part}, {load}", pairs):
                for key, value in pairs[name].load(*LOADS[load], seconds=self.seconds).items():
                    if key in KEYS.get(load, TCP_KEYS):
                        self.rows.add(f"{part}: {load}", UNITS[key], name, value)

    def pairs(self, lab, relays):
        """One started pair of each program, over the relay that is named for it, if one is."""
        pairs = {name: Tailnet(lab, name, relays.get(name)) for name in PROGRAMS}
        for pair in pairs.values():
            pair.start()
        return pairs

    def all_loads(self, part, pairs):
        for pair in pairs.values():
            for pid in pair.pids:
                forget_most_memory(pid)
        self.loads(part, pairs, LOADS)
        for name, pair in pairs.items():
            self.rows.add(f"{part}: most memory under load", "MiB", name, pair.memory("VmHWM"))
            self.rows.add(f"{part}: memory after load", "MiB", name, pair.memory())

    def direct(self, lab):
        self.all_loads("direct", self.pairs(lab, {}))

    def relay(self, lab):
        self.all_loads("relay", self.pairs(lab, dict.fromkeys(PROGRAMS, ORIGINAL)))

    def own(self, lab):
        self.loads("own relay", self.pairs(lab, PROGRAMS), SOME_LOADS)

    def idle(self, lab):
        pairs = self.pairs(lab, {})
        time.sleep(SETTLE)
        before = {name: wake_ups(pair.pids[0]) for name, pair in pairs.items()}
        time.sleep(QUIET)
        for name, pair in pairs.items():
            self.rows.add("memory of a node, idle", "MiB", name, pair.memory())
            self.rows.add("wake-ups of a quiet node", "per s", name, (wake_ups(pair.pids[0]) - before[name]) / QUIET)

    def latency(self, lab):
        pairs = self.pairs(lab, {})
        idle, beside = {}, {}
        for n, name in self.turns("latency", pairs):
            pair = pairs[name]
            bare, idle[name, n] = percentile(pair.ping(pair.addresses[1]), 50), pair.ping(pair.ip)
            for percent in (50, 99):
                self.rows.add(f"ping, idle, above the bare link: p{percent}", "ms", name, percentile(idle[name, n], percent) - bare)
            beside[name, n] = pair.ping_beside_flow()
        for (name, n), times in beside.items():
            for percent in (50, 99):
                self.rows.add(f"ping beside a TCP flow: p{percent}", "ms", name, percentile(times, percent))
            self.rows.add("ping beside a TCP flow: p99", "× original's idle p99", name, percentile(times, 99) / percentile(idle["original", n], 99))

    def up(self, lab):
        pairs = {name: Tailnet(lab, name) for name in PROGRAMS}
        for n, name in self.turns("up", pairs):
            start, up = pairs[name].new_node(n)
            self.rows.add("start to local API", "s", name, start)
            self.rows.add("up with an auth key", "s", name, up)
        for _, name in self.turns("command", pairs):
            self.rows.add("`tailscale version`", "CPU ms", name, cpu_of([PROGRAMS[name] / "tailscale", "version"]) * 1000)

    def floor(self, lab):
        pairs = {"ours": Tailnet(lab, "ours"), FLOOR: Tailnet(lab, FLOOR), WIREGUARD: WireGuard(lab, WIREGUARD)}
        for pair in pairs.values():
            pair.start()
        self.loads("floor", pairs, SOME_LOADS)

    def crypto(self, _):
        programs = {"ours": OURS / "crypto_speed", "original": ORIGINAL / "crypto-original", "ours again": OURS / "crypto_speed"}
        for _, name in self.turns("crypto", programs):
            found = json.loads(subprocess.run([programs[name]], capture_output=True, check=True).stdout)
            for length in (1280, 64):
                for verb in ("seal", "open"):
                    one = found[f"{verb}_{length}"]
                    # Go has no call for several packets.
                    self.rows.add(f"{verb} {length} B, 32 together", "ns/packet", name, found.get(f"{verb}32_{length}", one))
                    self.rows.add(f"{verb} {length} B, one by one", "ns/packet", name, one)
            self.rows.add("both sides of each on one core", "handshakes/s", name, 1e9 / found["handshake"])


def cpu_of(command, times=20):
    """Processor seconds that one run of a command takes."""
    def used():
        u = resource.getrusage(resource.RUSAGE_CHILDREN)
        return u.ru_utime + u.ru_stime
    before = used()
    for _ in range(times):
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (used() - before) / times


PARTS = ["direct", "relay", "own", "idle", "latency", "up", "floor", "crypto"]


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement (default 2)")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part (repeatable)")
    parser.add_argument("--json", metavar="FILE", help="also write everything here; - for standard output instead of the table")
    args = parser.parse_args()
    about, run, begin, failed = machine(), Run(args), time.monotonic(), False
    for part in args.only or PARTS:
        try:
            with Lab("bench") as lab:
                lab.flat()
                getattr(run, part)(lab)
        except (Failure, subprocess.CalledProcessError) as e:  # the others may go
            print(f"bench: {part}: {e}", file=sys.stderr)
            failed = True
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    tell("bench", "Throughput, processor time, latency, memory and time of `up`",
         [f"{args.rounds} rounds of {args.seconds} s, MTU 1280, {time.monotonic() - begin:.0f} s in all; all relay by the original's relay, unless it is their own; UDP programs have socket buffers of up to 1 MiB",
          "Medians; CPU is user + system time of both daemons; ratios are median (least..most) of neighbouring measurements"],
         about, run.rows.report(), args.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
