#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds every #include against the table of allowed edges in CMakeLists.txt, and pure rooms against the system."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = (ROOT / "CMakeLists.txt").read_text()
PURE = {"wg", "derp", "disco", "stun", "netcheck", "portmap", "path", "netstack", "api", "netmap", "control", "ipn",
        "dataplane", "dns"}
FORBIDDEN = re.compile(r"<(uv\.h|sys/(?!types).*|thread|mutex|random|fstream|unistd\.h|fcntl\.h|curl/.*)>")


def edges():
    table = {}
    for name, body in re.findall(r"set\(EDGES_(\w+)([^)]*)\)", TABLE):
        table[name] = set(body.split())
    rooms = re.search(r"set\(ROOMS([^)]*)\)", TABLE).group(1).split()
    return {r: (set(rooms) if "${ROOMS}" in table.get(r, set()) else table.get(r, set())) | {r} for r in rooms}


def room_of(path):
    """The room of a file given by its path from the root; None for tests and tools that may use everything."""
    p = path.split("/")
    if p[0] == "magicsock":
        return p[1] if len(p) > 2 else None
    if p[0] == "tailscaled":
        if len(p) > 2:
            # control/client.* is the shell of the control room and belongs to the daemon.
            return "daemon" if p[1] == "control" and p[2].startswith("client") else p[1]
        return "daemon"
    if p[0] == "tailscale-cli":
        return "cli"
    if p[0] == "derper":
        return "derper_lib"
    return p[0] if p[0] in {"base", "wg", "netstack", "platform", "relaycheck"} else None


def main():
    table, bad, seen = edges(), [], 0
    for file in sorted(ROOT.rglob("*")):
        rel = file.relative_to(ROOT).as_posix()
        if file.suffix not in {".h", ".cc"} or rel.startswith(("build/", "tests/")):
            continue
        room, is_test = room_of(rel), rel.endswith("_test.cc")
        text = file.read_text()
        if not text.startswith("// SPDX-License-Identifier: BSD-3-Clause"):
            bad.append(f"{rel}: no SPDX line")
        if text.count("\n") > 800:
            bad.append(f"{rel}: more than 800 lines")
        if room is None:
            continue
        if room not in table:
            bad.append(f"{rel}: {room} is no room of the table")
            continue
        for n, line in enumerate(text.splitlines(), 1):
            m = re.match(r'#include "([^"]+)"', line)
            if m:
                seen += 1
                target = room_of(m.group(1))
                if target and target not in table[room] and not is_test:
                    bad.append(f"{rel}:{n}: {room} may not include {m.group(1)} ({target})")
            if room in PURE and not is_test and FORBIDDEN.search(line):
                bad.append(f"{rel}:{n}: a pure room includes {line.split()[1]}")
    for b in bad:
        print(b)
    print(f"{seen} includes held against the table")
    print(f"{1 if not bad else 0} passed, {len(bad)} failed")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
