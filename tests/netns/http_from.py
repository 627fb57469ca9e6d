# SPDX-License-Identifier: BSD-3-Clause
"""A web server that says who asked it, and curl to ask it."""
from lab import wait_for

# What is posted comes back; what is got is "hello", or with a third word who asked.
WEB = """
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self, body=None):
        who = self.client_address[0].removeprefix("::ffff:")
        if body is None:
            body = who.encode() if sys.argv[3:] else b"hello"
        self.send_response(200)
        self.send_header("X-From", who)
        self.send_header("X-Port", str(self.client_address[1]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.do_GET(self.rfile.read(int(self.headers["Content-Length"])))
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


def web(lab, space, address, port, *who):
    p = lab.start(space, ["python3", "-c", WEB, address, port, *who], label=f"web-{space}-{lab.count}")
    wait_for("the web server listens", lambda: lab.listening(space, port))
    return p


def curl(lab, space, *args, check=True):
    return lab.run(space, ["curl", "-sS", "-D", "-", "--max-time", "10", *args], check=check)
