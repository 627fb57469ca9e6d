#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Sends what no honest program sends. Runs in a namespace of the lab, seeded; prints what it did.

    attacker.py capture INTERFACE SECONDS FILE             UDP payloads seen on an interface, as hex lines
    attacker.py datagrams ADDRESS:PORT COUNT SEED FILE DISCO_KEY_HEX SPOOFED_ADDRESS:PORT
    attacker.py requests SOCKET COUNT SEED [UID]           at the local API, some of them very slow
    attacker.py relay ADDRESS:PORT UPSTREAM:PORT SEED      between clients and a relay without TLS: what clients get is dropped,
                                                           doubled, reordered, replayed, and every peer declared gone;
                                                           with the seed "hangup" every client is cut off after its login
"""
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

DISCO = b"TS\xf0\x9f\x92\xac"


def endpoint(text):
    address, port = text.rsplit(":", 1)
    return address, int(port)


class RawUdp:
    """Datagrams with any IPv4 source address."""

    def __init__(self, to):
        self.to = to
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.dst = socket.inet_aton(to[0])

    def send(self, src, src_port, payload):
        total = 28 + len(payload)
        head = struct.pack("!BBHHHBBH4s4sHHHH", 0x45, 0, total, 0, 0, 64, 17, 0, src, self.dst, src_port, self.to[1], 8 + len(payload), 0)
        try:
            self.socket.sendto(head + payload, (self.to[0], 0))
        except OSError:
            time.sleep(0.0005)


def capture(interface, seconds, file):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    s.bind((interface, 0))
    s.settimeout(0.1)
    end, seen = time.monotonic() + float(seconds), []
    while time.monotonic() < end and len(seen) < 2000:
        try:
            packet = s.recv(65536)
        except TimeoutError:
            continue
        if len(packet) > 28 and packet[0] == 0x45 and packet[9] == 17:
            seen.append(packet[28:])
    with open(file, "w", encoding="ascii") as f:
        f.write("\n".join(p.hex() for p in seen))
    print(len(seen), "datagrams captured")


def invented(r, disco_key):
    kind = r.randrange(6)
    body = r.randbytes(r.choice([0, 1, 4, 16, 31, 32, 60, 64, 92, 148, 149, r.randrange(1472)]))
    if kind == 0:
        return body
    if kind == 1:  # WireGuard types with their right length or another
        t = r.randrange(1, 5)
        size = {1: 148, 2: 92, 3: 64, 4: 16 * r.randrange(2, 90)}[t] + r.choice([0, 0, 0, -1, 1])
        return struct.pack("<I", t) + r.randbytes(size - 4)
    if kind == 2:  # STUN
        return struct.pack("!HHI", r.choice([0x0101, 0x0001, 0x0111]), r.choice([0, 8, 12, len(body)]), 0x2112A442) + r.randbytes(12) + body
    if kind == 3:  # disco of a stranger, or in the name of the peer
        return DISCO + (disco_key if r.random() < 0.5 else r.randbytes(32)) + r.randbytes(24) + body
    if kind == 4:  # GENEVE of a UDP relay
        return struct.pack("!BBHI", 0, r.choice([0, 0x80]), r.choice([0x7A11, 0x7A12]), r.randrange(1 << 24) << 8) + body
    return bytes(r.randrange(1500))


def mutated(r, sample):
    b = bytearray(sample)
    for _ in range(r.choice([0, 1, 1, 1, 4])):
        what = r.randrange(4)
        at = r.randrange(len(b)) if b else 0
        if what == 0 and b:
            b[at] ^= 1 << r.randrange(8)
        elif what == 1:
            del b[at:]
        elif what == 2:
            b[at:at] = r.randbytes(r.randrange(1, 40))
        elif b:
            b[at] = r.randrange(256)
    return bytes(b[:1472])


def datagrams(to, count, seed, file, disco_hex, spoofed):
    r, disco_key = random.Random(int(seed)), bytes.fromhex(disco_hex)
    with open(file, encoding="ascii") as f:
        samples = [bytes.fromhex(line) for line in f.read().split()]
    out, peer = RawUdp(endpoint(to)), endpoint(spoofed)
    peer = socket.inet_aton(peer[0]), peer[1]
    begin = time.monotonic()
    for n in range(int(count)):
        payload = mutated(r, r.choice(samples)) if samples and n % 2 else invented(r, disco_key)
        if r.random() < 0.5:
            out.send(*peer, payload)
        else:
            out.send(socket.inet_aton(f"198.18.{r.randrange(256)}.{r.randrange(256)}"), r.randrange(1, 65536), payload)
        while (time.monotonic() - begin) * 10_000 < n:  # at most 10,000 a second
            time.sleep(0.0002)
    print(f"{count} datagrams in {time.monotonic() - begin:.1f} s")


def malformed(r):
    """One piece of bytes that is no proper request, or a proper one with an improper content."""
    host = "Host: local-tailscaled.sock\r\n"
    nested = "[" * 5000 + "]" * 5000
    return r.choice([
        lambda: r.randbytes(r.randrange(1, 5000)),
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        lambda: b"\x16\x03\x01" + r.randbytes(300),
        lambda: b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n",
        lambda: f"GET /localapi/v0/status HTTP/1.1\r\n{host}X: {'y' * 100_000}\r\n\r\n".encode(),
        lambda: ("GET /localapi/v0/status HTTP/1.1\r\n" + host + "A: b\r\n" * 5000 + "\r\n").encode(),
        lambda: f"POST /localapi/v0/start HTTP/1.1\r\n{host}Content-Length: {r.choice(['-1', '99999999999999999999', '0x10', '5, 6', ''])}\r\n\r\n".encode(),
        lambda: f"PATCH /localapi/v0/prefs HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{r.choice(['zz', '-1', 'fffffffffffffffff', '5'])}\r\nab".encode(),
        lambda: f"PATCH /localapi/v0/prefs HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc".encode(),
        lambda: f"PATCH /localapi/v0/prefs HTTP/1.1\r\n{host}Content-Length: {len(nested)}\r\n\r\n{nested}".encode(),
        lambda: f"PATCH /localapi/v0/prefs HTTP/1.1\r\n{host}Content-Length: 20\r\n\r\n{{\"HostnameSet\":\"yes\"".encode(),
        lambda: f"GET /localapi/v0/{'../' * r.randrange(9)}etc/passwd%00 HTTP/1.1\r\n{host}\r\n".encode(),
        lambda: f"GET /localapi/v0/whois?addr=%{r.randrange(256):02x}&addr={'9' * 3000} HTTP/1.1\r\n{host}\r\n".encode(),
        lambda: (f"GET /localapi/v0/status HTTP/1.1\r\n{host}\r\n" * 300).encode(),
        lambda: f"POST /localapi/v0/ping?ip=100.64.0.{r.randrange(256)}&type=disco&size={r.randrange(-9, 99999)} HTTP/1.1\r\n{host}\r\n".encode(),
        lambda: f"GET /localapi/v0/watch-ipn-bus?mask={r.randrange(1 << 14)} HTTP/1.1\r\n{host}\r\n".encode(),
        lambda: b"\r\n" * 5000,
        lambda: f"GET /localapi/v0/status HTTP/{r.choice(['9.9', '1.', '', '1.1.1'])}\r\n{host}\r\n".encode(),
    ])()


def requests(path, count, seed, uid="0"):
    if int(uid) != 0:
        os.setgid(int(uid))
        os.setuid(int(uid))
    r, lock, left = random.Random(int(seed)), threading.Lock(), [int(count)]
    tally = {"answered": 0, "closed": 0, "refused": 0, "slow": 0, "unread": 0}

    def count_one(what):
        with lock:
            tally[what] += 1

    def work():
        while True:
            with lock:
                if left[0] <= 0:
                    return
                left[0] -= 1
                data, manner = malformed(r), r.random()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.settimeout(0.3)
                try:
                    s.connect(path)
                    if manner < 0.2:  # byte by byte, and then nothing
                        for byte in data[:20]:
                            s.sendall(bytes([byte]))
                            time.sleep(0.01)
                        time.sleep(0.2)
                        count_one("slow")
                    elif manner < 0.4:  # half of it, and gone
                        s.sendall(data[: len(data) // 2])
                        count_one("slow")
                    else:  # whole; some never read the answer
                        s.sendall(data)
                        if manner < 0.9:
                            count_one("answered" if s.recv(65536) else "closed")
                        else:
                            time.sleep(0.1)
                            count_one("unread")
                except TimeoutError:
                    count_one("slow")
                except OSError:
                    count_one("refused")

    threads = [threading.Thread(target=work) for _ in range(50)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(count, "requests:", tally)


def mistreat(r, client, upstream, tally):
    """Frames from the relay to one client, after the HTTP answer."""
    stream = upstream.makefile("rb")
    while (line := stream.readline()) not in (b"", b"\r\n"):
        client.sendall(line)
    client.sendall(b"\r\n")
    old, held = [], []
    while len(head := stream.read(5)) == 5:
        body = stream.read(struct.unpack("!I", head[1:])[0])
        frame = head + body
        if r is None and head[0] == 3:  # the end of the login
            tally["cut off"] = tally.get("cut off", 0) + 1
            client.sendall(frame)
            time.sleep(0.01)
            client.shutdown(socket.SHUT_RDWR)
            return
        if head[0] != 5:  # not a packet
            client.sendall(frame)
            continue
        out, what = [frame], r.random()
        if what < 0.1:
            out, what = [], "dropped"
        elif what < 0.3:
            out, what = [frame] * 3, "doubled"
        elif what < 0.5:
            held.append(frame)
            out, what = [], "held back"
        elif what < 0.7 and old:
            out, what = [frame, *r.sample(old, min(10, len(old)))], "replayed"
        elif what < 0.8:  # a frame whose packet is cut short, and one of a kind that nobody knows
            cut = body[: 32 + r.randrange(max(1, len(body) - 32))]
            out, what = [struct.pack("!BI", 5, len(cut)) + cut, b"\x7f\0\0\0\3abc", frame], "cut short"
        else:
            out, what = [struct.pack("!BI", 8, 33) + body[:32] + bytes([n % 3]) for n in range(300)] + [frame], "300 times gone"
        if len(held) > 3:
            r.shuffle(held)
            out += held
            held.clear()
        old = [*old[-300:], frame]
        tally[what] = tally.get(what, 0) + 1
        client.sendall(b"".join(out))


def relay(at, upstream, seed):
    tally, r = {}, None if seed == "hangup" else random.Random(int(seed))
    listener = socket.create_server(endpoint(at))
    print("listening", flush=True)

    def copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            sink.close()

    def back(client, server):
        try:
            mistreat(r, client, server, tally)
        except OSError:
            pass
        finally:
            client.close()

    def end(*_):
        print("relay:", tally, flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(endpoint(upstream))
        threading.Thread(target=copy, args=(client, server), daemon=True).start()
        threading.Thread(target=back, args=(client, server), daemon=True).start()


if __name__ == "__main__":
    {"relay": relay, "capture": capture, "datagrams": datagrams, "requests": requests}[sys.argv[1]](*sys.argv[2:])
