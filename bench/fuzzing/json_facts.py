"""JSON that says something else than it should."""

import copy
from typing import Any

import numpy as np

__all__ = ["spoil"]


def spoil(stored: Any, rng: np.random.Generator) -> Any:  # noqa: ANN401 - JSON holds any type
    """Return JSON with one to three of its values replaced, left out or added to.

    >>> spoil({"a": 1}, np.random.default_rng(0)) != {"a": 1}
    True
    """
    stored = copy.deepcopy(stored)
    for _ in range(int(rng.integers(1, 4))):
        stored = _spoil_one(stored, rng)
    return stored


def _spoil_one(stored: Any, rng: np.random.Generator) -> Any:  # noqa: ANN401
    keys = _keys(stored)
    if not keys or rng.random() < 0.02:
        return _odd(rng)
    key = keys[int(rng.integers(len(keys)))]
    if _keys(stored[key]) and rng.random() < 0.7:
        stored[key] = _spoil_one(stored[key], rng)
    elif rng.random() < 0.2:
        del stored[key]
    elif isinstance(stored, dict) and rng.random() < 0.2:
        stored["unheard_of"] = _odd(rng)
    else:
        stored[key] = _odd(rng)
    return stored


def _keys(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []


def _odd(rng: np.random.Generator) -> Any:  # noqa: ANN401
    odd: list[Any] = [
        *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308),
        *(float("nan"), float("inf"), "", "x", "\x00\x1b[2J", "\u202egnp", "../../etc/passwd"),
        *("\ud800", "a" * 5000, "float32", "count", [], {}, [1], [[[]]], {"a": 1}, [None, None]),
    ]
    return odd[int(rng.integers(len(odd)))]
