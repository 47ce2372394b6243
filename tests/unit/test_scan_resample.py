"""Windows against references drawn anew."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.artifact import SampleFacts
from engines.calibration import calibrate
from engines.calibration_config import CalibrationConfig
from engines.errors import MismatchError, SampleSizeError
from engines.event_files import read_events
from engines.events import EventRange
from engines.windows import WindowSpec
from stream.scanning.journal import ScanJournal
from stream.scanning.resample import (
    Resampling,
    basis_events,
    check_drawn,
    free_events,
    scan_resampled,
)
from stream.scanning.source import StoredWindows
from tests.support import LinearEngine, small_artifact
from tests.support_scan import stored_gaussians

N = 200
ARTIFACT = small_artifact()


def how(sources: list[EventRange], n_references: int = 8, n_toys: int = 60) -> Resampling:
    free = free_events(ARTIFACT.facts, [SampleFacts.of(source) for source in sources])
    return Resampling(tuple(sources), free, n_references, n_toys, 0, "chi2", "key")


def resampled(
    folder: Path, sources: list[EventRange], shift: float = 0.0, stop_after: int | None = None
) -> ScanJournal:
    """Test 12 windows, of which the last two are shifted; go on if there are results."""
    quiet = stored_gaussians(folder / "quiet.h5", 10 * N, 11)
    loud = stored_gaussians(folder / "loud.h5", 2 * N, 12, shift)
    with (
        StoredWindows([quiet, loud], N) as source,
        ScanJournal(folder / "r.jsonl", {}, (1,)) as journal,
    ):
        tested = scan_resampled(source, LinearEngine(), ARTIFACT, how(sources), journal)
        for number, _ in enumerate(tested, 1):
            if number == stop_after:
                break
    return journal


def test_z_has_the_null_s_mean_and_spread(tmp_path: Path) -> None:
    background = [stored_gaussians(tmp_path / "sm.h5", 12_000, 3)]
    journal = resampled(tmp_path, background, shift=0.6)
    z = np.array([line["z_alarm"] for line in journal.resampled]).reshape(8, 12)
    # Under the null each reference's Z is standard normal over windows; ten of them: 0 +- 0.32.
    assert abs(z[:, :10].mean()) < 0.8
    assert 0.5 < z[:, :10].std(axis=1, ddof=1).mean() < 1.5
    # A window's Z changes less from reference to reference than from window to window.
    assert z[:, :10].std(axis=0, ddof=1).mean() < z[:, :10].mean(axis=0).std(ddof=1)
    assert (z[:, 10:] > 3.0).all()
    assert len({line["null_mean"][0] for line in journal.resampled}) == 8
    assert z[:, 0].std() > 0


def test_going_on_gives_the_same_file(tmp_path: Path) -> None:
    background = [stored_gaussians(tmp_path / "sm.h5", 9000, 3)]
    resampled(tmp_path, background)
    whole = (tmp_path / "r.jsonl").read_bytes()
    (tmp_path / "r.jsonl").unlink()
    for stop_after in (5, 7, 20, None):
        resampled(tmp_path, background, stop_after=stop_after)
    assert (tmp_path / "r.jsonl").read_bytes() == whole


def test_references_drawn_otherwise(tmp_path: Path) -> None:
    background = [stored_gaussians(tmp_path / "sm.h5", 9000, 3)]
    journal = resampled(tmp_path, background, stop_after=1)
    check_drawn(journal, how(background))
    with pytest.raises(MismatchError, match=r"drawn otherwise; give the --reference-events"):
        check_drawn(journal, replace(how(background), key="other"))


def test_too_little_background(tmp_path: Path) -> None:
    sources = [SampleFacts.of(stored_gaussians(tmp_path / "sm.h5", 2300, 3))]
    with pytest.raises(SampleSizeError, match=r"need \d+ background events \(reference 2000"):
        free_events(ARTIFACT.facts, sources)


def test_events_of_the_basis_are_left_out(tmp_path: Path) -> None:
    """The division that calibration made is found again from its seed, whatever part is given."""
    one = stored_gaussians(tmp_path / "a.h5", 2000, 1)
    two = stored_gaussians(tmp_path / "b.h5", 1500, 2)
    other = stored_gaussians(tmp_path / "c.h5", 100, 3)
    config = CalibrationConfig(
        WindowSpec("count", 100.0), n_toys=20, n_ref=800, n_basis=300, n_centres=20, seed=4
    )
    calibrated = [EventRange(one.path, 200), two]
    artifact = calibrate(LinearEngine(), calibrated, config)
    given = [other, EventRange(two.path, 100, 1200), one]
    used = basis_events(artifact.facts, [SampleFacts.of(source) for source in given])
    assert used[:100].sum() == 0
    assert used[1200:1400].sum() == 0  # events 0 to 200 of the first were not calibrated on
    everything = basis_events(artifact.facts, artifact.facts.samples)
    assert everything.sum() == 300
    embedded = np.concatenate([read_events(source) for source in calibrated])[:, 1:5, 1]
    basis = artifact.reference.basis
    assert embedded[everything].mean(axis=0) == pytest.approx(basis.mean.numpy(), rel=1e-5)
