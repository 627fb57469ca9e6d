# SPDX-License-Identifier: BSD-3-Clause
"""What the measurements have in common: the machine, the table, the plot (SVG), the files they leave in build/bench."""
import html
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "netns"))
from lab import ORIGINAL, OURS, ROOT  # noqa: E402

FOLDER = ROOT / "build/bench"
MORE_IS_BETTER = ("Gbit/s", "Gbit per CPU s", "1000 packets/s", "handshakes/s")
BOTH = ("ours", "original")

# What we want of a row, "what, unit": (of the ratio or of our own median, at most or at least, how much).
RATIO, OWN = "ours/original", "ours"
GOALS = {
    "direct: TCP to the other, Gbit/s": (RATIO, "≥", 1.7),
    "direct: TCP to the other, CPU s/GiB": (RATIO, "≤", 0.5),
    "direct: TCP from the other, Gbit/s": (RATIO, "≥", 1.7),
    "direct: TCP from the other, CPU s/GiB": (RATIO, "≤", 0.5),
    "direct: TCP, 4 flows to the other, Gbit/s": (RATIO, "≥", 1.7),
    "direct: TCP, 4 flows to the other, CPU s/GiB": (RATIO, "≤", 0.5),
    "direct: TCP, 4 flows from the other, Gbit/s": (RATIO, "≥", 1.7),
    "direct: TCP, 4 flows from the other, CPU s/GiB": (RATIO, "≤", 0.5),
    "direct: UDP 300 Mbit/s, 1200 B, CPU s/GiB": (RATIO, "≤", 0.3),
    "direct: UDP flat out, 1200 B, Gbit/s": (RATIO, "≥", 3),
    "relay: TCP to the other, Gbit/s": (RATIO, "≥", 2.5),
    "relay: TCP to the other, CPU s/GiB": (RATIO, "≤", 0.4),
    "relay: TCP to the other, retransmits/s": (RATIO, "≤", 0.05),
    "relay: TCP from the other, Gbit/s": (RATIO, "≥", 2.5),
    "relay: TCP from the other, CPU s/GiB": (RATIO, "≤", 0.4),
    "relay: TCP from the other, retransmits/s": (RATIO, "≤", 0.05),
    "ping, idle, above the bare link: p50, ms": (RATIO, "≤", 0.6),
    "ping, idle, above the bare link: p99, ms": (RATIO, "≤", 0.6),
    "ping beside a TCP flow: p99, ms": (RATIO, "≤", 1),
    "ping beside a TCP flow: p99, × original's idle p99": (OWN, "≤", 2),
    "seal 1280 B, 32 together, ns/packet": (RATIO, "≤", 0.83),
    "memory of a node, idle, MiB": (OWN, "≤", 12),
    "VmRSS, MiB": (OWN, "≤", 12),
    "direct: most memory under load, MiB": (OWN, "≤", 25),
    "relay: most memory under load, MiB": (OWN, "≤", 25),
    "start to local API, s": (OWN, "≤", 0.05),
    "up with an auth key, s": (OWN, "≤", 0.5),
    "`tailscale version`, CPU ms": (OWN, "≤", 5),
    "wake-ups of a quiet node, per s": (OWN, "≤", 1),
    "10000 peers: first map, processor, s": (OWN, "≤", 1),
    "10000 peers: memory, MiB": (OWN, "≤", 40),
    "10000 peers: status --json, ms": (OWN, "≤", 150),
    "10000 peers: a change, ms of processor": (OWN, "≤", 0.1),
}
# What the README and its plot show.
CHOSEN = [
    "direct: TCP to the other, Gbit/s", "direct: TCP to the other, CPU s/GiB", "direct: TCP, 4 flows to the other, Gbit/s",
    "direct: UDP 300 Mbit/s, 1200 B, CPU s/GiB", "direct: UDP flat out, 1200 B, Gbit/s", "direct: UDP flat out, 64 B packets, 1000 packets/s",
    "relay: TCP to the other, Gbit/s", "relay: TCP to the other, CPU s/GiB", "relay: TCP to the other, retransmits/s",
    "ping, idle, above the bare link: p50, ms", "ping beside a TCP flow: p99, ms", "seal 1280 B, 32 together, ns/packet",
    "both sides of each on one core, handshakes/s", "memory of a node, idle, MiB", "direct: most memory under load, MiB", "wake-ups of a quiet node, per s",
    "start to local API, s", "up with an auth key, s", "`tailscale version`, CPU ms", "10000 peers: first map, processor, s", "10000 peers: memory, MiB", "10000 peers: status --json, ms",
]


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))

    def version(path):
        return subprocess.run([path / "tailscale", "version"], capture_output=True, text=True).stdout.split("\n")[0]

    def git(*words):
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True).stdout.strip()
    commit = git("rev-parse", "--short=12", "HEAD") + (" with changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    script = pathlib.Path(sys.argv[0]).stem
    command = ["./dev", "bench", *([] if script == "bench" else [script.removeprefix("bench_")]), *sys.argv[1:]]
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory / (1 << 20), 1), "kernel": platform.release(),
            "load": round(os.getloadavg()[0], 2), "commit": commit, "ours": version(OURS), "original": version(ORIGINAL),
            "command": shlex.join(command)}


