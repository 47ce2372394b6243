"""Command: make the CURVE keys of consumers and producers, and the password of the HTTP port."""

import argparse
import re
import secrets
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from engines.command import CommandParser, run_command
from engines.errors import ArtifactError, ParameterError

__all__ = ["main"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CLIENTS = "clients"
_PASSWORD_BYTES = 18
_DESCRIPTION = """\
Make key pairs for ZeroMQ CURVE in a folder: NAME.key (public) and NAME.key_secret (mode 0600). The
public keys of clients are also put in its subfolder clients/, the allow-list of --curve-clients.
Whoever binds an endpoint is a server, whoever connects a client; a name given as both, such as an
embedder's, gets one pair. Files that exist are never overwritten."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


def _parser() -> CommandParser:
    example = "make-keys keys/ --server consumer --client daq1 --client daq2"
    parser = CommandParser("make-keys", _DESCRIPTION, example)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="where the files go; made if it does not exist")
    several = partial(add, type=_name, action="extend", nargs=1, default=[], metavar="NAME")
    several("--server", help="who binds: the consumer, the tester, an embedder")
    several("--client", help="who connects: a producer, an embedder")
    add(
        "--http-user",
        type=_name,
        metavar="NAME",
        help="also make a password for the HTTP port, shown once, and NAME.password, its hash",
    )
    return parser


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        msg = f"must be letters, digits, '.', '_' and '-', 64 at most; got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return text


def _run(options: argparse.Namespace) -> None:
    folder, servers, clients = options.folder, options.server, options.client
    names = list(dict.fromkeys([*servers, *clients]))
    if not names and not options.http_user:
        msg = "at least one of --server, --client and --http-user must be given; got none"
        raise ParameterError(msg)
    _check_absent(folder, names, clients, options.http_user)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_pairs(folder, names, clients)
        password = _make_password(folder, options.http_user) if options.http_user else ""
    except OSError as exc:
        msg = f"cannot write keys to {folder} ({exc.strerror}); choose a folder that is yours"
        raise ArtifactError(msg) from exc
    sys.stdout.write(_next_steps(folder, servers, clients))
    if password:
        sys.stdout.write(_http_steps(folder, options.http_user, password))


def _check_absent(folder: Path, names: list[str], clients: list[str], http_user: str) -> None:
    """Refuse before anything is written, so that nothing is half made."""
    wanted = [folder / f"{name}.{kind}" for name in names for kind in ("key", "key_secret")]
    wanted += [folder / _CLIENTS / f"{name}.key" for name in clients]
    wanted += [folder / f"{http_user}.password"] if http_user else []
    for path in wanted:
        if path.exists():
            msg = f"{path} exists, and keys are never overwritten; name another folder, or move it"
            raise ArtifactError(msg)


def _make_pairs(folder: Path, names: list[str], clients: list[str]) -> None:
    from zmq.auth import create_certificates

    if clients:
        # Public keys: the service's own user reads them where this folder is copied to.
        (folder / _CLIENTS).mkdir(mode=0o755, exist_ok=True)
    # pyzmq writes with the umask and over what is there: it may do so where nobody else can look.
    with tempfile.TemporaryDirectory() as private:
        for name in names:
            public, secret = map(Path, create_certificates(private, name))
            _write(folder / secret.name, secret.read_bytes(), 0o600)
            _write(folder / public.name, public.read_bytes(), 0o644)
            if name in clients:
                _write(folder / _CLIENTS / public.name, public.read_bytes(), 0o644)


def _make_password(folder: Path, user: str) -> str:
    from stream.security.http_access import hashed

    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    _write(folder / f"{user}.password", f"{user}:{hashed(password)}\n".encode(), 0o600)
    return password


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file that does not exist yet; it never has another mode, nor its content elsewhere.

    Raises:
        OSError: if it exists or cannot be written.
    """
    path.touch(mode, exist_ok=False)
    path.chmod(mode)  # whatever the umask
    path.write_bytes(content)


def _next_steps(folder: Path, servers: list[str], clients: list[str]) -> str:
    listed = folder / _CLIENTS
    lines = []
    for name in servers:
        lines += [
            f"{name}, which binds:",
            f"  stream-consumer --curve-key {folder / name}.key_secret "
            f"--curve-clients {listed} ...",
        ]
    for name in clients:
        others = [one for one in servers if one != name]
        key = f"{others[0]}.key" if len(others) == 1 else "SERVER.key"
        command = "stream-consumer --role embed" if name in servers else "stream-producer"
        lines += [
            f"{name}, which connects: move {name}.key_secret there, copy {key}, the public key of "
            "whom it connects to, there, then",
            f"  {command} --curve-key {name}.key_secret --curve-server {key} ...",
        ]
    if clients:
        lines += [
            f"{listed} says who is let in. A key put there later, or taken away, counts from the "
            "next connection on.",
        ]
    if clients and len(servers) > 1:
        lines += ["Give each server a folder of its own, with the clients that are to reach it."]
    return "".join(f"{line}\n" for line in lines)


def _http_steps(folder: Path, user: str, password: str) -> str:
    return (
        f"the HTTP port: stream-consumer --http-password {folder / user}.password ...\n"
        f"  user {user}, password {password}   (not stored: note it now)\n"
    )


if __name__ == "__main__":
    sys.exit(main())
