#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Where the memory of an idle node is, ours beside the original: two nodes, a relay over TLS, a direct path, then quiet.

VmRSS counts every page in reach, also pages of files that all programs share and the kernel can drop (libraries, the program
itself; ours lets go of the code that only its start needed). What a node costs a small machine is `own`: pages no file backs. `PSS`
divides shared pages by those who share them.
Nothing here passes or fails."""
import argparse
import collections
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "netns"))
from pairs import PROGRAMS, memory_mib  # noqa: E402
from figures import machine, tell  # noqa: E402
from lab import Failure, Lab, wait_for  # noqa: E402

MIB = 1024


def mappings(pid):
    """Name of a mapped file (or what stands for none) → KiB by kind, as the kernel counts them."""
    found, now = collections.defaultdict(collections.Counter), None
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$", line)
        if head:
            name = head.group(1)
            now = found[pathlib.Path(name).name if name.startswith("/") else "stack" if name == "[stack]" else "heap"]
        elif line.endswith(" kB"):
            key, value = line.split(":")
            now[key] += int(value.split()[0])
    return found


def measure(binaries, quiet):
    with Lab("memory") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        a, b = (lab.node(space, binaries).start() for space in "ab")
        for node in (a, b):
            node.join()
        a.wait_peer(b)
        a.ping_through(b.ip(), count=20).finish()
        wait_for("a direct path", lambda: a.direct(b.ip()) and b.direct(a.ip()), 20)
        pid = a.daemon.popen.pid
        time.sleep(quiet)
        maps = mappings(pid)
        total = sum(maps.values(), collections.Counter())
        return maps, {
            "VmRSS": total["Rss"] / MIB,
            "own (anonymous)": total["Anonymous"] / MIB,
            "pages of program and libraries": (total["Rss"] - total["Anonymous"]) / MIB,
            "PSS": total["Pss"] / MIB,
            "most VmRSS so far": memory_mib(pid, "VmHWM"),
        }


def main():
    parser = argparse.ArgumentParser(prog="./dev bench memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quiet", type=int, default=10, help="seconds of silence before the look (default 10)")
    parser.add_argument("--json", metavar="FILE", help="also write everything here; - for standard output instead of the table")
    args = parser.parse_args()
    about = machine()
    values = collections.defaultdict(lambda: {name: [] for name in PROGRAMS})
    maps = {}
    try:
        for _ in range(args.rounds):
            for name, binaries in PROGRAMS.items():
                maps[name], sizes = measure(binaries, args.quiet)
                for what, size in sizes.items():
                    values[what][name].append(size)
    except Failure as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    report = [{"what": what, "unit": "MiB", "values": v} for what, v in values.items()]
    largest = sorted(maps["ours"].items(), key=lambda m: -m[1]["Rss"])
    tell("memory", "Memory of an idle node", [f"two nodes, {args.rounds} rounds, {args.quiet} s of silence"], about, report, args.json,
         ["", "ours, KiB by mapping (the last round):", *(f"{name:32} {m['Rss']:6}  own {m['Anonymous']:6}" for name, m in largest if m["Rss"] >= 64)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
