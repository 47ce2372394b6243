"""A study of two small engines, from its file to tables and figures."""

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from scipy import stats

from bench import physics
from bench.physics_study.checks import learned_signals
from bench.physics_study.config import Study
from bench.physics_study.embedded import Embedded
from bench.physics_study.figure_overview import draw_overview
from bench.physics_study.jobs import left_out_jobs, study_jobs
from bench.physics_study.lead import lead_over, lead_tables
from bench.physics_study.pieces import pieces_of, read_piece
from bench.physics_study.read_study import read_study
from bench.physics_study.report import find
from bench.physics_study.running import run_jobs
from bench.physics_study.select_report import write_selection
from bench.physics_study.store import Store
from bench.physics_study.summary import over_seeds, rows_of, training_mark
from bench.physics_study.tables import z_tables
from engines.artifact import EngineFacts, SampleFacts, load_onnx, read_facts, write_facts
from engines.errors import ArtifactError, MismatchError
from engines.event_files import EventFile, write_events
from engines.event_marks import mark_events
from engines.events import EventRange
from engines.samples import sample_path
from engines.unseen import refuse_training_events
from tests.support_commands import tiny_encoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY = f"""
folder = "out"
[data]
folder = "{sample_path("A4l").parent}"
background = "sm_cocktail.h5@0:40000"
[data.signals]
A4l = "A4l.h5@1000:"
LQbtau = "LQbtau.h5"
[data.processes]
Z = 2
[[encoders]]
name = "tiny"
files = ["tiny0.onnx", "tiny1.onnx"]
[[encoders]]
name = "aware"
files = ["aware.onnx"]
[test]
window = 200
fractions = [0.05, 0.2]
windows = 6
splits = 2
toys = 40
n_ref = 1500
[blackbox]
encoders = ["tiny"]
signals = ["A4l"]
window = 150
references = 2
[map]
encoders = ["tiny"]
signals = ["A4l"]
fraction = 0.2
method = "pca"
[select]
encoders = ["tiny"]
"""


