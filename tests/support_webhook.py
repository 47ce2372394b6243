"""A webhook for tests: answers what it is told to, and keeps what it was sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Receiver", "receiving"]


@dataclass
class Receiver:
    """What a webhook does.

    Attributes:
        answers: statuses of the next answers; then 200.
        location: where its answers send on to, if anywhere.
        endless: its answers go on until nobody reads.
        may_answer: cleared, it hangs.
        bodies: what it was sent.
        url: where it is; it holds a secret.
    """

    answers: list[int] = field(default_factory=list)
    location: str = ""
    endless: bool = False
    may_answer: threading.Event = field(default_factory=threading.Event)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Serve a webhook that answers."""
    made = Receiver()
    made.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            made.may_answer.wait(60)
            self.send_response(made.answers.pop(0) if made.answers else 200)
            if made.location:
                self.send_header("Location", made.location)
            if not made.endless:
                self.send_header("Content-Length", "0")
            self.end_headers()
            with suppress(OSError):
                while made.endless:
                    self.wfile.write(bytes(65_536))

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}/hook?secret=abc"
    try:
        yield made
    finally:
        made.may_answer.set()
        server.shutdown()
        server.server_close()
