#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs every test that CTest knows in a build folder, two at a time, and counts GoogleTest's cases."""
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def run(test, full, limit):
    env = dict(os.environ)
    if full:
        env["MESH_FULL"] = "1"
    start = time.monotonic()
    try:
        done = subprocess.run(test["command"], capture_output=True, text=True, errors="replace", timeout=limit, env=env)
        out, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as e:
        out, code = (e.stdout or b"").decode(errors="replace") + "\ntimed out", 1
    ran = re.search(r"\[==========\] (\d+) tests? from .* ran", out)
    failed = len(set(re.findall(r"\[  FAILED  \] (\S+)(?: \(|$)", out, re.M)))
    skipped = len(set(re.findall(r"\[  SKIPPED \] (\S+)", out)))
    total = int(ran.group(1)) if ran else 1
    if code != 0 and failed == 0:
        failed = 1
    # A test skips for what this processor or kernel cannot do; for missing rights or tools it fails by itself when CI is set.
    return test["name"], total - failed - skipped, failed, skipped, time.monotonic() - start, out


def main():
    build, full = sys.argv[1], "--full" in sys.argv
    limit = 3600 if full or "--patient" in sys.argv else 300  # a sanitizer is ten times slower
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True, check=True)
    tests = [t for t in json.loads(listing.stdout)["tests"] if "command" in t]
    passed = failed = 0
    with ThreadPoolExecutor(2) as pool:
        for name, p, f, s, seconds, out in pool.map(lambda t: run(t, full, limit), tests):
            passed, failed = passed + p, failed + f
            print(f"{name:24} {p:5} passed {f:3} failed {s:3} skipped {seconds:6.1f} s", flush=True)
            if f:
                print("\n".join(out.splitlines()[-60:]))
    print(f"{passed} passed, {failed} failed")
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
