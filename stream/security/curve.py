"""CURVE keys: which end of a socket holds which, and every way a key file can be the wrong one.

Who binds is CURVE's server: it has a secret key and a list of those it lets in. Who connects is the
client: it has a secret key and the server's public key. Files are pyzmq's certificates, `NAME.key`
(public) and `NAME.key_secret`, as `make-keys` writes them.
"""

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from engines.errors import ArtifactError

__all__ = [
    "CURVE_BYTES",
    "EVENTS",
    "RESULTS",
    "CurveClient",
    "CurveEnd",
    "CurveServer",
    "KeyPair",
    "check_private",
    "read_public_key",
    "read_secret_key",
]

#: ZAP domains: who may send or take events, and who may read results.
EVENTS, RESULTS = "events", "results"
#: Encryption makes a frame so much longer, which ZeroMQ's limit of its size counts.
CURVE_BYTES = 33
_Socket: TypeAlias = zmq.Socket[bytes]


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, each 40 characters of Z85; the secret one is never shown."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class CurveServer:
    """The end that binds: lets in whom the ZAP handler of its context lets in, or nobody.

    Attributes:
        keys: its own.
        domain: which allow-list holds, `EVENTS` or `RESULTS`.
    """

    keys: KeyPair
    domain: str = EVENTS

    def apply(self, socket: _Socket) -> None:
        """Make a socket that is yet to be bound a CURVE server."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.keys.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, self.domain.encode())
        # Without it, libzmq lets everybody in while no ZAP handler answers.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


@dataclass(frozen=True)
class CurveClient:
    """The end that connects: talks to the holder of one secret key, or to nobody.

    Attributes:
        keys: its own.
        server: the server's public key, 40 characters of Z85.
    """

    keys: KeyPair
    server: bytes

    def apply(self, socket: _Socket) -> None:
        """Make a socket that is yet to be connected a CURVE client."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.keys.secret)


CurveEnd: TypeAlias = CurveServer | CurveClient


def read_secret_key(path: Path) -> KeyPair:
    """Read the key pair of a `.key_secret` file.

    Raises:
        ArtifactError: if it is missing, damaged, a public key, or others may read it.
    """
    public, secret = _load(path)
    if secret is None:
        msg = (
            f"{path} must be a secret key; it holds a public one; "
            f"name the file beside it that ends in .key_secret"
        )
        raise ArtifactError(msg)
    check_private(path, "key")
    if zmq.curve_public(secret) != public:
        msg = f"the two keys in {path} must be a pair; they are not; make new ones with make-keys"
        raise ArtifactError(msg)
    return KeyPair(public, secret)


def read_public_key(path: Path) -> bytes:
    """Read the public key of a `.key` file, 40 characters of Z85.

    Raises:
        ArtifactError: if it is missing, damaged, or holds a secret key, which must not travel.
    """
    public, secret = _load(path)
    if secret is not None:
        msg = (
            f"{path} must be a public key; it holds a secret one, which must stay where it was "
            "made; name the file beside it that ends in .key"
        )
        raise ArtifactError(msg)
    return public


def check_private(path: Path, kind: str) -> None:
    """Refuse a secret file that others may read or change.

    The group may read it: Kubernetes gives secrets to a pod's group, certificates often have one.

    Args:
        path: the file.
        kind: what it is, for the text: "key".

    Raises:
        ArtifactError: if it is missing, no file, or open to others.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        msg = f"cannot read the {kind} {path} ({reason}); name a file that make-keys wrote"
        raise ArtifactError(msg) from exc
    if not stat.S_ISREG(mode):
        msg = f"the {kind} {path} must be a file; it is not one; name a file that make-keys wrote"
        raise ArtifactError(msg)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        msg = (
            f"the {kind} {path} must be its owner's alone; its mode {stat.S_IMODE(mode):04o} "
            f"lets others read or change it; do: chmod 600 {path}"
        )
        raise ArtifactError(msg)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    """Return both keys of a certificate, the secret one if it has one."""
    try:
        public, secret = load_certificate(path)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        msg = f"{path} must be a CURVE key ({reason}); name a file that make-keys wrote"
        raise ArtifactError(msg) from exc
    for key in (public, secret):
        if key is not None and not _is_z85(key):
            msg = f"{path} must hold keys of 40 characters of Z85; it is damaged; copy it again"
            raise ArtifactError(msg)
    return public, secret


def _is_z85(key: bytes) -> bool:
    try:
        return len(key) == 40 and z85.encode(z85.decode(key)) == key
    except (KeyError, ValueError, ArithmeticError):
        return False
