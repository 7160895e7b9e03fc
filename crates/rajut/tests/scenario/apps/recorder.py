"""An HTTP server that remembers what it was asked.

    python3 recorder.py STATUS PORT

Answers everything with STATUS. What carries `x-record: KEY` is remembered, and `/recorded/KEY` tells it, always with 200. With
`x-own-rules` the answer has cross-origin fields of its own.
"""

import collections
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RECORDED = collections.defaultdict(list)
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one piece: two would wait for each other's acknowledgement.
    wbufsize = 65536
    disable_nagle_algorithm = True

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def answer(self):
        body, status, answer = self.body(), int(sys.argv[1]), b"application"
        if self.path.startswith("/recorded/"):
            status = 200
            with LOCK:
                answer = json.dumps(RECORDED[self.path.split("/")[2]]).encode()
        elif key := self.headers.get("x-record"):
            host = self.headers["host"]
            with LOCK:
                RECORDED[key].append([self.command, self.path, host, body.decode()])
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        if self.headers.get("x-own-rules"):
            self.send_header("access-control-allow-origin", "application")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_OPTIONS = do_HEAD = answer

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer.request_queue_size = 256
ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Handler).serve_forever()
