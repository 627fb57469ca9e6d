#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Our relay beside the original's, in one run on one machine, under the same clients (derp_load): goodput and CPU of bulk flows,
round trips of small packets beside them, memory of idle clients.

Short measurements alternate between ours, the original's, and ours once more (A against A shows the noise of this machine); each
is compared with its neighbour only. Nothing here passes or fails."""
import argparse
import json
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from figures import machine, tell  # noqa: E402
from pairs import GIB, ORIGINAL, OURS, Failure, cpu_seconds, memory_mib  # noqa: E402
from lab import Lab  # noqa: E402

RELAYS = {"ours": (OURS, 9001), "original": (ORIGINAL, 9002), "ours again": (OURS, 9003)}
ADDRESS = "10.50.0.2"
SETTLE = 17  # seconds; ours looks every 15
FLOWS = {
    "1 flow": ["--pairs", 1, "--window", 28],
    "16 flows": ["--pairs", 16, "--window", 28],
    "16 flows, 400 B": ["--pairs", 16, "--window", 28, "--size", 400],
    "4 flows, small packets elsewhere": ["--pairs", 4, "--window", 28, "--probes", 8],
    "4 flows, small packets to their receivers": ["--pairs", 4, "--window", 28, "--probes", 8, "--beside"],
}


class Relay:
    def __init__(self, lab, name, extra=()):
        binaries, self.port = RELAYS[name]
        self.lab, self.name = lab, name
        self.process = lab.derper(binaries / "derper", host=ADDRESS, bind=ADDRESS, port=self.port, args=["-stun=false", *extra])

    @property
    def pid(self):
        return self.process.popen.pid

    def load(self, *args):
        return subprocess.Popen(self.lab.argv("c", [OURS / "derp_load", args[0], ADDRESS, self.port, *args[1:]]), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def flow(self, seconds, *args):
        with self.load("flow", "--seconds", seconds, *args) as p:
            if not p.stdout.readline():
                raise Failure(f"{self.name}: {p.stderr.read()}")
            before = cpu_seconds([self.pid])
            result = json.loads(p.stdout.readline() or "{}")
            used = cpu_seconds([self.pid]) - before
        if not result:
            raise Failure(f"{self.name}: no result")
        out = {"gbit_s": result["gbit_s"], "cpu_s_per_gib": used / (result["bytes"] / GIB), "gbit_per_cpu_s": result["gbit_s"] * result["seconds"] / used}
        if result["probes_sent"]:
            out["rtt_ms_p50"], out["rtt_ms_p99"] = result["rtt_ms_p50"], result["rtt_ms_p99"]
            out["lost_probes_percent"] = 100 * (1 - result["probes_answered"] / result["probes_sent"])
        return out

    def idle(self, clients):
        """KiB of resident memory that each of that many idle clients costs, all of it in MiB, and what of that is the process's own
        (not pages of program files), when they have been idle for a while: logins take more, and both programs give that back in
        their own time."""
        before = memory_mib(self.pid)
        with self.load("idle", "--clients", clients) as p:
            if p.stdout.readline() != "ready\n":
                raise Failure(f"{self.name}: {p.stderr.read()}")
            time.sleep(SETTLE)
            after, own = memory_mib(self.pid), memory_mib(self.pid, "RssAnon")
            p.stdin.close()
        return (after - before) * 1024 / clients, after, own


UNITS = {"gbit_s": "Gbit/s", "cpu_s_per_gib": "CPU s/GiB", "gbit_per_cpu_s": "Gbit per CPU s", "rtt_ms_p50": "ms p50", "rtt_ms_p99": "ms p99",
         "lost_probes_percent": "lost %"}


def main():
    parser = argparse.ArgumentParser(prog="./dev bench derper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement (default 3)")
    parser.add_argument("--idle", type=int, action="append", help="idle clients (repeatable; default 1000 and 5000; 0 = none)")
    parser.add_argument("--only", action="append", help="only loads with this in their name (repeatable)")
    parser.add_argument("--threads", type=int, metavar="N", help="\"ours again\" has N event loops, so A against A compares the default with that")
    parser.add_argument("--json", metavar="FILE", help="also write everything here")
    args = parser.parse_args()
    about, report, rows = machine(), [], {}
    extra = {"ours again": ["-threads", args.threads]} if args.threads else {}
    with Lab("load") as lab:
        lab.flat("c")
        relays = {name: Relay(lab, name, extra.get(name, [])) for name in RELAYS}
        wanted = {k: v for k, v in FLOWS.items() if not args.only or any(o in k for o in args.only)}
        for n in range(args.rounds):
            for load, options in wanted.items():
                names = list(relays)[n % len(relays):] + list(relays)[:n % len(relays)]
                for name in names:
                    for key, value in relays[name].flow(args.seconds, *options).items():
                        rows.setdefault((load, key), {}).setdefault(name, []).append(value)
        for relay in relays.values():
            relay.process.stop()
    for (load, key), values in rows.items():
        report.append({"what": load, "unit": UNITS[key], "values": values})
    for clients in [c for c in (args.idle or [1000, 5000]) if c]:
        each, total, own = {}, {}, {}
        for name in RELAYS:
            with Lab("idle") as lab:  # a fresh process each
                lab.flat("c")
                each[name], total[name], own[name] = ([v] for v in Relay(lab, name, ["-accept-connection-limit", "1e9", *extra.get(name, [])]).idle(clients))
        report.append({"what": f"{clients} idle clients, each", "unit": "KiB", "values": each})
        report.append({"what": f"{clients} idle clients, process", "unit": "MiB", "values": total})
        report.append({"what": f"{clients} idle clients, process's own", "unit": "MiB", "values": own})
    tell("derper", "A relay under load",
         [f"{args.rounds} rounds of {args.seconds} s; TLS 1.3, packets of 1300 bytes unless said",
          "Medians; ratios are median (least..most) of neighbouring measurements"], about, report, args.json)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as e:
        print(f"bench: {e}", file=sys.stderr)
        sys.exit(1)
