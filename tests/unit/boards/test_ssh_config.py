"""Where a board's name leads: over a table of configurations, what ``ssh -G`` says of the same file."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgedeploy.boards.open import open_board
from edgedeploy.boards.ssh import openssh
from edgedeploy.boards.ssh.config import Endpoint, SshTarget, resolve
from edgedeploy.errors import SpecError

ME = getpass.getuser()


def need_ssh() -> None:
    if openssh.find_ssh() is None:
        pytest.skip("no ssh on this machine: apt-get install openssh-client")


def write_config(home: Path, text: str | bytes) -> Path:
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    path = home / ".ssh" / "config"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def ssh_says(config: Path, host: str) -> Mapping[str, str]:
    argv = ["ssh", "-G", "-F", str(config), host]
    done = subprocess.run(argv, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    lines = done.stdout.decode("utf-8", errors="replace").splitlines()
    return dict(line.partition(" ")[::2] for line in lines)


TABLE: list[tuple[str, str | bytes, str, dict[str, object]]] = [
    ("nothing", "", "cart", {"address": f"{ME}@cart:22", "record_names": ("cart",)}),
    ("names in capitals", "Host Cart\n  User u\n", "Cart", {"address": "u@cart:22", "record_names": ("cart",)}),
    ("include", "Include {home}/more*.conf\n", "cart", {"address": "inc@10.0.0.7:2201"}),
    ("include in a block", "Host cart\n  Include {home}/port.conf\n", "cart", {"port": 2202}),
    ("match host", "Match host cart,other\n  Port 2203\n", "cart", {"port": 2203}),
    ("match not host", "Match !host cart\n  Port 2203\n", "cart", {"port": 22}),
    (
        "match the name after HostName",
        "Host c\n  HostName cart.lab\nMatch host *.lab\n  User lab\nMatch originalhost c\n  Port 2204\n",
        "c",
        {"address": "lab@cart.lab:2204"},
    ),
    ("match final", "Match final host *.lab\n  Port 2205\n", "cart.lab", {"port": 2205}),
    ("match exec", 'Match exec "test %h = cart"\n  Port 2206\n', "cart", {"port": 2206}),
    ("match exec not", 'Match exec "test %h = other"\n  Port 2206\n', "cart", {"port": 22}),
    ("match user", "Match user ann\n  Port 2207\nHost *\n  User ann\n", "cart", {"user": "ann"}),
    ("match all", "Match all\n  Port 2208\n", "cart", {"port": 2208}),
    ("negated pattern", "Host * !cart\n  Port 1\nHost car?\n  Port 2209\n", "cart", {"port": 2209}),
    ("latin-1 comment", "# Gr\xfc\xdfe\nHost cart\n  Port 2210\n".encode("latin-1"), "cart", {"port": 2210}),
    ("equals signs and quotes", 'host=cart\n  hostname = "c.lab"\n  Port=2211\n', "cart", {"address": f"{ME}@c.lab:2211"}),
    ("tokens in HostName", "Host cart\n  HostName %h.lab.example\n", "cart", {"host": "cart.lab.example"}),
    ("alias with a port", "Host cart\n  Port 2212\n  HostKeyAlias shelf\n", "cart", {"record_names": ("shelf",)}),
    ("port", "Host cart\n  Port 2213\n", "cart", {"record_names": ("[cart]:2213", "cart")}),
    (
        "proxy command",
        "Host cart\n  HostName c.lab\n  Port 2214\n  User u\n  ProxyCommand relay %h %p %r %n %%\n",
        "cart",
        {"proxy_command": "relay c.lab 2214 u cart %"},
    ),
    ("no proxy command", "Host cart\n  ProxyCommand none\nHost *\n  ProxyCommand relay\n", "cart", {"proxy_command": None}),
    ("revoked keys", "RevokedHostKeys {home}/krl\n", "cart", {"revoked_keys": "{home}/krl"}),
    ("no agent", "IdentityAgent none\n", "cart", {"agent": None}),
    ("an agent of its own", "IdentityAgent {home}/agent.sock\n", "cart", {"agent": "{home}/agent.sock"}),
    ("only what is named", "IdentitiesOnly yes\n", "cart", {"only_identities": True}),
    ("two files of records", "UserKnownHostsFile {home}/one {home}/two\nGlobalKnownHostsFile none\n", "cart",
     {"known_hosts": ("{home}/one", "{home}/two")}),
    ("records in a path with a space", 'UserKnownHostsFile "{home}/a b" {home}/two\nGlobalKnownHostsFile {home}/three\n',
     "cart",
     {"known_hosts": ("{home}/a b", "{home}/two", "{home}/three")}),
    ("no records", "UserKnownHostsFile none\nGlobalKnownHostsFile none\n", "cart", {"known_hosts": ()}),
    ("own records", "GlobalKnownHostsFile none\n", "cart",
     {"known_hosts": ("{home}/.ssh/known_hosts", "{home}/.ssh/known_hosts2")}),
    ("keys", "IdentityFile {home}/key-%r\nUser ann\n", "cart", {"identities": ("{home}/key-ann",)}),
    ("half a key, of an agent", "IdentityFile {home}/half\n", "cart", {"identities": ("{home}/half",)}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "host", "wanted"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_configuration_is_what_openssh_makes_of_it(
    text: str | bytes, host: str, wanted: dict[str, object], tmp_path: Path
) -> None:
    need_ssh()
    (tmp_path / "more1.conf").write_text("Host cart\n  HostName 10.0.0.7\n  User inc\n  Port 2201\n")
    (tmp_path / "port.conf").write_text("Port 2202\n")
    for name in ("a b", "key-ann", "half.pub"):
        (tmp_path / name).touch()
    filled = text if isinstance(text, bytes) else text.replace("{home}", str(tmp_path))
    config = write_config(tmp_path, filled)
    found, said = resolve(SshTarget(host=host, home=tmp_path)), ssh_says(config, host)
    assert (found.host, str(found.port), found.user) == (said["hostname"], said["port"], said["user"])
    for name, value in wanted.items():
        shown = getattr(found, name)
        shown = tuple(str(item) for item in shown) if isinstance(shown, tuple) else shown
        shown = str(shown) if isinstance(shown, Path) else shown
        assert shown == _filled(value, tmp_path), name


def _filled(value: object, home: Path) -> object:
    if isinstance(value, tuple):
        return tuple(str(item).replace("{home}", str(home)) for item in value)
    return value.replace("{home}", str(home)) if isinstance(value, str) else value


def hops_of(found: Endpoint) -> list[str]:
    return [hop.address for hop in found.jumps]


JUMPS = [
    ("Host cart\n  ProxyJump u@gate:2222,[::1]:44,in\n", "cart", ["u@gate:2222", f"{ME}@::1:44", f"{ME}@in:22"]),
    ("Host cart\n  ProxyJump gate\nHost gate\n  ProxyJump outer\n  User g\n", "cart", [f"{ME}@outer:22", "g@gate:22"]),
    ("Host cart\n  ProxyJump a,b\nHost b\n  ProxyJump elsewhere\n  Port 7\n", "cart", [f"{ME}@a:22", f"{ME}@b:7"]),
    ("Host gate.lab\n  ProxyJump none\nHost *.lab\n  ProxyJump gate.lab\n", "cart.lab", [f"{ME}@gate.lab:22"]),
    ("Host *.lab !gate.lab\n  ProxyJump gate.lab\n", "cart.lab", [f"{ME}@gate.lab:22"]),
    ("Host cart\n  ProxyJump none\nHost *\n  ProxyJump gate\n", "cart", []),
]


@pytest.mark.parametrize(("text", "host", "hops"), JUMPS)
def test_jump_servers_are_reached_as_ssh_reaches_them(text: str, host: str, hops: list[str], tmp_path: Path) -> None:
    need_ssh()
    write_config(tmp_path, text)
    assert hops_of(resolve(SshTarget(host=host, home=tmp_path))) == hops


@pytest.mark.parametrize(
    "text",
    [
        "Host *.lab\n  ProxyJump gate.lab\n",
        "Host *\n  ProxyJump gate\n",
        "Host cart.lab\n  ProxyJump gate\nHost gate\n  ProxyJump cart.lab\n",
    ],
)
@pytest.mark.parametrize("with_ssh", [True, False])
def test_circle_of_jump_servers_is_one_sentence(
    text: str, with_ssh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ssh itself refuses it ("jumphost loop"); it was a RecursionError."""
    if with_ssh:
        need_ssh()
    else:
        monkeypatch.setattr(openssh, "find_ssh", lambda: None)
    write_config(tmp_path, text)
    with pytest.raises(SpecError, match=r"jumphost loop|a circle: cart\.lab -> gate"):
        resolve(SshTarget(host="cart.lab", home=tmp_path))


