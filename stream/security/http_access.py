"""Who may read the HTTP port: TLS, client certificates, a password."""

import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
import ssl
from pathlib import Path
from typing import Any, NoReturn

from engines.errors import ArtifactError
from stream.security.curve import check_private
from stream.security.turns import Turns

__all__ = ["STRANGE_NAME", "Password", "Verdict", "hashed", "is_own_name", "tls_context"]

_LOG = logging.getLogger(__name__)
#: scrypt's cost: 16 MB and about 50 ms, RFC 7914.
_N, _R, _P = 2**14, 8, 1
_BYTES = 32
_HASHED = re.compile(r"scrypt\$([0-9a-f]{32})\$([0-9a-f]{64})")
_FORM = "one line, user:password, or as make-keys --http-user writes it"

#: What is said to whoever asks a port of this machine alone by another name.
STRANGE_NAME = (
    b"this port is for localhost, 127.0.0.1 and [::1], not for pages of other sites; ask for one "
    b"of these, or give it a password (--http-password)\n"
)
_OWN_NAME = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d*)?", re.IGNORECASE)

#: True: it is right; False: it is wrong; None: too many wrong ones are tried, come again.
Verdict = bool | None


class Password:
    """One user and one password, compared in constant time.

    Args:
        user: the name.
        stored: the password, or its hash of the form scrypt$SALT$HASH.
        turns: who may have a password hashed.
    """

    def __init__(self, user: str, stored: str, *, turns: Turns | None = None) -> None:
        """Know the hash alone: a guess costs the same whatever the file holds."""
        self._user, self._turns = user, turns or Turns()
        self._key = secrets.token_bytes(_BYTES)
        _, salt, digest = (stored if _HASHED.fullmatch(stored) else hashed(stored)).split("$")
        self._salt, self._hash = bytes.fromhex(salt), bytes.fromhex(digest)
        # What was right once is known again without hashing it slowly.
        self._right = b""

    @classmethod
    def read(cls, path: Path) -> "Password":
        """Read a password file: one line, `user:password` or `user:scrypt$SALT$HASH`.

        Raises:
            ArtifactError: if it is missing, open to others, or has another form.
        """
        check_private(path, "password file")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as exc:
            msg = f"cannot read the password file {path} ({exc}); it must be {_FORM}"
            raise ArtifactError(msg) from exc
        user, _, stored = lines[0].partition(":") if len(lines) == 1 else ("", "", "")
        damaged = stored.startswith("scrypt$") and not _HASHED.fullmatch(stored)
        if not user or not stored or damaged:
            msg = f"the password file {path} must be {_FORM}; it is not"
            raise ArtifactError(msg)
        return cls(user, stored)

    def check(self, authorization: str, who: str = "") -> Verdict:
        """Judge the Authorization header of a request; empty where there is none.

        One that is not known yet waits for its turn to be hashed, a second after a wrong one.

        Args:
            authorization: the header.
            who: the client's address.
        """
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        if scheme.lower() != "basic" or not given:
            return False
        if self._is_known(given):
            return True
        return self._check_hash(given, who)

    def _is_known(self, given: bytes) -> bool:
        return bool(self._right) and hmac.compare_digest(self._digest(given), self._right)

    def _check_hash(self, given: bytes, who: str) -> Verdict:
        with self._turns.turn(who) as came:
            if self._is_known(given):  # since it began to wait
                return True
            if not came:
                return None
            user, _, password = given.partition(b":")
            same_user = hmac.compare_digest(user, self._user.encode())
            same_password = hmac.compare_digest(_scrypt(password, self._salt), self._hash)
            if same_user and same_password:
                self._right = self._digest(given)
                return True
            self._turns.was_wrong(who)
            return False

    def _digest(self, given: bytes) -> bytes:
        return hmac.digest(self._key, given, "sha256")


def is_own_name(host: str) -> bool:
    """Return whether a request's Host names this machine by an address that only it has.

    A page of another site whose name was made to lead here (DNS rebinding) would read the port
    through its visitor's browser, which then names that site.

    >>> is_own_name("127.0.0.1:9108"), is_own_name("127.0.0.1.evil.example")
    (True, False)
    """
    return _OWN_NAME.fullmatch(host.strip()) is not None


def hashed(password: str) -> str:
    """Return the salted scrypt hash of a password, as a password file holds it."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password.encode(), salt).hex()}"


def _scrypt(password: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=_N, r=_R, p=_P, dklen=_BYTES)


def tls_context(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return what serves HTTPS, from TLS 1.2 on.

    A certificate that is renewed, with its key, holds from the next connection on; one that cannot
    be read leaves the former.

    Args:
        cert: the certificate chain, PEM.
        key: its private key, PEM, without a passphrase.
        client_ca: if given, clients must show a certificate that it signed.

    Raises:
        ArtifactError: if a file is missing, of another kind, or the key is open to others.
    """
    check_private(key, "HTTP key")
    # As prometheus_client's start_http_server does, whose own helper is private.
    context = _RenewedContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.chain = (cert, key)
        context.seen = _changed_ns(context.chain)
        context.load_cert_chain(cert, key, password=_no_passphrase)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as exc:
        names = ", ".join(str(path) for path in (cert, key, client_ca) if path is not None)
        reason = str(exc).partition(" (_ssl")[0]
        msg = (
            f"{names} must be a PEM certificate, its key and a CA's certificate ({reason}); "
            "check --http-cert, --http-key and --http-client-ca"
        )
        raise ArtifactError(msg) from exc
    return context


class _RenewedContext(ssl.SSLContext):
    """Looks, before each connection, whether its certificate or key has changed."""

    chain: tuple[Path, Path]
    seen: list[int]

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401 - the base's
        """Serve with the certificate as it now is."""
        seen = _changed_ns(self.chain)
        if seen != self.seen:
            self.seen = seen
            try:
                tls_context(*self.chain)  # a key that does not fit would spoil this one
                self.load_cert_chain(*self.chain)
            except (ArtifactError, OSError) as exc:
                _LOG.warning("the HTTP port keeps its former certificate: %s", exc)
        return super().wrap_socket(*args, **options)


def _changed_ns(paths: tuple[Path, Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths if path.exists()]


def _no_passphrase() -> NoReturn:
    msg = "the key has a passphrase, which nobody is there to enter"
    raise ValueError(msg)
