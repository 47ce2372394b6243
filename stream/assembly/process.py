"""What a consumer has in every role: signals that end it, and its HTTP port."""

import signal
import threading
from contextlib import ExitStack

from prometheus_client import CollectorRegistry

from stream.page import Page, parse_address
from stream.security.consumer import ConsumerSecurity

__all__ = ["serve", "stop_on_signals"]


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def serve(
    stack: ExitStack, address: str, registry: CollectorRegistry, security: ConsumerSecurity
) -> Page:
    """Serve HTTP from the start, so that /readyz can say that something is still missing."""
    page = Page(registry)
    page.faults.append(security.faults)
    if address != "off":
        server = page.serve(*parse_address(address), tls=security.tls, password=security.password)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
    return page
