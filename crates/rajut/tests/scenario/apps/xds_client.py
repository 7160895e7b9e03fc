"""A proxyless gRPC client for tests: resolves an xds:/// target with the bootstrap that GRPC_XDS_BOOTSTRAP names, calls
grpc_server.py and prints one JSON object.

    python3 xds_client.py TARGET mesh|plaintext

mesh        certificates by the bootstrap's provider, where the cluster asks for them
plaintext   whatever the cluster asks for
"""

import json
import os
import sys

import grpc
from grpc.experimental import insecure_channel_credentials

target, credentials = sys.argv[1:]
bootstrap = os.environ["GRPC_XDS_BOOTSTRAP"]
provider = json.load(open(bootstrap))["certificate_providers"]["default"]["config"]
files = [bootstrap] + [path for name, path in provider.items() if name.endswith("_file")]
found = {"modes": sorted({oct(os.stat(path).st_mode & 0o777) for path in files})}
if credentials == "mesh":
    channel = grpc.secure_channel(target, grpc.xds_channel_credentials(insecure_channel_credentials()))
else:
    channel = grpc.insecure_channel(target)
unary = channel.unary_unary("/test.Echo/Unary")
try:
    found["unary"] = unary(b"hello", timeout=10, wait_for_ready=credentials == "mesh").decode()
    found["stream"] = len(list(channel.unary_stream("/test.Echo/Stream")(b"n", timeout=10)))
    peers = [json.loads(channel.unary_unary("/test.Echo/Caller")(b"", timeout=10)) for _ in range(10)]
    found["caller"] = peers[0]["certificate"]
    found["servers"] = len({peer["server"] for peer in peers})
except grpc.RpcError as error:
    found["failed"] = error.code().name
    found["details"] = error.details()
print(json.dumps(found))
