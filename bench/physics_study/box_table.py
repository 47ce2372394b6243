"""The black-box table, and how a selection by left-out processes does."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.physics_study.black_box import NO_SIGNAL, expected_largest, global_z
from bench.physics_study.config import BlackBox
from bench.physics_study.summary import dim_text
from bench.physics_study.tables import markdown, plus_minus
from engines.types import Float64Array

__all__ = ["box_rows", "box_table"]


def box_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each engine, box and split, for CSV.

    Z of a split is the mean over references, with its standard deviation over them; the global Z
    of a box is found for each reference by Sidak over the splits, then averaged likewise.

    Args:
        records: of `measure_boxes`, each with `training`: what its encoder's training saw, by
            signal.
    """
    rows = []
    for record in records:
        for box in record["boxes"]:
            z = np.array(box["z"])  # (references, splits)
            over_box = np.array([global_z(of_reference) for of_reference in z])
            rows += [
                {
                    "encoder": record["encoder"],
                    "dim": record["engine"]["dim"] or record["dim"],
                    "kept": _kept(record),
                    "seed": record["seed"],
                    "signal": box["signal"],
                    "training": record["training"].get(box["signal"], ""),
                    "split": split + 1,
                    "z": float(values.mean()),
                    "z_references_std": float(values.std(ddof=1)),
                    "global_z": float(over_box.mean()),
                    "global_z_references_std": float(over_box.std(ddof=1)),
                }
                for split, values in enumerate(z.T)
            ]
    return rows


def box_table(records: Sequence[dict[str, Any]], config: BlackBox) -> str:
    """Return Markdown: a line for each embedding and box, mean over training seeds."""
    groups: dict[tuple[str, str, str], list[Float64Array]] = {}
    for record in records:
        dim = dim_text(record["engine"]["dim"] or record["dim"], _kept(record))
        for box in record["boxes"]:
            mark = record["training"].get(box["signal"])
            signal = f"{box['signal']} [{mark}]" if mark else box["signal"]
            groups.setdefault((record["encoder"], dim, signal), []).append(np.array(box["z"]))
    rows = [
        [name, dim, signal, str(len(z)), *_cells(z)] for (name, dim, signal), z in groups.items()
    ]
    heads = ["embedding", "D", "hidden signal", "seeds", "Z of splits", "largest split's Z"]
    text = _TEXT.format(
        box=config,
        percent=100 * config.fraction,
        none=NO_SIGNAL,
        largest=expected_largest(config.splits),
    )
    return text + markdown([*heads, "global Z"], rows)


_TEXT = """\
Black boxes: {box.splits} splits of {box.window} unlabelled events, {percent:g} % of them signal
({none}: no signal), each split tested against {box.references} references drawn anew from the other
background, {box.toys} toys each. Z of splits: mean over references and splits, then the standard
deviation over splits. Largest split's Z: of the split whose mean over references is largest, that
mean ± standard deviation over references; of {box.splits} independent splits without signal the
largest has {largest:.2f} on average. Global Z: Sidak over the splits, which is Bonferroni's n p
where p is small; without signal 0 on average; mean over references ± standard deviation over
references, in brackets ± the standard deviation over training seeds. References share their
background, so they differ less than independent ones would. All boxes are one draw of background,
and all embeddings are tested on the same ones: their chance deviations are common. A box without
signal shows what a finite background
costs. [seen], [held out]: whether training saw this signal, or only others.

"""


def _kept(record: dict[str, Any]) -> int:
    return len(record["engine"]["options"].get("keep") or ())


def _cells(z: Sequence[Float64Array]) -> list[str]:
    splits = [of_seed.mean(axis=0) for of_seed in z]
    largest = [of_seed[:, of_splits.argmax()] for of_seed, of_splits in zip(z, splits, strict=True)]
    over_box = [np.array([global_z(of_reference) for of_reference in of_seed]) for of_seed in z]
    seeds = np.array([values.mean() for values in over_box])
    between = f" (± {seeds.std(ddof=1):.1f})" if len(z) > 1 else ""
    return [
        plus_minus(_mean(splits), float(np.mean([part.std(ddof=1) for part in splits])), 1),
        plus_minus(_mean(largest), _spread(largest), 1),
        plus_minus(_mean(over_box), _spread(over_box), 1) + between,
    ]


def _mean(parts: Sequence[Float64Array]) -> float:
    return float(np.mean([part.mean() for part in parts]))


def _spread(parts: Sequence[Float64Array]) -> float:
    return float(np.mean([part.std(ddof=1) for part in parts]))
