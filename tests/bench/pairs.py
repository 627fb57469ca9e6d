# SPDX-License-Identifier: BSD-3-Clause
"""What is measured: pairs of nodes side by side without NAT, each with servers of its own side, and what their processes cost."""
import json
import math
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "netns"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
from lab import ORIGINAL, OURS, Failure, wait_for  # noqa: E402
from wg_pair import A, B, KEYS, OTHER, PORT, PUBLIC  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
GIB = 1 << 30
FLOOR, WIREGUARD = "no crypto", "wireguard-go"
PROGRAMS = {"ours": OURS, "original": ORIGINAL, "ours again": OURS}
MTU = 1280


def socket_buffer():
    """For programs that send or take UDP: with the usual 208 KiB a faster tunnel only means that the receiving program, which has to share
    the processors with it, loses more."""
    return str(min(1 << 20, *(int(pathlib.Path(f"/proc/sys/net/core/{which}mem_max").read_text()) for which in "rw")))


UDP = ["-u", "-w", socket_buffer()]
LOADS = {
    "TCP to the other": [],
    "TCP from the other": ["-R"],
    "TCP, 4 flows to the other": ["-P", "4"],
    "TCP, 4 flows from the other": ["-P", "4", "-R"],
    "UDP 300 Mbit/s, 1200 B": [*UDP, "-b", "300M", "-l", "1200"],
    "UDP flat out, 1200 B": [*UDP, "-b", "0", "-l", "1200"],
    "UDP flat out, 64 B packets": [*UDP, "-b", "0", "-l", "36"],
}


