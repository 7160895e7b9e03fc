"""A service that asks the next one and passes the headers of traces on, as Istio asks of applications.

    python3 chain.py PORT [NEXT]

Without NEXT it answers its own request's headers, as lines.
"""

import http.server
import sys
import urllib.request

TRACED = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "uber-trace-id",
]


class Chain(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if len(sys.argv) > 2:
            headers = {name: self.headers[name] for name in TRACED if name in self.headers}
            request = urllib.request.Request(sys.argv[2] + self.path, headers=headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                body = answer.read()
        else:
            lines = sorted(f"{name.lower()}: {value}" for name, value in self.headers.items())
            body = "\n".join(lines).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Chain).serve_forever()
