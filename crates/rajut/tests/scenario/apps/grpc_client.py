"""A gRPC client for tests: exercises every form of call against grpc_server.py and prints one JSON object.

    python3 grpc_client.py TARGET
"""

import json
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
found = {}
call = channel.unary_unary("/test.Echo/Unary")
response, info = call.with_call(b"hello", timeout=10, wait_for_ready=True)
found["unary"] = response.decode()
found["trailer"] = dict(info.trailing_metadata()).get("x-trailer")
try:
    call(b"x", timeout=10, metadata=(("want-status", "FAILED_PRECONDITION"),))
except grpc.RpcError as error:
    found["status"] = error.code().name
found["stream"] = [piece.decode() for piece in channel.unary_stream("/test.Echo/Stream")(b"n", timeout=10)]
chat = channel.stream_stream("/test.Echo/Chat")(iter([b"a", b"b", b"c"]), timeout=10)
found["chat"] = [piece.decode() for piece in chat]
try:
    channel.unary_unary("/test.Echo/Slow")(b"x", timeout=0.5)
except grpc.RpcError as error:
    found["deadline"] = error.code().name
big = channel.unary_unary("/test.Echo/Unary")(b"x" * 1_000_000, timeout=10)
found["big"] = len(big)
print(json.dumps(found))
