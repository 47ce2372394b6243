"""A command's own key, the other end's, and its allow-lists: read from its options."""

import argparse
from pathlib import Path

from engines.errors import ParameterError
from stream.security.access import AllowList
from stream.security.curve import EVENTS, RESULTS, KeyPair, read_public_key, read_secret_key

__all__ = ["allow_lists", "given", "own_keys", "server_key"]


def own_keys(options: argparse.Namespace) -> KeyPair | None:
    """Return the keys of --curve-key; None without CURVE.

    Raises:
        ArtifactError: if it is no secret key, or open to others.
        ParameterError: if another option of CURVE was given without it.
    """
    if options.curve_key is not None:
        return read_secret_key(options.curve_key)
    for name in ("curve_clients", "curve_server", "curve_subscribers"):
        if getattr(options, name, None) is not None:
            given(None, "--curve-key", f"--{name.replace('_', '-')}")
    return None


def server_key(options: argparse.Namespace, keys: KeyPair | None) -> bytes | None:
    """Return the public key of --curve-server; None where it was not given.

    Raises:
        ArtifactError: if it is no public key.
        ParameterError: if it is our own.
    """
    if options.curve_server is None:
        return None
    server = read_public_key(options.curve_server)
    if keys is not None and server == keys.public:
        msg = (
            f"--curve-server must be the other end's public key; {options.curve_server} is that of "
            f"--curve-key; copy the server's .key here"
        )
        raise ParameterError(msg)
    return server


def allow_lists(options: argparse.Namespace) -> dict[str, AllowList]:
    """Return who may connect, by domain; nothing without keys or a socket that is bound.

    Raises:
        ArtifactError: if a folder holds no key, or a file that is no public key.
        ParameterError: if an option lacks its other half.
    """
    lists: dict[str, AllowList] = {}
    if options.curve_key is None:
        return lists
    if options.pattern == "sub":
        given(options.curve_server, "--curve-server", "--curve-key with --pattern sub")
    else:
        lists[EVENTS] = AllowList(given(options.curve_clients, "--curve-clients", "--curve-key"))
    if options.publish is not None:
        readers = options.curve_subscribers or options.curve_clients
        lists[RESULTS] = AllowList(
            given(readers, "--curve-subscribers", "--publish with --curve-key")
        )
    return lists


def given(path: Path | None, name: str, other: str) -> Path:
    """Return what an option holds.

    Args:
        path: its value.
        name: its name.
        other: what needs it, for the text.

    Raises:
        ParameterError: if it was not given.
    """
    if path is None:
        whence = "; make-keys writes what is needed" if name.startswith("--curve") else ""
        msg = f"{name} must come with {other}; got the latter alone{whence}"
        raise ParameterError(msg)
    return path
