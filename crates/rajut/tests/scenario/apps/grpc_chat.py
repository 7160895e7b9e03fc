"""One bidirectional gRPC stream that stays open: a number every 20 ms, and what comes back is printed. It ends when a
message is missing or comes twice.

    python3 grpc_chat.py TARGET
"""

import sys
import time

import grpc


def numbers():
    number = 0
    while True:
        yield str(number).encode()
        number += 1
        time.sleep(0.02)


channel = grpc.insecure_channel(sys.argv[1])
chat = channel.stream_stream("/test.Echo/Chat")(numbers(), wait_for_ready=True)
for expected, reply in enumerate(chat):
    if int(reply) != expected:
        sys.exit(f"{reply} came instead of {expected}")
    print(reply.decode(), flush=True)
