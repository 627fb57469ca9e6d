#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""dnsq.py SERVER NAME TYPE [tcp] [TIMEOUT]: one DNS query, the answer as one line of JSON. Nothing but the standard library, and no
resolver of the system in between."""
import ipaddress
import json
import socket
import struct
import sys

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "TXT": 16, "AAAA": 28, "SRV": 33, "ANY": 255}


def encode(name):
    return b"".join(bytes([len(x)]) + x.encode() for x in name.rstrip(".").split(".") if x) + b"\0"


def name_at(message, at):
    labels, end = [], None
    while True:
        n = message[at]
        if n >= 0xC0:
            end = end or at + 2
            at = (n & 0x3F) << 8 | message[at + 1]
        elif n == 0:
            return ".".join(labels), end or at + 1
        else:
            labels.append(message[at + 1:at + 1 + n].decode())
            at += 1 + n


def exchange(server, query, tcp, timeout):
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(timeout)
        s.connect((server, 53))
        if not tcp:
            s.send(query)
            return s.recv(65535)
        s.sendall(struct.pack(">H", len(query)) + query)
        data = b""
        while len(data) < 2 or len(data) < 2 + struct.unpack(">H", data[:2])[0]:
            piece = s.recv(65535)
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data[2:]


def ask(server, name, kind, tcp=False, timeout=6.0):
    kind = TYPES.get(kind, kind)
    reply = exchange(server, struct.pack(">HHHHHH", 0x4711, 0x100, 1, 0, 0, 0) + encode(name) + struct.pack(">HH", int(kind), 1), tcp, timeout)
    ident, flags, questions, answers, authorities, additionals = struct.unpack(">HHHHHH", reply[:12])
    at, values = 12, []
    for _ in range(questions):
        at = name_at(reply, at)[1] + 4
    for _ in range(answers):
        at = name_at(reply, at)[1]
        record, _, ttl, size = struct.unpack(">HHIH", reply[at:at + 10])
        data = reply[at + 10:at + 10 + size]
        values.append(str(ipaddress.ip_address(data)) if record in (1, 28) else name_at(reply, at + 10)[0] if record in (2, 5, 12) else data.hex())
        at += 10 + size
    return {"id": ident, "flags": f"{flags:04x}", "rcode": flags & 15, "tc": flags >> 9 & 1, "an": answers, "ns": authorities, "ar": additionals,
            "values": values, "tail": reply[-16:].hex() if answers else ""}


if __name__ == "__main__":
    try:
        words = sys.argv[4:]
        print(json.dumps(ask(*sys.argv[1:4], "tcp" in words, float(next((w for w in words if w != "tcp"), 6)))))
    except OSError as e:
        print(json.dumps({"error": str(e) or type(e).__name__}))
