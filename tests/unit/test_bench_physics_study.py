"""A study's file: what it says, what is wrong with it, and the engines that follow from it."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench import physics
from bench.physics_study.jobs import EngineJob, left_out_jobs, study_jobs
from bench.physics_study.read_study import _KEYS, read_study
from engines.errors import ParameterError, SampleSizeError
from engines.event_files import read_events, write_events
from engines.events import EventRange
from engines.samples import sample_path

SMOKE = Path(physics.__file__).parent / "studies" / "smoke.toml"
STUDY = f"""
[data]
folder = "{sample_path("A4l").parent}"
background = "sm_cocktail.h5@0:60000"
extra = ["sm_rare.h5@0:500"]
[data.signals]
A4l = "A4l.h5@1000:"
[data.training_signals]
A4l = "A4l.h5@0:1000"
[data.processes]
Z = 2
[train]
dims = [2, 4]
seeds = [3, 5]
options = {{ loss = "supcon", threads = 1 }}
[[encoders]]
name = "My MLP"
events = 9000
options = {{ epochs = 2, mirror = false, compile = true, keep = ["met", "ht"] }}
[[encoders]]
name = "six"
options = {{ arch = "leading-pt" }}
[test]
window = 500
fractions = [0.05, 0.01]
[select]
processes = ["Z"]
"""


def written(folder: Path, text: str = STUDY) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_study_says_who_sees_what(tmp_path: Path) -> None:
    study = read_study(written(tmp_path))
    cocktail = sample_path("sm_cocktail")
    assert study.data.training == EventRange(cocktail, 0, 48_000)
    assert study.data.test == EventRange(cocktail, 48_000, 60_000)
    assert study.data.signals == {"A4l": EventRange(sample_path("A4l"), 1000, 3000)}
    assert study.test.fractions == (0.01, 0.05)
    assert study.folder == tmp_path / "study-study"
    assert study.selection is not None
    assert study.selection.test == study.test
    assert read_study(written(tmp_path), folder=tmp_path / "there").folder == tmp_path / "there"


def test_every_seed_and_dimension_is_an_engine_and_a_baseline_is_one(tmp_path: Path) -> None:
    study = read_study(written(tmp_path))
    assert list(map(str, study_jobs(study))) == [
        "My MLP D 2 + 2 seed 3",
        "My MLP D 4 + 2 seed 3",
        "six seed 0",
        "My MLP D 2 + 2 seed 5",
        "My MLP D 4 + 2 seed 5",
    ]
    left_out = left_out_jobs(study)
    assert str(left_out[0]) == "My MLP D 2 + 2 without Z seed 3"
    assert len(left_out) == 5
    assert len({job.name for job in (*study_jobs(study), *left_out)}) == 10


def test_training_command_holds_the_options_and_only_training_events(tmp_path: Path) -> None:
    study = read_study(written(tmp_path))
    job = left_out_jobs(study)[0]
    cocktail, rare = sample_path("sm_cocktail"), sample_path("sm_rare")
    words = job.command(study.folder)[3:]
    assert words[:3] == ["--events", f"{cocktail}@0:9000", f"{rare}@0:500"]
    text = " ".join(words)
    for part in (
        "--dim 2 --seed 3 --without-process 2",
        "--loss supcon --threads 1 --epochs 2 --no-mirror --compile --keep met ht",
    ):
        assert part in text
    assert words[-2:] == ["-o", str(job.path(study.folder))]


def test_an_engine_is_named_by_all_that_it_depends_on(tmp_path: Path) -> None:
    study = read_study(written(tmp_path))
    job = study_jobs(study)[0]

    def with_option(name: str, value: object) -> EngineJob:
        options = {**job.encoder.options, name: value}
        return replace(job, encoder=replace(job.encoder, options=options))

    assert job.name.startswith("my-mlp-d2-s3-")
    assert with_option("threads", 7).name == job.name
    others = [
        with_option("epochs", 3),
        replace(job, seed=4),
        replace(job, encoder=replace(job.encoder, n_events=8000)),
        replace(job, encoder=replace(job.encoder, extra=False)),
        replace(job, encoder=replace(job.encoder, signals=("A4l",))),
        replace(job, without="Z"),
    ]
    assert len({job.name, *(other.name for other in others)}) == 7


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("window = 500", "window = 50000", "[test] window must be at most the 12000 background"),
        ("window = 500", "", "[test] window must be given"),
        ("[test]", "[tests]", "[tests] is no key of a study"),
        ("window = 500", "window = true", "[test] window must be a whole number from 1"),
        ("window = 500", "window = 500\nwidth = 2", "[test] width is no key of a study"),
        ("[0.05, 0.01]", "[0.05, 1.5]", "[test] fractions must lie between 0 and 1; got 1.5"),
        ("[0.05, 0.01]", "[]", "[test] fractions must hold at least one"),
        ("[0.05, 0.01]", "[0]", "[test] fractions must hold at least one share above 0"),
        ("[0.05, 0.01]", "[0.05, false]", "fractions must lie between 0 and 1; got False"),
        ("window = 500", "window = 500\nn_ref = 9000", "[test] n_ref is too large for the"),
        ("window = 500", "window = 4000", "[test] window is too large for the background"),
        ("@1000:", "@2990:", "[test] asks for up to 45 events of A4l in one window"),
        ("Z = 2", "Z = 9", "[data.processes] Z must be a label of the background, one of [0, 1"),
        ("Z = 2", "'Z/g' = 2", "[data.processes] 'Z/g' must be a name without '/'"),
        ("A4l = ", "'A/4l' = ", "[data.signals] 'A/4l' must be a name without '/'"),
        ("sm_rare.h5@0:500", "sm_cocktail.h5@50000:50500", "[data] extra must hold none of the"),
        (
            "mirror = false",
            "miror = false",
            "'My MLP'] options must suit train-encoder: unrecognized arguments: --no-miror; see",
        ),
        (
            "mirror = false",
            "batch_size = 0",
            "'My MLP'] options must suit train-encoder: argument --batch-size: must be a whole num",
        ),
        ("mirror = false", "heads = 2", "suit train-encoder: heads and mask_absent must go with"),
        ("mirror = false", "temperature = 0.3, loss = 'ce'", "suit train-encoder: --temperature"),
        ("mirror = false", "fresh = true", "options fresh is no option of a study's encoders"),
        ("mirror = false", "help = true", "options help is no option of a study's encoders"),
        ("mirror = false", "recipe = 'no'", "options must suit train-encoder: recipe must be one"),
        ("Z = 2", "Z = 2\nZ2 = 2", "[data.processes] must name a label once; Z and Z2 are 2"),
        (
            'A4l = "A4l.h5',
            'x = "sm_cocktail.h5@59000:60000"\nA4l = "A4l.h5',
            "[data.signals] x must hold no background; ",
        ),
        ('name = "six"', 'name = "my mlp"', "must have names that differ in letters or digits"),
        ('processes = ["Z"]', "processes = [{a = 1}]", "[select] processes must be a list of"),
        ("[select]", '[select]\nencoders = [["six"]]', "[select] encoders must be a list of tex"),
        (
            "[select]",
            '[[encoders]]\nname = "a"\nsignals = ["A4l"]\n[select]\nencoders = ["a"]',
            "[select] encoders must be trained on no signal, for none to enter the ranking; 'a' is",
        ),
        ("[select]", "[select]\nfractions = [0]", "[select] fractions must lie between 0 and 1"),
        ("[0.05, 0.01]", "[0.05, 0.05]", "[test] fractions must hold each value once"),
        ("[0.05, 0.01]", "0.05", "[test] fractions must be a list"),
        ("sm_rare.h5@0:500", "absent.h5", "absent.h5 does not exist"),
        ("sm_rare.h5@0:500", "sm_rare.h5@0:99999", "[data] extra must be a range of 12000"),
        ("@1000:", "@500:", "signals must leave the test its own events of A4l"),
        ("events = 9000", "events = 49000", "'My MLP'] events must be at most the 48000"),
        ("events = 9000", "event = 9000", "'My MLP'] event is no key"),
        ("events = 9000", 'signals = ["x"]', "signals must be among ['A4l']; got 'x'"),
        ("epochs = 2", "seed = 2", "options seed is no option of a study's encoders"),
        ('name = "six"', 'name = "My MLP"', "each of its own name"),
        ('name = "six"', "", "[encoders 2] name must be given"),
        ('name = "six"', 'name = "six"\nfiles = ["no.onnx"]', "files must be engines that exist"),
        ("dims = [2, 4]", "dims = [0]", "[train] dims must be a whole number from 1"),
        ("dims = [2, 4]", "dims = []", "dims and seeds must hold at least one number"),
        ('processes = ["Z"]', 'processes = ["t"]', "[select] processes must be among ['Z']"),
        ("[select]", "[selct]", "[selct] is no key of a study; it has folder, title, data, test"),
        ("[train]", "[[train]]", "[train] must be a table"),
        ("[select]", "[map]\nmethod = 'x'\n[select]", "[map] method must be umap or pca"),
        ("[select]", "[blackbox]\nsplits = 24\n[select]", "[blackbox] splits must leave some"),
        ("[data]", "[data", "cannot read the study"),
    ],
)
def test_a_bad_key_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = STUDY.replace(old, new, 1)
    if "signals must leave" in said:
        text = text.replace("events = 9000", 'signals = ["A4l"]')
    with pytest.raises((ParameterError, SampleSizeError)) as caught:
        read_study(written(tmp_path, text))
    assert said in str(caught.value)
    assert "study.toml" in str(caught.value)
    assert "\n" not in str(caught.value).partition("(")[0]


def test_a_known_key_that_nobody_takes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.physics_study.read_study._KEYS", (*_KEYS, "maps"))
    with pytest.raises(ParameterError, match="maps is no key of a study"):
        read_study(written(tmp_path, f"maps = 1\n{STUDY}"))


def test_a_background_without_labels_is_told_what_goes_without(tmp_path: Path) -> None:
    write_events(tmp_path / "plain.h5", read_events(f"{sample_path('sm_cocktail')}@0:60000"))
    text = STUDY.replace("sm_cocktail.h5@0:60000", str(tmp_path / "plain.h5"))
    with pytest.raises(ParameterError, match=r"as .*plain\.h5; losses that need none are simclr, "):
        read_study(written(tmp_path, text))


def test_a_selection_is_by_default_of_encoders_that_learn_from_no_signal(tmp_path: Path) -> None:
    text = STUDY.replace("[0.05, 0.01]", "[0.05, 0]").replace(
        "[test]", '[[encoders]]\nname = "aware"\nsignals = ["A4l"]\n[test]'
    )
    study = read_study(written(tmp_path, text))
    assert study.selection is not None
    assert study.selection.encoders == ("My MLP", "six")
    assert (study.test.fractions, study.selection.test.fractions) == ((0.0, 0.05), (0.05,))


def test_the_smoke_study_is_one() -> None:
    study = read_study(SMOKE)
    assert study.black_box is not None
    assert study.maps is not None
    assert study.selection is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the first word must be one of run, select, report, engines; got nothing"),
        (["--engine", "d4.onnx"], "got '--engine'"),
        (["run", "absent.toml"], "cannot read the study absent.toml"),
        (["select", "STUDY"], "[select] must be given"),
        (["report", "STUDY"], "holds no measurement of this study yet"),
        (["run", "STUDY", "--jobs", "0"], "above zero"),
    ],
)
@pytest.mark.usefixtures("keep_logging")
def test_bad_usage_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    study = str(written(tmp_path, STUDY.partition("[select]")[0]))
    try:
        code: int | str | None = physics.main([study if a == "STUDY" else a for a in arguments])
    except SystemExit as exc:
        code = exc.code
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1, err
    assert said in err


def test_help_names_the_commands_and_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert physics.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in ("run", "select", "report", "engines"))
    with pytest.raises(SystemExit):
        physics.main(["run", "--help"])
    assert "[data.training_signals]" in capsys.readouterr().out
