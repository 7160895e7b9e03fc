"""Says whether requests may pass, as the header `x-verdict` asks for it, over HTTP or gRPC (grpcio and xds-protos).

    python3 authorizer.py http PORT
    python3 authorizer.py grpc PORT FOLDER-OF-XDS-PROTOS

allow: yes, with headers for both sides; deny: no, with a status, headers and a body; slow: yes, after three seconds; error: no
answer; garbage: an answer that is none; huge: no, with more than anybody wants to hear; frames: yes, with headers that frame a
message; else: yes. What it was shown it says in the header `x-shown`.
"""

import json
import sys
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MIB = 1 << 20


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def judge(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        verdict = self.headers.get("x-verdict", "")
        shown = {
            "method": self.command,
            "path": self.path,
            "host": self.headers.get("host"),
            "headers": sorted(name.lower() for name in self.headers if name.lower().startswith(("x-", "auth", "cookie"))),
            "body": len(body),
            "partial": self.headers.get("x-envoy-auth-partial-body"),
        }
        told = [("x-user", "nurse-7"), ("x-secret", "s"), ("x-shown", json.dumps(shown)), ("x-told", "yes")]
        if verdict == "deny":
            self.answer(401, told + [("x-why", "because"), ("www-authenticate", "Basic")], b"no: " + self.path.encode())
        elif verdict == "error":
            self.answer(503, [])
        elif verdict == "garbage":
            self.wfile.write(b"\x00\x01garbage\r\n\r\n")
            self.close_connection = True
        elif verdict == "huge":
            self.answer(403, [("x-huge", "h" * 200_000)], b"h" * (2 * MIB))
        elif verdict == "frames":
            self.answer(200, told + [("x-user", "nurse-8")])
        else:
            if verdict == "slow":
                time.sleep(3)
            self.answer(200, told)

    do_GET = do_POST = do_PUT = do_DELETE = judge


def serve_grpc(port, protos):
    # Another package called `envoy` may be installed.
    sys.path.insert(0, protos)
    import grpc
    from envoy.service.auth.v3 import external_auth_pb2 as auth
    from google.rpc import code_pb2

    def option(name, value, append=False):
        from envoy.config.core.v3 import base_pb2

        made = base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value))
        made.append.value = append
        return made

    def judge(data, context):
        request = auth.CheckRequest.FromString(data)
        if not request.attributes.request.HasField("http"):
            # About a connection: what it comes from decides.
            response = auth.CheckResponse()
            allowed = request.attributes.source.principal.endswith("/sa/nurse")
            response.status.code = code_pb2.OK if allowed else code_pb2.PERMISSION_DENIED
            return response.SerializeToString()
        http = request.attributes.request.http
        verdict = http.headers.get("x-verdict", "")
        shown = {
            "method": http.method,
            "path": http.path,
            "host": http.host,
            "headers": sorted(name for name in http.headers if name.startswith(("x-team", "x-verdict", "auth", "cookie"))),
            "body": len(http.body) or len(http.raw_body),
            "partial": http.headers.get("x-envoy-auth-partial-body"),
            "from": request.attributes.source.principal,
            "to": request.attributes.destination.principal,
            "certificate": request.attributes.source.certificate.startswith("-----BEGIN%20CERTIFICATE-----%0AMII"),
        }
        response = auth.CheckResponse()
        if verdict == "error":
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if verdict == "garbage":
            return b"\xff\xff\xff"
        if verdict in ("deny", "huge"):
            response.status.code = code_pb2.PERMISSION_DENIED
            denied = response.denied_response
            denied.status.code = 401
            denied.headers.append(option("x-why", "because"))
            denied.headers.append(option("www-authenticate", "Basic"))
            denied.body = "no: " + http.path if verdict == "deny" else "h" * (2 * MIB)
            return response.SerializeToString()
        if verdict == "slow":
            time.sleep(3)
        response.status.code = code_pb2.OK
        allowed = response.ok_response
        allowed.headers.append(option("x-user", "nurse-7"))
        allowed.headers.append(option("x-shown", json.dumps(shown)))
        allowed.headers.append(option("x-more", "b", append=True))
        if verdict == "frames":
            for name in ("content-length", "transfer-encoding"):
                allowed.headers.append(option(name, "7"))
        allowed.headers_to_remove.append("cookie")
        allowed.response_headers_to_add.append(option("x-told", "yes"))
        return response.SerializeToString()

    handler = grpc.unary_unary_rpc_method_handler(judge)
    handlers = grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": handler})
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    server.wait_for_termination()


if sys.argv[1] == "http":
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Http).serve_forever()
else:
    serve_grpc(int(sys.argv[2]), sys.argv[3])
