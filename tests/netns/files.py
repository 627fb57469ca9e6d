# SPDX-License-Identifier: BSD-3-Clause
"""Files between nodes (Taildrop), whoever's programs stand at either end."""
import os
import re

from lab import wait_for

OURS_GOES_ON = r"taildrop: big\.bin goes on at byte [1-9]\d{5,}"
# A sender that breaks off: the head of a PUT and the first bytes of its file, then it waits to be ended.
HALF = """
import socket, sys, time
host, port, name, path, n = sys.argv[1:]
data = open(path, "rb").read()
s = socket.create_connection((host, int(port)))
s.sendall(f"PUT /v0/put/{name} HTTP/1.1\\r\\nHost: peer\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n".encode() + data[:int(n)])
time.sleep(60)
"""


def can_send(node, other):
    """The other one announces where it takes files only after its first map."""
    wait_for("a target for files", lambda: (node.peer(other.ip()) or {}).get("TaildropTarget") == 1, timeout=20)
    peer, own = node.peer(other.ip()), other.status()["Self"]
    assert sorted(peer["PeerAPIURL"]) == sorted(own["PeerAPIURL"]) and f"http://{other.ip()}:" in peer["PeerAPIURL"][0], (peer, own)
    assert f"{other.ip()}\t" in node.cli("file", "cp", "--targets").stdout
    assert re.match(rf"hit peerapi of {other.ip()} \(.+\.\) at http://{other.ip()}:\d+ in \d", node.cli("ping", "--peerapi", other.ip()).stdout)


def inbox(lab, node, *flags, cli=None):
    """Fetches what waits there; name → content."""
    into = lab.dir / f"inbox-{node.name}-{len(os.listdir(lab.dir))}"
    into.mkdir()
    lab.run(node.space, [cli or node.cli_path, f"--socket={node.socket}", "file", "get", *flags, into])
    return {p.name: p.read_bytes() for p in into.iterdir()}


def big_file(lab, size=5_000_000):
    path = lab.dir / "big.bin"
    if not path.exists():
        path.write_bytes(os.urandom(size))
    return path


def exchange(lab, a, b, cli=None):
    """A large file, one with an awkward name, and standard input, from a to b. `cli`: another command for both ends."""
    can_send(a, b)
    big, odd = big_file(lab), lab.dir / "Größe (1) & so.txt"
    odd.write_text("odd\n")
    cp = [cli or a.cli_path, f"--socket={a.socket}", "file", "cp"]
    lab.run(a.space, [*cp, big, odd, f"{b.ip()}:"])
    lab.run(a.space, [*cp, "--name=from stdin.txt", "-", f"{b.ip()}:"], input="piped")
    assert inbox(lab, b, cli=cli) == {"big.bin": big.read_bytes(), odd.name: b"odd\n", "from stdin.txt": b"piped"}
    assert inbox(lab, b, cli=cli) == {}


def goes_on(lab, a, b, words):
    """A file that broke off on its way from a to b is sent again: a logs `words`, and b gets the whole of it. Returns what b had of it before."""
    partial = send_half(lab, a, b)
    wait_for("the old connection is forgotten", lambda: a.cli("file", "cp", big_file(lab), f"{b.ip()}:", check=False).returncode == 0)
    assert re.search(words, a.daemon.text()), a.daemon.text()[-2000:]
    assert inbox(lab, b) == {"big.bin": big_file(lab).read_bytes()}
    return partial


def send_half(lab, a, b):
    """Leaves a partial file of a's at b; its size."""
    can_send(a, b)
    big = big_file(lab)
    port = b.status()["Self"]["PeerAPIURL"][0].rsplit(":", 1)[1]
    sender = lab.start(a.space, ["python3", "-c", HALF, b.ip(), port, big.name, big, "3000000"])

    def there():
        found = list((b.dir / "files").glob("*/big.bin.*.partial"))
        return found and found[0].stat().st_size >= 3_000_000 and found[0]
    partial = wait_for("the partial file", there)
    sender.stop()
    return partial
