#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs the measurements the README shows, one after the other, and writes them there: a table between the two marks, and the plot
tests/bench/figures.svg. For a quiet machine; `--from build/bench` only writes again what is there."""
import argparse
import json
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from figures import FOLDER, ROOT, about_lines, markdown, svg  # noqa: E402

PARTS = {"bench": "bench.py", "memory": "bench_memory.py", "peers": "bench_peers.py"}
PLOT = "tests/bench/figures.svg"
MARKS = re.compile(r"(<!-- figures: \./dev bench record -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def section(documents):
    """The text between the marks of the README."""
    about = documents[0]["machine"]
    text = [f"Measured by `./dev bench record`: {'; '.join(about_lines(about)[:1])}; ours at commit {about['commit']}, original {about['original']}. "
            "Medians; ratios are median (least..most) of neighbouring short measurements, which alternate, for machines drift.", "", f"![ours beside the original]({PLOT})", ""]
    for d in documents:
        text += [f"{d['title']} ({'; '.join(d['notes'])}):", "", markdown(d["results"]), ""]
    return "\n".join(text)


def main():
    parser = argparse.ArgumentParser(prog="./dev bench record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="of every measurement (default: what each has)")
    parser.add_argument("--from", dest="folder", type=pathlib.Path, help="take bench.json, memory.json and peers.json of this folder, measure nothing")
    args = parser.parse_args()
    if not args.folder:
        for script in PARTS.values():
            rounds = [] if args.rounds is None else ["--rounds", str(args.rounds)]
            subprocess.run([sys.executable, pathlib.Path(__file__).parent / script, *rounds], check=True)
    documents = [json.loads(((args.folder or FOLDER) / f"{name}.json").read_text()) for name in PARTS]
    readme = ROOT / "README.md"
    text, found = MARKS.subn(lambda m: m[1] + section(documents) + m[2], readme.read_text())
    if found != 1:
        sys.exit("bench: README.md has no place for the figures")
    readme.write_text(text)
    report = [row for d in documents for row in d["results"]]
    (ROOT / PLOT).write_text(svg("tailmesh beside the original", about_lines(documents[0]["machine"]), report))
    print(f"README.md and {PLOT} have the figures now")


if __name__ == "__main__":
    main()
