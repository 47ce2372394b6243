"""Tables and figures from whatever a study has measured so far."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.physics_study.box_table import box_rows, box_table
from bench.physics_study.config import MapConfig, Study
from bench.physics_study.figure_maps import draw_map
from bench.physics_study.figure_overview import draw_overview
from bench.physics_study.figure_power import draw_power, free_dims
from bench.physics_study.figures import draw_accuracy, draw_t, draw_z
from bench.physics_study.jobs import EngineJob, study_jobs
from bench.physics_study.lead import lead_tables
from bench.physics_study.pieces import Piece, pieces_of, read_piece
from bench.physics_study.store import Store, write_text
from bench.physics_study.summary import OverSeeds, Row, over_seeds, rows_of, training_mark
from bench.physics_study.tables import (
    accuracy_table,
    convention_tables,
    csv_text,
    results_csv,
    summary_csv,
    z_tables,
)
from engines.artifact import load_onnx, read_facts
from engines.errors import ArtifactError
from engines.progress import Progress

__all__ = ["Found", "find", "write_report"]


@dataclass(frozen=True)
class Found:
    """What has been measured.

    Attributes:
        windows: engines with their record of windows.
        rows: of these.
        boxes: records of black boxes.
        maps: pieces of which the arrays are there.
        n_missing: measurements that are not there.
    """

    windows: list[tuple[EngineJob, dict[str, Any]]]
    rows: list[Row]
    boxes: list[dict[str, Any]]
    maps: list[Piece]
    n_missing: int


def find(study: Study, store: Store) -> Found:
    """Return what the study's folder holds of the study."""
    found, rows, boxes, maps, n_missing = [], [], [], [], 0
    for job in study_jobs(study):
        records = {}
        for piece in pieces_of(study, job):
            if not job.path(store.folder).is_file():
                n_missing += 1
            elif piece.suffix == ".npz":
                there = piece.path(store).is_file()
                maps += [piece] if there else []
                n_missing += not there
            else:
                records[piece.kind] = read_piece(piece, store)
                n_missing += records[piece.kind] is None
        record, box = records.get("windows"), records.get("boxes")
        if record is not None:
            found.append((job, record))
            rows += rows_of(study, job, record, records.get("accuracy"))
        if box is not None:
            marks = {s: training_mark(study, job, box, s) for s in study.data.signals}
            boxes.append({**box, "training": marks})
    return Found(found, rows, boxes, maps, n_missing)


def write_report(study: Study) -> list[Path]:
    """Write all tables and figures; return what to look at first.

    Raises:
        ArtifactError: if nothing has been measured yet.
    """
    store = Store(study.folder)
    store.prepare()
    found = find(study, store)
    if not found.windows:
        msg = f"{study.folder} holds no measurement of this study yet; bench-physics run makes them"
        raise ArtifactError(msg)
    groups = over_seeds(found.rows)
    text = write_tables(study, store, found, groups)
    figures = draw_figures(study, store, found, groups)
    return [text, *figures]


def write_tables(study: Study, store: Store, found: Found, groups: Sequence[OverSeeds]) -> Path:
    """Write Markdown and CSV; return the Markdown file."""
    folder = store.folder / "tables"
    write_text(folder / "results.csv", results_csv(found.rows))
    write_text(folder / "summary.csv", summary_csv(groups))
    parts = [f"# {study.title}\n"]
    if found.n_missing:
        parts.append(f"Not complete, measurements that are missing: {found.n_missing}.\n")
    parts += [f"## Median Z and power\n\n{z_tables(study, groups)}"]
    lead = lead_tables(study, found.windows)
    parts += [f"## Lead over the best embedding without training\n\n{lead}"] if lead else []
    parts += [f"## Other conventions of Z\n\n{convention_tables(study, groups)}"]
    parts += [f"## Background accuracy\n\n{accuracy_table(groups)}"]
    if found.boxes and study.black_box is not None:
        write_text(folder / "boxes.csv", csv_text(box_rows(found.boxes)))
        parts.append(f"## Black boxes\n\n{box_table(found.boxes, study.black_box)}")
    write_text(folder / "tables.md", "\n".join(parts))
    return folder / "tables.md"


def draw_figures(
    study: Study, store: Store, found: Found, groups: Sequence[OverSeeds]
) -> list[Path]:
    """Draw everything; return the files."""
    folder = store.folder / "figures"
    dims = free_dims(study, groups)
    first = [item for item in found.windows if item[0].seed == item[0].encoder.seeds[0]]
    shown = Progress(3 + len(dims) + len(first) + len(found.maps), "figures")
    drawn = []

    def keep(path: Path) -> None:
        drawn.append(path)
        shown.advance(1, path.name)

    keep(draw_overview(study, found.rows, folder / "overview.png"))
    keep(draw_accuracy(study, groups, folder / "accuracy.png"))
    keep(draw_z(study, groups, folder / "z.png"))
    for dim in dims:
        keep(draw_power(study, groups, dim, folder / f"power-d{dim}.png"))
    for job, record in first:
        marks = {name: training_mark(study, job, record, name) for name in study.data.signals}
        keep(draw_t(job, record, marks, folder / "t" / f"{job.name}.png"))
    if study.maps is not None:
        for piece in found.maps:
            keep(_map(study, study.maps, store, piece, folder / "maps"))
    shown.close()
    return drawn


def _map(study: Study, maps: MapConfig, store: Store, piece: Piece, folder: Path) -> Path:
    signal = piece.kind.removeprefix("map-")
    facts = read_facts(load_onnx(piece.job.path(store.folder)))
    mark = training_mark(study, piece.job, {"engine": asdict(facts)}, signal)
    with np.load(piece.path(store), allow_pickle=False) as arrays:
        scores = {name: arrays[name] for name in arrays.files}
    return draw_map(
        f"{piece.job}, {100 * maps.fraction:g} % {signal}" + (f" [{mark}]" if mark else ""),
        folder / f"{piece.job.name}-{signal}.png",
        scores,
        maps,
    )
