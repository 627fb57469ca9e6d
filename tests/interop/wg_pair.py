# SPDX-License-Identifier: BSD-3-Clause
"""Our WireGuard engine and the original's, one peer each, with the test itself sitting between them on the wire.

    a: ours 10.9.1.1 --- 10.9.1.2,3  middle  10.9.2.2,3 --- 10.9.2.1 original :b
       10.77.0.1, fd77::1   <=========== tunnel ===========>   10.77.0.2, fd77::2

Raw sockets of an unused protocol on both ends of the tunnel send and see packets of any content and of every length."""
import collections
import contextlib
import ctypes
import hashlib
import json
import os
import select
import socket
import struct
import threading
import time

from lab import ORIGINAL, OURS, wait_for

A, B = "a", "b"
OTHER = {A: B, B: A}
INITIATION, RESPONSE, COOKIE, DATA = 1, 2, 3, 4
PROTOCOL = 253  # RFC 3692: for experiments
PORT = 51820
KEYS = {A: "60" * 31 + "61", B: "a8" * 31 + "69"}  # clamped, and of no use anywhere else
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
RCVBUFFORCE = 33  # SO_RCVBUFFORCE


@contextlib.contextmanager
def inside(lab, space):
    """The calling thread is in that network namespace; sockets made meanwhile stay there."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{lab.full(space)}", "rb") as there:
        if LIBC.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            LIBC.setns(home.fileno(), CLONE_NEWNET)


def public_key(private_hex):
    """X25519 base point multiplication (RFC 7748), slow and simple."""
    p, k, u = 2**255 - 19, bytearray.fromhex(private_hex), 9
    k[0] &= 248
    k[31] = k[31] & 127 | 64
    n = int.from_bytes(k, "little")
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = n >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        x3, z3 = (da + cb) ** 2 % p, u * (da - cb) ** 2 % p
        e = aa - bb
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little").hex()


PUBLIC = {name: public_key(key) for name, key in KEYS.items()}


def message_type(datagram):
    return datagram[0] if len(datagram) >= 4 else 0


def counter(datagram):
    return struct.unpack_from("<Q", datagram, 8)[0]


def has_mac2(datagram):
    return any(datagram[-16:])


def garbage_initiation(to_public_hex, n):
    """An initiation with a valid mac1 and nothing else."""
    m = struct.pack("<II", INITIATION, n) + hashlib.blake2s(struct.pack("<Q", n)).digest() * 4
    m = m[:116]
    key = hashlib.blake2s(b"mac1----" + bytes.fromhex(to_public_hex)).digest()
    return m + hashlib.blake2s(m, key=key, digest_size=16).digest() + bytes(16)


class Middle:
    """The wire. `policy(side, datagram)` gives the datagrams to pass on of one that `side` sent; `out[side]` picks the
    address the other side sees it come from."""

    def __init__(self, lab):
        self.policy = self.everything
        self.out = {A: 0, B: 0}
        self.seen = []            # (side, datagram)
        self.arrived_at = {}      # side → which of our addresses its last datagram went to
        self.address = {A: ("10.9.1.1", PORT), B: ("10.9.2.1", PORT)}
        self.sockets = {A: [], B: []}
        self.lock = threading.Lock()
        with inside(lab, "m"):
            for side, net in ((A, 1), (B, 2)):
                for i in range(2):
                    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    s.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 32 << 20)
                    s.bind((f"10.9.{net}.{2 + i}", 5001 + i))
                    s.setblocking(False)
                    self.sockets[side].append(s)
        self.where = {s: (side, i) for side, list_ in self.sockets.items() for i, s in enumerate(list_)}
        self.over = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    @staticmethod
    def everything(_side, datagram):
        return (datagram,)

    def reset(self):
        with self.lock:
            self.policy, self.out, self.seen, self.arrived_at = self.everything, {A: 0, B: 0}, [], {}

    def send(self, side, datagram):
        """As if `side` had sent it."""
        s = self.sockets[OTHER[side]][self.out[side]]
        with contextlib.suppress(OSError):
            s.sendto(datagram, self.address[OTHER[side]])

    def work(self):
        while not self.over:
            for s in select.select(list(self.where), [], [], 0.1)[0]:
                side, index = self.where[s]
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    for _ in range(256):
                        datagram = s.recv(65536)
                        with self.lock:
                            self.arrived_at[side] = index
                            self.seen.append((side, datagram))
                            for d in self.policy(side, datagram):
                                self.send(side, d)

    def count(self, side, kind):
        with self.lock:
            return sum(1 for s, d in self.seen if s == side and message_type(d) == kind)

    def of(self, side, kind):
        with self.lock:
            return [d for s, d in self.seen if s == side and message_type(d) == kind]

    def close(self):
        self.over = True
        self.thread.join()
        for s in self.where:
            s.close()


class End:
    """One program at one end, and a raw socket inside the tunnel there."""

    def __init__(self, pair, side, program, extra=()):
        lab = pair.lab
        self.lab, self.side = lab, side
        lab.count += 1
        control = lab.dir / f"control-{side}-{lab.count}"
        net = 1 if side == A else 2
        common = ["--tun", "wg0", "--key", KEYS[side], "--peer", PUBLIC[OTHER[side]], "--port", PORT, "--control", control]
        endpoint = f"10.9.{net}.2:5001"
        self.process = lab.start(side, [program, *common, "--endpoint", endpoint, *extra], label=f"wg-{side}-{lab.count}")
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

        def connected():
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                self.control.connect(str(control))
                return True
            assert self.process.popen.poll() is None, self.process.text()
            return False
        wait_for("the control socket answers", connected)
        self.control.settimeout(10)
        self.lines = self.control.makefile("r")
        for address in (f"10.77.0.{net}/24", f"fd77::{net}/64"):
            lab.run(side, f"ip addr add {address} dev wg0" + (" nodad" if ":" in address else ""))
        lab.run(side, "ip link set wg0 up txqueuelen 4000")
        self.raw = {}
        with inside(lab, side):
            for family in (socket.AF_INET, socket.AF_INET6):
                s = socket.socket(family, socket.SOCK_RAW, PROTOCOL)
                s.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 32 << 20)
                s.setblocking(False)
                self.raw[family] = s

    def ask(self, command):
        self.control.sendall((command + "\n").encode())
        answer = self.lines.readline().strip()
        assert answer and "error" not in answer[:12], f"{command}: {answer}"
        return answer

    def send(self, payload, family=socket.AF_INET):
        net = 2 if self.side == A else 1
        self.raw[family].sendto(payload, (f"10.77.0.{net}" if family == socket.AF_INET else f"fd77::{net}", 0))

    def received(self, family=socket.AF_INET):
        """Payloads that came out of the tunnel since the last call."""
        out = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self.raw[family].recv(65536)
                out.append(packet[20:] if family == socket.AF_INET else packet)
        return out

    def stop(self):
        self.control.close()
        for s in self.raw.values():
            s.close()
        return self.process.stop()


class Ours(End):
    def __init__(self, pair, extra=(), side=A):
        super().__init__(pair, side, OURS / "lab-wg", extra)

    def ask(self, command):
        return json.loads(super().ask(command))

    def stats(self):
        return self.ask("stats")

    def counter(self, n):
        self.ask(f"counter {n}")

    def age(self, seconds):
        self.ask(f"advance {seconds}")


class Original(End):
    def __init__(self, pair):
        super().__init__(pair, B, ORIGINAL / "wg-original", ["--allowed", "10.77.0.1/32,fd77::1/128"])

    def get(self):
        return dict(line.split("=", 1) for line in self.ask("get").split(";") if "=" in line)

    def counter(self, n):
        self.ask(f"counter {n}")

    def age(self, seconds):
        self.ask(f"age {seconds}")


class Pair:
    def __init__(self, lab, middle):
        self.lab, self.middle = lab, middle
        middle.reset()
        self.numbers = collections.Counter()
        self.a = self.b = None

    def start(self, *extra):
        self.b = Original(self)
        self.a = Ours(self, extra)
        return self

    def end(self, side):
        return self.a if side == A else self.b

    def stop(self):
        for end in (self.a, self.b):
            if end is not None and end.process.popen.poll() is None:
                end.stop()

    # traffic -------------------------------------------------------------------------------------------------------
    def send(self, side, count=1):
        """Numbered packets into the tunnel; returns their payloads."""
        out = []
        for _ in range(count):
            self.numbers[side] += 1
            out.append(side.encode() + struct.pack("<I", self.numbers[side]))
            self.end(side).send(out[-1])
        return out

    def arrive(self, side, payloads, timeout=10.0, what=""):
        """Waits until everything `side` sent has come out at the other end, once, in order, and nothing else has."""
        got = []
        wait_for(f"{len(payloads)} packets of {side} {what}",
                 lambda: got.extend(self.end(OTHER[side]).received()) or len(got) >= len(payloads), timeout)
        assert got == payloads

    def cross(self, side, count=1, timeout=10.0):
        self.arrive(side, self.send(side, count), timeout)

    def talk(self, count=3):
        for side in (A, B):
            self.cross(side, count)

    def handshakes(self, side):
        """Handshakes that `side` began and the other answered."""
        return self.middle.count(OTHER[side], RESPONSE)

    def idle(self):
        """The wire is silent for a moment."""
        def still():
            before = len(self.middle.seen)
            time.sleep(0.05)
            return len(self.middle.seen) == before
        wait_for("silence", still)
