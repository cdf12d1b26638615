"""How the user's own SSH set-up is honoured: ~/.ssh/config, jump servers, proxy commands, several host keys."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import need_sshd

from edgedeploy.boards.emulated.board import serve
from edgedeploy.boards.ssh.config import SshTarget, record_names, resolve
from edgedeploy.boards.ssh.hostkeys import KnownHosts, prefer_known
from edgedeploy.boards.ssh.quoting import command_line
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import SpecError
from edgedeploy.runtime.agent.claim import PLACE

pytestmark = pytest.mark.beside

RELAY = """
import os, socket, sys, threading
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def out():
    while data := link.recv(65536):
        os.write(1, data)
threading.Thread(target=out, daemon=True).start()
while data := os.read(0, 65536):
    link.sendall(data)
"""


def write_config(home: Path, text: str) -> None:
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "config").write_text(text, encoding="utf-8")


def whoami(target: SshTarget) -> bytes:
    with contextlib.closing(SshTransport(target)) as transport:
        return transport.run(["echo", "here"], timeout_s=10).stdout


def test_alias_of_the_config_stands_for_host_port_user_and_key(tmp_path: Path) -> None:
    with serve("embedded") as server:
        write_config(
            tmp_path,
            f"Host cart\n  HostName {server.host}\n  Port {server.port}\n  User {server.user}\n"
            f"  IdentityFile {server.identity}\n",
        )
        assert server.known_hosts is not None
        (tmp_path / ".ssh" / "known_hosts").write_text(Path(server.known_hosts).read_text())
        assert whoami(SshTarget(host="cart", home=tmp_path)) == b"here\n"


@pytest.mark.parametrize("kind", ["embedded", "sshd"])
def test_commands_find_the_place_that_the_server_was_started_in(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "sshd":
        need_sshd()
    monkeypatch.setenv(PLACE, "a-place-of-its-own")
    with serve(kind) as server, contextlib.closing(SshTransport(server)) as transport:
        assert transport.run(["printenv", PLACE], timeout_s=10).stdout == b"a-place-of-its-own\n"


@pytest.mark.parametrize("kind", ["embedded", "sshd"])
def test_jump_servers_are_passed_in_order(kind: str, tmp_path: Path) -> None:
    if kind == "sshd":
        need_sshd()
    with serve(kind) as first, serve("embedded") as second, serve("embedded") as last:
        servers = {"first": first, "second": second, "last": last}
        blocks = [
            f"Host {name}\n  HostName {server.host}\n  Port {server.port}\n  User {server.user}\n"
            f"  IdentityFile {server.identity}\n"
            for name, server in servers.items()
        ]
        write_config(tmp_path, "".join(blocks) + "  ProxyJump first,second\n")
        records = "".join(Path(str(server.known_hosts)).read_text() for server in servers.values())
        (tmp_path / ".ssh" / "known_hosts").write_text(records)
        target = SshTarget(host="last", home=tmp_path)
        assert [hop.port for hop in resolve(target).jumps] == [first.port, second.port]
        assert whoami(target) == b"here\n"


def test_proxy_command_stands_in_for_the_socket(tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(RELAY, encoding="utf-8")
    with serve("embedded") as server:
        write_config(tmp_path, f"Host *\n  ProxyCommand {sys.executable} {relay} %p\n")
        # The name does not resolve: only through the command can this host be reached.
        target = replace(server, host="board.invalid", home=tmp_path, known_hosts=str(tmp_path / "known_hosts"))
        record = Path(str(server.known_hosts)).read_text().replace("127.0.0.1", "board.invalid")
        (tmp_path / "known_hosts").write_text(record)
        assert whoami(target) == b"here\n"


def test_table_wins_over_the_config(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    write_config(tmp_path, "Host cart\n  HostName 10.0.0.9\n  Port 2200\n  User config\n  IdentityFile /elsewhere\n")
    found = resolve(SshTarget(host="cart", port=2222, user="table", identity=str(key), home=tmp_path))
    assert (found.host, found.port, found.user, found.identities) == ("10.0.0.9", 2222, "table", (key,))
    assert found.only_identities


@pytest.mark.parametrize("key", ["identity", "known_hosts"])
def test_named_file_that_does_not_exist_is_the_users_error(key: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"{key}.*absent"):
        resolve(replace(SshTarget(host="cart", home=tmp_path), **{key: str(tmp_path / "absent")}))


def test_algorithms_of_known_keys_are_asked_for_first(tmp_path: Path) -> None:
    import paramiko

    key = paramiko.RSAKey.generate(2048)
    path = tmp_path / "known_hosts"
    path.write_text(f"# a comment\n[cart]:2222 ssh-rsa {key.get_base64()}\n")
    known = KnownHosts((tmp_path / "absent", path), record_names("cart", 2222)).trusted()
    available = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]
    assert prefer_known(available, known) == ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256"]
    assert prefer_known(available, []) == available


def test_hashed_records_are_found(tmp_path: Path) -> None:
    import paramiko

    key = paramiko.RSAKey.generate(2048)
    path = tmp_path / "known_hosts"
    path.write_text(f"{paramiko.HostKeys.hash_host('cart')} ssh-rsa {key.get_base64()}\n")
    KnownHosts((path,), ("cart",)).check(key, "cart")


def test_command_line_quotes_every_argument() -> None:
    assert command_line(["a b", "$(id)", ";"]) == "exec 'a b' '$(id)' ';'"
