"""Keys, certificates, and producers that mean no good."""

import datetime
import ipaddress
import socket
import struct
import subprocess
import sys
from pathlib import Path

import zmq
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stream.make_keys import main as make_keys
from stream.security.curve import CurveClient, KeyPair, read_public_key, read_secret_key

__all__ = [
    "ENDLESS_FRAMES",
    "client",
    "hostile",
    "keys",
    "new_pair",
    "raw_frame",
    "raw_peer",
    "self_signed",
]

#: ZMTP 3.0, mechanism NULL.
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
#: A peer that announces another frame after each, for ever: port, bytes a frame, kind of socket.
ENDLESS_FRAMES = """
import sys
from tests.support_security import raw_frame, raw_peer
frames = raw_frame(bytes(int(sys.argv[2])), more=True) * max(1, 400_000 // max(1, int(sys.argv[2])))
while True:
    try:
        with raw_peer(int(sys.argv[1]), sys.argv[3].encode()) as peer:
            while True:
                peer.sendall(frames)
    except OSError:
        pass
"""


def raw_peer(port: int, kind: bytes = b"PUSH") -> socket.socket:
    """Connect as a socket of some kind whose frames are ours to write."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=20.0)
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    peer.sendall(_GREETING + b"\x04" + bytes([len(body)]) + body)
    _read(peer, len(_GREETING))
    _, length = _read(peer, 2)
    _read(peer, length)
    return peer


def _read(peer: socket.socket, n_bytes: int) -> bytes:
    content = b""
    while len(content) < n_bytes:
        part = peer.recv(n_bytes - len(content))
        if not part:
            raise ConnectionResetError
        content += part
    return content


def raw_frame(content: bytes, *, more: bool) -> bytes:
    return bytes([2 + more]) + struct.pack(">Q", len(content)) + content


def hostile(program: str, *arguments: object) -> "subprocess.Popen[bytes]":
    """Start a program of this file."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent)


def keys(folder: Path) -> Path:
    """Make keys of a consumer and of daq1, who is on its list, and of mallory, who is not."""
    assert make_keys([str(folder), "--server", "consumer", "--client", "daq1"]) == 0
    assert make_keys([str(folder / "others"), "--client", "mallory"]) == 0
    return folder


def client(folder: Path, name: str = "daq1", server: str = "consumer") -> CurveClient:
    secret = read_secret_key(folder / f"{name}.key_secret")
    return CurveClient(secret, read_public_key(folder / f"{server}.key"))


def new_pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


def self_signed(folder: Path, name: str = "http") -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself, and its key; return both."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / f"{name}.pem", folder / f"{name}_key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.touch(0o600)
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path
