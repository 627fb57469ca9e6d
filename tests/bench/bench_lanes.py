#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a second thread gives the way out (platform/net/send_lane.h) where it has a core of its own: packets are cut, sealed and sent to
a link whose other end drops everything, without a TUN and programs that would need cores too (lane_load.cc).

In turns: one thread, with a lane, and one thread again, which shows the noise of this machine; each measurement is compared with its
neighbour only. It runs with real-time priority, so that it really has the cores. Nothing here passes or fails."""
import argparse
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "netns"))
from figures import FOLDER, about_lines, machine, ratios, spread  # noqa: E402
from lab import OURS, Failure, Lab  # noqa: E402

MODES = ("one", "lane", "again")


def measure(lab, rounds, milliseconds):
    """mode → [(Gbit/s, CPU s/GiB)]"""
    lab.space("out")
    for command in ("ip link add v0 type veth peer name v1", "ip link set v0 up", "ip link set v1 up", "ip addr add 10.60.0.1/24 dev v0",
                    "ip neigh add 10.60.0.2 lladdr 02:00:00:00:00:02 dev v0", "iptables -t raw -A PREROUTING -i v1 -j DROP"):
        lab.run("out", command)
    found = {mode: [] for mode in MODES}
    load = ["chrt", "-f", "10", OURS / "lane_load", "10.60.0.2:9", rounds, milliseconds]
    for line in lab.run("out", load, timeout=60 + rounds * milliseconds / 200).stdout.splitlines():
        mode, *figures = line.split()
        found[mode].append(tuple(map(float, figures)))
    return found


def main():
    parser = argparse.ArgumentParser(prog="./dev bench lanes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each kind (default 20)")
    parser.add_argument("--milliseconds", type=int, default=500, help="length of one measurement (default 500)")
    args = parser.parse_args()
    about = machine()
    try:
        with Lab("lanes") as lab:
            found = measure(lab, args.rounds, args.milliseconds)
    except Failure as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    text = [*about_lines(about), "Medians; ratios are median (least..most) of neighbouring measurements", "",
            f"{'':10} {'one thread':>11} {'with lane':>11}  {'lane/one':20} {'one/one (noise)':20}"]
    for i, unit in enumerate(("Gbit/s", "CPU s/GiB")):
        v = {mode: [row[i] for row in rows] for mode, rows in found.items()}
        text.append(f"{unit:10} {statistics.median(v['one']):11.3f} {statistics.median(v['lane']):11.3f}  "
                    f"{spread(ratios(v, 'lane', 'one')):20} {spread(ratios(v, 'again', 'one')):20}")
    print("\n".join(text))
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "lanes.txt").write_text("\n".join(text) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
