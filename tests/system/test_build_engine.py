"""`build-engine` and `inspect-engine`: real plans of tensorrt_rtx, made without a GPU."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from engines import build_engine, inspect_engine
from engines.artifact import EngineFacts, fingerprint, load_onnx
from engines.engine import open_engine
from engines.errors import EngineUnavailableError
from engines.event_files import read_events
from engines.events import EventRange
from engines.plans.compile_plan import Batches, Compiler
from engines.plans.plan_file import PlanFacts, read_plan, write_plan
from engines.plans.precision import PRECISIONS, Precision, with_precision
from engines.plans.tensorrt_api import gpu_capability, load_tensorrt
from engines.pretrained import pretrained_path
from engines.samples import sample_path
from training.encoders import EncoderConfig, build_model
from training.export import export_encoder
from training.networks.preprocess import measure_scaling

trt = pytest.importorskip("tensorrt_rtx", reason="it compiles without a GPU; it is missing")

FEW = ("--events", f"{sample_path('sm_unseen')}@0:300")
RTX = ("--tensorrt", "tensorrt_rtx", "--compute-capability", "8.6", "8.9")
ENCODERS = ("d4", "hybrid", "transformer", "masked")
TRANSFORMERS = {
    "transformer": EncoderConfig("transformer", 4),
    "masked": EncoderConfig("transformer", 4, mask_absent=True),
}
HALF = {"fp16": trt.float16, "bf16": trt.bfloat16}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of the bundled encoders, away from their references, and untrained transformers."""
    folder = tmp_path_factory.mktemp("encoders")
    paths = {name: folder / f"{name}.onnx" for name in ENCODERS}
    for name in ("d4", "hybrid"):
        paths[name].write_bytes(pretrained_path(name).read_bytes())
    particles = read_events(EventRange(sample_path("sm_cocktail"), 0, 500))
    for name, config in TRANSFORMERS.items():
        encoder = build_model(config, measure_scaling(particles), 0, seed=0).encoder
        encoder.train()
        with torch.no_grad():
            encoder(torch.from_numpy(particles))
        facts = EngineFacts(arch=config.arch, dim=config.embedding_dim)
        export_encoder(encoder, paths[name], particles, facts)
    return paths


def run(
    capfd: pytest.CaptureFixture[str], command: ModuleType, *arguments: object
) -> tuple[int | str | None, str, str]:
    try:
        code: int | str | None = command.main([str(argument) for argument in arguments])
    except SystemExit as exc:  # argparse ends the process itself
        code = exc.code
    said = capfd.readouterr()
    return code, said.out, said.err


def parsed(path: Path, precision: Precision) -> Compiler:
    """Return a compiler that holds TensorRT's network of an encoder."""
    compiler = Compiler(load_tensorrt("tensorrt_rtx"), precision)
    compiler.parse(with_precision(load_onnx(path), precision), path.name)
    return compiler


def layer_types(compiler: Compiler) -> dict[str, list[tuple[str, Any]]]:
    """Return the name and output type of the layers of each kind."""
    network, layers = compiler.network, dict[str, list[tuple[str, Any]]]()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = str(layer.type).rpartition(".")[2]
        layers.setdefault(kind, []).append((layer.name, layer.get_output(0).dtype))
    return layers


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ENCODERS)
def test_plan_holds_the_compiled_encoder_and_its_facts(
    name: str,
    precision: Precision,
    encoders: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / f"{name}.plan"
    code, out, err = run(
        *(capfd, build_engine, encoders[name], "-o", output, "--precision", precision, *RTX),
        *("--opt-batch", 64, "--max-batch", 512, *FEW),
    )
    assert code == 0, err
    assert out.endswith(f"written      {output} ({output.stat().st_size / 1e6:.1f} MB)\n")
    facts, engine = read_plan(output)
    assert engine[:4] == b"vtrt"
    assert facts.fingerprint == fingerprint(load_onnx(encoders[name]))
    assert (facts.precision, facts.onnx) == (precision, f"{name}.onnx")
    assert (facts.flavour, facts.version) == ("tensorrt_rtx", trt.__version__)
    assert facts.compute_capabilities == ("8.6", "8.9")
    assert (facts.min_batch, facts.opt_batch, facts.max_batch) == (1, 64, 512)
    found = facts.differences
    assert 0 < found["rms"] <= found["largest"] <= found["bound"]
    assert (found["n_events"], found["z"]) == (300, [])
    assert "Z            not compared: there was no reference" in out
    with open_engine(encoders[name]) as expected:
        assert (facts.dim, facts.engine) == (expected.dim, expected.facts)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ENCODERS)
