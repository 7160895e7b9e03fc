"""A receiver of alerts: Alertmanager's POST /api/v2/alerts.

    python3 alert_receiver.py FILE PORT

Prints its port, then appends one line of JSON for each alert to FILE, with the header `authorization` that came with it.
"""

import http.server
import json
import sys


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        right = self.path == "/api/v2/alerts" and self.headers["content-type"] == "application/json"
        if right:
            with open(sys.argv[1], "a", encoding="utf-8") as out:
                for alert in json.loads(body):
                    out.write(json.dumps({"authorization": self.headers["authorization"], **alert}) + "\n")
        self.send_response(200 if right else 400)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True


server = Server(("127.0.0.1", int(sys.argv[2])), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
