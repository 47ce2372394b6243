"""Two saved measurements side by side: every kind of figure, and what is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bench import command, compare
from bench.compare import figures

RECORD: dict[str, Any] = {
    "benchmark": "latency",
    "machine": {
        "processor": "A chip",
        "cores": 2,
        "memory_gib": 8.0,
        "system": "Linux-6",
        "gpu": "A GPU",
        "python": "3.11",
        "versions": {"torch": "2.13"},
        "when": "2026-01-01",
    },
    "settings": {"repeat": 3, "loads": [0.5]},
    "results": {
        "capacity_hz": 100.0,
        "runtime": "text",
        "share": {"median": 0.5, "low": 0.4, "high": 0.6},
        "ratio": 2.0,
        "ratio_68": [1.5, 2.5],
        "none": None,
        "flag": True,
        "curve": [0.1 * k for k in range(40)],
        "sizes": [64.0, 256.0],
        "points": [{"load": 0.5, "testing": True, "p99_s": 0.01}, {"load": 0.8, "p99_s": 0.0}],
        "alike": [{"load": 0.5, "x": 1}, {"load": 0.5, "x": 2}],
    },
    "coverage": {"n": 3},
}


@pytest.fixture
def other() -> dict[str, Any]:
    return copy.deepcopy(RECORD)


def saved(path: Path, record: object) -> str:
    path.write_text(json.dumps(record))
    return str(path)


def run(tmp_path: Path, a: object, b: object, *options: str) -> int:
    paths = [saved(tmp_path / "a.json", a), saved(tmp_path / "b.json", b)]
    return command.main(["compare", *paths, *options])


def test_every_number_is_found_by_its_path() -> None:
    found = {name: figure.value for name, figure in figures(RECORD).items()}
    assert found == {
        "capacity_hz": 100.0,
        "share": 0.5,
        "ratio": 2.0,
        "sizes[0]": 64.0,
        "sizes[1]": 256.0,
        "points[load 0.5, testing True].load": 0.5,
        "points[load 0.5, testing True].p99_s": 0.01,
        "points[load 0.8].load": 0.8,
        "points[load 0.8].p99_s": 0.0,
        "alike[0].load": 0.5,
        "alike[0].x": 1,
        "alike[1].load": 0.5,
        "alike[1].x": 2,
        "coverage.n": 3,
    }
    bands = {name for name, figure in figures(RECORD).items() if figure.has_band}
    assert bands == {"share", "ratio"}


@pytest.mark.usefixtures("keep_logging")
def test_ratios_and_stars(
    tmp_path: Path, other: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other["results"]["capacity_hz"] = 150.0
    other["results"]["share"] = {"median": 0.7, "low": 0.61, "high": 0.8}
    other["results"]["ratio"], other["results"]["ratio_68"] = 3.0, [2.4, 3.5]
    other["results"]["new"] = 1
    other["machine"]["versions"] = {"torch": "2.14"}
    other["machine"]["when"] = "2026-02-02"
    assert run(tmp_path, RECORD, other) == 0
    text = capsys.readouterr().out
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert rows["capacity_hz"].endswith("1.500")
    assert rows["share"].endswith("1.400 *")
    assert rows["ratio"].endswith("1.500")  # the bands overlap
    assert rows["points[load 0.8].p99_s"].endswith("-")
    assert "versions differ: torch '2.13' and '2.14'" in text
    assert "1 figures stand in one file only" in text


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize(
    ("key", "value"),
    [("processor", "B"), ("cores", 4), ("memory_gib", 16.0), ("system", "L"), ("gpu", None)],
)
def test_other_machines_are_refused_unless_asked_for(
    tmp_path: Path,
    other: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: object,
) -> None:
    other["machine"][key] = value
    assert run(tmp_path, RECORD, other) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"bench-compare: the machine must be the same; got {key} ")
    assert said.count("\n") == 1
    assert run(tmp_path, RECORD, other, "--other-machines") == 0


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize(
    ("part", "value", "sentence"),
    [
        ("benchmark", "physics", "the benchmark must be the same; got latency and physics"),
        ("settings", {"repeat": 4, "loads": [0.5]}, "the settings must be the same; got repeat 3"),
        ("settings", {"repeat": 3}, "got loads [0.5] and None"),
    ],
)
def test_other_measurements_are_refused(
    tmp_path: Path,
    other: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    part: str,
    value: object,
    sentence: str,
) -> None:
    other[part] = value
    assert run(tmp_path, RECORD, other, "--other-machines") == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize(
    "damaged", ["", "{", "[]", "{}", '{"benchmark": "x"}', '{"benchmark": 1, "machine": {}}']
)
def test_damaged_files_are_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    good, bad = saved(tmp_path / "good.json", RECORD), tmp_path / "bad.json"
    bad.write_text(damaged)
    for pair in ([good, str(bad)], [str(bad), good], [good, str(tmp_path / "missing.json")]):
        assert compare.main(pair) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "Traceback" not in said


@pytest.mark.usefixtures("keep_logging")
def test_saved_results_of_every_kind_compare_with_themselves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = sorted(Path(compare.__file__).with_name("results").glob("*.json"))
    assert kept
    for path in kept:
        assert compare.main([str(path), str(path)]) == 0
        rows = capsys.readouterr().out.splitlines()[2:]
        assert len(rows) > 5, path
        assert all(row.rstrip().endswith(("1.000", "-")) for row in rows), path


def test_the_benchmarks_have_one_name_in_common(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["latency", "--help"])
    assert ended.value.code == 0
    assert "usage: bench-latency" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        command.main(["nonsense"])
    assert ended.value.code == 2