def test_first_jump_server_keeps_its_proxy_command(tmp_path: Path) -> None:
    need_ssh()
    write_config(tmp_path, "Host cart\n  ProxyJump gate\nHost gate\n  ProxyCommand relay %h\n")
    found = resolve(SshTarget(host="cart", home=tmp_path))
    assert [hop.proxy_command for hop in found.jumps] == ["relay gate"]
    assert found.proxy_command is None


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "--", "a;b", "$(id)", "a b", "a'b", ""])
def test_host_that_is_no_name_reaches_no_command_line(host: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="it is no host name"):
        resolve(SshTarget(host=host, home=tmp_path))


@pytest.mark.parametrize("user", ["-x", "a b", "$(id)", "a\nb"])
def test_user_that_is_no_name_reaches_no_command_line(user: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="it is no user name"):
        resolve(SshTarget(host="cart", user=user, home=tmp_path))


def test_configuration_that_ssh_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    need_ssh()
    write_config(tmp_path, "Host cart\n  HostNam 10.0.0.9\n")
    with pytest.raises(SpecError, match=r"line 2: Bad configuration option: hostnam.*ssh -G cart"):
        resolve(SshTarget(host="cart", home=tmp_path))


def pretended_ssh(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIMULATION of an ssh that is old or hangs."""
    program = folder / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(openssh, "find_ssh", lambda: str(program))


def test_ssh_that_cannot_be_asked_leaves_it_to_paramiko(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretended_ssh(tmp_path, 'echo "unknown option -- G" >&2; exit 255', monkeypatch)
    write_config(tmp_path, "Host cart\n  Port 2215\n")
    assert resolve(SshTarget(host="cart", home=tmp_path)).port == 2215


def test_ssh_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretended_ssh(tmp_path, "exec sleep 60", monkeypatch)
    monkeypatch.setattr(openssh, "ANSWER_S", 0.2)
    with pytest.raises(SpecError, match=r"timed out.*ssh -G cart"):
        resolve(SshTarget(host="cart", home=tmp_path))


def test_without_ssh_paramiko_reads_and_the_board_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "find_ssh", lambda: None)
    monkeypatch.setattr("edgedeploy.boards.open.find_ssh", lambda: None)
    text = "# Gr\xfc\xdfe\nHost cart\n  HostName c.lab\n  Port 2216\n  HostKeyAlias shelf\n"
    text += f"  IdentityFile {tmp_path}/key-%r\n"
    write_config(tmp_path, text.encode("latin-1"))
    (tmp_path / "key-ann").touch()
    found = resolve(SshTarget(host="cart", user="ann", home=tmp_path))
    assert (found.address, found.record_names) == ("ann@c.lab:2216", ("shelf",))
    assert found.identities == (tmp_path / "key-ann",)
    assert found.known_hosts[0] == tmp_path / ".ssh" / "known_hosts"
    board = open_board({"name": "cart", "kind": "ssh", "host": "cart"})
    assert openssh.NO_SSH in board._notes  # type: ignore[attr-defined]


def test_without_ssh_what_paramiko_does_not_know_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh, "find_ssh", lambda: None)
    write_config(tmp_path, "Match all host cart\n  Port 2217\n")
    with pytest.raises(SpecError, match="Install OpenSSH's client"):
        resolve(SshTarget(host="cart", home=tmp_path))


def test_without_ssh_a_port_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "find_ssh", lambda: None)
    write_config(tmp_path, "Host cart\n  Port 99999\n")
    with pytest.raises(SpecError, match=r"Port 99999\. Give a number from 1 to 65535"):
        resolve(SshTarget(host="cart", home=tmp_path))


def test_environment_stands_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_ssh()
    monkeypatch.setenv("LAB_KEYS", str(tmp_path))
    (tmp_path / f"{socket.gethostname()}-{os.getuid()}").touch()
    write_config(tmp_path, "IdentityFile ${LAB_KEYS}/%l-%i\n")
    assert len(resolve(SshTarget(host="cart", home=tmp_path)).identities) == 1
    monkeypatch.delenv("LAB_KEYS")
    with pytest.raises(SpecError, match=r"\$\{LAB_KEYS\} stands for nothing"):
        resolve(SshTarget(host="cart", home=tmp_path))
