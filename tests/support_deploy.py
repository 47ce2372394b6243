"""What deploy/ holds, read as data: options, manifests, services."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

__all__ = ["DEPLOY", "OVERLAYS", "ROOT", "by_kind", "check_with", "compose", "manifests", "program"]

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("cpu", "gpu")
_TIMEOUT_S = 60


def program(name: str) -> str:
    """Return a program of the virtual environment, of the extra `dev`."""
    path = Path(sys.executable).parent / name
    assert path.exists(), f"{name} is missing: make setup"
    return str(path)


def check_with(*command: object, cwd: Path = ROOT, silent: bool = False, **environment: str) -> str:
    """Run a validator; fail with what it says; return its stdout.

    Args:
        command: its words.
        cwd: where it runs.
        silent: fail where it warns, too.
        environment: beside PATH.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (silent and done.stderr), done.stderr
    return done.stdout


@functools.cache
def _rendered(overlay: str) -> str:
    return check_with(program("kubectl"), "kustomize", DEPLOY / "kubernetes" / "overlays" / overlay)


def manifests(overlay: str) -> list[dict[str, Any]]:
    """Return the manifests of an overlay as kustomize renders them."""
    return list(yaml.safe_load_all(_rendered(overlay)))


def by_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return an overlay's manifests of one kind by name."""
    return {one["metadata"]["name"]: one for one in manifests(overlay) if one["kind"] == kind}


def compose() -> dict[str, Any]:
    """Return the compose file as it is written, aliases resolved."""
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    return read
