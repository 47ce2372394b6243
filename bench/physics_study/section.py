"""One table of a TOML file, read key by key: whatever is wrong is named with its key."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from engines.errors import NplmStreamError, ParameterError, SampleSizeError
from engines.event_files import EventFile
from engines.events import EventRange

__all__ = ["Section"]

T = TypeVar("T")
_ABSENT = object()


class Section:
    """A table of which every key must be taken.

    Args:
        values: the table.
        name: as it is called in the file, for errors; empty at the top.
    """

    def __init__(self, values: object, name: str = "") -> None:
        """Hold the table.

        Raises:
            ParameterError: if it is none.
        """
        self._name = name
        if not isinstance(values, Mapping):
            self.refuse("", f"must be a table; got {values!r}")
        self._values = dict(values)

    def refuse(self, key: str, text: str) -> NoReturn:
        """Refuse a key's value: `[test] window must be ...`.

        Raises:
            ParameterError: always.
        """
        msg = f"{self._label(key)} {text}"
        raise ParameterError(msg)

    def _label(self, key: str) -> str:
        where = f"[{self._name}]" if self._name else ""
        return " ".join(word for word in (where, key) if word)

    def __contains__(self, key: str) -> bool:
        """Whether a key was given and is not yet taken."""
        return key in self._values

    def _take(self, key: str, default: object) -> Any:  # noqa: ANN401 - TOML holds any type
        value = self._values.pop(key, default)
        if value is _ABSENT:
            self.refuse(key, "must be given; it is missing")
        return value

    def section(self, key: str) -> "Section":
        """Take a table inside this one; an empty one where there is none."""
        name = f"{self._name}.{key}" if self._name else key
        return Section(self._take(key, {}), name)

    def text(self, key: str, default: object = _ABSENT) -> str:
        """Take a string that is not empty."""
        value = self._take(key, default)
        if not isinstance(value, str) or not value.strip():
            self.refuse(key, f"must be a text; got {value!r}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Take true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            self.refuse(key, f"must be true or false; got {value!r}")
        return value

    def count(self, key: str, default: object = _ABSENT, *, least: int = 1) -> int:
        """Take a whole number from `least` up."""
        return self._count(key, self._take(key, default), least)

    def maybe_count(self, key: str, default: int | None = None) -> int | None:
        """Take a whole number above zero, or nothing."""
        value = self._take(key, default)
        return None if value is None else self._count(key, value, 1)

    def share(self, key: str, default: object = _ABSENT) -> float:
        """Take a number between 0 and 1."""
        return self._share(key, self._take(key, default))

    def shares(self, key: str, default: object = _ABSENT, *, zero: bool) -> tuple[float, ...]:
        """Take a list of different numbers between 0 and 1, sorted; 0 itself where it may be."""

        def read(key: str, value: object) -> float:
            if zero and value == 0 and not isinstance(value, bool):
                return 0.0
            return self._share(key, value)

        return tuple(sorted(self._list(key, default, read)))

    def counts(self, key: str, default: object = _ABSENT, *, least: int = 0) -> tuple[int, ...]:
        """Take a list of different whole numbers from `least` up."""
        return self._list(key, default, lambda key, value: self._count(key, value, least))

    def names(self, key: str, default: object, known: Mapping[str, object]) -> tuple[str, ...]:
        """Take a list of different names, each of which is known."""
        names = self._list(key, default, self._item)
        for name in names:
            if name not in known:
                self.refuse(key, f"must be among {sorted(known)}; got {name!r}")
        return names

    def texts(self, key: str, default: object = _ABSENT) -> tuple[str, ...]:
        """Take a list of different strings."""
        return self._list(key, default, self._item)

    def ranges(self, key: str, folder: Path, *, needed: bool = False) -> dict[str, EventRange]:
        """Take a table of event files by name: `A4l = "A4l.h5@0:1000"`."""
        inner = self.section(key)
        taken = {name: inner.events(name, folder) for name in inner._file_names()}
        if needed and not taken:
            self.refuse(key, "must name at least one event file; got none")
        return taken

    def events(self, key: str, folder: Path) -> EventRange:
        """Take an event file or a range of one; the end is filled in from the file.

        Raises:
            ParameterError: if the file is missing, is no event file, or is shorter than the range.
        """
        return self._events(key, self._take(key, _ABSENT), folder)

    def many_events(self, key: str, folder: Path) -> tuple[EventRange, ...]:
        """Take a list of event files or ranges, none by default."""
        return self._list(key, (), lambda key, value: self._events(key, value, folder))

    def whole_numbers(self, key: str) -> dict[str, int]:
        """Take a table of whole numbers by name."""
        inner = self.section(key)
        return {name: inner.count(name, least=0) for name in inner._file_names()}

    def tables(self, key: str) -> list["Section"]:
        """Take a list of tables, `[[key]]`, each named by its number."""
        values = self._take(key, [])
        if not isinstance(values, list):
            self.refuse(f"[[{key}]]", f"must be a list of tables; got {values!r}")
        return [Section(value, f"{key} {number}") for number, value in enumerate(values, 1)]

    def rename(self, name: str) -> None:
        """Be called so in errors from now on."""
        self._name = name

    def rest(self) -> dict[str, Any]:
        """Take everything that is left."""
        taken, self._values = self._values, {}
        return taken

    def refuse_others(self, *known: str) -> None:
        """Refuse keys beside these, before one that is missing is asked for."""
        for key, value in self._values.items():
            if key not in known:
                shown = f"[{key}]" if isinstance(value, Mapping) else key
                self.refuse(shown, f"is no key of a study; it has {', '.join(known)}")

    def finish(self) -> None:
        """Refuse keys that nobody took."""
        for key in self._values:
            self.refuse(key, "is no key of a study; see bench-physics run --help")

    def _file_names(self) -> list[str]:
        """Return the keys, which become parts of file names."""
        for name in self._values:
            if "/" in name or "\0" in name or not name:
                self.refuse(repr(name), "must be a name without '/', as files are named by it")
        return list(self._values)

    def _item(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            self.refuse(key, f"must be a list of texts; it holds {value!r}")
        return value

    def _count(self, key: str, value: object, least: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.refuse(key, f"must be a whole number from {least} up; got {value!r}")
        return value

    def _share(self, key: str, value: object) -> float:
        number = isinstance(value, float | int) and not isinstance(value, bool)
        if not number or not 0 < value < 1:  # type: ignore[operator]
            self.refuse(key, f"must lie between 0 and 1; got {value!r}")
        return float(value)  # type: ignore[arg-type]

    def _list(self, key: str, default: object, read: Callable[[str, Any], T]) -> tuple[T, ...]:
        values = self._take(key, default)
        if not isinstance(values, list | tuple):
            self.refuse(key, f"must be a list; got {values!r}")
        items = tuple(read(key, value) for value in values)
        if len({str(item) for item in items}) != len(items):
            self.refuse(key, f"must hold each value once; got {list(values)}")
        return items

    def _events(self, key: str, value: object, folder: Path) -> EventRange:
        if not isinstance(value, str):
            self.refuse(key, f"must be FILE or FILE@START:STOP; got {value!r}")
        try:
            source = EventRange.parse(value)
            source = EventRange(folder / source.path, source.start, source.stop)
            with EventFile(source.path) as file:
                n_events = len(file)
        except NplmStreamError as exc:
            msg = f"{self._label(key)} is wrong: {exc}"
            raise ParameterError(msg) from exc
        stop = n_events if source.stop is None else source.stop
        if stop > n_events or source.start >= stop:
            msg = f"{self._label(key)} must be a range of {n_events} events; got {value!r}"
            raise SampleSizeError(msg)
        return EventRange(source.path, source.start, stop)
