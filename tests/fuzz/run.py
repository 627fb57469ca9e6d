#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Drives the libFuzzer targets of one build.

    run.py all|TARGET... [SECONDS]   all of them at the same time, niced, each with bounded memory; one line per target
    run.py keep all|TARGET...        puts what build/corpus has learnt into tests/fuzz/corpus, minimised

What a run learns lies in build/corpus/TARGET, so the next one starts there. What broke something lies in
build/fuzz-found; a fixed one moves to tests/fuzz/corpus/TARGET under a name of its own and is never minimised away."""
import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "fuzz" / "bin"
LEARNT = ROOT / "build" / "corpus"
FOUND = ROOT / "build" / "fuzz-found"
SEEDS = HERE / "corpus"
LOGS = ROOT / "build" / "fuzz-logs"
NO_TARGET = {"growth", "replay_main"}
MAX_INPUT = 4096          # bytes
KEEP_BYTES = 96 << 10     # of unnamed inputs per target that git shall carry
RSS_MB, ONE_ALLOCATION_MB = 700, 16
UNIT_TIMEOUT = 300        # seconds of wall time, many programs sharing few cores
HASH_NAME = re.compile(r"[0-9a-f]{40}")


def all_targets():
    return sorted(p.stem for p in HERE.glob("*.cc") if p.stem not in NO_TARGET)


def command(target, *arguments):
    return ["nice", "-n", "19", str(BUILD / f"fuzz_{target}"), f"-rss_limit_mb={RSS_MB}", f"-malloc_limit_mb={ONE_ALLOCATION_MB}",
            f"-timeout={UNIT_TIMEOUT}", f"-max_len={MAX_INPUT}", f"-artifact_prefix={FOUND}/{target}-", "-print_final_stats=1", *map(str, arguments)]


def environment():
    return dict(os.environ, ASAN_OPTIONS="abort_on_error=0:allocator_may_return_null=1:quarantine_size_mb=16",
                UBSAN_OPTIONS="print_stacktrace=1")


class Run:
    """One target under way."""

    def __init__(self, target, seconds):
        self.target = target
        self.log = LOGS / f"{target}.log"
        learnt, seeds = LEARNT / target, SEEDS / target
        for folder in (learnt, seeds):
            folder.mkdir(parents=True, exist_ok=True)
        self.before = set(os.listdir(learnt))
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                command(target, f"-max_total_time={seconds}", learnt, seeds),
                stdout=out, stderr=subprocess.STDOUT, env=environment())

    def figures(self):
        """(executions, coverage) as far as the log tells."""
        text = self.log.read_text(errors="replace")
        counts = [int(n) for n in re.findall(r"^#(\d+)", text, re.M)] + [int(n) for n in re.findall(r"number_of_executed_units:\s+(\d+)", text)]
        cov = [int(n) for n in re.findall(r"cov: (\d+)", text)]
        return max(counts, default=0), max(cov, default=0)

    def report(self):
        """Prints the line; true if all is well."""
        executions, coverage = self.figures()
        text = self.log.read_text(errors="replace")
        new = len(set(os.listdir(LEARNT / self.target)) - self.before)
        rss = re.search(r"peak_rss_mb:\s+(\d+)", text)
        good = self.process.returncode == 0 and executions > 0
        print(f"{self.target:16} {executions:11,} executions  coverage {coverage:5}  {new:5} new  "
              f"{rss.group(1) if rss else '?':>4} MB  {'ok' if good else 'FAILED'}", flush=True)
        if not good:
            print("\n".join(text.splitlines()[-60:]), flush=True)
        return good


def fuzz(targets, seconds, tell):
    start = time.monotonic()
    runs = [Run(t, seconds) for t in targets]
    try:
        told = start
        while any(r.process.poll() is None for r in runs):
            time.sleep(1)
            if time.monotonic() - told >= 60:
                told = time.monotonic()
                running = sum(r.process.poll() is None for r in runs)
                broken = [r.target for r in runs if r.process.poll() not in (None, 0)]
                total = sum(r.figures()[0] for r in runs)
                tell(f"fuzz: {(told - start) / 60:.0f} of {seconds / 60:.0f} min, {running} targets running, {total:,} executions"
                     + (f", FAILED: {' '.join(broken)}" if broken else ""))
    finally:
        for r in runs:
            if r.process.poll() is None:
                r.process.kill()
                r.process.wait()
    results = [r.report() for r in runs]
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return all(results)


def keep(target):
    """Replaces the unnamed seeds by a small set that reaches the same code, at most KEEP_BYTES of it. Named ones stay."""
    seeds, learnt = SEEDS / target, LEARNT / target
    seeds.mkdir(parents=True, exist_ok=True)
    learnt.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temp:
        merged, named = pathlib.Path(temp) / "merged", pathlib.Path(temp) / "named"
        merged.mkdir()
        named.mkdir()
        for p in seeds.iterdir():
            if not HASH_NAME.fullmatch(p.name):
                shutil.copy(p, named)
        shutil.copytree(named, merged, dirs_exist_ok=True)
        done = subprocess.run(command(target, "-set_cover_merge=1", "-use_counters=0", merged, learnt, seeds), capture_output=True, text=True,
                              errors="replace", env=environment())
        if done.returncode != 0:
            sys.exit(f"{target}: merging failed\n{done.stderr[-2000:]}")
        for p in seeds.iterdir():
            if HASH_NAME.fullmatch(p.name):
                p.unlink()
        size = 0
        for p in sorted(merged.iterdir(), key=lambda p: (p.stat().st_size, p.name)):
            if (named / p.name).exists() or size + p.stat().st_size > KEEP_BYTES:
                continue
            size += p.stat().st_size
            shutil.copy(p, seeds / hashlib.sha1(p.read_bytes()).hexdigest())
    files = list(seeds.iterdir())
    print(f"{target:16} {len(files):5} files {sum(p.stat().st_size for p in files):8} bytes", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="all|TARGET|SECONDS|keep")
    parser.add_argument("--tell", type=int, default=1, metavar="FD", help="where progress goes")
    options = parser.parse_args()
    words = options.words
    keeping = words[0] == "keep"
    seconds = [int(w) for w in words if w.isdigit()]
    names = [w for w in words[keeping:] if not w.isdigit()]
    targets = all_targets() if names == ["all"] else names
    unknown = [t for t in targets if t not in all_targets()]
    if unknown or not targets or len(seconds) > 1:
        sys.exit(f"no such target: {' '.join(unknown)}; there are: all {' '.join(all_targets())}")
    for folder in (LOGS, FOUND):
        folder.mkdir(parents=True, exist_ok=True)
    if keeping:
        for t in targets:
            keep(t)
        return 0

    def tell(line):
        os.write(options.tell, (line + "\n").encode())
    return 0 if fuzz(targets, seconds[0] if seconds else 60, tell) else 1


if __name__ == "__main__":
    sys.exit(main())
