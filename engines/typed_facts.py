"""Facts read from a file's JSON: each of the type that its dataclass says, or they are refused."""

import reprlib
from collections.abc import Sized
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["typed"]

T = TypeVar("T")


def typed(kind: type[T], stored: object) -> T:
    """Return a dataclass of what JSON holds, the dataclasses within built likewise.

    Args:
        kind: the dataclass; its fields are numbers, strings, dicts, tuples, dataclasses.
        stored: a JSON object; lists become tuples, keys that should be whole numbers such.

    Raises:
        TypeError: if a field has another type, is missing or is unknown.
        ValueError: if a key is no number where it should be.

    >>> from engines.windows import WindowSpec
    >>> typed(WindowSpec, {"mode": "count", "n_expected": 200})
    WindowSpec(mode='count', n_expected=200, span_s=0.0)
    """
    made: T = _value(kind, stored, kind.__name__)
    return made


def _value(kind: Any, stored: object, name: str) -> Any:  # noqa: ANN401 - annotations are objects
    """Return a stored value as its annotation wants it."""
    if get_origin(kind) in (Union, UnionType):
        wanted = [one for one in get_args(kind) if one is not NoneType]
        return None if stored is None else _value(wanted[0], stored, name)
    if isinstance(stored, dict) and is_dataclass(kind):
        return _record(kind, stored)
    if isinstance(stored, list | dict) and get_args(kind):
        return _container(kind, stored, name)
    number = kind is float and type(stored) is int
    if kind is Any or type(stored) is kind or number or stored in _literals(kind):
        return stored
    raise _wrong(kind, stored, name)


def _container(kind: Any, stored: Sized, name: str) -> object:  # noqa: ANN401
    """Return a list as a tuple, or a dict with its keys, every item as annotated."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(stored, list):
        return tuple(_value(arguments[0], item, name) for item in stored)
    if origin is dict and isinstance(stored, dict):
        keys = map(int, stored) if arguments[0] is int else stored
        values = (_value(arguments[1], item, name) for item in stored.values())
        return dict(zip(keys, values, strict=True))
    raise _wrong(kind, stored, name)


def _literals(kind: Any) -> tuple[object, ...]:  # noqa: ANN401
    return get_args(kind) if get_origin(kind) is Literal else ()


def _wrong(kind: Any, stored: object, name: str) -> TypeError:  # noqa: ANN401
    said = getattr(kind, "__name__", str(kind))
    return TypeError(f"{name} must be {said}; got {reprlib.repr(stored)}")


def _record(kind: Any, stored: dict[str, object]) -> Any:  # noqa: ANN401
    """Return a dataclass of a JSON object."""
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}
    if unknown := sorted(stored.keys() - known):
        msg = f"{kind.__name__} must hold {sorted(known)}; got {reprlib.repr(unknown)} too"
        raise TypeError(msg)
    return kind(**{name: _value(hints[name], value, name) for name, value in stored.items()})
