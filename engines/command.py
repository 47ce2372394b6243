"""What every command shares: options from a TOML file, logging, exit codes."""

import argparse
import contextlib
import io
import json
import logging
import math
import os
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from engines.errors import NplmStreamError, ParameterError

__all__ = [
    "CommandParser",
    "configure_logging",
    "count",
    "ended_by_signal",
    "positive_float",
    "positive_int",
    "run_command",
]

#: Options take a few hundred bytes; a file of megabytes is none, and nested keys cost their square.
_MAX_CONFIG_BYTES = 16_384
_LONGEST_MESSAGE = 800


class CommandParser(argparse.ArgumentParser):
    """An argument parser with `--config FILE.toml` and errors of one sentence.

    Args:
        prog: the command's name.
        description: what it does.
        example: a command line that works, shown at the end of `--help`.
    """

    def __init__(self, prog: str, description: str, example: str) -> None:
        """Add the options that every command has."""
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example:\n  {example}\n\nexit codes: 0 done, 1 failed, 2 bad usage or input",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        common = self.add_argument_group("common")
        common.add_argument("--config", type=Path, metavar="FILE.toml", help="options by name")
        common.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING"))
        common.add_argument("--log-json", action="store_true", help="log as JSON lines")
        common.add_argument("--version", action="version", version=version("nplm-stream"))

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse the command line over the file named by `--config`."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--config", type=Path)
        known, _ = first.parse_known_args(argv)
        if known.config is not None:
            self._apply(known.config)
        return self.parse_args(argv)

    def parse_or_raise(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse as `parse` does, for a caller that goes on after bad usage.

        Raises:
            ParameterError: with the sentence that would have ended the process.
        """
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return self.parse(argv)
        except SystemExit as exc:
            raise ParameterError(said.getvalue().strip().removeprefix(f"{self.prog}: ")) from exc

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one sentence."""
        self.exit(2, f"{self.prog}: {_one_line(message)}; see {self.prog} --help\n")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:  # noqa: ANN401
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as exc:
            if isinstance(exc.__context__, NplmStreamError):  # argparse drops its sentence
                raise argparse.ArgumentError(action, str(exc.__context__)) from exc
            raise

    def _apply(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_CONFIG_BYTES + 1)
            if len(content) > _MAX_CONFIG_BYTES:
                self.error(f"the config file {path} must have at most {_MAX_CONFIG_BYTES} bytes")
            options = tomllib.loads(content.decode())
        except (OSError, ValueError, RecursionError) as exc:
            self.error(f"cannot read the config file {path} ({exc})")
        unset = ("help", "version", "config")
        actions = {action.dest: action for action in self._actions if action.dest not in unset}
        for key, value in options.items():
            action = actions.get(key.replace("-", "_"))
            if action is None:
                self.error(f"unknown option {key!r} in {path}; known are {sorted(actions)}")
            try:
                self.set_defaults(**{action.dest: _convert(action, value)})
            except (ValueError, TypeError, argparse.ArgumentTypeError, NplmStreamError) as exc:
                self.error(f"option {key!r} in {path} is wrong: {exc}")
            action.required = False
            if not action.option_strings:
                action.nargs = "?"


def _one_line(message: str) -> str:
    """Return what a terminal shows as one line, whatever stood in an option."""
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]}..."
    return "".join(character if character.isprintable() else "?" for character in message)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except where there is none to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.help is None:
            return action.help
        return super()._get_help_string(action)


def _convert(action: argparse.Action, value: Any) -> Any:  # noqa: ANN401 - TOML holds any type
    is_flag = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
    if is_flag != isinstance(value, bool):
        msg = f"must be {'true or false' if is_flag else 'a value'}; got {value!r}"
        raise ValueError(msg)
    if is_flag:
        return value
    wants_list = action.nargs in ("+", "*") or isinstance(action.nargs, int)
    if wants_list != isinstance(value, list):
        msg = f"must be {'a list' if wants_list else 'one value'}; got {value!r}"
        raise ValueError(msg)
    return (
        [_convert_one(action, item) for item in value]
        if wants_list
        else _convert_one(action, value)
    )


def _convert_one(action: argparse.Action, value: Any) -> Any:  # noqa: ANN401
    if action.type is None and not isinstance(value, str):
        msg = f"must be a string; got {value!r}"
        raise ValueError(msg)
    converted = action.type(str(value)) if callable(action.type) else value
    if action.choices is not None and converted not in action.choices:
        msg = f"must be one of {list(action.choices)}; got {value!r}"
        raise ValueError(msg)
    return converted


def positive_int(text: str) -> int:
    """Return a whole number above zero, for argparse."""
    if not (text.strip().isdecimal() and int(text) > 0):
        msg = f"must be a whole number above zero; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def count(text: str) -> int:
    """Return a whole number from 0 up, for argparse."""
    if not text.strip().isdecimal():
        msg = f"must be a whole number, 0 or above; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def positive_float(text: str) -> float:
    """Return a finite number above zero, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        msg = f"must be a number above zero; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure_logging(level: str = "INFO", *, as_json: bool = False) -> None:
    """Send the log to stderr, as text or as JSON lines; libraries only from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if as_json else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("engines", "training", "stream", "bench"):
        logging.getLogger(package).setLevel(level)


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does: it says what is kept and stops its helpers."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_command(
    parser: CommandParser,
    function: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, run and translate errors into exit codes.

    Returns:
        0 done; 1 failed; 2 bad usage or input; 130 interrupted.
    """
    options = parser.parse(argv)
    # Threads that wait for each other busily stand still on a shared machine; torch reads this
    # when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    configure_logging(options.log_level, as_json=options.log_json)
    try:
        function(options)
    except NplmStreamError as exc:
        sys.stderr.write(f"{parser.prog}: {exc}\n")
        return exc.exit_code
    except BrokenPipeError:
        # Nobody reads the output any more, as under `| head`: no fault of the work itself.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.stderr.write(f"{parser.prog}: interrupted\n")
        return 130
    return 0
