"""`inspect-reference` as a process: what it says, draws and refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from engines.inspect_reference import main
from engines.reference_file import load_reference
from engines.samples import sample_path
from tests.support_commands import calibrate, run_command, tiny_encoder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    engine = tiny_encoder(tmp_path_factory.mktemp("inspect") / "tiny.onnx")
    code, _, err = calibrate(engine)
    assert code == 0, err
    return engine.with_suffix(".ref")


def test_facts_are_printed_and_the_null_is_drawn_beside_the_file(reference: Path) -> None:
    code, out, err = run_command("inspect-reference", reference)
    assert code == 0, err
    artifact = load_reference(reference)
    lines = out.splitlines()
    assert lines[0].startswith(f"reference    {reference} (")
    assert f"engine       {artifact.facts.engine_fingerprint}" in lines
    assert "samples      basis 5000, reference 5000, pool 6000 events; shuffled from" in lines
    assert f"             {sample_path('sm_cocktail').name} events 0 to 16000" in lines
    assert "toys         100 of 500 events; each event used about 8.3 times" in lines
    assert "resolution   p >= 0.0099, Z <= 2.33 from the toys alone" in lines
    null = artifact.nulls[1].nulls[0]
    assert f"{null.mean:>9.2f}{null.std:>9.2f}{null.chi2_dof:>10.2f}{null.chi2_ks_p:>8.3f}" in out
    picture = reference.with_suffix(".null.png")
    assert lines[-1] == f"picture      {picture}"
    assert imread(picture).shape[0] > 400


def run_in_process(
    capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int | str | None, str, str]:
    try:
        code: int | str | None = main([str(argument) for argument in arguments])
    except SystemExit as exc:  # argparse ends the process itself
        code = exc.code
    said = capfd.readouterr()
    return code, said.out, said.err


@pytest.mark.usefixtures("keep_logging")
def test_picture_goes_where_it_is_asked_to(
    reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_in_process(capfd, reference, "-o", tmp_path / "d4.pdf")
    assert code == 0
    assert out.endswith(f"picture      {tmp_path / 'd4.pdf'}\n")
    assert (tmp_path / "d4.pdf").read_bytes()[:5] == b"%PDF-"


@pytest.mark.usefixtures("keep_logging")
def test_bad_paths_are_refused(
    reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ([tmp_path / "absent.ref"], "does not exist; make it with: calibrate-reference"),
        (["."], "does not exist"),
        ([reference, "-o", tmp_path / "absent" / "d4.png"], "choose a folder that exists"),
        ([reference, "-o", reference], "suffix must be one of"),
        ([], "required: FILE.ref"),
    ):
        code, out, err = run_in_process(capfd, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("inspect-reference: ")
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.usefixtures("keep_logging")
def test_tampered_and_truncated_files_are_refused(
    reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(reference.read_bytes())
    truncated, tampered = tmp_path / "truncated.ref", tmp_path / "tampered.ref"
    truncated.write_bytes(content[: len(content) // 2])
    content[-100] ^= 1
    tampered.write_bytes(content)
    for path, said in ((truncated, "not a complete reference"), (tampered, "was altered")):
        code, out, err = run_in_process(capfd, path)
        assert (code, out) == (2, "")
        assert said in err
        assert not path.with_suffix(".null.png").exists()


def test_help_is_quick_because_heavy_packages_wait() -> None:
    code = (
        "import sys, engines.inspect_reference as command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
