"""The dashboard for operators: does the stream flow, is it in time, does anything fail."""

from deploy.grafana.operations_stream import LATENCY, NOW, STREAM
from deploy.grafana.operations_tests import FAULTS, PROCESS, TESTS
from deploy.grafana.spec import Dashboard

__all__ = ["OPERATIONS"]

OPERATIONS = Dashboard(
    uid="nplm-operations",
    title="NPLM stream: operations",
    description="Rates, latency, saturation, queues and faults of the consumers, for operators.",
    rows=[NOW, STREAM, LATENCY, TESTS, FAULTS, PROCESS],
)
