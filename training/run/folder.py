"""The run folder: what a training was asked, how it went, and where to continue.

- config.toml: the options, usable as `train-encoder --config`
- metrics.csv: one row for each epoch
- tensorboard/: the same, if tensorboard is installed
- checkpoint.pt: the state after the last epoch
- loss.png: the losses
- embedding.png: the held-out embedding by process
"""

import csv
import importlib.util
import io
import json
import shutil
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from engines.artifact import SampleFacts
from engines.errors import ArtifactError, MismatchError
from training.fit_config import Epoch
from training.run.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["RunFolder", "write_toml"]

_CONFIG, _METRICS, _CHECKPOINT, _SCALARS = (
    "config.toml",
    "metrics.csv",
    "checkpoint.pt",
    "tensorboard",
)
_PICTURES = ("loss.png", "embedding.png")
_HEADER = "# Written by train-encoder, which may write it anew."
_FOLD = "fold"
#: Options that say where things are or how they are computed, not what is trained; and the name of
#: the recipe, whose every option is there by itself.
_FREE = ("output", "run-dir", "device", "threads", "compile", "recipe")


class RunFolder:
    """A folder that one training writes into; implements `training.fit_config.Keeper`.

    Args:
        path: the folder; made if it is not there.
        settings: the options of this training, by name.
        samples: the events it reads.
        content: hash of all that it read from them.
        writes: whether this process may write; of several under torchrun only the first does.

    Raises:
        MismatchError: if the folder holds a training with other options or other events.
        ArtifactError: if it cannot be written, or what it holds is damaged or not of a training.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        samples: Sequence[SampleFacts],
        *,
        content: str = "",
        writes: bool = True,
    ) -> None:
        """Compare with what is there; write the options if nothing is."""
        self.path, self._writes = path, writes
        self._samples, self._content = [asdict(sample) for sample in samples], content
        self._settings = tomllib.loads(write_toml(settings))
        self._scalars: Any = None
        self._check_config()
        self.load()  # before the options are written over those of another training
        if writes:
            self._write(_CONFIG, _config_text(settings))

    @staticmethod
    def clear(path: Path) -> None:
        """Remove what an earlier training left in a folder, and only that.

        Raises:
            ArtifactError: if its config.toml is none that a training left.
        """
        _refuse_foreign_config(path)
        for name in (_CONFIG, _METRICS, _CHECKPOINT, *_PICTURES):
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path / _SCALARS, ignore_errors=True)

    def _check_config(self) -> None:
        """Refuse a folder of another training, naming the first option that differs."""
        _refuse_foreign_config(self.path)
        place = self.path / _CONFIG
        # Without an epoch nothing was trained: these options may have been refused.
        if not (place.exists() and _has_epochs(self.path)):
            return
        try:
            found = tomllib.loads(place.read_text())
        except (OSError, ValueError) as exc:
            msg = f"cannot read {place} ({exc}); train anew with --fresh"
            raise ArtifactError(msg) from exc
        self._compare({_FOLD: self._settings.get(_FOLD), **found})

    def _compare(self, found: Mapping[str, Any]) -> None:
        wanted = self._settings
        for name in (*wanted, *found):
            if name not in _FREE and wanted.get(name) != found.get(name):
                msg = (
                    f"the run folder {self.path} holds a training with {name} "
                    f"{_shown(found.get(name))}; this one has {_shown(wanted.get(name))}; name "
                    "another folder with --run-dir, or replace that training with --fresh"
                )
                raise MismatchError(msg)

    def _write(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.part"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text)
            temporary.replace(self.path / name)
        except OSError as exc:
            msg = f"cannot write {self.path / name} ({exc.strerror or exc}); choose --run-dir"
            raise ArtifactError(msg) from exc

    def load(self) -> dict[str, Any] | None:
        """Return the state of the last epoch, or None before the first.

        Raises:
            MismatchError: if it is of other options, or what was read has changed since.
            ArtifactError: if it is damaged, or of another version.
        """
        state = load_checkpoint(self.path / _CHECKPOINT)
        if state is None:
            return None
        try:
            history = tuple(map(Epoch.parse, state["history"]))
            names = [sample["name"] for sample in state["samples"]]
            contents = [sample["content_id"] for sample in state["samples"]]
            settings, content = dict(state["settings"]), state["content"]
        except (KeyError, TypeError, ValueError) as exc:
            msg = (
                f"the checkpoint {self.path / _CHECKPOINT} must be of this version's training; its "
                f"parts do not fit ({type(exc).__name__}: {exc}); train anew with --fresh"
            )
            raise ArtifactError(msg) from exc
        self._compare(settings)
        wanted = [sample["content_id"] for sample in self._samples]
        files = zip(names, contents, wanted, strict=False)
        changed = [name for name, old, new in files if old != new]
        if changed or len(names) != len(wanted) or content != self._content:
            what = f"another {changed[0]}" if changed else "other events, labels or re-simulations"
            msg = (
                f"the run folder {self.path} holds a training on {what}, the content of which has "
                "changed since; name another folder with --run-dir, or train anew with --fresh"
            )
            raise MismatchError(msg)
        self._write_metrics(history)
        return state

    def epochs_done(self) -> int:
        """Return how many epochs are behind the checkpoint."""
        state = self.load()
        return 0 if state is None else len(state["history"])

    def save(self, state: dict[str, Any], history: tuple[Epoch, ...]) -> None:
        """Keep the state after an epoch, then its metrics."""
        if not self._writes:
            return
        read = {"settings": self._settings, "samples": self._samples, "content": self._content}
        save_checkpoint(self.path / _CHECKPOINT, {**state, **read})
        self._write_metrics(history)
        self._add_scalars(history[-1])

    def _write_metrics(self, history: tuple[Epoch, ...]) -> None:
        """Write them whole: a kill between checkpoint and metrics leaves no row out for long."""
        if not self._writes:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in history)
        self._write(_METRICS, text.getvalue())

    def _add_scalars(self, epoch: Epoch) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            return
        if self._scalars is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._scalars = SummaryWriter(str(self.path / _SCALARS), purge_step=epoch.epoch)
        for name, value in asdict(epoch).items():
            if name not in ("epoch", "step"):
                self._scalars.add_scalar(name, value, epoch.epoch)
        self._scalars.flush()

    def close(self) -> None:
        """Release the TensorBoard file."""
        if self._scalars is not None:
            self._scalars.close()
            self._scalars = None


def _has_epochs(path: Path) -> bool:
    """Whether a training got through an epoch here; its checkpoint may since have been deleted."""
    return any((path / name).exists() for name in (_CHECKPOINT, _METRICS))


def _refuse_foreign_config(path: Path) -> None:
    """Refuse to write over a config.toml that no training wrote: it may be the user's own."""
    place = path / _CONFIG
    if not place.exists() or _has_epochs(path):
        return
    if not (place.is_file() and place.read_bytes().startswith(_HEADER.encode())):
        msg = (
            f"{place} must be one that train-encoder wrote, to be written over; its first line "
            "does not say so; move it elsewhere, or name another folder with --run-dir"
        )
        raise ArtifactError(msg)


def write_toml(settings: Mapping[str, Any]) -> str:
    """Return flat options as TOML; those that are None are left out.

    >>> print(write_toml({"dim": 4, "loss": "supcon", "heads": None, "lr_end": 1e-3}), end="")
    dim = 4
    loss = "supcon"
    lr-end = 0.001
    """
    return "".join(
        f"{name.replace('_', '-')} = {_shown(value)}\n"
        for name, value in settings.items()
        if value is not None
    )


def _config_text(settings: Mapping[str, Any]) -> str:
    """Return the options; which fold this is stands in a comment, since it is no option."""
    options = {name: value for name, value in settings.items() if name != _FOLD}
    fold = f"# {_FOLD} = {_shown(settings[_FOLD])}\n" if _FOLD in settings else ""
    return f"{_HEADER}\n{fold}{write_toml(options)}"


def _shown(value: object) -> str:
    """Return a value as TOML writes it."""
    if value is None:
        return "no value"
    if isinstance(value, Collection) and not isinstance(value, str):
        return f"[{', '.join(map(_shown, value))}]"
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, float) else repr(value)
