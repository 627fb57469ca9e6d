# SPDX-License-Identifier: BSD-3-Clause
"""Files between our nodes: by TUN and without one, what names and folders do, who is refused, and a full disk."""
import json

import pytest
from files import OURS_GOES_ON, big_file, can_send, exchange, goes_on, inbox
from lab import Lab, wait_for


@pytest.fixture(scope="module")
def net():
    with Lab("files") as lab:
        lab.flat("a", "b", "c")
        lab.derper()
        lab.control()
        lab.a, lab.b = lab.node("a").start(), lab.node("b").start()
        lab.c = lab.node("c", tun="userspace-networking").start()
        for node in (lab.a, lab.b, lab.c):
            node.join()
        lab.a.wait_peer(lab.b)
        yield lab


def test_by_the_tun(net):
    exchange(net, net.a, net.b)


def test_without_a_tun_both_ways(net):
    exchange(net, net.a, net.c)
    exchange(net, net.c, net.a)


def test_shields_up_keeps_programs_away_not_files(net):
    net.b.cli("set", "--shields-up")
    try:
        exchange(net, net.a, net.b)
    finally:
        net.b.cli("set", "--shields-up=false")


def test_a_broken_transfer_goes_on_where_it_ended(net):
    assert not goes_on(net, net.a, net.b, OURS_GOES_ON).exists()


def test_conflicts_are_treated_as_asked(net):
    note = net.dir / "note.txt"

    def send(text):
        note.write_text(text)
        net.a.cli("file", "cp", note, f"{net.b.ip()}:")
    can_send(net.a, net.b)
    into = net.dir / "into"
    into.mkdir()
    (into / "note.txt").write_text("old")
    send("new")
    refused = net.b.cli("file", "get", into, check=False)
    assert refused.returncode == 1 and "refusing to overwrite file" in refused.stdout and refused.stderr == "moved 0/1 files\n", refused
    assert (into / "note.txt").read_text() == "old"
    assert "moved 1/1 files" in net.b.cli("file", "get", "--verbose", "--conflict=rename", into).stdout
    assert (into / "note (1).txt").read_text() == "new"
    send("newer")
    send("newest")  # the first one still waits: its name is taken there too
    net.b.cli("file", "get", "--conflict=overwrite", into)
    assert (into / "note.txt").read_text() == "newer" and (into / "note (1).txt").read_text() == "newest"
    assert net.b.cli("file", "get", "--conflict=x", into, check=False).returncode == 2
    send("gone")
    net.b.cli("file", "get", "/dev/null")
    assert inbox(net, net.b) == {}


def test_somebody_waits_for_a_file(net):
    can_send(net.a, net.b)
    into = net.dir / "waited"
    into.mkdir()
    waiting = net.start("b", [net.b.cli_path, f"--socket={net.b.socket}", "file", "get", "--wait", "--verbose", into], label="get-wait")
    waiting.wait_text("waiting for file")
    net.a.cli("file", "cp", big_file(net), f"{net.b.ip()}:")
    assert waiting.popen.wait(20) == 0
    assert (into / "big.bin").read_bytes() == big_file(net).read_bytes()


def test_words_for_what_cannot_be(net):
    a = net.a

    def said(*args, code=1):
        done = a.cli("file", *args, check=False)
        assert done.returncode == code, done
        return done.stderr
    assert said("cp", "/etc/hostname") == "usage: tailscale file cp <files...> <target>:\n"
    assert said("cp", "/etc/hostname", net.b.ip()) == "final argument to 'tailscale file cp' must end in colon\n"
    assert said("cp", "/etc", f"{net.b.ip()}:") == "directories not supported\n"
    assert said("cp", "/nosuch", f"{net.b.ip()}:") == "open /nosuch: no such file or directory\n"
    assert said("cp", "/etc/hostname", "100.64.9.9:") == "can't send to 100.64.9.9: unknown target; not in your Tailnet\n"
    assert said("cp", "/etc/hostname", "10.50.0.2:") == "can't send to 10.50.0.2: unknown target; 10.50.0.2 is not a Tailscale IP address\n"
    assert "400 Bad Request: invalid filename" in said("cp", "--name=a/b", "/etc/hostname", f"{net.b.ip()}:")
    assert said("get", "/nosuch") == '"/nosuch" is not a directory\n'


def test_another_user_is_refused(net):
    """The control server gives b's node to somebody else: neither end takes part any more, and what b's host tries by hand is refused."""
    can_send(net.b, net.a)
    port = net.a.status()["Self"]["PeerAPIURL"][0].rsplit(":", 1)[1]
    put = ["curl", "-sS", "--max-time", "5", "-T", "/etc/hostname", f"http://{net.a.ip()}:{port}/v0/put/x"]
    assert net.run("b", put).stdout == "{}\n"
    whois = json.loads(net.a.cli("whois", "--json", net.b.ip()).stdout)["Node"]
    whois.pop("ComputedName", None)
    net.tell_nodes({"PeersChanged": [{**whois, "User": 99}]})
    try:
        wait_for("the other owner", lambda: net.a.peer(net.b.ip())["TaildropTarget"] == 9)
        assert "belongs to another user" in net.run("b", put).stdout
        assert net.a.cli("file", "cp", "/etc/hostname", f"{net.b.ip()}:", check=False).stderr == \
            f"can't send to {net.b.ip()}: cannot send files: peer is owned by a different user\n"
    finally:
        net.tell_nodes({"PeersChanged": [whois]})
    assert list(inbox(net, net.a)) == ["x"]


def test_a_full_disk_is_said(net):
    """A disk with less left than is kept free."""
    net.b.stop()
    net.b.start(wrap=["sh", "-c", f"mkdir -p {net.b.dir}/files && mount -t tmpfs -o size=60m tmpfs {net.b.dir}/files && exec \"$@\"", "small"])
    wait_for("it is up again", lambda: net.b.status()["BackendState"] == "Running")
    can_send(net.a, net.b)
    refused = net.a.cli("file", "cp", big_file(net), f"{net.b.ip()}:", check=False)
    assert refused.returncode == 1 and "507 Insufficient Storage: there is not enough space for it on the receiver's disk" in refused.stderr, refused


def test_the_daemons_end_ends_transfers(net):
    """One that nobody feeds any more, and one that nobody ends."""
    wait_for("it is up", lambda: net.c.status()["BackendState"] == "Running")
    can_send(net.a, net.c)
    sending = net.start("a", ["sh", "-c", f"sleep 60 | {net.a.cli_path} --socket={net.a.socket} file cp --name=endless - {net.c.ip()}:"], label="endless")
    wait_for("the partial file", lambda: list((net.c.dir / "files").glob("*/endless.*.partial")))
    assert net.a.stop() == 0
    sending.stop()
    assert net.c.stop() == 0
