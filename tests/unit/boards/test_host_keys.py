"""known_hosts as OpenSSH reads it: over a table of files, what ``ssh-keygen -F`` finds in them."""

from __future__ import annotations

import base64
import logging
import subprocess
import time
from pathlib import Path

import paramiko
import pytest
from fault_kit import need_program

from edgedeploy.boards.ssh.certificates import check_certificate
from edgedeploy.boards.ssh.config import record_names
from edgedeploy.boards.ssh.hostkeys import KnownHosts, prefer_known
from edgedeploy.boards.ssh.records import read_records
from edgedeploy.errors import HostKeyError


def keygen(*argv: str | Path) -> str:
    program = need_program("ssh-keygen", "openssh-client")
    return subprocess.run([program, *map(str, argv)], capture_output=True, text=True, check=False).stdout


def make_key(path: Path, kind: str = "ed25519") -> tuple[paramiko.PKey, str]:
    """A key, and its public half as known_hosts has it."""
    keygen("-q", "-t", kind, "-N", "", "-f", path)
    return paramiko.PKey.from_path(path), " ".join(Path(f"{path}.pub").read_text().split()[:2])


HOSTS = ("cart", "cart.lab", "bad.lab", "10.0.0.7", "other")
PATTERNS = [
    "cart",
    "CART",
    "cart,10.0.0.7",
    "*.lab",
    "*.lab,!bad.lab",
    "!bad.lab,*.lab",
    "!bad.lab",
    "c?rt",
    "10.0.0.*",
    "*",
    "[cart]:22",
    "[cart]",
    "carts",
]


@pytest.mark.parametrize("patterns", PATTERNS)
def test_patterns_match_as_openssh_matches_them(patterns: str, tmp_path: Path) -> None:
    _, public = make_key(tmp_path / "key")
    file = tmp_path / "known_hosts"
    file.write_text(f"{patterns} {public}\n")
    for host in HOSTS:
        found = bool(KnownHosts((file,), record_names(host, 22)).trusted())
        assert found == bool(keygen("-F", host, "-f", file)), host


@pytest.mark.parametrize("name", ["cart", "[cart]:2222"])
def test_hashed_names_are_found(name: str, tmp_path: Path) -> None:
    key, public = make_key(tmp_path / "key")
    file = tmp_path / "known_hosts"
    file.write_text(f"{name} {public}\n")
    keygen("-H", "-f", file)
    assert file.read_text().startswith("|1|")
    KnownHosts((file,), (name,)).check(key, "cart")
    assert KnownHosts((file,), ("other",)).trusted() == []


def test_port_is_part_of_the_name_and_the_name_alone_counts_where_it_is_not_on_record(tmp_path: Path) -> None:
    key, public = make_key(tmp_path / "key")
    other, _ = make_key(tmp_path / "other")
    file = tmp_path / "known_hosts"
    file.write_text(f"cart {public}\n")
    KnownHosts((file,), record_names("cart", 2222)).check(key, "-p 2222 cart")
    with pytest.raises(HostKeyError, match="on record"):
        KnownHosts((file,), record_names("cart", 2222)).check(other, "-p 2222 cart")
    file.write_text(f"[cart]:2222 {public}\n")
    assert KnownHosts((file,), record_names("cart", 22)).trusted() == []


def test_revoked_key_is_a_hard_stop_even_where_it_is_known_too(tmp_path: Path) -> None:
    key, public = make_key(tmp_path / "key")
    file = tmp_path / "known_hosts"
    file.write_text(f"cart {public}\n@revoked * {public}\n")
    with pytest.raises(HostKeyError, match=r"known_hosts, line 2 has revoked"):
        KnownHosts((file,), ("cart",)).check(key, "cart")


@pytest.mark.parametrize("binary", [False, True])
def test_key_in_the_users_revocation_list_is_a_hard_stop(binary: bool, tmp_path: Path) -> None:
    """``RevokedHostKeys``, as a list of keys and as OpenSSH's binary one."""
    key, public = make_key(tmp_path / "key")
    other, other_public = make_key(tmp_path / "other")
    file, revoked = tmp_path / "known_hosts", tmp_path / "revoked"
    file.write_text(f"cart {public}\ncart {other_public}\n")
    revoked.write_text(f"{public}\n")
    if binary:
        keygen("-k", "-q", "-f", revoked, tmp_path / "key.pub")
    known = KnownHosts((file,), ("cart",), revoked)
    known.check(other, "cart")
    with pytest.raises(HostKeyError, match="revoked has revoked"):
        known.check(key, "cart")
    with pytest.raises(HostKeyError, match="has revoked"):
        KnownHosts((file,), ("cart",), tmp_path / "absent").check(other, "cart")


BROKEN = [
    "elsewhere ssh-ed25519 AAAAC3Nz!!!",
    "elsewhere ssh-ed25519",
    "elsewhere",
    "@unheard-of elsewhere ssh-ed25519 AAAA",
    "|1|short ssh-ed25519 AAAA",
    "|2|c2FsdA==|aGFzaA== ssh-ed25519 AAAA",
    "elsewhere 2048 65537 123456789",
    "@revoked",
    "elsewhere ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==",
    "<<<<<<< HEAD",
    "\x00\xff\xfe",
]


