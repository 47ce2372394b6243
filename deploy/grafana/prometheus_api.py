"""Asks Prometheus what a panel asks, with the dashboard's variables filled in."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from engines.errors import EndpointError

__all__ = ["Prometheus", "Series", "fill_variables"]

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Series:
    """One series of an answer.

    Attributes:
        labels: its labels.
        points: (unix seconds, value) pairs; those that are NaN are left out.
    """

    labels: dict[str, str]
    points: list[tuple[float, float]]

    def named(self, legend: str) -> str:
        """Return a legend with this series' labels in the place of `{{label}}`.

        >>> Series({"scale": "4"}, []).named("Z, scale {{scale}}")
        'Z, scale 4'
        """
        for label, value in self.labels.items():
            legend = legend.replace("{{" + label + "}}", value)
        return legend


def fill_variables(
    expr: str, *, rate_interval_s: int, step_s: float = 0.0, instance: str = ".+"
) -> str:
    """Return an expression as Grafana sends it, of all time scales.

    Args:
        expr: the panel's.
        rate_interval_s: four times the scrape interval; longer steps make it a step and a scrape.
        step_s: between the points of the picture; at least a scrape is taken.
        instance: which consumers, a regular expression.

    >>> fill_variables('rate(a{scale=~"$scale"}[$__rate_interval])', rate_interval_s=20)
    'rate(a{scale=~".+"}[20s])'
    >>> fill_variables("rate(a[$__rate_interval]) < $__interval_ms", rate_interval_s=20, step_s=60)
    'rate(a[65s]) < 60000'
    """
    scrape_s = rate_interval_s / 4
    range_s = math.ceil(max(rate_interval_s, step_s + scrape_s))
    filled = expr.replace("$__rate_interval", f"{range_s}s")
    filled = filled.replace("$__interval_ms", f"{1000 * max(step_s, scrape_s):.0f}")
    return filled.replace("$instance", instance).replace("$scale", ".+")


@dataclass(frozen=True)
class Prometheus:
    """Prometheus' HTTP API.

    Attributes:
        url: its address, http://127.0.0.1:9090.
    """

    url: str

    def query(self, expr: str) -> list[Series]:
        """Return the series of an expression now.

        Raises:
            EndpointError: if Prometheus is absent or refuses the expression.
        """
        found = self.get("query", query=expr)["result"]
        return [_series(series["metric"], [series["value"]]) for series in found]

    def query_range(self, expr: str, start_s: float, stop_s: float, step_s: float) -> list[Series]:
        """Return the series of an expression over a span of time, unix seconds.

        Raises:
            EndpointError: if Prometheus is absent or refuses the expression.
        """
        span = {"start": f"{start_s:.3f}", "end": f"{stop_s:.3f}", "step": f"{step_s:.3f}"}
        found = self.get("query_range", query=expr, **span)["result"]
        return [_series(series["metric"], series["values"]) for series in found]

    def get(self, what: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        """Return the data of an answer of /api/v1/WHAT.

        Raises:
            EndpointError: if Prometheus is absent or refuses the request.
        """
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - HTTP
                return json.load(answer)["data"]
        except urllib.error.HTTPError as exc:
            with exc:
                msg = f"Prometheus refuses {parameters or what}: {exc.read().decode()[:300]}"
            raise EndpointError(msg) from exc
        except (OSError, ValueError, KeyError) as exc:
            msg = f"Prometheus does not answer at {self.url} ({exc}); is it running there?"
            raise EndpointError(msg) from exc


def _series(labels: dict[str, str], pairs: list[list[Any]]) -> Series:
    points = [(float(time_s), float(value)) for time_s, value in pairs]
    return Series(labels, [point for point in points if not math.isnan(point[1])])
