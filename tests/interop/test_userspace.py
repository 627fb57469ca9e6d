# SPDX-License-Identifier: BSD-3-Clause
"""Userspace networking beside the original: ours without a TUN and theirs with one, and the other way round."""
import pytest
from http_from import curl, web
from lab import ORIGINAL, OURS, Lab, wait_for

PROXY = "127.0.0.1:1055"
# Standard input stays open until the page has come: with its end the original ends everything.
TALK = """
import subprocess, sys
p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
p.stdin.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
p.stdin.flush()
page = b""
while not page.endswith(b"hello"):
    got = p.stdout.read1()
    if not got:
        break
    page += got
p.kill()
print(page.decode(), end="")
"""


@pytest.fixture(scope="module", params=["ours", "theirs"])
def mixed(request):
    """`user` has no TUN: ours, or theirs."""
    with Lab(f"user-{request.param}") as lab:
        lab.flat("user", "tun")
        lab.derper(ORIGINAL / "derper")
        lab.testcontrol()
        ours = request.param == "ours"
        lab.user = lab.node("user", OURS if ours else ORIGINAL, tun="userspace-networking")
        lab.user.start(f"--socks5-server={PROXY}", f"--outbound-http-proxy-listen={PROXY}")
        lab.tun = lab.node("tun", ORIGINAL if ours else OURS).start()
        lab.user.join()
        lab.tun.join()
        lab.user.wait_peer(lab.tun)
        lab.tun.wait_peer(lab.user)
        web(lab, "user", "127.0.0.1", 8077)
        web(lab, "tun", "0.0.0.0", 8078)
        yield lab


@pytest.mark.parametrize("how", ["--socks5", "--proxy"])
def test_out_through_the_proxy(mixed, how):
    page = wait_for("an answer", lambda: curl(mixed, "user", how, PROXY, f"http://{mixed.tun.ip()}:8078/", check=False).stdout)
    assert "200 OK" in page and f"X-From: {mixed.user.ip()}" in page, page
    assert curl(mixed, "user", "--socks5", PROXY, f"http://{mixed.tun.ip()}:9/", check=False).returncode == 97


def test_in_to_a_program_of_the_host(mixed):
    page = wait_for("an answer", lambda: curl(mixed, "tun", f"http://{mixed.user.ip()}:8077/", check=False).stdout)
    assert "200 OK" in page and "X-From: 127.0.0.1" in page, page
    assert curl(mixed, "tun", f"http://{mixed.user.ip()}:9/", check=False).returncode == 7


def test_either_command_joins_standard_input_and_output(mixed):
    for cli in (OURS / "tailscale", ORIGINAL / "tailscale"):
        page = mixed.run("user", ["python3", "-c", TALK, cli, f"--socket={mixed.user.socket}", "nc", mixed.tun.ip(), "8078"]).stdout
        assert page.endswith("hello"), (cli, page)


def test_the_hosts_show_no_tun(mixed):
    assert mixed.user.status()["TUN"] is False and mixed.tun.status()["TUN"] is True
    assert mixed.tun.cli("ping", "-c", "1", mixed.user.ip()).stdout.startswith("pong from")