@pytest.mark.parametrize("line", BROKEN)
def test_broken_line_of_another_host_is_skipped_and_said(
    line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, public = make_key(tmp_path / "key")
    file = tmp_path / "known_hosts"
    file.write_bytes(f"{line}\ncart {public} a comment\n".encode("latin-1"))
    with caplog.at_level(logging.WARNING, "edgedeploy"):
        KnownHosts((file,), ("cart",)).check(key, "cart")
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}, line 1 is no record of a host key and was skipped"
    ]


def test_comments_blanks_and_keys_of_unknown_types_do_no_harm(tmp_path: Path) -> None:
    key, public = make_key(tmp_path / "key")
    name = b"sk-ssh-ed25519@openssh.com"
    odd = base64.b64encode(len(name).to_bytes(4, "big") + name + b"rest").decode()
    file = tmp_path / "known_hosts"
    file.write_text(f"# Gr\xfc\xdfe\n\n   \ncart {name.decode()} {odd}\n\tcart\t{public}\n", encoding="latin-1")
    records, broken = read_records(file)
    assert [record.key_type for record in records] == [name.decode(), "ssh-ed25519"] and broken == []
    KnownHosts((file,), ("cart",)).check(key, "cart")


def test_several_files_count_together(tmp_path: Path) -> None:
    key, public = make_key(tmp_path / "key")
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("")
    two.write_text(f"cart {public}\n")
    KnownHosts((tmp_path / "absent", tmp_path, one, two), ("cart",)).check(key, "cart")


def test_an_alias_is_told_how_to_be_recorded(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / "key")
    with pytest.raises(HostKeyError) as caught:
        KnownHosts((tmp_path / "known_hosts",), ("shelf",)).check(key, "-p 2222 10.0.0.7")
    assert "ssh-keyscan -p 2222 10.0.0.7 | sed 's/^[^ ]*/shelf/' >>" in caught.value.remedy


# -- certificates


def certified(folder: Path, *options: str, authority: str = "ca", kind: str = "ed25519") -> bytes:
    """The certificate, signed here by OpenSSH, of a new key; ``folder`` has the authority."""
    if not (folder / authority).is_file():
        make_key(folder / authority)
    path = folder / f"host{len(list(folder.iterdir()))}"
    make_key(path, kind)
    keygen("-q", "-s", folder / authority, "-I", "board", *options, f"{path}.pub")
    return base64.b64decode(Path(f"{path}-cert.pub").read_text().split()[1])


def blob_of(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_certificate_of_the_authority_holds(kind: str, tmp_path: Path) -> None:
    blob = certified(tmp_path, "-h", "-n", "cart,*.lab", kind=kind)
    authority = blob_of(tmp_path / "ca.pub")
    for name in ("cart", "CART", "x.lab"):
        assert check_certificate(blob, name, [authority]).problem == ""
    assert "is for cart, *.lab" in check_certificate(blob, "other", [authority]).problem


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("-n", "cart"), "a user's"),
        (("-h", "-n", "cart", "-V", "20200101:20210101"), "not valid now"),
        (("-h", "-n", "cart", "-V", "+1d:+2d"), "not valid now"),
        (("-h",), ""),
    ],
)
def test_certificate_that_does_not_hold_says_why(options: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    blob = certified(tmp_path, *options)
    found = check_certificate(blob, "cart", [blob_of(tmp_path / "ca.pub")]).problem
    assert problem in found and bool(found) == bool(problem)


def test_certificate_of_somebody_else_or_forged_is_refused(tmp_path: Path) -> None:
    blob = certified(tmp_path, "-h", "-n", "cart")
    certified(tmp_path, "-h", authority="other")
    assert "another authority" in check_certificate(blob, "cart", [blob_of(tmp_path / "other.pub")]).problem
    forged = blob[:-1] + bytes([blob[-1] ^ 1])
    assert "forged" in check_certificate(forged, "cart", [blob_of(tmp_path / "ca.pub")], time.time()).problem
    assert "cannot be read" in check_certificate(blob[:100], "cart", []).problem


def test_certificates_are_asked_for_where_an_authority_is_on_record(tmp_path: Path) -> None:
    _, public = make_key(tmp_path / "ca")
    file = tmp_path / "known_hosts"
    file.write_text(f"@cert-authority *.lab {public}\n")
    available = ["ssh-ed25519", "rsa-sha2-512"]
    trusted = KnownHosts((file,), ("cart.lab",)).trusted()
    certificates = ["ssh-ed25519-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com"]
    assert prefer_known(available, trusted) == [*certificates, *available]
    assert prefer_known(available, KnownHosts((file,), ("cart",)).trusted()) == available


def test_plain_key_is_refused_where_only_the_authority_is_known(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / "key")
    _, public = make_key(tmp_path / "ca")
    file = tmp_path / "known_hosts"
    file.write_text(f"@cert-authority * {public}\n")
    with pytest.raises(HostKeyError, match="no certificate of the authority on record"):
        KnownHosts((file,), ("cart",)).check(key, "cart")
