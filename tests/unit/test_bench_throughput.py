"""The throughput benchmark: what it writes agrees with itself, whatever the times are."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import nplm_throughput, throughput
from bench.bandwidth import LargeArray
from bench.nplm_throughput import Settings, measure

TINY = (
    *("nplm", "--n-ref", "1500", "--window", "300", "--centres", "20", "--threads", "1"),
    *("--repeat", "3", "--toys", "5", "--no-falkon"),
)


@pytest.fixture(autouse=True)
def _small_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nplm_throughput, "LargeArray", partial(LargeArray, n_bytes=2**20))


@pytest.fixture
def _keep_threads() -> Any:  # noqa: ANN401
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(path: Path, *options: str) -> dict[str, Any]:
    assert throughput.main([*TINY, *options, "--json", str(path)]) == 0
    record: dict[str, Any] = json.loads(path.read_text())
    return record


@pytest.mark.usefixtures("keep_logging", "_keep_threads")
@pytest.mark.parametrize(
    ("options", "element_bytes"),
    [((), 4), (("--store", "float16"), 2), (("--loss", "likelihood", "--sigma", "3"), 4)],
)
def test_record_agrees_with_itself(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    element_bytes: int,
) -> None:
    record = run(tmp_path / "out.json", *options)
    settings, results = record["settings"], record["results"]
    assert record["benchmark"] == "nplm-throughput"
    assert record["machine"]["cores"] >= 1
    assert (settings["n_ref"], settings["window"], settings["centres"]) == (1500, 300, 20)
    assert settings["seed"] == 0
    for name in ("fit_s", "features_s", "both_s"):
        assert 0 < results[name]["min"] <= results[name]["median"]
    assert 0 < results["rank"] <= 20
    assert results["reference_bytes"] == 1500 * results["rank"] * element_bytes
    passed = results["reference_bytes"] * results["evaluations"]
    assert results["floor_s"] == pytest.approx(passed / results["bandwidth_gb_per_s"] / 1e9)
    low, high = results["floor_ratio_68"]
    assert 0 < low <= results["floor_ratio"] <= high
    assert results["bandwidth_gb_per_s"] <= results["bandwidth_best_gb_per_s"]
    assert 0 < results["basis_s"] < results["build_s"]
    assert results["toy_s"] > 0
    assert (results["pool"], results["toy_batch"]) == (1200, 5)
    assert 0.01 < results["peak_rss_gib"] < record["machine"]["memory_gib"]
    assert results["falkon"] is None
    text = capsys.readouterr().out
    assert f"floor_ratio  {results['floor_ratio']:.2f} (" in text
    assert f"t            {results['t']:.3f} after" in text
    assert "falkon       left out\n" in text


@pytest.mark.usefixtures("_keep_threads")
def test_the_same_seed_gives_the_same_t_and_signal_raises_it() -> None:
    def t(signal: float) -> float:
        settings = Settings(
            n_ref=1500, window=300, centres=20, signal=signal, threads=1, repeat=1, toys=1
        )
        return float(measure(settings)["t"])

    assert t(0.2) == t(0.2) > t(0.0) + 50


def test_bandwidth_is_bytes_over_seconds() -> None:
    """Of what this machine can do: more than a slow disk, less than a memory of the future."""
    assert 1e8 < LargeArray("cpu", 1, n_bytes=2**24).bandwidth() < 1e13


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "bench-throughput: the following arguments are required: part"),
        (["nothing"], "bench-throughput: argument part: invalid choice: 'nothing'"),
        (["--window", "3"], "bench-throughput: "),
        (["nplm", "--window", "0"], "bench-throughput nplm: argument --window: must be a whole"),
        (["nplm", "--signal", "1"], "argument --signal: must lie between 0 and 1; got 1"),
        (["nplm", "--signal", "nan"], "argument --signal: must lie between 0 and 1; got nan"),
        (["nplm", "--json", "/proc/x.json"], "cannot write /proc/x.json"),
        (["nplm", "--device", "abacus"], "device must be cpu, or cuda with a driver and a GPU"),
        (["nplm", "--device", "cuda:99"], "got cuda:99; use --device cpu"),
    ],
)
def test_bad_option_is_one_sentence(
    capsys: pytest.CaptureFixture[str], argv: list[str], text: str
) -> None:
    try:
        code: int | str | None = throughput.main(argv)
    except SystemExit as exc:  # argparse ends the process itself
        code = exc.code
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1, err
    assert text in err


@pytest.mark.parametrize("argv", [["--help"], ["nplm", "--help"]])
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        throughput.main(argv)
    assert caught.value.code == 0
    assert "example:\n  bench-throughput nplm" in capsys.readouterr().out


@pytest.mark.usefixtures("keep_logging")
def test_options_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "options.toml"
    config.write_text("windw = 3\n")
    with pytest.raises(SystemExit):
        throughput.main(["nplm", "--config", str(config)])
    assert "unknown option 'windw'" in capsys.readouterr().err
