"""https between site and coordinator, on real sockets of this host, with an authority that is made here."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from federated_said import ASKED, SAID, site_file, sites_file, write_weights

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgedeploy.errors import DataError, LoginRefused, SpecError, Unreachable
from edgedeploy.federated import served
from edgedeploy.federated.connection import mailbox_of
from edgedeploy.federated.coordinator import Coordinator
from edgedeploy.federated.mailbox import Mailbox, Spool
from edgedeploy.federated.messages import Answer, Request
from edgedeploy.federated.served import serving_of
from edgedeploy.federated.specs import load_site, load_sites

pytestmark = pytest.mark.beside

TOKEN = "a-token-of-the-tests-0123456789"
DAY = dt.timedelta(days=1)
SITE = site_file('coordinator = "{url}"\ntoken_file = "token"\nauthority = "authority.pem"')
SITES = sites_file('listen = "127.0.0.1:0"\ncertificate = "server.pem"\n', 'token_file = "token"\n')

Key = ec.EllipticCurvePrivateKey


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject: str, key: Key, issuer: str, signer: Key, ends: dt.datetime, *, address: str = "") -> bytes:
    """Of an authority, or for ``address``."""
    authority = not address
    made = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - 30 * DAY)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if authority:
        use = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = made.add_extension(use, critical=True)
    else:
        named = x509.IPAddress(ipaddress.ip_address(address))
        made = made.add_extension(x509.SubjectAlternativeName([named]), critical=False)
    return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private(key: Key, password: bytes = b"") -> bytes:
    locked: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def write(folder: Path, *, address: str = "127.0.0.1", ends: dt.timedelta = DAY, password: bytes = b"") -> None:
    """The files of a coordinator and of a site in ``folder``."""
    now = dt.datetime.now(dt.UTC)
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "authority.pem").write_bytes(certificate("CA", authority, "CA", authority, now + 10 * DAY))
    signed = certificate("coordinator", own, "CA", authority, now + ends, address=address)
    (folder / "server.pem").write_bytes(signed + private(own, password))
    (folder / "token").write_text(TOKEN)
    (folder / "sites.toml").write_text(SITES)
    for path in ("token", "server.pem"):
        (folder / path).chmod(0o600)


@contextmanager
def listening(folder: Path) -> Iterator[tuple[Coordinator, Spool, str]]:
    """A coordinator that serves, its spool of the site and its HOST:PORT."""
    told: list[str] = []
    coordinator = Coordinator(*load_sites(folder / "sites.toml"), folder / "out", told.append)
    spool = coordinator.spool(coordinator.spec.site[0])
    with serving_of(coordinator)({"north": spool}):
        scheme, _, address = told[0].removeprefix("sites connect to ").partition("://")
        assert scheme == "https"
        yield coordinator, spool, address


def site(folder: Path, address: str, scheme: str = "https") -> Mailbox:
    (folder / "site.toml").write_text(SITE.format(url=f"{scheme}://{address}"))
    return mailbox_of(*load_site(folder / "site.toml"))


def test_a_request_a_checkpoint_and_an_answer_go_over_https(tmp_path: Path) -> None:
    write(tmp_path)
    weights = tmp_path / "w.pt"
    write_weights(weights, 1_280_000)
    with listening(tmp_path) as (coordinator, spool, address):
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        spool.put_checkpoint(weights, sha256)
        request = Request(**{**ASKED, "release": coordinator.release, "checkpoint_sha256": sha256}).as_bytes()
        spool.ask(1, request)
        north = site(tmp_path, address)
        assert north.open() == (1,) and north.request(1) == request
        north.checkpoint(sha256, weights.stat().st_size, tmp_path / "got.pt")
        assert (tmp_path / "got.pt").read_bytes() == weights.read_bytes()
        said = {**SAID, "release": coordinator.release, "request_sha256": hashlib.sha256(request).hexdigest()}
        for wrong in (
            {"site": "south"},
            {"number": 2},
            {"request_sha256": "0" * 64},
            {"release": "0" * 16},
            {"cells": ()},
        ):
            with pytest.raises(DataError, match="400"):
                north.answer(1, Answer(**{**said, **wrong}).as_bytes())
        north.answer(1, Answer(**said).as_bytes())
        assert spool.answer_bytes(1, 1 << 16) == Answer(**said).as_bytes() and north.open() == ()
        end = Request(**{**ASKED, "release": coordinator.release, "number": 2, "kind": "end", "outcome": "refused"})
        spool.ask(2, end.as_bytes())
        failed = {**said, "number": 2, "kind": "failed", "cells": (), "baseline": None}
        failed["request_sha256"] = hashlib.sha256(end.as_bytes()).hexdigest()
        with pytest.raises(DataError, match="400"):
            north.answer(2, Answer(**failed).as_bytes())


@pytest.mark.parametrize(
    ("made", "said"),
    [({"address": "127.0.0.2"}, "mismatch"), ({"ends": -DAY}, "expired"), ({}, "self.signed|issuer|verify")],
)
def test_a_coordinator_that_cannot_prove_who_it_is_is_not_waited_for(
    made: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write(tmp_path, **made)
    with listening(tmp_path) as (_, spool, address):
        spool.ask(1, Request(**ASKED).as_bytes())
        if not made:  # another authority than that which signed it
            (tmp_path / "other").mkdir()
            write(tmp_path / "other")
            (tmp_path / "other" / "authority.pem").replace(tmp_path / "authority.pem")
        with pytest.raises(LoginRefused, match=f"not trusted: .*({said})"):
            site(tmp_path, address).open()


def test_the_token_is_not_said_to_who_cannot_prove_itself_or_in_the_open(tmp_path: Path) -> None:
    write(tmp_path)
    with listening(tmp_path) as (_, _, address), pytest.raises(Unreachable):
        site(tmp_path, address, "http").open()
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(60)
        port = plain.getsockname()[1]
        north = site(tmp_path, f"127.0.0.1:{port}")
        heard: list[bytes] = []

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.settimeout(60)
                heard.append(connection.recv(1 << 16))
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable):
            north.open()
        thread.join()
    assert heard and TOKEN.encode() not in heard[0]


def test_a_handshake_that_never_comes_holds_up_nobody_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: set[Any] = set()
    usual = served._Server.listens_to

    def listens_to(server: Any, request: socket.socket, more_bytes: int = 0) -> None:
        usual(server, request, more_bytes)
        if request.getpeername() not in late:  # on a busy machine a handshake takes what it takes
            request.settimeout(60.0)
            server._late_s[request] += 60.0

    def connected() -> socket.socket:
        made = socket.socket()
        made.bind(("127.0.0.1", 0))
        late.add(made.getsockname())
        made.settimeout(60)
        made.connect(where)
        return made

    monkeypatch.setattr(served._Server, "listens_to", listens_to)
    monkeypatch.setattr(served, "TIMEOUT_S", 1.5)
    write(tmp_path)
    with listening(tmp_path) as (_, _, address):
        where = ("127.0.0.1", int(address.rpartition(":")[2]))
        with connected() as silent, connected() as slow:
            slow.sendall(b"\x16\x03\x01\x02\x00")
            assert site(tmp_path, address).open() == ()
            assert silent.recv(1) == b""
            give_up_s = time.monotonic() + 60
            with pytest.raises(OSError):
                while time.monotonic() < give_up_s:
                    slow.sendall(b"\x01")
                    time.sleep(0.2)
        assert site(tmp_path, address).open() == ()


def test_a_key_that_is_locked_or_open_to_all_is_told(tmp_path: Path) -> None:
    write(tmp_path, password=b"secret")
    with pytest.raises(SpecError, match="needs a password"), listening(tmp_path):
        pass
    write(tmp_path)
    (tmp_path / "server.pem").chmod(0o644)
    with pytest.raises(SpecError, match="chmod 640"), listening(tmp_path):
        pass
    (tmp_path / "server.pem").unlink()
    with pytest.raises(SpecError, match="No such file"), listening(tmp_path):
        pass