def test_network_takes_and_gives_fp32_and_is_half_only_in_its_products(
    name: str, precision: Precision, encoders: dict[str, Path]
) -> None:
    compiler = parsed(encoders[name], precision)
    network = compiler.network
    particles, embeddings = network.get_input(0), network.get_output(0)
    assert (network.num_inputs, network.num_outputs) == (1, 1)
    assert (particles.name, tuple(particles.shape)) == ("particles", (-1, 19, 3))
    dim = 8 if name == "hybrid" else 4
    assert (embeddings.name, tuple(embeddings.shape)) == ("embeddings", (-1, dim))
    assert (particles.dtype, embeddings.dtype) == (trt.float32, trt.float32)
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    layers = layer_types(compiler)
    *products, last = (dtype for _, dtype in layers["MATRIX_MULTIPLY"])
    assert set(products) == {HALF.get(precision, trt.float32)}
    assert last == trt.float32
    for kind in ("SOFTMAX", "NORMALIZATION") if name in TRANSFORMERS else ("UNARY",):
        assert {dtype for _, dtype in layers[kind]} == {trt.float32}, kind


def test_attention_mask_and_norms_of_transformers_stay_fp32(encoders: dict[str, Path]) -> None:
    for name in TRANSFORMERS:
        layers = layer_types(parsed(encoders[name], "fp16"))
        assert (len(layers["SOFTMAX"]), len(layers["NORMALIZATION"])) == (4, 9)
        model = load_onnx(encoders[name])
        preprocessing = {"Log", "Sin", "Cos", "Sub", "Div", "Pad", "Mul"}
        names = {node.name for node in model.graph.node if node.op_type in preprocessing}
        kinds = [dtype for named in layers.values() for n, dtype in named if n in names]
        assert len(kinds) >= len(names) - 2  # TensorRT calls some of them otherwise
        assert set(kinds) == {trt.float32, *([trt.bool] if name == "masked" else [])}


def test_profile_of_one_batch_dimension_is_what_was_asked(encoders: dict[str, Path]) -> None:
    compiler = parsed(encoders["d4"], "fp32")
    small = compiler.compile(Batches(1, 1), ("8.9",))
    assert small[:4] == b"vtrt"


