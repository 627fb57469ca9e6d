# SPDX-License-Identifier: BSD-3-Clause
"""The emulated cable does what it is told, and a transfer survives a path that flips, on a cable that is not good."""
import json
import re
import signal

import pytest
from endurance import TRANSFER, receiver
from lab import Lab, wait_for

MB = 1 << 20


@pytest.fixture
def cable():
    """make(**how): two hosts x and y, 10.9.0.1 and .2, at the ends of a cable; returns the lab."""
    labs = []

    def make(**how):
        lab = Lab("cable")
        labs.append(lab)
        for name in "xy":
            lab.space(name)
        lab.cable_process = lab.cable("x", "eth0", "y", "eth0", **how)
        for name, address in (("x", "10.9.0.1"), ("y", "10.9.0.2")):
            lab.run(name, f"ip addr add {address}/24 dev eth0")
        wait_for("the neighbours know each other", lambda: lab.run("x", "ping -n -c 1 -W 1 10.9.0.2", check=False).returncode == 0)
        return lab
    yield make
    for lab in labs:
        lab.close()


def pings(lab, *args, count=200):
    text = lab.run("x", ["ping", "-n", "-i", "0.01", "-c", count, "-W", "1", *args, "10.9.0.2"], check=False).stdout
    return [float(t) for t in re.findall(r"time=([\d.]+)", text)], text


