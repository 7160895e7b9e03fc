"""A gRPC server for tests without generated code: bytes in, bytes out.

    python3 grpc_server.py PORT

/test.Echo/Unary     echoes; fails with the status in the metadata `want-status`; sends trailing metadata `x-trailer`
/test.Echo/Stream    sends ten messages
/test.Echo/Chat      echoes message by message
/test.Echo/Slow      answers after two seconds
/grpc.health.v1.Health/Check   SERVING (of the service `sick` in the workload instance `$SICK`: NOT_SERVING)
/test.Echo/Caller    tells, in JSON, the caller's certificate as the sidecar passes it on, and which process this is
"""

import json
import os
import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-trailer", "behind"),))
    if "want-status" in metadata:
        context.abort(grpc.StatusCode[metadata["want-status"]], "as asked")
    return request


def stream(request, context):
    for number in range(10):
        yield request + str(number).encode()


def chat(requests, context):
    yield from requests


def slow(request, context):
    time.sleep(2)
    return request


def caller(request, context):
    certificate = dict(context.invocation_metadata()).get("x-forwarded-client-cert", "")
    return json.dumps({"certificate": certificate, "server": os.getpid()}).encode()


def health(request, context):
    sick = request == b"\x0a\x04sick" and os.environ.get("RAJUT_WORKLOAD", "-") == os.environ.get("SICK")
    return b"\x08\x02" if sick else b"\x08\x01"


class Handlers(grpc.GenericRpcHandler):
    def service(self, call):
        return {
            "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/test.Echo/Stream": grpc.unary_stream_rpc_method_handler(stream),
            "/test.Echo/Chat": grpc.stream_stream_rpc_method_handler(chat),
            "/test.Echo/Slow": grpc.unary_unary_rpc_method_handler(slow),
            "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(health),
            "/test.Echo/Caller": grpc.unary_unary_rpc_method_handler(caller),
        }.get(call.method)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
server.add_generic_rpc_handlers((Handlers(),))
server.add_insecure_port(f"0.0.0.0:{sys.argv[1]}")
server.start()
server.wait_for_termination()
