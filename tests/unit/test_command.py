"""What commands share: TOML options, exit codes, logs."""

import argparse
import json
import logging
from pathlib import Path

import pytest

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.errors import ArtifactError, ParityError
from engines.events import EventRange

pytestmark = pytest.mark.usefixtures("keep_logging")


@pytest.fixture
def parser() -> CommandParser:
    made = CommandParser("try-it", "Try it.", "try-it bkg.h5")
    made.add_argument("file", type=EventRange.parse)
    made.add_argument("--window", type=positive_int, default=100, help="events")
    made.add_argument("--rate", type=positive_float, default=1.0)
    made.add_argument("--mode", choices=("count", "time"), default="count")
    made.add_argument("--dims", type=int, nargs="+", default=[4])
    made.add_argument("--name")
    made.add_argument("--loop", action="store_true")
    made.add_argument("--end", action=argparse.BooleanOptionalAction, default=True)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "options.toml"


def refused(parser: CommandParser, argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parser.parse(argv)
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith("try-it: ")
    return text


def test_options_come_typed_from_the_file(parser: CommandParser, config: Path) -> None:
    config.write_text(
        'file = "bkg.h5@1:5"\nwindow = 50\nrate = 2\nmode = "time"\ndims = [2, 8]\n'
        'name = "x"\nloop = true\nend = false\nlog-level = "DEBUG"\n'
    )
    got = parser.parse(["--config", str(config)])
    assert got.file == EventRange(Path("bkg.h5"), 1, 5)
    assert (got.window, got.rate, got.mode, got.dims) == (50, 2.0, "time", [2, 8])
    assert (got.name, got.loop, got.end, got.log_level) == ("x", True, False, "DEBUG")


def test_command_line_wins(parser: CommandParser, config: Path) -> None:
    config.write_text('file = "bkg.h5"\nwindow = 50\ndims = [2, 8]\nend = false\n')
    argv = ["other.h5", "--window", "7", "--dims", "3", "--end", f"--config={config}"]
    got = parser.parse(argv)
    assert got.file.path == Path("other.h5")
    assert (got.window, got.dims, got.end) == (7, [3], True)


@pytest.mark.parametrize("text", ["two", "0", "-3", "2.5", ""])
def test_what_is_no_positive_whole_number_is_said_in_words(
    parser: CommandParser, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(parser, ["bkg.h5", f"--window={text}"], capsys)
    assert f"must be a whole number above zero; got {text}" in message


@pytest.mark.parametrize("text", ["fast", "0", "nan", "inf"])
def test_what_is_no_positive_number_is_said_in_words(
    parser: CommandParser, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(parser, ["bkg.h5", f"--rate={text}"], capsys)
    assert f"must be a number above zero; got {text}" in message


def test_defaults_hold_without_a_file(parser: CommandParser) -> None:
    got = parser.parse(["bkg.h5"])
    assert (got.window, got.loop, got.end, got.dims) == (100, False, True, [4])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("windw = 5", "unknown option 'windw'"),
        ('help = "x"', "unknown option 'help'"),
        ('config = "x"', "unknown option 'config'"),
        ('version = "1"', "unknown option 'version'"),
        ("window = 0", "above zero"),
        ("window = 2.5", "'window'"),
        ("window = true", "must be a value; got True"),
        ("window = [1, 2]", "must be one value"),
        ('window = "many"', "'window'"),
        ('mode = "never"', "must be one of ['count', 'time']"),
        ("dims = 3", "must be a list; got 3"),
        ('dims = ["x"]', "'dims'"),
        ("name = 5", "must be a string; got 5"),
        ('loop = "yes"', "must be true or false"),
        ("end = 1", "must be true or false"),
        ('file = "bkg.h5@5:1"', "PATH@START:STOP"),
        ("[window]\nsize = 1", "'window'"),
        ("window 5", "cannot read the config file"),
    ],
)
def test_wrong_line_of_the_file(
    parser: CommandParser,
    config: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    text: str,
) -> None:
    config.write_text(f"{line}\n")
    assert text in refused(parser, ["bkg.h5", "--config", str(config)], capsys)


def test_missing_and_binary_files(
    parser: CommandParser, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["bkg.h5", "--config", str(config)]
    assert "cannot read the config file" in refused(parser, argv, capsys)
    config.write_bytes(b"\xff\xfe\x00")
    assert "cannot read the config file" in refused(parser, argv, capsys)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "required: file"),
        (["bkg.h5@5:1"], "START < STOP; got 'bkg.h5@5:1'"),
        (["bkg.h5", "--window", "0"], "above zero; got 0"),
        (["bkg.h5", "--rate", "inf"], "above zero; got inf"),
        (["bkg.h5", "--rate", "nan"], "above zero; got nan"),
        (["bkg.h5", "--mode", "x"], "invalid choice"),
        (["bkg.h5", "--windw", "5"], "unrecognized arguments"),
        (["bkg.h5", "--conf", "x.toml"], "unrecognized arguments"),
    ],
)
def test_wrong_usage(
    parser: CommandParser, capsys: pytest.CaptureFixture[str], argv: list[str], text: str
) -> None:
    assert text in refused(parser, argv, capsys)


def test_help_shows_the_example_and_defaults(
    parser: CommandParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parser.parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "example:\n  try-it bkg.h5" in text
    assert "(default: 100)" in text
    assert "default: None" not in text


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ArtifactError("no such engine"), 2, "try-it: no such engine\n"),
        (ParityError("they differ"), 1, "try-it: they differ\n"),
        (KeyboardInterrupt(), 130, "try-it: interrupted\n"),
        (None, 0, ""),
    ],
)
def test_exit_codes(
    parser: CommandParser,
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    code: int,
    text: str,
) -> None:
    def work(options: argparse.Namespace) -> None:
        if error is not None:
            raise error

    assert run_command(parser, work, ["bkg.h5"]) == code
    assert capsys.readouterr().err == text


def test_bugs_are_not_hidden(parser: CommandParser) -> None:
    def work(options: argparse.Namespace) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(parser, work, ["bkg.h5"])


def test_log_as_json_lines(parser: CommandParser, capsys: pytest.CaptureFixture[str]) -> None:
    def work(options: argparse.Namespace) -> None:
        logging.getLogger("stream").info("window %d closed", 3)
        logging.getLogger("stream").debug("unseen")
        try:
            raise ArtifactError("gone")  # noqa: EM101, TRY301
        except ArtifactError:
            logging.getLogger("stream").exception("failed")

    assert run_command(parser, work, ["bkg.h5", "--log-json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == (
        "INFO",
        "stream",
        "window 3 closed",
    )
    assert "gone" in second["exception"]
