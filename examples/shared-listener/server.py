"""A web server that accepts at a socket it was given: descriptor 3, as sd_listen_fds(3) has it.

Each answer says which replica it comes from.
"""

import http.server
import os
import signal
import socket
import sys


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"replica {os.environ.get('WHARF_REPLICA')}, pid {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def given_socket():
    """The first socket that was handed over; nobody else's, and no leftover of a parent."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS"):
        sys.exit("start this with wharf: it gets its socket from there")
    return socket.socket(fileno=3)


class Server(http.server.HTTPServer):
    def __init__(self, listener):
        super().__init__(listener.getsockname(), Page, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


# What was accepted is answered before the end.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
Server(given_socket()).serve_forever()
