"""Command: alarms that were kept, in words and in a picture."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.command import CommandParser, positive_int, run_command
from engines.errors import ArtifactError, ParameterError

if TYPE_CHECKING:
    from stream.alarm.contents import AlarmContents
    from stream.alarm.density import LearnedDensity
    from stream.alarm.table import Alarm

__all__ = ["main"]

_LOG = logging.getLogger(__name__)
_DESCRIPTION = """\
Prints the alarms that stream-consumer kept with --alarms, and draws one of them as the NPLM papers
do: the window against the reference and against the learned density for each embedding coordinate
and for leading pT, MET and multiplicities; the embedding coloured by f; t against its null. The fit
is made again for it, with the .ref that the window was tested with."""


def _parser() -> CommandParser:
    parser = CommandParser("inspect-alarm", _DESCRIPTION, "inspect-alarm alarms --top 5")
    add = parser.add_argument
    add("path", type=Path, metavar="DIR", help="the folder, or one alarm-....h5 of it")
    add("--alarm", default="strongest", metavar="N", help="of the table: N, strongest or last")
    add("--top", type=positive_int, metavar="N", help="print the N most anomalous events too")
    add("--json", action="store_true", help="print JSON")
    picture = parser.add_argument_group("picture")
    add = picture.add_argument
    add("-o", "--output", type=Path, metavar="FILE.png", help="default: beside the alarm's record")
    add("--no-plot", action="store_true", help="draw nothing")
    add("--umap", action="store_true", help="draw the embedding by UMAP (extra: umap)")
    add("--reference", type=Path, metavar="FILE.ref", help="default: the path that was recorded")
    add("--threads", type=positive_int, default=2, help="CPU threads of the fit")
    return parser


def _run(options: argparse.Namespace) -> None:
    from engines.artifact import check_writable
    from stream.alarm.record import read_alarm

    alarms = _read(options.path)
    number = _choose(options.alarm, len(alarms), _strongest(alarms))
    alarm = alarms[number - 1]
    contents = read_alarm(alarm.strongest.path)
    picture, learned = None, None
    if not options.no_plot:
        from engines.null_plot import check_picture

        picture = options.output or alarm.strongest.path.with_suffix(".png")
        check_picture(picture)
        check_writable(picture)
        _prepare_drawing(contents, umap=options.umap)
        learned = _learn(contents, options.reference, options.threads)
    if options.json:
        sys.stdout.write(_as_json(alarms, number, contents, picture, options.top))
    else:
        _print(alarms, number, contents, learned, options.top)
    sys.stdout.flush()
    if picture is not None:
        from stream.alarm.plot import draw_alarm

        draw_alarm(contents, learned, picture, umap=options.umap)
        if not options.json:
            sys.stdout.write(f"picture      {picture}\n")


def _prepare_drawing(contents: "AlarmContents", *, umap: bool) -> None:
    from stream.alarm.plot import N_COORDINATES

    if umap:
        from stream.alarm.panels import check_umap

        check_umap()
        _LOG.info("UMAP takes a while")
    dim = contents.embeddings.shape[1]
    if dim > N_COORDINATES:
        _LOG.warning(
            "the picture shows the first %d of %d embedding coordinates", N_COORDINATES, dim
        )


def _read(path: Path) -> "list[Alarm]":
    """Return the alarms of a folder or file; a record that cannot be read is left out, and said.

    Raises:
        ArtifactError: if there is none, or the one file that was named cannot be read.
    """
    from engines.progress import Progress
    from stream.alarm.record import read_alarm
    from stream.alarm.table import KeptWindow, group_windows

    if not path.is_dir():
        return group_windows([KeptWindow.of(path, read_alarm(path))])
    files = sorted(path.glob("alarm-*.h5"))
    if not files:
        msg = f"{path} holds no alarm-*.h5; name a folder that stream-consumer filled with --alarms"
        raise ArtifactError(msg)
    windows, shown = [], Progress(len(files), "alarm records", quiet=not sys.stderr.isatty())
    for file in files:
        try:
            windows.append(KeptWindow.of(file, read_alarm(file)))
        except ArtifactError as exc:
            _LOG.warning("left out: %s", exc)
        shown.advance()
    shown.close()
    if not windows:
        msg = f"none of the {len(files)} alarm records in {path} can be read; see above why"
        raise ArtifactError(msg)
    return group_windows(windows)


def _strongest(alarms: "Sequence[Alarm]") -> int:
    return 1 + max(range(len(alarms)), key=lambda place: alarms[place].strength)


def _choose(text: str, n_alarms: int, strongest: int) -> int:
    """Return the number of the alarm that was asked for."""
    named = {"strongest": strongest, "last": n_alarms}
    if text in named:
        return named[text]
    if not (text.isdecimal() and 1 <= int(text) <= n_alarms):
        msg = f"--alarm must be strongest, last or a number from 1 to {n_alarms}; got {text!r}"
        raise ParameterError(msg)
    return int(text)


def _learn(
    contents: "AlarmContents", reference: Path | None, threads: int
) -> "LearnedDensity | None":
    """Return the learned density; None if the recorded reference is not there any more.

    Raises:
        ArtifactError: if a reference was named and is not the one.
    """
    from stream.alarm.density import learn_density

    if reference is not None:
        return learn_density(contents, reference, threads=threads)
    try:
        return learn_density(contents, Path(contents.null.reference), threads=threads)
    except (ArtifactError, OSError, ValueError) as exc:
        _LOG.warning("nothing is compared with the reference: %s", exc)
    return None


def _print(
    alarms: "Sequence[Alarm]",
    number: int,
    contents: "AlarmContents",
    learned: "LearnedDensity | None",
    top: int | None,
) -> None:
    from stream.alarm.details import describe_alarm, describe_density, describe_events
    from stream.alarm.table import alarm_table

    sys.stdout.write(f"{alarm_table(alarms)}\n")
    sys.stdout.write(describe_alarm(number, alarms[number - 1], contents))
    if learned is not None:
        sys.stdout.write(describe_density(learned, contents))
        if not contents.has_kinematics:
            _LOG.warning(
                "only the embeddings of these events came, from embedders: their pT, MET and "
                "multiplicities are where `source`, `message` and `event` say"
            )
        elif learned.quantities is None:
            _LOG.warning(
                "the reference keeps no pT, MET and multiplicities: they are left out of the "
                "picture; calibrate-reference of this version keeps them"
            )
    if top is not None:
        sys.stdout.write(f"\n{describe_events(contents, top)}\n")


def _as_json(
    alarms: "Sequence[Alarm]",
    number: int,
    contents: "AlarmContents",
    picture: Path | None,
    top: int | None,
) -> str:
    from stream.alarm.details import anomalous_events

    chosen: dict[str, object] = {"alarm": number, "null": contents.null.facts()}
    if picture is not None:
        chosen["picture"] = str(picture)
    if top is not None:
        chosen["events"] = anomalous_events(contents, top)
    said = {"alarms": [alarm.record() for alarm in alarms], "chosen": chosen}
    return json.dumps(said, indent=2) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
