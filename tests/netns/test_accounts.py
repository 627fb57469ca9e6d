# SPDX-License-Identifier: BSD-3-Clause
"""Several accounts on one installation: `login` adds one, `switch` goes from one to another, each with its own settings and address."""
import json

from lab import Lab, wait_for


def accounts(node):
    return {a["id"]: a["selected"] for a in json.loads(node.cli("switch", "--list", "--json").stdout)}


def test_login_adds_and_switch_goes_back():
    with Lab("accounts") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        lab.control(listen="10.50.0.3:8090", prefix="100.80.0.0/16")
        other = "--login-server=http://10.50.0.3:8090"
        a, b = lab.node("a").start(), lab.node("b").start()
        b.join()
        assert a.cli("switch", "--list").stdout == "ID  Tailnet  Account\n"
        a.join("--hostname=first")
        first_ip, (first,) = a.ip(), accounts(a)
        assert a.cli("switch", first).stdout == f'Already on account "{first}"\n'
        a.cli("set", "--shields-up")
        a.cli("login", other, "--accept-dns=false", "--hostname=second")
        second_ip = a.ip()
        second = next(i for i, selected in accounts(a).items() if selected)
        assert second_ip != first_ip and accounts(a) == {first: False, second: True}
        assert not json.loads(a.cli("debug", "prefs").stdout)["ShieldsUp"], "settings of its own"
        assert second_ip.startswith("100.80.") and not a.status()["Peer"], "another network"
        listed = a.cli("switch", "--list").stdout.splitlines()
        assert listed[0].split() == ["ID", "Tailnet", "Account"] and [line for line in listed if line.endswith("*")][0].startswith(second), listed
        assert a.cli("switch", first).stdout == f'Switching to account "{first}"\nSuccess.\n'
        assert a.ip() == first_ip and accounts(a) == {first: True, second: False}
        assert json.loads(a.cli("debug", "prefs").stdout)["ShieldsUp"]
        a.wait_peer(b)
        assert "pong from" in a.cli("ping", "-c", "3", b.ip()).stdout
        # A restart changes nothing of it, and the state file is the original's.
        a.stop()
        state = json.loads((a.dir / "tailscaled.state").read_text())
        assert {f"profile-{first}", f"profile-{second}"} <= state.keys()
        a.start()
        wait_for("it is up again", lambda: a.status()["BackendState"] == "Running")
        assert a.ip() == first_ip and accounts(a) == {first: True, second: False}
        missing = a.cli("switch", "nosuch", check=False)
        assert missing.returncode == 1 and missing.stderr == 'No profile named "nosuch"\n'
        # A logout ends one of them; the other is still there to go to.
        a.cli("logout")
        assert accounts(a) == {second: False}
        a.cli("switch", second)
        assert a.ip() == second_ip
        a.cli("login", f"--login-server={lab.url}", "--accept-dns=false", "--hostname=third")
        a.wait_peer(b)
        a.cli("switch", "remove", second)
        assert second not in accounts(a) and len(accounts(a)) == 1
