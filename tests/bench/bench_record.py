#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs the measurements the README shows, one after the other, and writes them there: a table between the two marks, the plot
tests/bench/figures.svg; and every row into tests/bench/figures.md. For a quiet machine; `--from build/bench` only writes again what is there."""
import argparse
import json
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from figures import FOLDER, ROOT, about_lines, chosen, markdown, markdown_others, svg, table  # noqa: E402

PARTS = {"bench": "bench.py", "memory": "bench_memory.py", "peers": "bench_peers.py"}
PLOT, FULL = "tests/bench/figures.svg", "tests/bench/figures.md"
MARKS = re.compile(r"(<!-- figures: \./dev bench record -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def section(documents):
    """The text between the marks of the README."""
    about = documents[0]["machine"]
    rows = [row for d in documents for row in d["results"]]
    text = [f"Measured by `./dev bench record`: {'; '.join(about_lines(about)[:1])}; ours at commit {about['commit']}, original {about['original']}. "
            "Medians; CPU of both daemons together; ratios are median (least..most) of neighbouring short measurements, which alternate, for machines drift. "
            f"Every row, and what is wanted of it: [{FULL}]({FULL}).", "", f"![ours beside the original]({PLOT})", "", markdown(chosen(rows)), ""]
    if beside := markdown_others(rows):
        text += ["Beside the same daemon with nothing where the cipher is, and beside wireguard-go alone:", "", beside, ""]
    return "\n".join(text)


def everything(documents):
    text = ["# Figures", "", "Written by `./dev bench record`; nothing here is edited by hand.", ""]
    for d in documents:
        text += [f"## {d['title']}", "", "```", *about_lines(d["machine"]), *d["notes"], "", table(d["results"]), "```", ""]
    return "\n".join(text)


def main():
    parser = argparse.ArgumentParser(prog="./dev bench record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="of every measurement (default: what each has)")
    parser.add_argument("--from", dest="folder", type=pathlib.Path, help="take bench.json, memory.json and peers.json of this folder, measure nothing")
    args = parser.parse_args()
    failed = []
    if not args.folder:
        for name, script in PARTS.items():
            rounds = [] if args.rounds is None else ["--rounds", str(args.rounds)]
            (FOLDER / f"{name}.json").unlink(missing_ok=True)
            if subprocess.run([sys.executable, pathlib.Path(__file__).parent / script, *rounds], check=False).returncode != 0:
                failed.append(name)
    documents = [json.loads(((args.folder or FOLDER) / f"{name}.json").read_text()) for name in PARTS
                 if ((args.folder or FOLDER) / f"{name}.json").exists()]
    readme = ROOT / "README.md"
    text, found = MARKS.subn(lambda m: m[1] + section(documents) + m[2], readme.read_text())
    if found != 1:
        sys.exit("bench: README.md has no place for the figures")
    readme.write_text(text)
    report = chosen([row for d in documents for row in d["results"]])
    (ROOT / PLOT).write_text(svg("tailmesh beside the original", about_lines(documents[0]["machine"]), report))
    (ROOT / FULL).write_text(everything(documents))
    print(f"README.md, {PLOT} and {FULL} have the figures now")
    if failed:
        sys.exit(f"bench: not all of {' and '.join(failed)} could be measured: see above")


if __name__ == "__main__":
    main()
