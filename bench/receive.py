"""Process: a bare ZeroMQ receive loop, the limit that the wire sets to any consumer."""

import argparse
import json
import sys
import time
from collections.abc import Sequence

import msgpack
import zmq

from engines.command import CommandParser, run_command
from stream.endpoints import open_receiver

__all__ = ["main"]


def _run(options: argparse.Namespace) -> None:
    """Take messages until one says that the source is done; look at nothing but that."""
    n_bytes = n_messages = 0
    with zmq.Context() as context, open_receiver(context, options.endpoint) as socket:
        header, payload = socket.recv_multipart(copy=False)
        started, cpu_s = time.perf_counter(), time.process_time()
        while len(payload):
            n_bytes += len(payload)
            n_messages += 1
            header, payload = socket.recv_multipart(copy=False)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
        ended = msgpack.unpackb(header.bytes)["end"]
    report = {"messages": n_messages, "bytes": n_bytes, "seconds": seconds, "cpu_s": cpu_s}
    sys.stdout.write(json.dumps({**report, "ended": ended}) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process; return its exit code."""
    parser = CommandParser(
        "bench-receive",
        "Receives messages and does nothing with them until the source ends; reports as JSON.",
        "python -m bench.receive --endpoint tcp://127.0.0.1:5555",
    )
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:5555", help="where events arrive")
    return run_command(parser, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