def process(module: str, *arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", f"engines.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_z_of_the_reference_beside_the_encoder_is_compared_too(tmp_path: Path) -> None:
    output = tmp_path / "d4.plan"
    code, out, err = process(
        *("build_engine", pretrained_path("d4"), "-o", output, "--precision", "fp16", *RTX)
    )
    assert code == 0, err
    found = read_plan(output)[0].differences
    assert (found["n_events"], found["reference"]) == (20_000, "d4.ref")
    assert "Z            with d4.ref, windows of 5000 events:" in out
    assert len(found["z"]) == 5
    assert all(0 < abs(w["dt"]) < 0.1 and abs(w["dz"]) < 0.1 for w in found["z"])
    assert found["z"][-1]["window"] == "the last of them with 71 signal events"
    assert found["z"][-1]["z"] > 5.0
    code, inspected, err = process("inspect_engine", output)
    assert code == 0, err
    assert inspected.splitlines()[0].startswith(f"file         {output} (")
    assert set(out.splitlines()[:-1]) <= set(inspected.splitlines())


@pytest.mark.usefixtures("keep_logging")
def test_plan_that_would_move_z_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "d4.plan"
    code, out, err = run(
        *(capfd, build_engine, pretrained_path("d4"), "-o", output, "--precision", "bf16", *RTX)
    )
    assert (code, out) == (1, "")
    sentence = err.splitlines()[-1]
    assert sentence.startswith(
        "build-engine: t must stay within 0.1 of the null's spread and Z within 0.1 of what ONNX "
        "Runtime's embeddings give; got more in events 0 to 5000 (t -0.1"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("keep_logging")
def test_bad_input_is_refused_in_one_sentence(
    encoders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    d4, output = encoders["d4"], tmp_path / "d4.plan"
    other = pretrained_path("hybrid").with_suffix(".ref")
    ours = fingerprint(load_onnx(d4))
    theirs = fingerprint(load_onnx(pretrained_path("hybrid")))
    for arguments, said in (
        ([tmp_path / "absent.onnx"], "does not exist; make one: train-encoder"),
        ([d4, "-o", tmp_path / "d4.engine"], "the output must end in .plan, by which engines"),
        ([d4, "-o", tmp_path / "absent" / "d4.plan"], "choose a folder that exists"),
        ([d4, "--opt-batch", 9, "--max-batch", 8], "must satisfy 1 <= opt <= max; got 9 and 8"),
        ([d4, "--compute-capability", "9.0"], "got 9.0; build for another GPU on it"),
        ([d4, "--reference", tmp_path / "absent.ref"], "does not exist; make it with: calibrate-"),
        (
            [d4, "--reference", other],
            "engine and reference do not belong together: the engine's fingerprint is "
            f"{ours}, the reference was made with {theirs}; run calibrate-reference with this",
        ),
        (
            [d4, "--reference", pretrained_path("d4").with_suffix(".ref"), *RTX, *FEW],
            "the events must fill a window of the reference, 5000 events, to compare Z; got 300; "
            "give more with --events, or another --reference",
        ),
        ([d4, "--precision", "int8"], "invalid choice: 'int8'"),
    ):
        options = [] if "-o" in arguments else ["-o", output]
        flavour = [] if "--tensorrt" in arguments else ["--tensorrt", "tensorrt_rtx"]
        code, out, err = run(capfd, build_engine, *arguments, *options, *flavour)
        assert (code, out) == (2, ""), arguments
        assert said in err.splitlines()[-1]
        assert err.splitlines()[-1].startswith("build-engine: ")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("keep_logging")
def test_encoder_beyond_its_tolerance_is_refused(
    encoders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "d4.plan"
    options = ("--precision", "fp16", "--tolerance", 1e-4)
    code, _, err = run(capfd, build_engine, encoders["d4"], "-o", output, *options, *RTX, *FEW)
    assert code == 1
    assert "embeddings must lie within 0.0001 of their spread from ONNX Runtime's; the" in err
    assert not output.exists()


@pytest.fixture
def plan(encoders: dict[str, Path], tmp_path: Path) -> tuple[Path, PlanFacts, bytes]:
    facts = PlanFacts(
        fingerprint(load_onnx(encoders["d4"])),
        *(4, "fp32", "tensorrt_rtx", trt.__version__, ("8.9",), 1, 256, 4096, "d4.onnx"),
        engine=EngineFacts(),
    )
    path = tmp_path / "d4.plan"
    engine = parsed(encoders["d4"], "fp32").compile(Batches(), ("8.9",))
    return path, write_plan(path, facts, engine), engine


@pytest.mark.usefixtures("keep_logging")
def test_plan_of_another_version_is_refused_with_both_and_inspected_all_the_same(
    plan: tuple[Path, PlanFacts, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    path, facts, engine = plan
    write_plan(path, replace(facts, version="1.2.0.54"), engine)
    sentence = (
        f"the plan {path} must run with tensorrt_rtx 1.2.0.54, which built it; got tensorrt_rtx "
        f"{trt.__version__}; build it again here: build-engine {path.with_name('d4.onnx')} "
        f"-o {path}"
    )
    with pytest.raises(EngineUnavailableError) as caught:
        open_engine(path)
    assert str(caught.value) == sentence
    code, out, _ = run(capfd, inspect_engine, path)
    assert code == 0
    assert out.splitlines()[-1] == f"runs here    no: {sentence}"


@pytest.mark.usefixtures("keep_logging")
def test_inspected_plan_says_why_this_machine_cannot_run_it(
    plan: tuple[Path, PlanFacts, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capfd, inspect_engine, plan[0])
    assert code == 0
    last = out.splitlines()[-1]
    if gpu_capability() is None:
        said = f"the plan {plan[0]} must run on a GPU that CUDA can use; got"
        assert last.startswith(f"runs here    no: {said}")
    else:
        assert last.startswith("runs here    ")


@pytest.mark.usefixtures("keep_logging")
def test_truncated_and_foreign_files_are_refused(
    plan: tuple[Path, PlanFacts, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, _, engine = plan
    content, bare, cut = path.read_bytes(), tmp_path / "bare.plan", tmp_path / "cut.onnx"
    path.write_bytes(content[:1000])
    bare.write_bytes(engine)
    cut.write_bytes(pretrained_path("d4").read_bytes()[:1000])
    n, command = len(content), f"build-engine {path.with_name('d4.onnx')} -o {path}"
    for file, said in (
        (path, f"{path} is truncated: it must hold {n} bytes; got 1000; build it again: {command}"),
        (bare, f"{bare} must be a plan of build-engine; got TensorRT's bare engine, as trtexec"),
        (cut, f"engine {cut} is not a complete ONNX file ("),
        (tmp_path / "absent.ref", "absent.ref does not exist; make it with: calibrate-reference"),
        (tmp_path / "d4.txt", "the file must end in .onnx, .plan or .ref; got"),
    ):
        code, out, err = run(capfd, inspect_engine, file)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.usefixtures("keep_logging")
def test_encoders_and_references_are_inspected_alike(capfd: pytest.CaptureFixture[str]) -> None:
    encoder = pretrained_path("d4")
    ours = fingerprint(load_onnx(encoder))
    code, out, _ = run(capfd, inspect_engine, encoder)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"file         {encoder} (0.1 MB)"
    assert f"fingerprint  {ours}" in lines
    assert "maps         particles (n, 19, 3) to embeddings (n, 4), float32" in lines
    assert "precision    fp32" in lines
    assert "parameters   22815" in lines
    assert "trained on   sm_background.h5 events 0 to 60000" in lines
    assert lines[-1].startswith("runs here    yes, by ONNX Runtime ")
    code, out, _ = run(capfd, inspect_engine, encoder.with_suffix(".ref"))
    assert code == 0
    assert f"engine       {ours}" in out.splitlines()
    assert "window       5000 events" in out.splitlines()


@pytest.mark.parametrize("module", ["build_engine", "inspect_engine"])
def test_help_is_quick_because_heavy_packages_wait(module: str) -> None:
    code = (
        f"import sys, engines.{module} as command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt_rtx', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_tests_of_the_comparison_compile_before_their_threads_start(tmp_path: Path) -> None:
    """A first run on a machine: nothing is compiled yet."""
    words = [sys.executable, "-m", "engines.build_engine", str(pretrained_path("d4"))]
    done = subprocess.run(
        [*words, "-o", str(tmp_path / "d4.plan"), "--threads", "2", "--tensorrt", "tensorrt_rtx"],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Z            with d4.ref" in done.stdout
