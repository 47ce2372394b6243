"""What a scan says at its end: the table, what windows are worth together, the picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from engines.errors import ArtifactError
from engines.nplm import z_score
from stream.scanning.plot import draw_scan, scan_figure
from stream.scanning.source import StoredWindows
from stream.scanning.table import Resampled, Scanned
from tests.support import gaussians, small_artifact
from tests.support_scan import scan, stored

N = 200
ARTIFACT = small_artifact(scales=(2,), n_pool=12_000)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    """Six windows, the fifth of which is shifted."""
    folder = tmp_path_factory.mktemp("scan")
    embeddings = gaussians(6 * N + 30, np.random.default_rng(3))
    embeddings[4 * N : 5 * N] += 1.0
    with StoredWindows([stored(folder / "e.h5", embeddings)], N) as source:
        journal = scan(source, ARTIFACT, folder / "r.jsonl")
        return Scanned(journal.windows, source.n_left_over, "1 % of windows")


def test_table(scanned: Scanned) -> None:
    text = scanned.text()
    table, _, below = text.partition("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [row[0] for row in rows] == ["0", "1", "0x2", "2", "3", "1x2", "4", "5", "2x2"]
    assert [row[1] for row in rows] == ["200", "200", "400"] * 3
    alarms = [row[0] for row in rows if "ALARM" in row]
    assert "4" in alarms
    assert "(relabelled p 0.1)" in text
    assert "windows     6 of 200 events; 30 events left over, not tested" in below
    assert "calibrated  on 99 toys of 200 events" in below
    assert "1 % of windows" in below


def test_global_significance_is_of_all_scales(scanned: Scanned) -> None:
    (chi2, gamma, toys) = scanned.significances()
    assert (chi2.n, gamma.n, toys.n) == (9, 9, 9)
    smallest = min(line["p_chi2"] for line in scanned.lines)
    assert chi2.bonferroni_p == 9 * smallest
    assert chi2.bonferroni_z == pytest.approx(z_score(9 * smallest))
    text = scanned.text()
    assert f"of    9 tests {smallest:>9.2g}" in text
    assert "chi-square fitted to the toys, which alarms" in text
    assert "the toys alone, at their limit" in text
    assert "Windows share the reference" in text


def test_record_is_json(scanned: Scanned) -> None:
    record = json.loads(json.dumps(scanned.record(), allow_nan=False))
    assert len(record["windows"]) == 9
    assert record["n_left_over"] == 30
    assert record["resampled"] is None
    assert [found["tail"] for found in record["global"]] == ["chi2", "gamma", "toys"]
    assert record["global"][0]["window"] in ("4", "2x2")


def test_mean_and_spread_over_references(scanned: Scanned) -> None:
    p = ((0.5, 0.02, 0.9, 0.4, 1e-6, 0.3), (0.5, 0.03, 0.8, 0.4, 1e-5, 0.2))
    again = Resampled(p, n_ref=2000, n_free=8000, n_toys=60)
    z = again.z()
    assert z[0] == pytest.approx((0.0, 0.0), abs=1e-12)
    low, high = z_score(1e-5), z_score(1e-6)
    assert z[4] == pytest.approx(((low + high) / 2, (high - low) / 2**0.5))
    whole = Scanned(scanned.windows, 0, "rule", again)
    text = whole.text()
    assert f"{z[4][0]:.2f} +- {z[4][1]:.2f}" in text
    assert "2 references of 2000 events, drawn anew from 8000" in text
    assert "share about 25 % of their events" in text
    assert whole.record()["resampled"]["bonferroni_z"] == pytest.approx(
        [z_score(6e-6), z_score(6e-5)]
    )
    nothing = Resampled(((0.5,) * 6, (0.001, *(0.5,) * 5)), 2000, 8000, 60)
    assert "Bonferroni: n p is 1 or above for 1 of 2" in nothing.text("chi2")


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_picture(scanned: Scanned, tmp_path: Path) -> None:
    again = Resampled(((0.1,) * 6, (0.2,) * 6), 2000, 8000, 60)
    null = ARTIFACT.nulls[1].nulls[0]
    significance, density, uniformity = scan_figure(scanned.lines, null, again).axes
    labels = legend_of(significance)
    assert labels == ["alarm threshold", "window", "alarm", "2 references drawn anew"]
    sizes = [len(np.asarray(line.get_xdata())) for line in density.get_lines()]
    assert sizes[-2:] == [5, 1]
    p = np.asarray(uniformity.get_lines()[1].get_ydata())
    assert p.tolist() == sorted(line["p_alarm"] for line in scanned.lines if line["scale"] == 1)
    draw_scan(scanned.lines, null, None, tmp_path / "scan.png")
    assert (tmp_path / "scan.png").stat().st_size > 10_000
    with pytest.raises(ArtifactError, match="choose a writable folder"):
        draw_scan(scanned.lines, null, None, tmp_path / "no" / "scan.png")


def test_many_windows_are_drawn_as_a_histogram_too(scanned: Scanned) -> None:
    line = scanned.lines[0]
    many = [{**line, "window": k, "t_by_width": [30.0 + k / 10]} for k in range(150)]
    density = scan_figure(many, ARTIFACT.nulls[1].nulls[0]).axes[1]
    labels = legend_of(density)
    assert "150 windows, scaled" in labels
