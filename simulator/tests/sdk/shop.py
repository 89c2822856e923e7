"""The shop's end of the wire: a server that webhooks arrive at, and the simulator's control API."""

import json
import os
import queue
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 10


def control(command):
    """Has the simulator do one thing, and returns what it says."""
    request = urllib.request.Request(
        os.environ["SIMULATOR_URL"] + "/api/control",
        data=json.dumps(command).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        body = response.read()
    return json.loads(body) if body else None


class Mailbox:
    """Takes webhooks in at `url`, and answers 200."""

    def __init__(self, provider):
        self.arrived = queue.Queue()
        arrived = self.arrived

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                arrived.put((dict((k.lower(), v) for k, v in self.headers.items()), body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        url = "http://127.0.0.1:%d/" % self.server.server_port
        control({"set-webhook-url": {"provider": provider, "url": url}})

    def until(self, wanted, kind):
        """What arrives until every kind that is `wanted` has; `kind` tells a body's, or None."""
        seen = []
        while wanted - {kind(json.loads(body)) for _, body in seen}:
            seen.append(self.arrived.get(timeout=PATIENCE))
        return seen


def refused(error, call):
    """The `error` that `call` ends in."""
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError("nothing was refused")
