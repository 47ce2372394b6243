"""Command: write the dashboards' JSON, which Grafana's provisioning reads."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.grafana.operations import OPERATIONS
from deploy.grafana.physics import PHYSICS
from engines.command import CommandParser, run_command
from engines.errors import ArtifactError

__all__ = ["DASHBOARDS", "FOLDER", "main"]

DASHBOARDS = (PHYSICS, OPERATIONS)
FOLDER = Path(__file__).parent / "dashboards"


def _parser() -> CommandParser:
    parser = CommandParser(
        "dashboards",
        "Writes a JSON file for each dashboard; the panels are defined beside this file.",
        "python -m deploy.grafana.generate",
    )
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help="folder for the JSON")
    return parser


def _run(options: argparse.Namespace) -> None:
    from deploy.grafana.build import grafana_json

    for board in DASHBOARDS:
        path = options.output / f"{board.uid}.json"
        try:
            path.write_text(grafana_json(board))
        except OSError as exc:
            msg = f"cannot write {path} ({exc.strerror or exc}); name another folder with -o"
            raise ArtifactError(msg) from exc
        sys.stdout.write(f"wrote {path}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
