"""Who is let in under CURVE: folders of public keys, read again whenever they change.

libzmq asks a ZAP handler (rfc.zeromq.org/spec/27) about each new connection; here it is pyzmq's, on
a thread. While it does not answer nobody gets in: see `stream.security.curve.CurveServer`.
"""

import logging
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from zmq.auth.thread import ThreadAuthenticator

from engines.errors import ArtifactError
from stream.endpoints import Context
from stream.security.curve import read_public_key
from stream.sparse_log import SparseLog

__all__ = ["AllowList", "Gate"]

_LOG = logging.getLogger(__name__)
_SUFFIX = ".key"
_Seen: TypeAlias = tuple[tuple[str, int, int, int], ...]


class AllowList:
    """The public keys in a folder, `NAME.key` each.

    Args:
        folder: where they are; keys added or removed count from the next connection on. A client
            that is connected stays so until its connection ends.

    Raises:
        ArtifactError: if there is no such folder, no key in it, or a file that is no public key.
    """

    def __init__(self, folder: Path) -> None:
        """Read the keys; at the start a damaged file is an error."""
        self.folder = folder
        self._lock = threading.Lock()
        try:
            self._seen = self._look()
        except OSError as exc:
            msg = (
                f"the allow-list {folder} must be a folder of public keys ({exc.strerror}); "
                "make-keys writes one, clients/"
            )
            raise ArtifactError(msg) from exc
        self._names = {read_public_key(folder / name): name for name, *_ in self._seen}
        if not self._names:
            msg = (
                f"the allow-list {folder} must hold at least one NAME.key; it has none, so nobody "
                "could connect; copy the public keys of the clients into it"
            )
            raise ArtifactError(msg)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._names)

    def name_of(self, key: bytes) -> str | None:
        """Return the file that allows a key, 40 characters of Z85; None if none does."""
        with self._lock:
            self._refresh()
            return self._names.get(key)

    def _look(self) -> _Seen:
        """Return what tells one state of the folder from another."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    facts = entry.stat()
                    if stat.S_ISREG(facts.st_mode):
                        found.append((entry.name, facts.st_mtime_ns, facts.st_size, facts.st_ino))
        return tuple(sorted(found))

    def _refresh(self) -> None:
        """Read the folder again if it changed; what cannot be read lets nobody in."""
        try:
            seen = self._look()
        except OSError as exc:
            if self._names:
                _LOG.warning("nobody is let in: cannot read %s (%s)", self.folder, exc.strerror)
            self._seen, self._names = (), {}
            return
        if seen == self._seen:
            return
        self._seen, self._names = seen, {}
        for name, *_ in seen:
            try:
                self._names[read_public_key(self.folder / name)] = name
            except ArtifactError as exc:
                _LOG.warning("a client is not let in: %s", exc)
        names = ", ".join(sorted(self._names.values())) or "nobody"
        _LOG.info("the allow-list %s has changed; it lets in %s", self.folder, names)


class Gate:
    """Answers for each connection of a context's CURVE servers whether it may be.

    Args:
        context: whose sockets ask.
        lists: the allow-list of each ZAP domain.

    Attributes:
        n_refused: connections refused for their key.
    """

    def __init__(self, context: Context, lists: Mapping[str, AllowList]) -> None:
        """Start the thread that answers."""
        self.n_refused = 0
        self._log = SparseLog()
        self._authenticator = _Authenticator(context)
        self._authenticator.start()
        for domain, allowed in lists.items():
            self._authenticator.configure_curve_callback(domain, _Provider(self, allowed))

    @property
    def is_alive(self) -> bool:
        """Whether somebody answers; if not, no new connection is let in."""
        return self._authenticator.is_alive()

    def close(self) -> None:
        """Stop answering."""
        self._authenticator.stop()

    def __enter__(self) -> Self:
        """Return the gate, which already answers."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop answering."""
        self.close()

    def decide(self, allowed: AllowList, key: bytes) -> bool:
        """Return whether a key is on a list; count and log where it is not."""
        if allowed.name_of(key) is not None:
            return True
        self.n_refused += 1
        text = f"the key {key.decode()} from {self._authenticator.address} is not in "
        self._log.log("client refused", f"{text}{allowed.folder}")
        return False


class _Provider:
    """One domain's list, as pyzmq asks it."""

    def __init__(self, gate: Gate, allowed: AllowList) -> None:
        self._gate, self._allowed = gate, allowed

    def callback(self, _domain: str, key: bytes) -> bool:
        return self._gate.decide(self._allowed, key)


class _Authenticator(ThreadAuthenticator):
    """Pyzmq's, which also remembers who asks, and can be stopped after its thread has died."""

    address = ""

    async def handle_zap_message(self, msg: list[bytes]) -> None:
        self.address = msg[3].decode(errors="replace") if len(msg) > 3 else ""
        await super().handle_zap_message(msg)

    def stop(self) -> None:
        if self.pipe is not None and not self.is_alive():
            self.pipe.close()  # the base would wait for ever for the dead thread to read from it
            self.pipe = None  # type: ignore[assignment]  # as the base does
        super().stop()
