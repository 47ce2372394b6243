"""What is wrong with a study as a whole, said before anything is trained."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache

import numpy as np

from bench.physics_study.config import Data, Encoder, MeasureConfig, Selection, Study
from bench.physics_study.jobs import left_out_jobs, sample_facts, slug, study_jobs
from bench.physics_study.seen import seen_in_training
from engines.artifact import EngineFacts, load_onnx, read_facts
from engines.calibration_config import CalibrationConfig, choose_sizes
from engines.errors import MismatchError, ParameterError, SampleSizeError
from engines.event_files import read_labels
from engines.events import EventRange
from engines.types import IntArray
from engines.unseen import refuse_training_events
from engines.windows import WindowSpec

__all__ = ["check_study", "learned_signals"]

#: The number of signal events in a window is binomial: so many standard deviations must be there.
_MARGIN = 4.0


def check_study(study: Study) -> None:
    """Refuse what would fail, or mislead, only after trainings.

    Raises:
        ParameterError: naming the key.
        SampleSizeError: likewise, where events are too few.
    """
    _check_reserved(study.data)
    _check_names(study.encoders)
    for encoder in study.encoders:
        _check_signals(encoder, study.data)
        _check_files(encoder, study.data)
    _check_processes(study.data)
    _check_tests(study)
    if study.selection is not None:
        _check_selection(study, study.selection)
    _check_trainings(study)


def learned_signals(encoder: Encoder, data: Data) -> list[str]:
    """Return the signals that an encoder learns from, or that its files were trained on."""
    names = set(encoder.signals)
    for file in encoder.files:
        names |= seen_in_training(asdict(read_facts(load_onnx(file))), data)
    return sorted(names)


def _check_reserved(data: Data) -> None:
    test = sample_facts(data.test)
    named = [("[data] extra", source) for source in data.extra]
    named += [(f"[data.training_signals] {n}", s) for n, s in data.training_signals.items()]
    for label, source in named:
        shared = sample_facts(source).overlap(test)
        if shared:
            msg = (
                f"{label} must hold none of the background reserved for tests, {data.test}; "
                f"{source} holds {shared} of its events"
            )
            raise ParameterError(msg)
    background = [sample_facts(source) for source in (data.training, data.test, *data.extra)]
    for name, source in data.signals.items():
        shared = sum(sample_facts(source).overlap(part) for part in background)
        if shared:
            msg = (
                f"[data.signals] {name} must hold no background; {source} holds {shared} events "
                "of the study's"
            )
            raise ParameterError(msg)


def _check_names(encoders: Iterable[Encoder]) -> None:
    names: dict[str, str] = {}
    for encoder in encoders:
        other = names.setdefault(slug(encoder.name), encoder.name)
        if other != encoder.name:
            msg = (
                "[[encoders]] must have names that differ in letters or digits, as files are named "
                f"by them; got {other!r} and {encoder.name!r}"
            )
            raise ParameterError(msg)


def _check_signals(encoder: Encoder, data: Data) -> None:
    for name in encoder.signals:
        train = data.training_signals[name]
        for tested, source in data.signals.items():
            if sample_facts(source).overlap(sample_facts(train)):
                msg = (
                    f"[encoders {encoder.name!r}] signals must leave the test its own events of "
                    f"{tested}; training has {train}, the test {source}"
                )
                raise ParameterError(msg)


def _check_files(encoder: Encoder, data: Data) -> None:
    dims: dict[int, str] = {}
    for file in encoder.files:
        model = load_onnx(file)
        facts: EngineFacts = read_facts(model)
        shape = model.graph.output[0].type.tensor_type.shape.dim
        dims.setdefault(facts.dim or (shape[-1].dim_value if shape else 0), file.name)
        try:
            refuse_training_events(facts, map(sample_facts, [data.test, *data.signals.values()]))
        except MismatchError as exc:
            msg = f"[encoders {encoder.name!r}] files must suit the test; of {file.name}: {exc}"
            raise ParameterError(msg) from exc
    if len(dims) > 1:
        said = ", ".join(f"{name} has {dim}" for dim, name in dims.items())
        msg = f"[encoders {encoder.name!r}] files must be of one dimension; {said}"
        raise ParameterError(msg)


def _check_trainings(study: Study) -> None:
    from training.train_encoder import read_plan

    for job in (*study_jobs(study), *left_out_jobs(study)):
        encoder = job.encoder
        if encoder.files or job.seed != encoder.seeds[0]:
            continue
        try:
            _, _, _, *arguments = job.command(study.folder)  # python -m training.train_encoder
            plan = read_plan(arguments)
        except ParameterError as exc:
            msg = f"[encoders {encoder.name!r}] options must suit train-encoder: {exc}"
            raise ParameterError(msg) from exc
        for source in job.sources if plan.needs_labels else ():
            if _labels_of(source) is None:
                msg = (
                    f"[encoders {encoder.name!r}] options loss must need no labels, as simclr and "
                    f"vicreg: {source.path} has none; got {plan.objective}"
                )
                raise ParameterError(msg)


def _check_processes(data: Data) -> None:
    if not data.processes:
        return
    whole = EventRange(data.test.path, data.training.start, data.test.stop)
    held = {int(label) for source in (whole, *data.extra) for label in np.unique(_labels(source))}
    named: dict[int, str] = {}
    for name, label in data.processes.items():
        if label not in held:
            msg = (
                f"[data.processes] {name} must be a label of the background, one of "
                f"{sorted(held)}; got {label}"
            )
            raise ParameterError(msg)
        if named.setdefault(label, name) != name:
            msg = f"[data.processes] must name a label once; {named[label]} and {name} are {label}"
            raise ParameterError(msg)


@cache
def _labels_of(source: EventRange) -> IntArray | None:
    return read_labels(source)


def _labels(source: EventRange) -> IntArray:
    labels = _labels_of(source)
    if labels is None:
        msg = (
            f"[data.processes] must be left out where a file has no labels, as {source.path}; "
            "losses that need none are simclr, vicreg and vae"
        )
        raise ParameterError(msg)
    return labels


def _n_events(source: EventRange) -> int:
    return (source.stop or 0) - source.start


def _check_tests(study: Study) -> None:
    test, box, maps = study.test, study.black_box, study.maps
    n_test = _n_events(study.data.test)
    _check_sizes("test", n_test, test.window, test.n_ref)
    n_signal = {name: _n_events(source) for name, source in study.data.signals.items()}
    for name, n in n_signal.items():
        _check_windows("test", test, name, n)
    wanted: list[tuple[str, str, int]] = []
    if box is not None:
        n_box = box.splits * box.window
        _check_sizes("blackbox", n_test - n_box, box.window, box.n_ref)
        wanted += [("blackbox", name, round(box.fraction * n_box)) for name in box.signals]
    if maps is not None:
        wanted += [("map", name, round(maps.fraction * test.window)) for name in maps.signals]
    for where, name, needed in wanted:
        _check_signal(where, name, n_signal[name], needed)


def _check_sizes(where: str, n_background: int, window: int, n_ref: int | None) -> None:
    config = CalibrationConfig(WindowSpec("count", float(window)), n_ref=n_ref)
    try:
        choose_sizes(n_background, config)
    except SampleSizeError as exc:
        key = "window" if n_ref is None else "n_ref"
        msg = f"[{where}] {key} is too large for the background that no encoder may see: {exc}"
        raise SampleSizeError(msg) from exc


def _check_windows(where: str, test: MeasureConfig, name: str, n_signal: int) -> None:
    mean = test.window * max(test.fractions)
    _check_signal(where, name, n_signal, math.ceil(mean + _MARGIN * math.sqrt(mean)))


def _check_signal(where: str, name: str, n_signal: int, needed: int) -> None:
    if n_signal < needed:
        msg = (
            f"[{where}] asks for up to {needed} events of {name} in one window or box; there are "
            f"{n_signal}; lower its fractions or its window"
        )
        raise SampleSizeError(msg)


def _check_selection(study: Study, selection: Selection) -> None:
    for encoder in study.encoders:
        if encoder.name in selection.encoders:
            learned = learned_signals(encoder, study.data)
            if learned:
                msg = (
                    "[select] encoders must be trained on no signal, for none to enter the "
                    f"ranking; {encoder.name!r} is trained on {', '.join(learned)}"
                )
                raise ParameterError(msg)
    reserved = _labels(study.data.test)
    further = [_labels(source) for source in study.data.extra]
    for name in selection.processes:
        label, test = study.data.processes[name], selection.test
        _check_sizes("select", int((reserved != label).sum()), test.window, test.n_ref)
        n_left_out = sum(int((labels == label).sum()) for labels in (reserved, *further))
        _check_windows("select", test, name, n_left_out)