def engine(path: Path, *trained_on: EventRange, seed: int = 0, marks: str = "") -> Path:
    model = load_onnx(tiny_encoder(path, seed))
    samples = tuple(map(SampleFacts.of, trained_on))
    loss = "supcon" if samples or marks else "none"
    facts = EngineFacts(loss=loss, trained_on=samples, trained_marks=marks, dim=3)
    write_facts(model, facts)
    onnx.save_model(model, path)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Measure once for all tests."""
    folder = tmp_path_factory.mktemp("study")
    engine(folder / "tiny0.onnx")
    engine(folder / "tiny1.onnx", seed=1)
    engine(folder / "aware.onnx", EventRange(sample_path("A4l"), 0, 1000), seed=2)
    (folder / "study.toml").write_text(STUDY)
    read = read_study(folder / "study.toml")
    assert run_jobs(read, [*study_jobs(read), *left_out_jobs(read)]) == []
    return read


@pytest.fixture(scope="module")
def text(study: Study) -> str:
    path = study.folder.parent / "study.toml"
    assert physics.main(["report", str(path)]) == 0
    return (study.folder / "tables" / "tables.md").read_text()


def table_rows(study: Study, name: str) -> list[dict[str, str]]:
    with (study.folder / "tables" / name).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("keep_logging")
def test_numbers_are_those_of_the_stored_windows(study: Study, text: str) -> None:
    rows = table_rows(study, "results.csv")
    assert len(rows) == 3 * 2 * 2
    row = next(r for r in rows if (r["seed"], r["signal"], r["fraction"]) == ("1", "A4l", "0.2"))
    job = study_jobs(study)[-1]
    assert (job.encoder.name, job.seed) == ("tiny", 1)
    record = read_piece(pieces_of(study, job)[1], Store(study.folder))
    assert record is not None
    z, toys_z, deviations = [], [], []
    for division in record["divisions"]:
        toys = np.array(division["toys"])
        (t,) = (c["t"] for c in division["cells"] if (c["signal"], c["fraction"]) == ("A4l", 0.2))
        for value in t:
            z.append(stats.norm.isf(stats.chi2.sf(value, toys.mean())))
            toys_z.append(stats.norm.isf(min((1 + (toys >= value).sum()) / 41, 40 / 41)))
            deviations.append((value - toys.mean()) / toys.std(ddof=1))
    assert float(row["windows"]) == len(z) == 6
    assert float(row["z"]) == pytest.approx(np.median(z), abs=1e-4)
    assert float(row["z_low"]) == pytest.approx(np.quantile(z, 0.16), abs=1e-4)
    assert float(row["z_toys"]) == pytest.approx(np.median(toys_z), abs=1e-4)
    assert float(row["spreads"]) == pytest.approx(np.median(deviations), abs=1e-4)
    assert float(row["power_2"]) == pytest.approx((np.array(z) >= 2).mean(), abs=1e-4)
    assert float(row["z_cap"]) == pytest.approx(stats.norm.isf(1 / 41), abs=1e-4)
    assert "## Black boxes" in text


@pytest.mark.usefixtures("keep_logging")
def test_tables_hold_spreads_over_seeds_and_what_training_saw(study: Study, text: str) -> None:
    rows = table_rows(study, "results.csv")
    z = [float(r["z"]) for r in rows if (r["encoder"], r["signal"], r["fraction"]) == _CELL]
    wanted = f"| {np.mean(z):.1f} ± {np.std(z, ddof=1):.1f} ("
    assert wanted in text.partition("### 20 %")[2]
    aware = next(line for line in text.splitlines() if line.startswith("| aware | 3 | 1 |"))
    assert aware.index("[seen]") < aware.index("[held out]")
    assert "[" not in next(line for line in text.splitlines() if line.startswith("| tiny |"))
    assert len(table_rows(study, "summary.csv")) == 2 * 2 * 2
    boxes = table_rows(study, "boxes.csv")
    assert len(boxes) == 2 * 2 * 10
    assert "| tiny | 3 | none | 2 |" in text


@pytest.mark.usefixtures("keep_logging", "text")
def test_a_lead_is_a_difference_of_medians_on_the_same_windows(study: Study) -> None:
    found = find(study, Store(study.folder)).windows
    trained = [item for item in found if item[0].encoder.name == "aware"]
    assert lead_tables(study, trained) == ""  # there is nothing without training
    z: dict[str, list[float]] = {"tiny": [], "aware": []}
    for row in table_rows(study, "results.csv"):
        if (row["signal"], row["fraction"]) == ("A4l", "0.2"):
            z[row["encoder"]].append(float(row["z"]))
    (line,) = lead_tables(study, found).partition("### 20 %")[2].splitlines()[4:]
    assert line.startswith(f"| aware | 3 | {z['aware'][0] - max(z['tiny']):z.1f} ± ")


def test_the_error_of_a_lead_leaves_out_what_windows_share() -> None:
    rng = np.random.default_rng(0)
    common, own = 5 * rng.normal(size=400), rng.normal(size=(2, 400))
    lead = lead_over([common + own[0] + 1], [common + own[1]])
    assert lead.value == pytest.approx(1.0, abs=4 * lead.error)
    apart = lead_over([5 * rng.normal(size=400)], [common])
    assert 0 < lead.error < 0.7 * apart.error


def test_a_lead_over_other_windows_is_refused() -> None:
    with pytest.raises(MismatchError, match="on the same windows; got records of 6 and of 8"):
        lead_over([np.arange(8.0)], [np.arange(6.0)])


@pytest.mark.usefixtures("keep_logging", "text")
def test_without_a_fraction_of_signal_there_is_no_lead(study: Study) -> None:
    found = find(study, Store(study.folder)).windows
    assert lead_tables(study, found) != ""
    assert lead_tables(replace(study, test=replace(study.test, fractions=(0.0,))), found) == ""


@pytest.mark.usefixtures("keep_logging", "text")
def test_the_overview_says_only_what_it_shows(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(
        "bench.physics_study.figure_overview.save", lambda figure, _path: drawn.append(figure)
    )
    rows = find(study, Store(study.folder)).rows
    blind = [
        replace(row, accuracy=math.nan, training="held out" if row.training else "") for row in rows
    ]
    for shown in (rows, blind):
        draw_overview(study, shown, tmp_path / "overview.png")
    said = [figure.get_suptitle().splitlines() for figure in drawn]
    assert [lines[0] for lines in said] == ["Windows of 200 events; a mark is one training;"] * 2
    assert said[1][1] == "dotted: Z = 3; above Z = 2.0 there are no toys"
    assert said[0][1] == f"{said[1][1]}; hollow: training saw this signal"
    known = any(math.isfinite(row.accuracy) for row in rows)
    assert [len(figure.axes) for figure in drawn] == [2 + known, 2]


_CELL = ("tiny", "A4l", "0.2")


@pytest.mark.usefixtures("keep_logging", "text")
def test_every_figure_is_drawn(study: Study) -> None:
    figures = sorted(path.name for path in (study.folder / "figures").rglob("*.png"))
    names = [name.partition("-")[0] for name in figures]
    # Selection of one recipe; t of the first seed of two encoders, of which one has a map.
    assert names == [
        "accuracy.png",
        "aware",
        "overview.png",
        "selection.png",
        "tiny",
        "tiny",
        "z.png",
    ]


def test_selection_finds_the_process_and_keeps_signals_apart(study: Study) -> None:
    text = write_selection(study).read_text()
    ranking, _, check = text.partition("# Not used for the choice")
    assert "| 1 | tiny | 3 | 2 |" in ranking
    assert "Z left out" in ranking
    assert "A4l" not in ranking
    assert "A4l" in check


@pytest.mark.usefixtures("keep_logging")
def test_tables_say_what_z_leaves_out(study: Study, text: str) -> None:
    n_pool = 8000 - 5000 - 1500
    share = 200 * np.sqrt(2 / (n_pool * 1500) + 1 / n_pool**2)
    said = " ".join(text.split())
    assert said.count(f"its finite pool adds {share:.2f} null spreads (standard deviation") == 1
    uses, background_uses = 6 * 200 * 0.2 / 2000, 6 * 200 / 8000
    assert f"use a background event {background_uses:.2g} times on average" in said
    assert f"and a signal event up to {uses:.2g} times." in said
    rows = table_rows(study, "results.csv")
    assert all(float(r["offset_share"]) == pytest.approx(share, rel=1e-4) for r in rows)
    low, high = stats.binomtest(6, 6).proportion_ci(0.68, method="exact")
    full = next(r for r in rows if r["power_3"] == "1")
    assert float(full["power_3_low"]) == pytest.approx(low, abs=1e-4)
    assert float(full["power_3_high"]) == high
    accuracy = text.partition("## Background accuracy")[2].partition("## Black boxes")[0]
    (aware,) = (line for line in accuracy.splitlines() if line.startswith("| aware | 3 | 1 |"))
    assert aware.endswith(" | A4l |")


def test_kept_quantities_stand_beside_the_learned_dimension(study: Study) -> None:
    job = study_jobs(study)[0]
    record = read_piece(pieces_of(study, job)[1], Store(study.folder))
    assert record is not None
    record["engine"] |= {"dim": 10, "options": {"keep": ["met"] * 6}}
    rows = rows_of(study, job, record, None)
    assert {(row.dim, row.kept) for row in rows} == {(10, 6)}
    assert "| tiny | 4 + 6 | 1 |" in z_tables(study, over_seeds(rows))


def test_what_is_there_is_not_measured_again(study: Study) -> None:
    files = {path: path.stat().st_mtime_ns for path in (study.folder / "results").iterdir()}
    jobs = [*study_jobs(study), *left_out_jobs(study)]
    assert run_jobs(study, jobs) == []
    assert files == {p: p.stat().st_mtime_ns for p in (study.folder / "results").iterdir()}
    # Another number of toys is another measurement; accuracy does not depend on it.
    other = replace(study, test=replace(study.test, toys=41))
    paths = [piece.path(Store(study.folder)) for piece in pieces_of(other, jobs[0])]
    assert [path.is_file() for path in paths[:2]] == [True, False]


def test_one_failure_costs_nothing_else(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = study_jobs(study)[0]
    bad = replace(job.encoder, name="bad", files=(), options={"no-such-option": 1})
    seen = engine(tmp_path / "seen.onnx", EventRange(sample_path("sm_cocktail"), 39_000, 40_000))
    refused = replace(job.encoder, name="refused", files=(seen,), seeds=(0,))
    mixed = replace(study, folder=tmp_path, black_box=None, maps=None)
    jobs = [replace(job, encoder=bad), replace(job, encoder=refused), job]
    failed = run_jobs(mixed, jobs)
    assert len(failed) == 3  # one training, and accuracy and windows of the engine that has seen
    assert any("FAILED to train bad seed 0" in line and "no-such-option" in line for line in failed)
    assert any("was trained on 1000 of these events (sm_cocktail" in line for line in failed)
    assert "measured windows of tiny seed 0" in capsys.readouterr().out


def test_events_that_training_saw_are_refused(study: Study) -> None:
    cocktail = sample_path("sm_cocktail")
    facts = EngineFacts(trained_on=(SampleFacts.of(EventRange(cocktail, 0, 500)),))
    refuse_training_events(facts, [SampleFacts.of(EventRange(cocktail, 500, 600))])
    with pytest.raises(MismatchError, match=r"trained on 100 of these events \(sm_cocktail"):
        refuse_training_events(facts, [SampleFacts.of(EventRange(cocktail, 400, 600))])
    job = replace(left_out_jobs(study)[0], encoder=study.encoders[1], seed=0)
    with pytest.raises(MismatchError, match="must have been trained without process 2"):
        Embedded(job, Store(study.folder)).without_process()


def test_trained_events_are_recognised_in_another_file(study: Study, tmp_path: Path) -> None:
    with EventFile(sample_path("A4l")) as file:
        particles = file.read(0, 300)
    copy, store = tmp_path / "copy.h5", Store(tmp_path)
    write_events(copy, particles)
    store.prepare()
    seen = engine(tmp_path / "seen.onnx", marks=mark_events(particles[200:]))
    job = study_jobs(study)[0]
    embedded = Embedded(replace(job, encoder=replace(job.encoder, files=(seen,))), store)
    assert embedded.events(EventRange(copy, 0, 200)).shape == (200, 3)
    with pytest.raises(MismatchError, match=r"copy\.h5 holds events .* \(100 recognised among 300"):
        embedded.events(EventRange(copy))


def test_a_signal_seen_in_another_file_is_marked(study: Study, tmp_path: Path) -> None:
    with EventFile(sample_path("A4l")) as file:
        marks = mark_events(file.read(1500, 1510))
    job = study_jobs(study)[0]
    facts = asdict(read_facts(load_onnx(engine(tmp_path / "cut.onnx", marks=marks))))
    record = {"engine": facts}
    assert training_mark(study, job, record, "A4l") == "seen"
    assert training_mark(study, job, record, "LQbtau") == "held out"
    encoder = replace(job.encoder, files=(tmp_path / "cut.onnx",))
    assert learned_signals(encoder, study.data) == ["A4l"]


def test_embeddings_are_kept_and_the_left_out_process_is_no_background(study: Study) -> None:
    embedded = Embedded(left_out_jobs(study)[0], Store(study.folder))
    background, anomaly = embedded.without_process()
    labels = embedded.background_labels()
    assert labels is not None
    np.testing.assert_array_equal(anomaly, embedded.background()[labels == 2])
    assert len(background) == int((labels != 2).sum())


def test_a_folder_in_use_is_refused(study: Study) -> None:
    store = Store(study.folder)
    with (
        store.locked(),
        pytest.raises(ArtifactError, match="in use by another bench-physics"),
        store.locked(),
    ):
        pass


def test_damaged_measurement_is_named(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    piece = pieces_of(study, study_jobs(study)[0])[0]
    assert read_piece(piece, store) is None
    piece.path(store).write_text('{"accuracy"')
    with pytest.raises(ArtifactError, match="is damaged"):
        read_piece(piece, store)


def test_rows_know_the_accuracy(study: Study) -> None:
    job = study_jobs(study)[0]
    pieces = pieces_of(study, job)
    records = [json.loads(piece.path(Store(study.folder)).read_text()) for piece in pieces[:2]]
    row = rows_of(study, job, records[1], records[0])[0]
    assert row.accuracy == records[0]["accuracy"]["accuracy"]
    assert 0.6 < row.accuracy < 1
