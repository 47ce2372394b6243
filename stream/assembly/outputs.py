"""The outputs of a consumer."""

import argparse
import sys

from engines.errors import ArtifactError
from stream.metrics import Metrics, Queue
from stream.notify import Webhook
from stream.results import JsonLines, Publisher, Sink, Table
from stream.security.consumer import ConsumerSecurity
from stream.sparse_log import SparseLog

__all__ = ["open_sinks"]


def open_sinks(
    options: argparse.Namespace, security: ConsumerSecurity, metrics: Metrics
) -> list[Sink]:
    """Open every output that the options name, the table on the terminal last.

    Raises:
        ArtifactError: if a file or folder cannot be written.
        EndpointError: if the results cannot be published there.
        ParameterError: if the webhook's URL is none.
    """
    if options.alarms is not None:
        try:
            options.alarms.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"cannot keep alarms in {options.alarms} ({exc}); choose another folder"
            raise ArtifactError(msg) from exc
    sinks: list[Sink] = []
    if options.results is not None:
        sinks.append(JsonLines(options.results))
    if options.publish is not None:
        sinks.append(Publisher(security.open_publisher(options.publish)))
    if options.notify is not None:
        webhook = Webhook(options.notify, metrics.notifications, SparseLog())
        metrics.queues["notifications"] = Queue(lambda: webhook.n_waiting, webhook.capacity)
        sinks.append(webhook)
    sinks.append(Table(sys.stdout))
    return sinks
