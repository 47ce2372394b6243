"""The comparison of two samples of events."""

from pathlib import Path

import numpy as np
import pytest

from bench.distributions import DISTRIBUTIONS
from bench.simulation_agreement import Comparison, ProcessComparison, compare_processes, describe
from bench.simulation_files import describe_file
from bench.simulation_plot import draw_comparison
from engines.errors import EventError, SampleSizeError
from engines.event_files import EventFile, write_events
from engines.samples import sample_path
from tests.conftest import MakeEvents

MET = DISTRIBUTIONS[0]


def compared(seed: int, factor: float, n: int = 4000, m: int = 8000) -> Comparison:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.exponential(20.0 * factor, n), rng.exponential(20.0, m)
    counts, others = (np.histogram(values, MET.edges)[0] for values in (ours, theirs))
    return Comparison(MET, counts, others, n, m)


def test_p_is_uniform_where_both_samples_follow_one_distribution() -> None:
    p_values = np.sort([compared(seed, 1.0).p_value for seed in range(200)])
    uniform = (np.arange(200) + 0.5) / 200
    assert np.abs(p_values - uniform).max() < 1.63 / np.sqrt(200)


def test_p_is_small_where_they_differ() -> None:
    assert all(compared(seed, 1.15).p_value < 0.01 for seed in range(20))


def test_chi2_of_two_bins_is_the_textbook_one() -> None:
    both = Comparison(MET, np.array([30, 10]), np.array([50, 50]), 40, 100)
    # Pearson's chi-square of the table [[30, 10], [50, 50]].
    expected = 140 * (30 * 50 - 10 * 50) ** 2 / (40 * 100 * 80 * 60)
    value, freedom = both.chi2
    assert value == pytest.approx(expected)
    assert freedom == 1


def test_ratio_and_its_error() -> None:
    both = Comparison(MET, np.array([30, 0]), np.array([50, 50]), 40, 100)
    ratio, error = both.ratio
    assert ratio[0] == pytest.approx(1.5)
    assert error[0] == pytest.approx(1.5 * np.sqrt(1 / 30 + 1 / 50))
    assert np.isnan(ratio[1])


def test_processes_are_compared_by_label(tmp_path: Path) -> None:
    found = compare_processes(
        [sample_path("A4l"), sample_path("sm_rare")], [sample_path("sm_cocktail")]
    )
    assert [process.name for process in found] == ["Z", "tt"]
    p_values = [comparison.p_value for process in found for comparison in process.comparisons]
    assert min(p_values) > 1e-4
    table = describe(found)
    assert "| Z | 6000 / 1" in table
    assert table.count("\n| ") == 2
    draw_comparison(found, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_too_few_events_are_no_p_value() -> None:
    few = Comparison(MET, np.array([3, 0]), np.array([5, 0]), 3, 5)
    assert np.isnan(few.p_value)
    assert few.p_text == "too few"
    enough = Comparison(MET, np.array([30, 10]), np.array([50, 50]), 40, 100)
    assert enough.p_text == f"{enough.p_value:.2g}"
    process = ProcessComparison("W", 0, 3, 5, (few,))
    assert process.record()["distributions"]["met"]["p_value"] is None


def test_file_is_described_so_that_it_can_be_made_again(
    tmp_path: Path, make_events: MakeEvents
) -> None:
    path = tmp_path / "a.h5"
    origin = {"seed": 5, "shuffled": True, "versions": '{"numpy": "2"}', "unknown": [1, 2]}
    write_events(path, make_events(30), np.zeros(30), attributes=origin)
    with EventFile(path) as file:
        expected = {"name": "a.h5", "content_id": file.content_id, "n_events": 30}
    known = {"seed": 5, "shuffled": True, "versions": {"numpy": "2"}}
    assert describe_file(path) == {**expected, "simulation": known}
    write_events(path, make_events(30))
    assert "simulation" not in describe_file(path)


def test_another_process_is_told_apart(tmp_path: Path, make_events: MakeEvents) -> None:
    write_events(tmp_path / "a.h5", make_events(500), np.full(500, 10))
    found = compare_processes([tmp_path / "a.h5"], [sample_path("A4l")])
    assert sum(comparison.p_value < 1e-6 for comparison in found[0].comparisons) >= 7


def test_nothing_in_common_is_a_sentence() -> None:
    with pytest.raises(SampleSizeError, match=r"50 events of one process; got labels \[10\] and"):
        compare_processes([sample_path("A4l")], [sample_path("LQbtau")])


def test_missing_labels_are_a_sentence(tmp_path: Path, make_events: MakeEvents) -> None:
    write_events(tmp_path / "a.h5", make_events(100))
    with pytest.raises(EventError, match=r"a\.h5 must hold labels"):
        compare_processes([tmp_path / "a.h5"], [sample_path("A4l")])
