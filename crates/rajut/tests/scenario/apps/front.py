"""A program as people write them for a Compose file: it knows its neighbour by an address in its environment.

    python3 front.py

/ answers what the server at $BACK_URL answers; /environment tells its environment as JSON.
"""

import http.server
import json
import os
import urllib.request


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/environment":
            status, body = 200, json.dumps(dict(os.environ)).encode()
        else:
            try:
                back = urllib.request.urlopen(os.environ["BACK_URL"] + self.path, timeout=20)
                status, body = back.status, b"front, then " + back.read()
            except OSError as error:
                status, body = 502, repr(error).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Front).serve_forever()
