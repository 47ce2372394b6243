"""The demo's verdict, and where it may not write."""

from pathlib import Path

import pytest

from stream import demo


def results(background: list[bool], injected: list[bool]) -> list[dict[str, object]]:
    alarms = [(alarm, 0) for alarm in background] + [(alarm, 120) for alarm in injected]
    return [{"alarm": alarm, "n_injected": n, "scale": 1} for alarm, n in alarms]


def test_quiet_background_and_alarms_on_signal_pass(capsys: pytest.CaptureFixture[str]) -> None:
    demo._judge(results([False] * 10, [True, True, False]))
    assert "background windows: 10, alarms 0; windows with signal: 3, alarms 2" in (
        capsys.readouterr().out
    )


def test_longer_scales_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    longer = {"alarm": True, "n_injected": 0, "scale": 10}
    demo._judge([*results([False] * 10, [True]), longer])
    assert "background windows: 10, alarms 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("background", "injected"),
    [
        ([False] * 9 + [True], [True] * 5),
        ([False] * 10, [False] * 5),
        ([False] * 10, [True, False]),
        ([False] * 10, []),
        ([], [True] * 5),
    ],
)
def test_any_other_outcome_fails(background: list[bool], injected: list[bool]) -> None:
    with pytest.raises(demo.DemoError, match="no alarm on background") as caught:
        demo._judge(results(background, injected))
    assert caught.value.exit_code == 1


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize("name", ["/proc/x", "taken", "taken/below"])
def test_place_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    assert demo.main(["-o", str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("stream-demo: cannot write into ")
    assert (tmp_path / "taken").read_text() == "a file"
