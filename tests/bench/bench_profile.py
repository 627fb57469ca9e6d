#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Where the processor's time goes while packets flow: `perf record -e cpu-clock` of both daemons of a pair under iperf3.

Every sample belongs to the daemon that was running. A packet's way through veth, bridge and the other host's IP stack runs within
the system call that sent it, so "kernel: network" holds work that a network card and another machine would do. Nothing here passes
or fails. Needs perf (Debian package linux-perf) and the right to sample the kernel: root."""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "netns"))
from figures import about_lines, machine  # noqa: E402
from pairs import LOADS, PROGRAMS, Failure, Tailnet  # noqa: E402
from lab import Lab  # noqa: E402

HERTZ = 1999
# The first that fits: (kind, file, function).
KINDS = [(kind, re.compile(file), re.compile(function)) for kind, file, function in [
    ("crypto", r"", r"[Aa]ead|[Cc]ha[Cc]ha|[Pp]oly1305|mesh::crypto::|blake2|sodium|curve25519|fe25519"),
    ("crypto", r"libsodium|libcrypto|libb2", r""),
    ("copy", r"kernel", r"copy_(user|to|from|page)|_copy_|rep_movs|memcpy|memmove|memset|clear_page|skb_copy|csum_and_copy"),
    ("copy", r"libc\.", r"mem(cpy|move|set)"),
    ("checksum", r"", r"csum|[Cc]hecksum|sum_bytes"),
    ("kernel: in and out", r"kernel", r"syscall|entry_|exit_to_user|sysret|context_switch|schedule|finish_task_switch|_raw_spin_unlock_irq|epoll|futex"),
    ("kernel: memory", r"kernel", r"alloc|kfree|kmem|slab|slub|page_frag|free_|put_page|skb_release|build_skb|mem_cgroup|refill_stock"),
    ("kernel: network", r"kernel", r""),
    ("runtime", r"tailscaled", r"^runtime\."),
    ("program", r"tailscaled", r""),
    ("libraries", r"", r""),
]]


def kind_of(file, function):
    return next(kind for kind, in_file, in_function in KINDS if in_file.search(file) and in_function.search(function))


def samples(data):
    """(file, function) → number of samples."""
    out = subprocess.run(["perf", "report", "-i", data, "--stdio", "-g", "none", "--no-children", "--sort", "dso,symbol", "--show-nr-samples",
                          "--field-separator", "\t"], capture_output=True, text=True, check=True).stdout
    found = collections.Counter()
    for line in out.splitlines():
        fields = [f.strip() for f in line.split("\t")]
        if line.startswith("#") or len(fields) < 4:
            continue
        found[(fields[2].strip("[]"), re.sub(r"^\[[.k]\] ", "", fields[3]))] += int(fields[1])
    return found


def measure(lab, name, args, seconds):
    pair = Tailnet(lab, name)
    pair.start()
    pair.load(*args, seconds=1)
    data = lab.dir / f"perf-{name}.data"
    pids = ",".join(str(pid) for pid in pair.pids)
    recorder = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-g", "-p", pids, "-o", str(data), "--", "sleep",
                                 str(seconds)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    load = pair.load(*args, seconds=seconds)
    recorder.wait(30)
    return load, samples(data)


def main():
    parser = argparse.ArgumentParser(prog="./dev bench profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", choices=list(LOADS), default=next(iter(LOADS)), help="what iperf3 does (default: %(default)s)")
    parser.add_argument("--of", choices=[n for n in PROGRAMS if n != "ours again"], action="append", help="whom to look at (default: ours)")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--top", type=int, default=20, help="functions to list (default 20)")
    parser.add_argument("--json", metavar="FILE", help="also write everything here")
    args = parser.parse_args()
    about, document = machine(), []
    print("\n".join([*about_lines(about), f"{args.load}, {args.seconds} s, MTU 1280"]))
    for name in args.of or ["ours"]:
        try:
            with Lab("profile") as lab:
                lab.flat()
                load, found = measure(lab, name, LOADS[args.load], args.seconds)
        except (Failure, subprocess.CalledProcessError) as e:
            print(f"bench: {e}", file=sys.stderr)
            return 1
        total = sum(found.values())
        if total == 0:
            print("bench: perf saw nothing", file=sys.stderr)
            return 1
        kinds = collections.Counter()
        for (file, function), n in found.items():
            kinds[kind_of(file, function)] += n
        print(f"\n{name}: {load['gbit_s']:.2f} Gbit/s, {load['cpu_s_per_gib']:.2f} CPU s/GiB, {total} samples of both daemons\n")
        print(f"{'':20} {'share':>7} {'CPU s/GiB':>10}")
        for kind, n in kinds.most_common():
            print(f"{kind:20} {n / total:7.1%} {n / total * load['cpu_s_per_gib']:10.3f}")
        print()
        for (file, function), n in found.most_common(args.top):
            print(f"{n / total:7.1%}  {kind_of(file, function):20} {function[:90]} ({file})")
        document.append({"of": name, "load": load, "samples": total, "kinds": dict(kinds),
                         "functions": [{"file": f, "function": fn, "samples": n} for (f, fn), n in found.most_common()]})
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"machine": about, "results": document}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
