#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""tls_servers.py ADDRESS PORT:CHAIN:KEY...: web servers that are no relays, with the certificates given; PORT:-:- is one without TLS."""
import http.server
import ssl
import sys
import threading


class NotFound(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def log_message(self, *args):
        pass


def main():
    for word in sys.argv[2:]:
        port, chain, key = word.split(":")
        server = http.server.ThreadingHTTPServer((sys.argv[1], int(port)), NotFound)
        if chain != "-":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(chain, key)
            # In each connection's own thread: a client that hangs up must not stop the others.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main()