def test_delay_jitter_loss_and_duplicates(cable):
    times, text = pings(cable(delay=20, jitter=10, loss=5, duplicate=10, seed=7), count=300)
    assert min(times) >= 40, text
    assert 45 < sorted(times)[len(times) // 2] < 80, text
    lost = 300 - len(set(re.findall(r"icmp_seq=(\d+)", text)))
    assert 10 <= lost <= 60 and "DUP!" in text, text


def test_one_way_loss_and_the_mtu(cable):
    lab = cable(mtu=1280, seed=3)
    assert len(pings(lab, "-s", "1252", count=5)[0]) == 5
    assert not pings(lab, "-s", "1253", count=3)[0]
    report = lab.cable_process
    report.stop()
    assert re.search(r"from a: \d+ frames, .* 3 too long", report.text()), report.text()


def speed(lab, megabytes):
    """Mbit/s of one TCP connection from x to y."""
    code = ("import socket,sys,time\n"
            "n=int(sys.argv[1])<<20\n"
            "c=socket.create_connection(('10.9.0.2',9300))\n"
            "b=bytes(1<<20);t=time.monotonic()\n"
            "for _ in range(n>>20): c.sendall(b)\n"
            "c.shutdown(1);c.recv(1)\n"
            "print(n*8/1e6/(time.monotonic()-t))\n")
    serve = ("import socket\n"
             "s=socket.create_server(('10.9.0.2',9300));c,_=s.accept()\n"
             "while c.recv(1<<20): pass\n"
             "c.send(b'x')\n")
    lab.start("y", ["python3", "-c", serve])
    wait_for("the receiver listens", lambda: lab.listening("y", 9300))
    return float(lab.run("x", ["python3", "-c", code, megabytes]).stdout)


def test_the_rate(cable):
    assert 12 < speed(cable(kbit=20_000, delay=2), 4) < 21


def test_a_good_cable_is_fast(cable):
    print(f"\nnothing impaired: {speed(cable(), 500):.0f} Mbit/s")


@pytest.fixture
def far_apart():
    """Laptop and router behind their NATs, the laptop's provider 15 ms away with jitter, and packets that are lost, doubled, and overtake each other."""
    with Lab("flips") as lab:
        lab.core()
        lab.space("srv")
        lab.uplink("srv", "10.50.0.2/16", "10.50.0.3/16")
        lab.nat("nat1", "10.50.1.1", "192.168.1.1/24",
                wire={"delay": 15, "jitter": 2, "reorder": 0.1, "loss": 0.02, "duplicate": 0.5, "kbit": 300_000, "queue": 600_000})
        lab.host("laptop", "192.168.1.10/24", "nat1", "192.168.1.1")
        lab.nat("nat2", "10.50.2.1", "192.168.2.1/24")
        lab.host("router", "192.168.2.10/24", "nat2", "192.168.2.1")
        lab.derper()
        lab.control()
        lab.a, lab.b = lab.laptop_and_router(env={"TAILMESH_LANES": "always"})  # every batch by the second thread, whatever the machine has
        yield lab


def transfer_while_the_path_flips(lab, megabytes, flips):
    port, ip = receiver(lab.b), lab.b.ip()
    seconds = megabytes * 8 * MB / 1e6 / 40
    beside = lab.a.ping_through(ip, count=100_000, interval=0.02)
    wait_for("a direct path", lambda: lab.a.direct(ip) and lab.b.direct(lab.a.ip()))
    run = lab.start("laptop", ["python3", TRANSFER, "send", ip, port, seconds, 40], label="send")
    for _ in range(flips):
        lab.run("nat1", "iptables -I FORWARD -p udp -j DROP")
        wait_for("the relay", lambda: not lab.a.direct(ip), timeout=10)
        lab.run("nat1", "iptables -D FORWARD -p udp -j DROP")
        wait_for("a direct path again", lambda: lab.a.direct(ip) and lab.b.direct(lab.a.ip()), timeout=15)
    run.popen.wait(seconds + 120)
    beside.process.stop(signal.SIGINT)
    print("\n" + run.text().strip() + f", longest silence {beside.longest_gap:.1f} s")
    report = json.loads(run.text())
    assert report["whole"] and report["bytes"] > megabytes * MB * 2 / 3, report
    assert report["longest_stall"] <= 3, report
    assert beside.longest_gap <= 3, beside.process.text()[-3000:]


def test_fifty_megabytes_while_the_path_flips(far_apart):
    transfer_while_the_path_flips(far_apart, 50, flips=1)


@pytest.mark.full
def test_a_gigabyte_while_the_path_flips(far_apart):
    transfer_while_the_path_flips(far_apart, 1024, flips=12)


# Built for this test: datagrams in one piece go to the kernel as always; those that it should cut fail as on a card that cannot, once the file is there.
NO_SEGMENTS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
int sendmmsg(int fd, struct mmsghdr* m, unsigned n, int flags) {
  static int (*real)(int, struct mmsghdr*, unsigned, int);
  if (!real) real = (int (*)(int, struct mmsghdr*, unsigned, int))dlsym(RTLD_NEXT, "sendmmsg");
  unsigned plain = 0;
  while (plain < n && m[plain].msg_hdr.msg_controllen == 0) ++plain;
  if (plain == n || access(getenv("LAB_NO_SEGMENTS"), F_OK) != 0) return real(fd, m, n, flags);
  if (plain > 0) return real(fd, m, plain, flags);
  errno = EIO;
  return -1;
}
"""


def whole(lab, there, seconds=1):
    run = lab.run("x", ["python3", TRANSFER, "send", there.ip(), receiver(there), seconds, 400])
    assert json.loads(run.stdout)["whole"], run.stdout


def test_segmentation_that_fails_in_the_middle_of_a_transfer():
    with Lab("eio") as lab:
        shim, sign = lab.shim("no_segments", NO_SEGMENTS), lab.dir / "no-segments"
        lab.flat("x", "y")
        lab.derper()
        lab.control()
        env = {"LD_PRELOAD": str(shim), "LAB_NO_SEGMENTS": str(sign)}
        a, b = lab.node("x", env=env).start(), lab.node("y", env=env).start()
        a.join()
        b.join()
        a.wait_peer(b)
        wait_for("a direct path", lambda: a.ping_through(b.ip(), count=1).finish() and a.direct(b.ip()))
        whole(lab, b)
        said = "segmentation offload does not work"
        assert said not in a.daemon.text()
        run = lab.start("x", ["python3", TRANSFER, "send", b.ip(), receiver(b), 2, 400], label="send")
        wait_for("traffic", lambda: a.peer(b.ip())["TxBytes"] > 50 * MB)
        sign.touch()
        run.popen.wait(60)
        report = json.loads(run.text())
        assert report["whole"] and report["longest_stall"] < 1, report
        assert a.daemon.text().count(said) == 1


def test_inner_packets_above_the_mtu():
    """The host was told another size; most of them leave in fragments."""
    with Lab("big") as lab:
        lab.flat("x", "y")
        lab.derper()
        lab.control()
        a, b = lab.pair("x", "y")
        wait_for("a direct path", lambda: a.ping_through(b.ip(), count=1).finish() and a.direct(b.ip()))
        for size in (1400, 4000):
            for space in "xy":
                lab.run(space, f"ip link set tailscale0 mtu {size}")
            assert lab.run("x", f"ping -M do -s {size - 28} -c 3 -W 2 {b.ip()}", check=False).returncode == 0, size
            whole(lab, b)
            assert a.direct(b.ip())


def test_a_card_that_computes_no_checksums():
    """Segmentation by the kernel needs one that does; without it all goes on, only slower."""
    with Lab("card") as lab:
        lab.flat("x", "y")
        lab.derper()
        lab.control()
        off = ("import fcntl,socket,struct,array\n"
               "for what in (0x17, 0x1f, 0x24):\n"  # ETHTOOL_STXCSUM, STSO, SGSO
               "    value = array.array('B', struct.pack('=II', what, 0))\n"
               "    fcntl.ioctl(socket.socket(), 0x8946, struct.pack('16sP', b'eth0', value.buffer_info()[0]))\n")
        for space in "xy":
            lab.run(space, ["python3", "-c", off])
        a, b = lab.pair("x", "y")
        wait_for("a direct path", lambda: a.ping_through(b.ip(), count=1).finish() and a.direct(b.ip()))
        whole(lab, b)
