# SPDX-License-Identifier: BSD-3-Clause
"""Looks into a running node from outside: its state file, its memory, its local API without the CLI in between."""
import base64
import json
import socket
import statistics
import threading
import time


def read_state(node, name="tailscaled.state"):
    """The state file, decoded. Raises if it does not parse."""
    raw = json.loads((node.dir / name).read_text())
    return {k: base64.b64decode(v, validate=True).decode() for k, v in raw.items()}


def keys_of(node):
    """Private keys in the state file as hex, by name; those that are set."""
    state = read_state(node)
    out = {"machine": state["_machinekey"].split(":")[1], "disco": json.loads(state["_tailmesh"])["DiscoKey"].split(":")[1]}
    profile = state.get("_current-profile")
    config = (json.loads(state[profile]).get("Config") or {}) if profile else {}
    for name in ("PrivateNodeKey", "OldPrivateNodeKey"):
        text = config.get(name, "").split(":")[-1]
        if text.strip("0"):
            out[name] = text
    return out


def rss_kib(process):
    return status_kib(process, "VmRSS")


def status_kib(process, name):
    """A number of /proc/PID/status, like VmRSS or VmLck."""
    with open(f"/proc/{process.popen.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(name + ":"))


def dumpable_memory(process):
    """What a core dump of the process would hold, mapping by mapping: (name, bytes). Mappings marked "do not dump" are left out."""
    pid, mappings = process.popen.pid, []
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        for line in f:
            if "-" in line.split(" ")[0]:
                words = line.split()
                start, end = (int(x, 16) for x in words[0].split("-"))
                mappings.append([start, end, words[1], words[5] if len(words) > 5 else "anonymous", False])
            elif line.startswith("VmFlags:"):
                mappings[-1][4] = "dd" in line.split()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end, rights, name, hidden in mappings:
            if hidden or not rights.startswith("rw") or name in ("[vvar]", "[vsyscall]"):
                continue
            memory.seek(start)
            try:
                yield f"{name} at {start:x}", memory.read(end - start)
            except OSError:
                continue


def ask(node, path, method="GET", timeout=5.0, body=b""):
    """One request of its own connection; returns (status, body, seconds)."""
    begin = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        s.connect(str(node.socket))
        s.sendall(f"{method} /localapi/v0/{path} HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest, time.monotonic() - begin


class StatusWatch:
    """Asks for the status all the time, and remembers how long each answer took. Use as a context."""

    def __init__(self, node, interval=0.02):
        self.node, self.interval, self.seconds, self.errors, self.over = node, interval, [], [], threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        while not self.over.wait(self.interval):
            try:
                status, body, took = ask(self.node, "status")
                json.loads(body)
                if status != 200:
                    raise OSError(f"status {status}")
                self.seconds.append(took)
            except (OSError, ValueError, IndexError) as e:
                self.errors.append(repr(e))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def __str__(self):
        ms = sorted(s * 1000 for s in self.seconds)
        return (f"{len(ms)} answers, median {statistics.median(ms):.1f} ms, p99 {ms[int(len(ms) * 0.99)]:.1f} ms, "
                f"worst {ms[-1]:.1f} ms, {len(self.errors)} errors {self.errors[:3]}")

    def check(self):
        assert len(self.seconds) > 10 and not self.errors and max(self.seconds) < 1.0, str(self)
