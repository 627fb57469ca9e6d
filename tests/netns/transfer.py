#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A paced TCP transfer that both ends hash.

transfer.py serve PORT                      takes transfers for ever; answers each with the hash of what came
transfer.py send HOST PORT SECONDS MBIT     sends pseudo-random bytes and prints {"bytes", "whole", "longest_stall"} as JSON"""
import hashlib
import json
import random
import socket
import sys
import threading
import time

CHUNK = 32 * 1024


def take(connection):
    digest = hashlib.sha256()
    with connection:
        while data := connection.recv(1 << 18):
            digest.update(data)
        connection.sendall(digest.hexdigest().encode())


def serve(port):
    with socket.create_server(("0.0.0.0", port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=take, args=(connection,), daemon=True).start()


def send(host, port, seconds, mbit):
    digest, source, stall, total = hashlib.sha256(), random.Random(1), 0.0, 0
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.settimeout(60)
        begin = time.monotonic()
        while (now := time.monotonic()) - begin < seconds:
            ahead = total * 8 / (mbit * 1e6) - (now - begin)
            if ahead > 0:
                time.sleep(ahead)
            data = source.randbytes(CHUNK)
            digest.update(data)
            at = time.monotonic()
            connection.sendall(data)
            stall = max(stall, time.monotonic() - at)
            total += CHUNK
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(4096):
            answer += data
    print(json.dumps({"bytes": total, "whole": answer.decode() == digest.hexdigest(), "longest_stall": round(stall, 3)}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
