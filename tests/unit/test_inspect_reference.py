"""The facts that `inspect-reference` prints, for several time scales and widths."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from engines.artifact import SampleFacts
from engines.inspect_reference import describe
from engines.nplm.min_p import WidthNulls
from engines.nplm.toys import events_for_pool, offset_share
from engines.windows import WindowSpec

if TYPE_CHECKING:
    from engines.reference_file import ReferenceArtifact

N_REF, N_POOL = 8000, 30_000


@pytest.fixture(scope="module")
def nulls() -> dict[int, WidthNulls]:
    rng = np.random.default_rng(0)
    return {
        1: WidthNulls(rng.chisquare((40, 25), size=(50, 2))),
        10: WidthNulls(rng.chisquare((42, 27), size=(99, 2))),
    }


@pytest.fixture(scope="module")
def text(nulls: dict[int, WidthNulls]) -> str:
    facts = SimpleNamespace(
        precision="fp32",
        engine_fingerprint="ab" * 32,
        window=WindowSpec("count", 500.0),
        loss="likelihood",
        samples=(SampleFacts("a.h5", "x", 0, 9000), SampleFacts("b.h5", "y", 100, 34_100)),
        n_basis=5000,
        n_ref=N_REF,
        n_pool=N_POOL,
        offset_shares={scale: offset_share(500.0 * scale, N_POOL, N_REF) for scale in nulls},
        options={"lam": 1e-6, "jitter": 1e-10, "cut": 1e-3, "seed": 0},
        versions={"nplm-stream": "0.1.0", "torch": "2.6.0"},
        created="2026-01-01T00:00:00+00:00",
    )
    basis = SimpleNamespace(sigmas=(2.5, 0.75), centres=np.zeros((120, 4)), rank=90)
    artifact = SimpleNamespace(
        facts=facts,
        nulls=nulls,
        reference=SimpleNamespace(basis=basis),
        fingerprint="cd" * 32,
    )
    return describe(cast("ReferenceArtifact", artifact))


@pytest.mark.parametrize(
    "line",
    [
        "created      2026-01-01T00:00:00+00:00",
        "versions     nplm-stream 0.1.0, torch 2.6.0",
        "engine       " + "ab" * 32,
        "precision    fp32",
        "window       500 events",
        "loss         likelihood",
        f"fingerprint  {'cd' * 32}",
        "samples      basis 5000, reference 8000, pool 30000 events; shuffled from",
        "             a.h5 events 0 to 9000",
        "             b.h5 events 100 to 34100",
        "kernel       sigma 2.5, 0.75; 120 centres, rank 90",
        "             lam 1e-06, jitter 1e-10, cut 0.001",
        "toys         50 of 500 events; disjoint",
        "toys         99 of 10 windows of 500 events, merged; each event used about 16.5 times",
        "resolution   p >= 0.02, Z <= 2.06 from the toys alone",
        "resolution   p >= 0.01, Z <= 2.33 from the toys alone",
    ],
)
def test_facts_are_said(text: str, line: str) -> None:
    assert line in text.splitlines()


def test_offset_is_said_with_the_pool_that_would_do(text: str) -> None:
    said = [line for line in text.splitlines() if line.startswith("offset")]
    assert len(said) == 2
    for scale, line in zip((1, 10), said, strict=True):
        share = 100 * offset_share(500.0 * scale, N_POOL, N_REF)
        wanted = events_for_pool(500.0 * scale, N_REF, 0.25)
        assert f"{share:.0f} % of the null's spread" in line
        assert line.endswith(f"25 % needs a pool of {wanted} events")


def test_table_holds_each_scale_and_width(text: str, nulls: dict[int, WidthNulls]) -> None:
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if "windows    sigma" in line) + 1
    rows = [[float(word) for word in line.split()] for line in lines[start : start + 4]]
    wanted = [
        (scale, sigma, null)
        for scale, widths in nulls.items()
        for sigma, null in zip((2.5, 0.75), widths.nulls, strict=True)
    ]
    for row, (scale, sigma, null) in zip(rows, wanted, strict=True):
        assert row == pytest.approx(
            [scale, sigma, null.mean, null.std, null.chi2_dof, null.chi2_ks_p, null.gamma_shape,
             null.gamma_scale, null.gamma_ks_p],
            abs=0.006,
        )  # fmt: skip


def test_lines_are_aligned_and_short(text: str) -> None:
    for line in text.splitlines():
        assert len(line) <= 100
        assert line[12] == " "
        assert line == line.rstrip()
