"""A server for tests, on Python's standard library: it does on the wire exactly what a scenario needs.

    python3 server.py MODE PORT

http        /echo answers the body; /early answers 413 before the body has come; /interim sends 103 first;
            /trailers sends chunked trailers; /count/KEY counts deliveries; /counts tells them; /close closes after answering;
            /slow/SECONDS; /status/CODE; /upgrade is a WebSocket-style upgrade to an echo; anything else says who it is
greeting    speaks first (as MySQL does), then echoes lines
echo        echoes bytes until the client has finished, then says how many, then closes (half-close)
"""

import collections
import socket
import sys
import threading
import time

COUNTS = collections.Counter()
LOCK = threading.Lock()


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline(65536)
        if not line:
            return None
        head += line
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = {}
    for line in lines[1:]:
        if ":" in line:
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
    return method, target, headers


def read_body(stream, headers):
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while True:
            size = int(stream.readline().split(b";")[0], 16)
            if size == 0:
                while stream.readline() not in (b"\r\n", b""):
                    pass
                return body
            body += stream.read(size)
            stream.readline()
    return stream.read(int(headers.get("content-length", "0")))


def answer(status, body, headers=()):
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


def http(connection, address):
    stream = connection.makefile("rb")
    while True:
        head = read_head(stream)
        if head is None:
            return
        method, target, headers = head
        path = target.split("?")[0]
        if path == "/early":
            connection.sendall(answer(413, b"too large", [("connection", "close")]))
            # What is unread at a close would reset the answer away: read on for a moment, as real servers do.
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1)
            while connection.recv(65536):
                pass
            return
        if path == "/upgrade":
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            )
            while True:
                piece = connection.recv(65536)
                if not piece:
                    return
                connection.sendall(piece)
        if headers.get("expect", "").lower() == "100-continue":
            if path == "/refuse-expect":
                connection.sendall(answer(417, b"no", [("connection", "close")]))
                return
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = read_body(stream, headers)
        if path == "/echo":
            connection.sendall(answer(200, body))
        elif path == "/interim":
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </style>\r\n\r\n" + answer(200, b"after hints"))
        elif path == "/trailers":
            connection.sendall(
                b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
                b"5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"
            )
        elif path.startswith("/count/"):
            with LOCK:
                COUNTS[path] += 1
            connection.sendall(answer(200, b"counted"))
        elif path == "/counts":
            with LOCK:
                twice = [key for key, count in COUNTS.items() if count != 1]
                connection.sendall(answer(200, f"{len(COUNTS)} {twice}".encode()))
        elif path == "/close":
            connection.sendall(answer(200, b"bye", [("connection", "close")]))
            return
        elif path.startswith("/slow/"):
            time.sleep(float(path.split("/")[2]))
            connection.sendall(answer(200, b"slow"))
        elif path.startswith("/status/"):
            status = int(path.split("/")[2])
            if status in (204, 304):
                connection.sendall(f"HTTP/1.1 {status} x\r\n\r\n".encode())
            else:
                connection.sendall(answer(status, b"" if method == "HEAD" else b"as asked"))
        elif method == "HEAD":
            connection.sendall(b"HTTP/1.1 200 x\r\ncontent-length: 1234\r\n\r\n")
        else:
            names = "\n".join(f"{name}: {value}" for name, value in sorted(headers.items()))
            connection.sendall(answer(200, f"{method} {target}\n{names}\n".encode()))


def greeting(connection, address):
    connection.sendall(b"I am first\n")
    stream = connection.makefile("rb")
    for line in stream:
        connection.sendall(b"you said " + line)


def echo(connection, address):
    total = 0
    while True:
        piece = connection.recv(65536)
        if not piece:
            break
        total += len(piece)
        connection.sendall(piece)
    connection.sendall(f"\n{total} bytes, then the end".encode())
    connection.shutdown(socket.SHUT_WR)


def serve(handle, port):
    listener = socket.create_server(("0.0.0.0", port), backlog=256)
    while True:
        connection, address = listener.accept()

        def run(connection=connection, address=address):
            try:
                with connection:
                    handle(connection, address)
            except (OSError, ValueError):
                pass

        threading.Thread(target=run, daemon=True).start()


if __name__ == "__main__":
    serve({"http": http, "greeting": greeting, "echo": echo}[sys.argv[1]], int(sys.argv[2]))