def about_lines(about):
    return [f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}, load {about['load']} before",
            f"ours {about['ours']}, commit {about['commit']}; original {about['original']}; {about['command']}"]


def ratios(values, over, under):
    """Neighbour by neighbour; None where a quotient makes no sense."""
    out = [a / b for a, b in zip(values[over], values[under]) if b > 0]
    return out if len(out) == len(values[over]) else None


def spread(quotients):
    if not quotients:
        return "-"
    if len(quotients) == 1:
        return f"{quotients[0]:.2f}"
    return f"{statistics.median(quotients):.2f} ({min(quotients):.2f}..{max(quotients):.2f})"


def called(row):
    return f"{row['what']}, {row['unit']}"


def chosen(report):
    return [row for row in report if called(row) in CHOSEN]


def goal(row, ratio):
    """What is wanted of a row, with a mark where it is not so; empty if nothing is."""
    if called(row) not in GOALS:
        return ""
    of, sign, limit = GOALS[called(row)]
    if of == RATIO and not ratio:
        return f"{sign} {limit} ×: not to be had"
    found = statistics.median(ratio if of == RATIO else row["values"]["ours"])
    good = found <= limit if sign == "≤" else found >= limit
    return f"{sign} {limit}{' ×' if of == RATIO else ''}{'' if good else '  MISSED'}"


def compared(report):
    """(row, ratio to the original, ratio to ourselves) of rows about both."""
    return [(row, ratios(row["values"], *BOTH), ratios(row["values"], "ours again", "ours")) for row in report if set(BOTH) <= set(row["values"])]


def others(report):
    """(heads, rows of cells) of what was measured beside something else than the original."""
    rows = [row for row in report if not set(BOTH) <= set(row["values"])]
    names = list(dict.fromkeys(name for row in rows for name in row["values"]))
    heads = [*names, *(f"ours/{name}" for name in names if name != "ours")]
    return heads, [[called(row), *(number(statistics.median(row["values"][name])) for name in names),
                    *(spread(ratios(row["values"], "ours", name)) for name in names if name != "ours")] for row in rows]


def table(report):
    lines = [f"{'':50} {'ours':>9} {'original':>9}  {'ours/original':20} {'ours/ours':20} wanted"]
    for row, ratio, noise in compared(report):
        v = row["values"]
        row["ratio"], row["noise"] = ratio, noise
        lines.append(f"{called(row):50} {statistics.median(v['ours']):9.3f} {statistics.median(v['original']):9.3f}  "
                     f"{spread(ratio):20} {spread(noise):20} {goal(row, ratio)}".rstrip())
    heads, rows = others(report)
    if rows:
        lines += ["", " ".join([f"{'':50}", *(f"{head:20}" for head in heads)]).rstrip()]
        lines += [" ".join([f"{row[0]:50}", *(f"{cell:20}" for cell in row[1:])]).rstrip() for row in rows]
    return "\n".join(lines)


