#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hostile connections to a relay, from several addresses of this host, seeded.

    siege.py ADDRESS PORT COUNT SEED SECONDS SOURCE...

Opens COUNT connections of every bad kind and holds them; then, until SECONDS after the start, opens more in their place, the
oldest first, while slow ones dribble. Prints "attached" after the first part and the number of connections at the end; 0 seconds: holds until
standard input ends."""
import collections
import os
import random
import socket
import ssl
import struct
import sys
import time

UPGRADE = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
WEBSOCKET = (b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: derp\r\n\r\n")
CONTEXT = ssl._create_unverified_context()  # noqa: S323 - an attacker does not care whom he attacks
LOGIN = b"\x02" + struct.pack(">I", 200)

# Each takes a connected socket and a source of randomness, and returns what has to be held.


def tls(s):
    s.settimeout(20)
    return CONTEXT.wrap_socket(s)


def say(text):
    def kind(s, r):
        t = tls(s)
        t.sendall(text(r) if callable(text) else text)
        return t
    return kind


def garbage(s, r):
    s.sendall(r.randbytes(r.randrange(1, 3000)))
    return s


def half_hello(s, r):
    s.sendall(bytes.fromhex("16030100c8010000c40303") + r.randbytes(20))
    return s


def silent(s, r):
    return s


def reset(s, r):
    t = tls(s)
    t.sendall(UPGRADE)
    t.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    t.close()
    return t


KINDS = [
    garbage, half_hello, silent, reset,
    say(b"GET /derp HT"),                                                             # dribbles on
    say(UPGRADE[:-2]),                                                                # half an upgrade
    say(UPGRADE),                                                                     # no login
    say(UPGRADE + b"\x02" + struct.pack(">I", 0x7fffffff) + b"x" * 5000),             # a giant login
    say(UPGRADE + b"\x04" + struct.pack(">I", 0xffffff) + b"x" * 5000),               # a giant packet
    say(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 60000),                               # a giant head
    say(lambda r: UPGRADE + LOGIN + r.randbytes(200)),                                # a box that does not open
    say(lambda r: WEBSOCKET + r.randbytes(300)),
    say(lambda r: r.randbytes(2000)),
]


def main():
    address, count, seed, seconds, sources = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), sys.argv[6:]
    r, held, opened = random.Random(seed), collections.deque(), 0
    end = time.monotonic() + seconds

    def one():
        nonlocal opened
        try:
            s = socket.create_connection(address, timeout=20, source_address=(sources[opened % len(sources)], 0) if sources else None)
            held.append(s)
            held[-1] = KINDS[opened % len(KINDS)](s, r)
        except OSError:
            pass
        opened += 1

    for _ in range(count):
        one()
    print("attached", flush=True)
    while time.monotonic() < end:
        for s in r.sample(held, min(20, len(held))):
            try:
                s.settimeout(0.2)
                s.send(b"x")
            except (OSError, ValueError):
                pass
        for _ in range(10):
            if time.monotonic() > end:
                break
            while len(held) >= max(count, 1):
                held.popleft().close()
            one()
        time.sleep(0.2)
    if seconds == 0:
        sys.stdin.read()
    print(opened, flush=True)
    os._exit(0)


main()