def cpu_seconds(pids):
    """User and system time of processes so far."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory_mib(pid, what="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def forget_most_memory(pid):
    """VmHWM begins anew."""
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def wake_ups(pid):
    """How often threads of a process went to sleep so far."""
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read_text(), re.MULTILINE)[1])
               for f in pathlib.Path(f"/proc/{pid}/task").glob("*/status"))


def percentile(values, percent):
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]


class Pair:
    """Two ends, `a` sends to `b`. Who derives sets spaces, addresses, ip (of b in the tunnel) and pids."""
    relay = None

    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        slug = name.replace(" ", "").replace("-", "")
        self.spaces = [f"{slug}-{side}" for side in "ab"]
        self.addresses = [lab.on_core(space) for space in self.spaces]

    def listen(self):
        """Ready for load()."""
        self.lab.start(self.spaces[1], ["iperf3", "-s", "--forceflush"])
        wait_for("iperf3 listens", lambda: self.lab.listening(self.spaces[1], 5201))

    def client(self, *args, seconds):
        return ["iperf3", "-c", self.ip, "-t", seconds, "-J", "--connect-timeout", 5000, *args]

    def load(self, *args, seconds):
        """One iperf3 run: what arrived per second, what both daemons (and the relay) took for it."""
        for attempt in range(3):  # its own control connection goes through the tunnel too
            before, relay_before = cpu_seconds(self.pids), self.relay_seconds()
            try:
                done = self.lab.run(self.spaces[0], self.client(*args, seconds=seconds), check=False, timeout=seconds + 30)
                result = json.loads(done.stdout)
                why = result.get("error") or (None if result["end"].get("sum_received") else "no result of the other end")
            except (subprocess.TimeoutExpired, json.JSONDecodeError) as e:
                why = str(e)
            if not why:
                break
            time.sleep(1 + attempt)
        else:
            raise Failure(f"{self.name}: iperf3 {' '.join(args)}: {why}")
        used, relay_used = cpu_seconds(self.pids) - before, self.relay_seconds() - relay_before
        end, packets = result["end"], None
        received = end["sum_received"]
        gib = max(received["bytes"], 1) / GIB
        out = {"gbit_s": received["bits_per_second"] / 1e9, "cpu_s_per_gib": used / gib}
        if "-u" in args:
            packets = max(received["packets"] - received["lost_packets"], 0)
            out["lost_percent"] = 100 * received["lost_packets"] / max(received["packets"], 1)
            out["kpps"], out["cpu_us_per_packet"] = packets / received["seconds"] / 1000, used / max(packets, 1) * 1e6
        elif self.relay:
            out["retransmits_s"] = end["sum_sent"].get("retransmits", 0) / end["sum_sent"]["seconds"]
        if self.relay:
            out["relay_cpu_s_per_gib"] = relay_used / gib
        return out

    def relay_seconds(self):
        return cpu_seconds([self.relay.popen.pid]) if self.relay else 0

    def ping(self, to, count=150, interval=0.01):
        """Round trips in ms."""
        done = self.lab.run(self.spaces[0], ["ping", "-n", "-i", interval, "-c", count, "-W", 2, to], check=False)
        times = [float(t) for t in re.findall(r"time=([\d.]+) ms", done.stdout)]
        if len(times) < count * 0.9:
            raise Failure(f"{self.name}: {len(times)} of {count} pings answered")
        return times

    def ping_beside_flow(self):
        """Round trips in ms while one TCP flow takes all it can get."""
        flow = subprocess.Popen([str(a) for a in self.lab.argv(self.spaces[0], self.client(seconds=3))], stdout=subprocess.DEVNULL)
        time.sleep(0.8)
        times = self.ping(self.ip)
        flow.wait(40)
        return times

    def memory(self, what="VmRSS"):
        return statistics.mean(memory_mib(pid, what) for pid in self.pids)


class Tailnet(Pair):
    """Two nodes of one program, with a control server and a relay. `relayed`: no UDP between them; the folder of the relay's program."""
    count = 0

    def __init__(self, lab, name, relayed=None):
        super().__init__(lab, name)
        if name == FLOOR:
            self.binaries = lab.dir / "floor"
            self.binaries.mkdir()
            for program, file in (("tailscaled", "bench-floor"), ("tailscale", "tailscale"), ("derper", "derper")):
                (self.binaries / program).symlink_to((OURS / file).resolve())
        else:
            self.binaries = PROGRAMS[name]
        n = Tailnet.count = Tailnet.count + 1
        self.port, server = 8080 + n, f"10.50.0.{10 + n}"
        lab.run("srv", f"ip addr add {server}/16 dev eth0")
        relay = lab.derper((relayed or self.binaries) / "derper", bind=server, host=server)
        self.relay = relay if relayed else None
        derp_map = lab.dir / f"derp-{n}.json"
        derp_map.write_text(json.dumps(lab.derp_regions([lab.derp_node(host=server)])))
        lab.start("srv", [ORIGINAL / "testcontrol", "-listen", f"10.50.0.2:{self.port}", "-derp-map", derp_map, "-auth-key", "bench"])
        wait_for("control listens", lambda: lab.listening("srv", self.port))
        if relayed:
            for space in self.spaces:
                lab.run(space, "iptables -t mangle -A PREROUTING -s 10.50.3.0/24 -p udp -i eth0 -j DROP")
        self.nodes = [lab.node(space, self.binaries) for space in self.spaces]

    def up(self, node):
        begin = time.monotonic()
        node.cli("up", f"--login-server=http://10.50.0.2:{self.port}", "--auth-key=bench", "--accept-dns=false")
        return time.monotonic() - begin

    def start(self):
        for node in self.nodes:
            node.start()
            self.up(node)
        a, b = self.nodes
        a.wait_peer(b)
        self.ip = b.ip()
        self.pids = [n.daemon.popen.pid for n in self.nodes]
        a.ping_through(self.ip, count=20).finish()
        if self.relay:
            if a.direct(self.ip):
                raise Failure(f"{self.name}: not relayed")
        else:
            wait_for(f"{self.name}: a direct path", lambda: a.direct(self.ip) and b.direct(a.ip()), timeout=20)
        self.listen()

    def new_node(self, n):
        """A node with nothing to remember: seconds from its start to an answer of the local API, and seconds of `up`."""
        node = self.lab.node(self.spaces[0], self.binaries, name=f"{self.spaces[0]}-{n}")
        stamp = self.lab.dir / f"started-{self.spaces[0]}-{n}"
        # The lab's own work before the daemon is not counted.
        node.launch(wrap=["sh", "-c", 'date +%s.%N >"$0"; exec "$@"', stamp])
        wait_for("the local API", lambda: self.answers(node), interval=0.001)
        ready = time.time()
        up = self.up(node)
        node.stop()
        return ready - float(stamp.read_text()), up

    @staticmethod
    def answers(node):
        node.alive()
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(str(node.socket))
                s.sendall(b"GET /localapi/v0/status HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\r\n")
                return b" 200 " in s.recv(64)
            except OSError:
                return False


class WireGuard(Pair):
    """The original userspace WireGuard alone: no control, no discovery, nothing but the tunnel."""

    def start(self):
        processes = []
        for side, space in zip((A, B), self.spaces):
            there = self.addresses[1 if side == A else 0]
            inside = {A: "10.77.0.1", B: "10.77.0.2"}
            processes.append(self.lab.start(space, [
                ORIGINAL / "wg-original", "--tun", "wg0", "--mtu", MTU, "--key", KEYS[side], "--peer", PUBLIC[OTHER[side]], "--port", PORT,
                "--allowed", f"{inside[OTHER[side]]}/32", "--endpoint", f"{there}:{PORT}", "--control", self.lab.dir / f"control-{side}"]))
            wait_for("its interface", lambda: self.lab.run(space, "ip link show wg0", check=False).returncode == 0)
            self.lab.run(space, f"ip addr add {inside[side]}/24 dev wg0")
            self.lab.run(space, "ip link set wg0 up")
        self.ip, self.pids = inside[B], [p.popen.pid for p in processes]
        self.ping(self.ip, count=5, interval=0.2)
        self.listen()
