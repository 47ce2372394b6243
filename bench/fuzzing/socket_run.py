"""Malformed messages through a real socket into a real consumer, which is another process."""

import contextlib
import re
import signal
import socket as unix
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import zmq

from bench.fuzzing.memory import resident_bytes
from bench.fuzzing.messages import MessageFuzzer
from bench.processes import Process, free_endpoint, start
from engines.errors import WorkerError
from engines.pretrained import pretrained_path
from stream.endpoints import Socket, open_sender
from stream.header import EVENT_ROW

__all__ = ["SocketFindings", "fuzz_consumer"]

_GOOD = "good"
_GOOD_SHARE = 0.1
_START_S, _DRAIN_S, _SEND_MS = 60.0, 120.0, 60_000
_SAMPLES = 50
#: Connections that speak no ZeroMQ, and good messages after them. What libzmq takes for its first
#: protocol, which has no greeting, comes through as messages, to be refused.
_N_NOISES, _N_AFTER = 200, 100
_GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL" + bytes(16) + b"\x00" * 32
_SAMPLE = re.compile(r"^nplm_stream_(\w+?)_total(?:\{(?:reason|source)=\"(.*)\"\})? (\S+)$", re.M)


@dataclass
class SocketFindings:
    """What came of a run.

    Attributes:
        n_sent, n_good: messages, and of these the right ones of one source.
        rejected: messages refused, by reason, as the consumer counts them.
        n_accepted, n_good_events: as the consumer counts them.
        n_sources: series of sources that its metrics have.
        resident: its memory, bytes, in equal steps of the messages.
        wrong: what must not be.
        duration_s: from the first message to the last one's count.
    """

    n_sent: int = 0
    n_good: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    n_accepted: int = 0
    n_good_events: int = 0
    n_sources: int = 0
    resident: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    duration_s: float = 0.0


def fuzz_consumer(n: int, seed: int, advance: Callable[[int], None]) -> SocketFindings:
    """Send n messages, a tenth of them right, and connections of noise.

    Raises:
        WorkerError: if the consumer does not start.
    """
    endpoint, page = free_endpoint(), free_endpoint().removeprefix("tcp://")
    words = ("--engine", pretrained_path("d4"), "--endpoint", endpoint, "--http", page)
    with start("stream.consumer", *words, "--log-level", "WARNING") as consumer:
        _wait_until_ready(page, consumer)
        found = _feed(n, seed, endpoint, page, consumer, advance)
        consumer.process.send_signal(signal.SIGTERM)
        code = consumer.process.wait(_DRAIN_S)
        consumer.err.seek(0)
        said = consumer.err.read()
    if code:
        found.wrong.append(f"exit code {code}: {said[-500:]}")
    if "Traceback" in said:
        found.wrong.append(f"traceback: {said[said.index('Traceback') :][:1000]}")
    return found


def _feed(
    n: int, seed: int, endpoint: str, page: str, consumer: Process, advance: Callable[[int], None]
) -> SocketFindings:
    rng, found = np.random.default_rng([seed, 1]), SocketFindings()
    fuzzer = MessageFuzzer(rng, EVENT_ROW, time.time_ns())
    started_s, expected = time.perf_counter(), 0
    context: zmq.Context[Socket] = zmq.Context()
    try:
        socket = open_sender(context, endpoint)
        socket.setsockopt(zmq.SNDTIMEO, _SEND_MS)
        for first in range(0, n, step := max(1, n // _SAMPLES)):
            fuzzer.now_ns = time.time_ns()
            for _ in range(first, min(first + step, n)):
                expected += _send(socket, fuzzer, found)
            found.resident.append(resident_bytes(consumer.process.pid))
            advance(min(step, n - first))
        _wait_until_counted(found, page, consumer)
        found.duration_s = time.perf_counter() - started_s
        for _ in range(_N_NOISES):
            _send_noise(endpoint, rng)
        for _ in range(_N_AFTER):
            expected += _send(socket, fuzzer, found, share=1.0)
        _wait_for_good(expected, found, page, consumer)
    except (zmq.ZMQError, WorkerError, OSError) as exc:
        found.wrong.append(f"the consumer takes no more messages: {exc}")
    finally:
        context.destroy(linger=0)
    if found.n_good_events != expected:
        found.wrong.append(f"{expected} good events were sent, {found.n_good_events} counted")
    return found


def _send(
    socket: Socket, fuzzer: MessageFuzzer, found: SocketFindings, share: float = _GOOD_SHARE
) -> int:
    """Send a message, good with a probability; return how many events it holds if it is."""
    good = fuzzer.rng.random() < share
    if good:
        header, payload = fuzzer.parts(_GOOD)
        frames = [fuzzer.pack(header), payload]
    else:
        frames = fuzzer.draw()[1]
    if not frames:
        return 0
    socket.send_multipart(frames)
    found.n_sent += 1
    found.n_good += good
    return int(header["n"]) if good else 0


def _send_noise(endpoint: str, rng: np.random.Generator) -> None:
    """Connect as something else than ZeroMQ would."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    with unix.create_connection((host, int(port)), timeout=5) as connection:
        greeting = _GREETING if rng.random() < 0.5 else b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(greeting + rng.bytes(int(2 ** rng.uniform(0, 12))))


def _scrape(page: str, found: SocketFindings) -> None:
    with urllib.request.urlopen(f"http://{page}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = {(name, label): int(float(value)) for name, label, value in _SAMPLE.findall(text)}
    found.n_accepted = samples.get(("messages", ""), 0)
    found.rejected = {label: n for (name, label), n in samples.items() if name.startswith("rej")}
    sources = {label: n for (name, label), n in samples.items() if name == "source_events"}
    found.n_sources, found.n_good_events = len(sources), sources.get(_GOOD, 0)


def _wait_until_counted(found: SocketFindings, page: str, consumer: Process) -> None:
    until_s, counted = time.monotonic() + _DRAIN_S, 0
    while counted != found.n_sent:
        if time.monotonic() > until_s:
            msg = f"{found.n_sent} messages were sent, {counted} accepted or refused"
            raise WorkerError(msg)
        time.sleep(0.2)
        consumer.check()
        _scrape(page, found)
        # What the encoder could not embed had been accepted, and counts in both.
        embedding = found.rejected.get("embedding", 0)
        counted = found.n_accepted + sum(found.rejected.values()) - embedding


def _wait_for_good(expected: int, found: SocketFindings, page: str, consumer: Process) -> None:
    until_s = time.monotonic() + _DRAIN_S
    while found.n_good_events != expected and time.monotonic() < until_s:
        time.sleep(0.2)
        consumer.check()
        _scrape(page, found)


def _wait_until_ready(page: str, consumer: Process) -> None:
    until_s = time.monotonic() + _START_S
    while True:
        consumer.check()
        try:
            with urllib.request.urlopen(f"http://{page}/readyz", timeout=5):
                return
        except OSError as exc:
            if time.monotonic() > until_s:
                msg = f"stream-consumer must start within {_START_S:.0f} s; it did not ({exc})"
                raise WorkerError(msg) from exc
            time.sleep(0.2)
