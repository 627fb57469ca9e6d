#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The main job on one machine: two nodes behind two NATs join, talk through a relay, go direct, and reach a LAN."""
import shlex
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from lab import CONTROL_PORT, DERP_PORT, OURS, STUN_PORT, Failure, Lab, wait_for  # noqa: E402

BOLD, DIM, OFF = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
PICTURE = f"""
  control server + relay (derper)            10.50.0.2   control :{CONTROL_PORT}, DERP :{DERP_PORT}, STUN :{STUN_PORT}
        |
  ------+----------------- "the internet" -----------------+------
        |                                                  |
   NAT router 10.50.1.1                              NAT router 10.50.2.1
        |                                                  |
   laptop 192.168.1.10                               router 192.168.2.10  (subnet router)
                                                           |
                                                     LAN 192.168.50.0/24
                                                           |
                                                     lanhost 192.168.50.20  (a web page, no VPN software)
"""


def say(text):
    print(f"\n{BOLD}{text}{OFF}", flush=True)


def show(node, *args, check=True):
    """Runs the CLI on a node, printing the command, its output and how long it took."""
    print(f"{DIM}{node.name}${OFF} tailscale {shlex.join(args)}", flush=True)
    start = time.monotonic()
    done = node.cli(*args, check=False)
    took = time.monotonic() - start
    for line in (done.stdout + done.stderr).splitlines():
        print("    " + line.rstrip())
    print(f"{DIM}    ({took:.2f} s){OFF}", flush=True)
    if check and done.returncode != 0:
        raise Failure(f"tailscale {shlex.join(args)} ended with {done.returncode}")
    return done.stdout


def main():
    with Lab("demo") as lab:
        print(PICTURE)
        say("1. Two homes, an internet between them, a control server and a relay")
        lab.home_and_office()
        lab.derper()
        lab.control(["--auth-key", "demo-key"])
        lab.page(text="<h1>Hello from the LAN behind the subnet router</h1>\n")
        laptop, router = lab.node("laptop").start(), lab.node("router").start()
        print(f"    {OURS.name}/tailscaled runs on laptop and router; the web page on lanhost")

        # Packets between the two homes are dropped at first, so that the relay has something to do.
        lab.run("nat1", "iptables -I FORWARD -p udp -d 10.50.2.1 -j DROP")

        say("2. Both join with a pre-auth key; the router offers its LAN")
        show(router, "up", f"--login-server={lab.url}", "--auth-key=demo-key", "--accept-dns=false",
             "--advertise-routes=192.168.50.0/24")
        show(laptop, "up", f"--login-server={lab.url}", "--auth-key=demo-key", "--accept-dns=false", "--accept-routes")
        wait_for("the laptop sees the router", lambda: laptop.peer(router.ip()))

        say("3. A firewall between the homes drops UDP: the relay carries the first packets, and nothing is lost")
        show(laptop, "status")
        show(laptop, "ping", "-c", "2", "--until-direct=false", "router")
        run = laptop.ping_through(router.ip(), count=60)
        wait_for("the first answer", run.answers)

        say("4. The firewall opens while packets flow (20 a second): the path becomes direct by itself")
        lab.run("nat1", "iptables -D FORWARD -p udp -d 10.50.2.1 -j DROP")
        start = time.monotonic()
        wait_for("a direct path", lambda: laptop.direct(router.ip()))
        print(f"    direct {time.monotonic() - start:.2f} s after the firewall opened")
        show(laptop, "ping", "-c", "2", "--until-direct=false", "router")
        run.finish()
        print(f"    {run.count} packets sent during the change, {run.lost} lost")

        say("5. A page from a host without VPN software, through the subnet route")
        wait_for("the subnet route", lambda: "192.168.50.0/24" in lab.run("laptop", "ip route show table 52", check=False).stdout)
        print(f"{DIM}laptop${OFF} curl http://192.168.50.20/")
        start = time.monotonic()
        page = lab.fetch("laptop", "http://192.168.50.20/")
        if page.returncode != 0:
            raise Failure(f"the page did not come: {page.stderr}")
        print("    " + page.stdout.strip() + f"\n{DIM}    ({time.monotonic() - start:.2f} s){OFF}")

        show(laptop, "status")
        say("6. Everything stops and leaves nothing behind")
        for node in (laptop, router):
            code = node.stop()
            rules = lab.run(node.space, "ip rule").stdout + lab.run(node.space, "iptables-save").stdout
            left = [line for line in rules.splitlines() if "ts-" in line or line.startswith("52")]
            print(f"    {node.name}: tailscaled ended with {code}; rules left behind: {len(left)}")
            if code != 0 or left:
                raise Failure(f"{node.name} left {left}")
        say("The main job works on this machine.")


if __name__ == "__main__":
    try:
        main()
    except Failure as e:
        print(f"\nThe demo failed: {e}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
