"""A wiretap on `lo`: reads what passes there and looks for strings in it, on Python's standard library.

    python3 sniffer.py NETWORK MARKER…

NETWORK is the first two numbers of the addresses to look at (`127.10`), or `any`. It says `ready`, reads packets until its
standard input ends, and prints one JSON object:

packets, dropped    what was read, and what the kernel could not keep for us (a test should insist on 0)
markers             MARKER → in how many directions of connections it was read in plain text
tls13               server hellos that choose TLS 1.3
records             TCP segments that begin with a TLS record of application data
"""

import ctypes
import json
import select
import socket
import struct
import sys
import time

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
# Of one direction of a connection that is kept, so that a marker across two segments is found.
TAIL = 256


def only(network):
    """A kernel filter: IPv4 whose source or destination is in NETWORK/16 (behind the link header of 14 bytes)."""
    high, low = (int(part) for part in network.split("."))
    prefix = high << 8 | low
    program = [
        (0x28, 0, 0, 12),  # ether type
        (0x15, 0, 5, 0x0800),
        (0x28, 0, 0, 26),  # upper half of the source
        (0x15, 2, 0, prefix),
        (0x28, 0, 0, 30),  # upper half of the destination
        (0x15, 0, 1, prefix),
        (0x06, 0, 0, 0x40000),
        (0x06, 0, 0, 0),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    kept = ctypes.create_string_buffer(code)
    return kept, struct.pack("HL", len(program), ctypes.addressof(kept))


def segment(packet):
    """((source, port, destination, port), payload) of a TCP segment over IPv4; None for anything else."""
    if len(packet) < 34 or packet[12:14] != b"\x08\x00" or packet[23] != 6:
        return None
    start = 14 + (packet[14] & 15) * 4
    if len(packet) < start + 20:
        return None
    end = 14 + int.from_bytes(packet[16:18], "big")
    if end == 14:  # a packet too large for its length field
        end = len(packet)
    payload = packet[start + (packet[start + 12] >> 4) * 4 : end]
    return (packet[26:30], packet[start : start + 2], packet[30:34], packet[start + 2 : start + 4]), payload


class Findings:
    def __init__(self, markers):
        self.markers = {marker: set() for marker in markers}
        self.tails = {}
        self.packets = self.tls13 = self.records = 0

    def read(self, packet):
        found = segment(packet)
        if found is None or not found[1]:
            return
        flow, payload = found
        self.packets += 1
        self.records += payload[:3] == b"\x17\x03\x03"
        # A server hello (handshake type 2) with the extension supported_versions (43), two bytes: 3, 4.
        hello = payload[:2] == b"\x16\x03" and payload[5:6] == b"\x02"
        self.tls13 += hello and b"\x00\x2b\x00\x02\x03\x04" in payload
        text = self.tails.get(flow, b"") + payload
        self.tails[flow] = text[-TAIL:]
        for marker, flows in self.markers.items():
            if marker.encode() in text:
                flows.add(flow)


def main(network, markers):
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    if network != "any":
        kept, program = only(network)
        tap.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    tap.bind(("lo", ETH_P_ALL))
    tap.setblocking(False)
    print("ready", flush=True)
    findings, ended = Findings(markers), None
    # Once its input has ended it goes on until nothing comes for 0.2 s, two seconds at most.
    while ended is None or time.monotonic() < ended + 2:
        readable = select.select([tap, sys.stdin] if ended is None else [tap], [], [], ended and 0.2)[0]
        if tap in readable:
            packet, address = tap.recvfrom(1 << 18)
            # On `lo` each packet is seen twice: as it leaves and as it comes.
            if address[2] != PACKET_OUTGOING:
                findings.read(packet)
        elif ended is not None:
            break
        elif not sys.stdin.read(1):
            ended = time.monotonic()
    _, dropped = struct.unpack("II", tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(
        json.dumps(
            {
                "packets": findings.packets,
                "dropped": dropped,
                "markers": {marker: len(flows) for marker, flows in findings.markers.items()},
                "tls13": findings.tls13,
                "records": findings.records,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
