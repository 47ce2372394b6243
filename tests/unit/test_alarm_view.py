"""What the live page shows of an alarm."""

import json
from typing import Any

import numpy as np
import pytest

from engines.types import AnyArray, FloatArray
from stream.alarm.view import alarm_view, principal_plane
from tests.conftest import MakeEvents

_RECORD = {"run": "a", "window": 7, "t": 300.0, "z_alarm": 6.5, "t_end_ns": 10**18, "spans": []}


def view(particles: FloatArray, f: AnyArray, dim: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    embeddings = rng.normal(3.0, 20.0, size=(len(f), dim)).astype(np.float32)
    shown = alarm_view(embeddings, particles, f, _RECORD)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    return dict(shown)


@pytest.mark.parametrize(("n", "n_shown"), [(1, 1), (9, 9), (1500, 1500), (5000, 1500)])
def test_points_are_few_and_hold_the_most_anomalous(
    make_events: MakeEvents, n: int, n_shown: int
) -> None:
    f = np.random.default_rng(0).normal(size=n)
    shown = view(make_events(n), f)
    plane = shown["plane"]
    assert len(plane["x"]) == len(plane["y"]) == len(plane["f"]) == n_shown
    assert plane["f"] == sorted(plane["f"], reverse=True)
    assert plane["f"][:50] == np.sort(f)[::-1][:50].round(3).tolist()
    assert np.median(plane["f"]) == pytest.approx(np.median(f), abs=0.1)
    assert (shown["window"], shown["z"], shown["p_relabelled"]) == (7, 6.5, None)


def test_table_is_of_the_points_that_come_first(make_events: MakeEvents) -> None:
    particles = make_events(300)
    f = np.zeros(300)
    f[[40, 41]] = 2.0, 3.0
    particles[41] = 0.0
    particles[41, [0, 1, 9], 0] = 55.5, 80.25, 33.0
    shown = view(particles, f)
    assert len(shown["top"]) == 10
    assert [row["f"] for row in shown["top"]] == shown["plane"]["f"][:10]
    assert shown["top"][0] == {
        "f": 3.0,
        "lead_pt": 80.25,
        "met": 55.5,
        "n_electrons": 1,
        "n_muons": 0,
        "n_jets": 1,
    }


def test_one_coordinate_is_drawn_against_f(make_events: MakeEvents) -> None:
    plane = view(make_events(200), np.linspace(-1, 1, 200), dim=1)["plane"]
    assert plane["y"] == plane["f"]
    assert plane["axes"][1] == "f"


def test_plane_is_the_widest() -> None:
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(2000, 2))
    embeddings = np.column_stack([hidden[:, 0], hidden[:, 0], hidden[:, 1], rng.normal(size=2000)])
    embeddings[:, 1] += 0.1 * rng.normal(size=2000)
    plane = principal_plane(1e6 + 50.0 * embeddings)
    agreement = np.atleast_2d(np.corrcoef(plane[:, 0], hidden[:, 0]))
    assert abs(agreement[0, 1]) > 0.99
    assert plane[:, 0].std() > plane[:, 1].std() > 0.9
    assert abs(plane[:, 0] @ plane[:, 1]) < 1e-6 * len(plane)


def test_coordinate_without_spread_is_harmless() -> None:
    embeddings = np.tile(np.array([1.0, 2.0, 3.0], np.float32), (5, 1))
    assert (principal_plane(embeddings) == 0).all()
