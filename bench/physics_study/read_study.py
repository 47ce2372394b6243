"""A study from its TOML file; whatever is wrong there is one sentence that names the key."""

import tomllib
from pathlib import Path

from bench.physics_study.checks import check_study, learned_signals
from bench.physics_study.config import (
    BlackBox,
    Data,
    Encoder,
    MapConfig,
    MeasureConfig,
    Selection,
    Study,
)
from bench.physics_study.section import Section
from engines.errors import ParameterError, SampleSizeError
from engines.events import EventRange

__all__ = ["read_study"]

_KEYS = ("folder", "title", "data", "test", "train", "encoders", "blackbox", "map", "select")
#: Options of train-encoder that the study sets itself, or that would give no single engine.
_OWN_OPTIONS = (
    *("events", "output", "dim", "seed", "without-process", "reserve"),
    *("run-dir", "fresh", "folds", "config", "help", "version", "log-level", "log-json"),
)


def read_study(path: Path, *, folder: Path | None = None, data: Path | None = None) -> Study:
    """Read a TOML file; paths in it are relative to its folder.

    Args:
        path: the file.
        folder: in place of its `folder`.
        data: in place of its `[data] folder`.

    Raises:
        ParameterError: if it cannot be read, or a key is unknown, missing or out of range.
        SampleSizeError: if events are too few for what is asked.
    """
    try:
        top = Section(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as exc:
        msg = f"cannot read the study {path} ({exc}); see bench/studies for examples"
        raise ParameterError(msg) from exc
    try:
        return _study(top, path, folder, data)
    except (ParameterError, SampleSizeError) as exc:
        msg = f"in {path}: {exc}"
        raise type(exc)(msg) from exc


def _study(top: Section, path: Path, folder: Path | None, data: Path | None) -> Study:
    top.refuse_others(*_KEYS)
    home = path.parent
    written = home / top.text("folder", f"{path.stem}-study")
    title = top.text("title", path.stem)
    events = _data(top.section("data"), home, data)
    test = _test(top.section("test"), events)
    encoders = _encoders(top, events, home)
    known = {encoder.name: encoder for encoder in encoders}
    study = Study(
        folder=folder or written,
        data=events,
        encoders=encoders,
        test=test,
        black_box=_black_box(top.section("blackbox"), known, events, test)
        if "blackbox" in top
        else None,
        maps=_maps(top.section("map"), known, events) if "map" in top else None,
        selection=_selection(top.section("select"), known, events, test)
        if "select" in top
        else None,
        title=title,
    )
    top.finish()
    check_study(study)
    return study


def _data(section: Section, home: Path, data: Path | None) -> Data:
    written = home / section.text("folder", ".")
    folder = written if data is None else data
    whole, reserve = section.events("background", folder), section.share("reserve", 0.2)
    stop = whole.stop or 0
    first = stop - round(reserve * (stop - whole.start))  # as train-encoder reserves
    if not whole.start < first < stop:
        section.refuse("reserve", f"must leave events on both sides; got {reserve}")
    read = Data(
        training=EventRange(whole.path, whole.start, first),
        test=EventRange(whole.path, first, stop),
        extra=section.many_events("extra", folder),
        signals=section.ranges("signals", folder),
        training_signals=section.ranges("training_signals", folder),
        processes=section.whole_numbers("processes"),
    )
    section.finish()
    return read


def _test(section: Section, data: Data, base: MeasureConfig | None = None) -> MeasureConfig:
    """Read how embeddings are measured; `base` gives the defaults of what is not said."""
    d = base or MeasureConfig(0, ())
    positive = [[fraction for fraction in base.fractions if fraction > 0]] if base else []
    test = MeasureConfig(
        window=_window(section, data, base),
        fractions=section.shares("fractions", *positive, zero=base is None),
        windows=section.count("windows", d.windows, least=2),
        splits=section.count("splits", d.splits),
        toys=section.count("toys", d.toys, least=20),
        n_ref=section.maybe_count("n_ref", d.n_ref),
        seed=section.count("seed", d.seed, least=0),
    )
    if not any(test.fractions):
        section.refuse("fractions", "must hold at least one share above 0; got none")
    section.finish()
    return test


def _window(section: Section, data: Data, base: MeasureConfig | None) -> int:
    window = section.count("window", *([base.window] if base else []))
    n_test = (data.test.stop or 0) - data.test.start
    if window > n_test:
        rule = f"must be at most the {n_test} background events that no encoder may see"
        section.refuse("window", f"{rule}; got {window}")
    return window


def _encoders(top: Section, data: Data, home: Path) -> tuple[Encoder, ...]:
    train = top.section("train")
    defaults = Encoder(
        name="",
        options=train.section("options").rest(),
        dims=train.counts("dims", (4,), least=1),
        seeds=train.counts("seeds", (0, 1, 2)),
        n_events=train.maybe_count("events"),
    )
    train.finish()
    encoders = tuple(_encoder(section, defaults, data, home) for section in top.tables("encoders"))
    names = [encoder.name for encoder in encoders]
    if not names or len(set(names)) != len(names):
        top.refuse("[[encoders]]", f"must be at least one, each of its own name; got {names}")
    return encoders


def _encoder(section: Section, defaults: Encoder, data: Data, home: Path) -> Encoder:
    from training.encoders import UNTRAINED

    name = section.text("name")
    section.rename(f"encoders {name!r}")
    options = {**defaults.options, **section.section("options").rest()}
    files = tuple(home / file for file in section.texts("files", ()))
    # Nothing is trained, so one engine stands for all dimensions and seeds.
    untrained = options.get("arch") in UNTRAINED
    encoder = Encoder(
        name=name,
        options=options,
        dims=(0,) if files or untrained else section.counts("dims", defaults.dims, least=1),
        seeds=tuple(range(len(files) or 1))
        if files or untrained
        else section.counts("seeds", defaults.seeds),
        n_events=section.maybe_count("events", defaults.n_events),
        extra=section.flag("extra", default=True),
        signals=section.names("signals", (), data.training_signals),
        files=files,
    )
    section.finish()
    _check(section, encoder, data)
    return encoder


def _check(section: Section, encoder: Encoder, data: Data) -> None:
    for option in encoder.options:
        if option.replace("_", "-") in _OWN_OPTIONS:
            section.refuse(f"options {option}", "is no option of a study's encoders; leave it out")
    for file in encoder.files:
        if not file.is_file():
            section.refuse("files", f"must be engines that exist; {file} does not")
    if not encoder.dims or not encoder.seeds:
        section.refuse("dims and seeds", "must hold at least one number; got none")
    n_training = (data.training.stop or 0) - data.training.start
    if encoder.n_events is not None and encoder.n_events > n_training:
        section.refuse(
            "events", f"must be at most the {n_training} for training; got {encoder.n_events}"
        )


def _black_box(
    section: Section, encoders: dict[str, Encoder], data: Data, test: MeasureConfig
) -> BlackBox:
    read = BlackBox(
        encoders=section.names("encoders", tuple(encoders), encoders),
        signals=section.names("signals", tuple(data.signals), data.signals),
        fraction=section.share("fraction", test.fractions[-1]),
        window=_window(section, data, test),
        splits=section.count("splits", 10, least=2),
        references=section.count("references", 10, least=2),
        toys=section.count("toys", test.toys, least=20),
        n_ref=section.maybe_count("n_ref"),
        seed=section.count("seed", test.seed, least=0),
    )
    n_test = (data.test.stop or 0) - data.test.start
    if read.splits * read.window >= n_test:
        asked = f"{read.splits} splits of {read.window} events"
        section.refuse(
            "splits", f"must leave some of {n_test} background events as reference; got {asked}"
        )
    section.finish()
    return read


def _maps(section: Section, encoders: dict[str, Encoder], data: Data) -> MapConfig:
    read = MapConfig(
        encoders=section.names("encoders", tuple(encoders), encoders),
        signals=section.names("signals", tuple(data.signals), data.signals),
        fraction=section.share("fraction", 0.02),
        least_f=section.share("least_f", 0.5),
        method=section.text("method", "umap"),
    )
    if read.method not in ("umap", "pca"):
        section.refuse("method", f"must be umap or pca; got {read.method!r}")
    section.finish()
    return read


def _selection(
    section: Section, encoders: dict[str, Encoder], data: Data, test: MeasureConfig
) -> Selection:
    blind = tuple(name for name, e in encoders.items() if not learned_signals(e, data))
    read = Selection(
        processes=section.names("processes", tuple(data.processes), data.processes),
        encoders=section.names("encoders", blind, encoders),
        test=_test(section, data, test),
    )
    if not read.processes:
        section.refuse("processes", "must name those of [data.processes]; got none")
    if not read.encoders:
        section.refuse("encoders", "must name at least one that is trained on no signal; got none")
    return read
