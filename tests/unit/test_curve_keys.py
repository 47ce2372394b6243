"""Key files and allow-lists: every way they can be wrong is one sentence, and nobody gets in."""

import logging
import os
import stat
from pathlib import Path

import pytest
import zmq

from engines.errors import ArtifactError
from stream.make_keys import main
from stream.security.access import AllowList
from stream.security.curve import KeyPair, read_public_key, read_secret_key
from tests.support_security import keys

pytestmark = pytest.mark.usefixtures("keep_logging")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return keys(tmp_path / "keys")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_a_pair_and_the_secret_one_is_private(folder: Path) -> None:
    pair = read_secret_key(folder / "consumer.key_secret")
    assert read_public_key(folder / "consumer.key") == pair.public == zmq.curve_public(pair.secret)
    assert mode(folder / "consumer.key_secret") == 0o600
    assert mode(folder / "consumer.key") == 0o644
    assert pair.secret not in repr(pair).encode()


def test_umask_makes_no_difference(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        words = ["--server", "s", "--client", "c", "--http-user", "prom"]
        assert main([str(tmp_path), *words]) == 0
    finally:
        os.umask(before)
    assert mode(tmp_path / "s.key_secret") == mode(tmp_path / "prom.password") == 0o600
    # Public keys, which a service's user must be able to read where they are copied to.
    assert mode(tmp_path / "clients") == 0o755
    assert mode(tmp_path / "clients" / "c.key") == 0o644


def test_only_clients_are_on_the_list(folder: Path) -> None:
    assert [path.name for path in (folder / "clients").iterdir()] == ["daq1.key"]
    listed = (folder / "clients" / "daq1.key").read_text()
    assert listed == (folder / "daq1.key").read_text()
    assert "secret" not in listed.lower().replace("public", "")


def test_name_in_both_roles_gets_one_pair(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--server", "embed1", "--client", "embed1"]) == 0
    assert read_public_key(tmp_path / "embed1.key") in AllowList(tmp_path / "clients")._names


def test_each_of_several_servers_gets_keys_and_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--server", "tester", "--server", "embed", "--client", "embed", "--client", "daq1"]
    assert main([str(tmp_path), *words]) == 0
    made = {path.name for path in tmp_path.glob("*.key_secret")}
    assert made == {"tester.key_secret", "embed.key_secret", "daq1.key_secret"}
    said = capsys.readouterr().out
    for name in ("tester", "embed"):
        assert f"stream-consumer --curve-key {tmp_path / name}.key_secret --curve-clients" in said
    server = "--curve-server tester.key"
    assert f"stream-consumer --role embed --curve-key embed.key_secret {server}" in said
    assert "stream-producer --curve-key daq1.key_secret --curve-server SERVER.key" in said
    assert "a folder of its own" in said


def test_names_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.toml").write_text('server = ["tester", "embed"]\nclient = ["daq1"]\n')
    assert main([str(tmp_path / "k"), "--config", str(tmp_path / "names.toml")]) == 0
    made = {path.name for path in (tmp_path / "k").glob("*.key")}
    assert made == {"tester.key", "embed.key", "daq1.key"}


def test_nothing_is_overwritten_and_nothing_half_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([str(folder), "--client", "daq9", "--client", "daq1"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_clients_can_be_added_later_and_next_steps_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([str(folder), "--client", "daq2"]) == 0
    assert (folder / "clients" / "daq2.key").exists()
    said = capsys.readouterr().out
    assert "stream-producer --curve-key daq2.key_secret" in said
    assert "from the next connection on" in said


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "at least one of --server"),
        (["--server", "../x"], "letters, digits"),
        (["--client", ".hidden"], "letters, digits"),
        (["--client", "a b"], "letters, digits"),
    ],
)
def test_bad_usage(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main([str(tmp_path / "k"), *arguments])
    except SystemExit as exc:
        code = exc.code
    assert code == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "k").exists()


def test_secret_that_others_can_read_is_refused(folder: Path) -> None:
    path = folder / "consumer.key_secret"
    for open_to, right in ((0o604, False), (0o660, False), (0o640, True), (0o400, True)):
        path.chmod(open_to)
        if right:
            read_secret_key(path)
        else:
            with pytest.raises(ArtifactError, match="chmod 600"):
                read_secret_key(path)


def test_keys_in_each_others_place_are_explained(folder: Path) -> None:
    (folder / "consumer.key").chmod(0o600)
    with pytest.raises(ArtifactError, match=r"must be a secret key.*ends in .key_secret"):
        read_secret_key(folder / "consumer.key")
    with pytest.raises(ArtifactError, match="must be a public key; it holds a secret one"):
        read_public_key(folder / "consumer.key_secret")


@pytest.mark.parametrize("kind", ["secret", "public"])
@pytest.mark.parametrize(
    "content", [b"", b"\0\xff" * 99, b'public-key = "short"', b'public-key = "' + b"\xe9" * 40]
)
def test_damaged_key_is_one_sentence(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / "x.key"
    path.write_bytes(content)
    path.chmod(0o600)
    read = read_secret_key if kind == "secret" else read_public_key
    with pytest.raises(ArtifactError, match=str(path)):
        read(path)


def test_missing_key_or_folder_in_its_place(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ArtifactError, match="make-keys"):
            read_secret_key(path)
        with pytest.raises(ArtifactError, match="make-keys"):
            read_public_key(path)


def test_keys_that_are_no_pair_are_refused(folder: Path) -> None:
    text = (folder / "consumer.key_secret").read_text()
    public = read_public_key(folder / "consumer.key").decode()
    (folder / "consumer.key_secret").write_text(text.replace(public, other_public()))
    with pytest.raises(ArtifactError, match="must be a pair"):
        read_secret_key(folder / "consumer.key_secret")


def other_public() -> str:
    return KeyPair(*zmq.curve_keypair()).public.decode()


@pytest.mark.parametrize("what", ["absent", "empty", "file", "secret"])
def test_allow_list_that_is_none_stops_the_start(folder: Path, tmp_path: Path, what: str) -> None:
    place = tmp_path / what
    if what == "file":
        place.write_text("")
    elif what != "absent":
        place.mkdir()
    if what == "secret":
        (place / "x.key").write_bytes((folder / "daq1.key_secret").read_bytes())
    with pytest.raises(ArtifactError, match=str(place)):
        AllowList(place)


def test_allow_list_follows_its_folder(folder: Path) -> None:
    clients = folder / "clients"
    allowed = AllowList(clients)
    daq1, mallory = (read_public_key(folder / n) for n in ("daq1.key", "others/mallory.key"))
    assert allowed.name_of(daq1) == "daq1.key"
    assert allowed.name_of(mallory) is None
    (clients / "mallory.key").write_bytes((folder / "others" / "mallory.key").read_bytes())
    assert allowed.name_of(mallory) == "mallory.key"
    (clients / "mallory.key").unlink()
    assert allowed.name_of(mallory) is None
    assert allowed.name_of(daq1) == "daq1.key"


def test_damaged_key_added_later_lets_nobody_in_and_keeps_the_others(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = AllowList(folder / "clients")
    (folder / "clients" / "bad.key").write_text("nonsense")
    with caplog.at_level(logging.WARNING):
        assert allowed.name_of(read_public_key(folder / "daq1.key")) == "daq1.key"
    assert "a client is not let in" in caplog.text
    assert len(allowed) == 1


def test_folder_that_goes_away_lets_nobody_in(folder: Path) -> None:
    allowed = AllowList(folder / "clients")
    daq1 = read_public_key(folder / "daq1.key")
    (folder / "clients").rename(folder / "moved")
    assert allowed.name_of(daq1) is None
    (folder / "moved").rename(folder / "clients")
    assert allowed.name_of(daq1) == "daq1.key"