def markdown(report):
    lines = ["| | ours | original | ours / original | ours / ours (noise) |", "|---|---|---|---|---|"]
    for row, ratio, noise in compared(report):
        v = row["values"]
        lines.append(f"| {called(row)} | {number(statistics.median(v['ours']))} | {number(statistics.median(v['original']))} "
                     f"| {spread(ratio)} | {spread(noise)} |")
    return "\n".join(lines)


def markdown_others(report):
    heads, rows = others(report)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [["", *heads], ["---"] * (len(heads) + 1), *rows]) if rows else ""


def number(x):
    """Three digits that count."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def svg(title, lines, report):
    """One group of two bars a row, to a scale of its own; a thin line spans the single measurements. Rows that are only ours are left out."""
    report = [row for row, _, _ in compared(report)]
    width, left, right, bar, row_height = 900, 330, 150, 9, 34
    colours = {"ours": "#1f6feb", "original": "#9aa4af"}
    top = 64 + 15 * len(lines)
    height = top + row_height * len(report) + 16
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="16" y="26" font-size="16" font-weight="bold">{html.escape(title)}</text>']
    for i, line in enumerate(lines):
        out.append(f'<text x="16" y="{44 + 15 * i}" font-size="11" fill="#57606a">{html.escape(line)}</text>')
    for i, (name, colour) in enumerate(colours.items()):
        out.append(f'<rect x="{left + 90 * i}" y="{top - 22}" width="10" height="10" fill="{colour}"/>'
                   f'<text x="{left + 14 + 90 * i}" y="{top - 13}">{name}</text>')
    for n, row in enumerate(report):
        y, values = top + row_height * n, row["values"]
        most = max(max(values[name]) for name in colours) or 1
        scale = (width - left - right) / most
        better = "more is better" if row["unit"] in MORE_IS_BETTER else "less is better"
        out.append(f'<text x="{left - 10}" y="{y + 11}" text-anchor="end">{html.escape(row["what"])}</text>'
                   f'<text x="{left - 10}" y="{y + 23}" text-anchor="end" font-size="10" fill="#57606a">{html.escape(row["unit"])}, {better}</text>')
        for i, (name, colour) in enumerate(colours.items()):
            at, middle = y + (bar + 3) * i, statistics.median(values[name])
            low, high = min(values[name]) * scale, max(values[name]) * scale
            out.append(f'<rect x="{left}" y="{at}" width="{max(middle * scale, 0.5):.1f}" height="{bar}" fill="{colour}"/>')
            if high > low:
                out.append(f'<line x1="{left + low:.1f}" x2="{left + high:.1f}" y1="{at + bar / 2}" y2="{at + bar / 2}" stroke="#24292f"/>')
            out.append(f'<text x="{width - right + 8}" y="{at + bar}" font-size="11">{number(middle)}</text>')
        quotients = ratios(values, "ours", "original")
        if quotients:
            out.append(f'<text x="{width - 16}" y="{y + 15}" text-anchor="end" font-weight="bold">× {statistics.median(quotients):.2f}</text>')
    text = "\n".join([*out, "</svg>\n"])
    xml.etree.ElementTree.fromstring(text)
    return text


def tell(name, title, notes, about, report, json_to=None, more=()):
    """Prints the table (or, to "-", everything as JSON) and leaves it with a plot in build/bench."""
    document = json.dumps({"title": title, "notes": notes, "machine": about, "results": report}, indent=1) + "\n"
    text = "\n".join([*about_lines(about), *notes, "", table(report), *more])
    print(document if json_to == "-" else text)
    if json_to and json_to != "-":
        pathlib.Path(json_to).write_text(document)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(document)
    (FOLDER / f"{name}.txt").write_text(text + "\n")
    (FOLDER / f"{name}.svg").write_text(svg(title, about_lines(about), chosen(report) or report))
