"""Boards whose SSH server is set up otherwise than most: they work, or one true sentence says what to change."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from board_kit import MACHINE_WAIT_S, OUTPUTS_ONLY, make_job
from fault_kit import local_board, need_program
from sshd_kit import Account, need_shell, odd_sshd

from edgedeploy.boards.emulated.board import make_key
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.files import CatFiles, SftpFiles
from edgedeploy.boards.ssh.quoting import command_line
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import CommandFailed, HostKeyError, Unreachable

pytestmark = pytest.mark.beside

NOISY = Account(files=((".bashrc", "echo Welcome to the board\necho '{ not ours'\necho and to stderr >&2\n"),))


def measures(target: SshTarget, folder: Path) -> None:
    """A whole job on this server: the agent is pushed, the board held, files go up and outputs come back."""
    made: list[SshTransport] = []

    def connect() -> SshTransport:
        made.append(SshTransport(target))
        return made[-1]

    board = local_board(folder / "root", connect, python=sys.executable, wait_s=MACHINE_WAIT_S)
    with board.session() as session:
        run = session.measure(make_job(folder / "job", plan=OUTPUTS_ONLY), folder)
    assert run.outputs is not None and run.outputs.stat().st_size > 1000
    assert len(made) == 1, "the connection was lost and made again"


@pytest.mark.parametrize("shell", [("tcsh", "csh"), ("dash", "sh"), ("zsh",), ("ksh", "mksh")])
def test_any_login_shell_runs_the_agent(shell: tuple[str, ...], tmp_path: Path) -> None:
    with odd_sshd(account=Account(need_shell(*shell))) as target:
        measures(target, tmp_path)


@pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "zsh"])
def test_every_shell_takes_a_command_line_apart_alike(shell: str) -> None:
    arguments = ["a b", "$(id)", ";", "it's !5 and !! and a!b", "back\\slash", '"', "*", "~", "", "`id`", "%s", "{a,b}"]
    program = "import sys; print(sys.argv[1:])"
    line = command_line([sys.executable, "-c", program, *arguments])
    done = subprocess.run([need_shell(shell), "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == f"{arguments}\n"


@pytest.mark.parametrize("most", [1, 2])
def test_server_with_few_sessions_gets_more_connections(most: int, tmp_path: Path) -> None:
    with odd_sshd(f"MaxSessions {most}") as target:
        measures(target, tmp_path)


def test_server_without_sessions_is_one_sentence() -> None:
    with (
        odd_sshd("MaxSessions 0") as target,
        contextlib.closing(SshTransport(target)) as transport,
        pytest.raises(CommandFailed, match=r"opens none on a fresh connection.*MaxSessions 3"),
    ):
        transport.run(["true"], timeout_s=10)


WITHOUT_SFTP = ((), ("Subsystem sftp /nonexistent/sftp-server",))


@pytest.mark.parametrize("lines", WITHOUT_SFTP)
@pytest.mark.parametrize("account", [None, NOISY])
def test_server_without_sftp_moves_files_by_cat(
    lines: tuple[str, ...], account: Account | None, tmp_path: Path
) -> None:
    without = ("Subsystem", "SetEnv") if account else ("Subsystem",)
    with odd_sshd(*lines, without=without, account=account) as target:
        with contextlib.closing(SshTransport(target)) as transport:
            data = os.urandom(3_000_000)
            (tmp_path / "here").write_bytes(data)
            remote = str(tmp_path / "it's there!")
            transport.put(tmp_path / "here", remote, timeout_s=30)
            assert isinstance(transport._files(), CatFiles)
            transport.get(remote, tmp_path / "back", timeout_s=30)
            assert (tmp_path / "back").read_bytes() == data
            assert transport.read_bytes(str(tmp_path / "absent"), timeout_s=10) is None
            transport.write_bytes(remote, b"small", timeout_s=10)
            assert transport.read_bytes(remote, timeout_s=10) == b"small"
            with pytest.raises(CommandFailed, match="longer than 3 bytes"):
                transport.read_bytes(remote, timeout_s=10, limit_bytes=3)
            with pytest.raises(CommandFailed, match=r"cat ended with status [12]"):
                transport.write_bytes(str(tmp_path / "nowhere" / "x"), b"x", timeout_s=10)
            transport.write_bytes(remote, b"and goes on", timeout_s=10)
        measures(target, tmp_path)


def test_sftp_that_ends_before_it_is_spoken_to_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server without its program does now and then: by how fast the machine is."""

    def closed(self: paramiko.SFTPClient, channel: paramiko.Channel) -> None:
        raise OSError("Socket is closed")

    monkeypatch.setattr(paramiko.SFTPClient, "__init__", closed)
    with odd_sshd() as target, contextlib.closing(SshTransport(target)) as transport:
        transport.write_bytes(str(tmp_path / "x"), b"x", timeout_s=10)
        assert isinstance(transport._files(), CatFiles)
    assert (tmp_path / "x").read_bytes() == b"x"


def test_sftp_is_taken_where_it_is(tmp_path: Path) -> None:
    with odd_sshd() as target, contextlib.closing(SshTransport(target)) as transport:
        transport.write_bytes(str(tmp_path / "x"), b"x", timeout_s=10)
        assert isinstance(transport._files(), SftpFiles)


def test_what_start_up_files_print_does_no_harm(tmp_path: Path) -> None:
    with odd_sshd(without=("SetEnv",), account=NOISY) as target:
        with contextlib.closing(SshTransport(target)) as transport:
            assert transport.run(["true"], timeout_s=10).stdout.startswith(b"Welcome"), "the shell is not noisy"
        measures(target, tmp_path)


def test_banner_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "banner").write_text("Property of the lab. \xfc\n" * 50, encoding="latin-1")
    with odd_sshd(f"Banner {tmp_path}/banner") as target:
        measures(target, tmp_path)


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false"])
def test_account_without_a_login_shell_is_one_sentence(shell: str, tmp_path: Path) -> None:
    if not Path(shell).exists():
        pytest.skip(f"no {shell} on this machine")
    with (
        odd_sshd(account=Account(shell)) as target,
        pytest.raises(CommandFailed, match="If its user has no login shell, give it one: chsh"),
    ):
        measures(target, tmp_path)


def test_forced_command_is_one_sentence(tmp_path: Path) -> None:
    with (
        odd_sshd("ForceCommand echo this and nothing else") as target,
        pytest.raises(CommandFailed, match=r"printed 'this and nothing else'.*ForceCommand"),
    ):
        measures(target, tmp_path)


def test_forced_command_that_runs_what_it_is_sent_works(tmp_path: Path) -> None:
    with odd_sshd('ForceCommand sh -c "$SSH_ORIGINAL_COMMAND"', without=("Subsystem",)) as target:
        measures(target, tmp_path)


@pytest.mark.parametrize("methods", ["publickey,password", "publickey,keyboard-interactive"])
def test_second_factor_is_one_sentence(methods: str) -> None:
    lines = (f"AuthenticationMethods {methods}", "PasswordAuthentication yes", "KbdInteractiveAuthentication yes")
    with odd_sshd(*lines, "UsePAM yes") as target, pytest.raises(Unreachable) as caught:
        SshTransport(target)
    assert "a second factor" in caught.value.found and methods.partition(",")[2] in caught.value.found
    assert "AuthenticationMethods publickey" in caught.value.remedy


def test_server_that_takes_no_keys_is_one_sentence() -> None:
    lines = ("PubkeyAuthentication no", "PasswordAuthentication yes")
    with odd_sshd(*lines) as target, pytest.raises(Unreachable, match=r"takes no keys, but .*password"):
        SshTransport(target)


def wait_until_it_listens(place: Path, limit_s: float = 30.0) -> None:
    """Raises ``OSError`` when nothing accepts a connection at this socket within ``limit_s``."""
    give_up_s = time.monotonic() + limit_s
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(str(place))
            return
        except OSError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.02)


@pytest.fixture
def full_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real key agent with eight keys that no server knows."""
    program, add = need_program("ssh-agent", "openssh-client"), need_program("ssh-add", "openssh-client")
    place = tmp_path / "agent.sock"
    agent = subprocess.Popen([program, "-D", "-a", str(place)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        wait_until_it_listens(place)
        for number in range(8):
            make_key(tmp_path / f"stranger{number}")
            subprocess.run([add, "-q", str(tmp_path / f"stranger{number}")], check=True, capture_output=True)
        yield place
    finally:
        agent.terminate()
        agent.wait()


def config_of(target: SshTarget, *lines: str) -> SshTarget:
    """The same server by an alias of the configuration, without the table's own key."""
    assert target.home is not None
    (target.home / ".ssh").mkdir(exist_ok=True)
    text = f"Host cart\n  HostName {target.host}\n  Port {target.port}\n  User {target.user}\n"
    (target.home / ".ssh" / "config").write_text(text + "".join(f"  {line}\n" for line in lines))
    return SshTarget(host="cart", known_hosts=target.known_hosts, home=target.home)


def greets(target: SshTarget) -> bool:
    with contextlib.closing(SshTransport(target)) as transport:
        return transport.run(["echo", "here"], timeout_s=10).stdout == b"here\n"


def test_named_key_is_tried_before_a_full_agent(full_agent: Path) -> None:
    """One try is all that the server allows."""
    with odd_sshd("MaxAuthTries 1") as target:
        assert greets(target), "named by the board's table"
        assert greets(config_of(target, f"IdentityFile {target.identity}")), "named by the configuration"
        assert greets(config_of(target, f"IdentityFile {target.identity}", "IdentitiesOnly yes"))


def test_server_that_ends_the_login_says_how_to_name_the_key(full_agent: Path) -> None:
    with odd_sshd("MaxAuthTries 2") as target:
        with pytest.raises(Unreachable, match=r"after 2 of the keys \(its MaxAuthTries\).*identity = ") as caught:
            SshTransport(config_of(target))
        assert "agent key" in caught.value.found
        with pytest.raises(Unreachable, match="accepts none of the keys"):
            SshTransport(replace(config_of(target, "IdentityAgent none")))


def test_key_with_a_passphrase_is_taken_from_the_agent(full_agent: Path, tmp_path: Path) -> None:
    """Named, and held by the agent: it is tried first, although the file itself cannot be used here."""
    keygen, add = need_program("ssh-keygen", "openssh-client"), need_program("ssh-add", "openssh-client")
    with odd_sshd("MaxAuthTries 1") as target:
        assert target.home is not None
        locked = target.home / "locked"
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(locked)], check=True)
        subprocess.run([add, "-q", str(locked)], check=True, capture_output=True)
        subprocess.run([keygen, "-q", "-p", "-N", "secret", "-f", str(locked)], check=True, capture_output=True)
        (target.home / "authorized_keys").write_text(Path(f"{locked}.pub").read_text())
        assert greets(config_of(target, f"IdentityFile {locked}", "IdentitiesOnly yes"))
        locked.unlink()
        assert greets(config_of(target, f"IdentityFile {locked}", "IdentitiesOnly yes")), "the public half is enough"
        other = config_of(target, f"IdentityFile {locked}", f"IdentityAgent {full_agent}", "IdentitiesOnly yes")
        del os.environ["SSH_AUTH_SOCK"]
        assert greets(other), "an agent that the configuration names"


def test_host_certificate_of_a_known_authority_is_enough(tmp_path: Path) -> None:
    keygen = need_program("ssh-keygen", "openssh-client")
    make_key(tmp_path / "made")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "ca")], check=True)
    lines = ("HostKey {folder}/host_key", "HostCertificate {folder}/host_key-cert.pub")
    authority = " ".join((tmp_path / "ca.pub").read_text().split()[:2])
    for names, pattern, wrong in (
        ("127.0.0.1", "127.0.0.*", ""),
        ("elsewhere", "*", "its certificate is for elsewhere"),
    ):
        with odd_sshd() as plain:
            assert plain.home is not None and plain.known_hosts is not None
            sign = [keygen, "-q", "-s", str(tmp_path / "ca"), "-I", "b", "-h", "-n", names]
            with signed_sshd(sign, lines) as target:
                assert target.known_hosts is not None
                Path(target.known_hosts).write_text(
                    f"@cert-authority [{pattern}]:{target.port},{pattern} {authority}\n"
                )
                if not wrong:
                    assert greets(target)
                    continue
                with pytest.raises(HostKeyError, match=wrong):
                    SshTransport(target)


@contextlib.contextmanager
def signed_sshd(sign: list[str], lines: tuple[str, ...]) -> Iterator[SshTarget]:
    """A server whose host key is signed before it starts."""
    import sshd_kit

    usual = sshd_kit.session_folder

    @contextlib.contextmanager
    def with_certificate(prefix: str) -> Iterator[Path]:
        with usual(prefix) as folder:
            subprocess.run([*sign, str(folder / "host_key.pub")], check=True, capture_output=True)
            yield folder

    sshd_kit.session_folder = with_certificate
    try:
        with odd_sshd(*lines, without=("HostKey",)) as target:
            yield target
    finally:
        sshd_kit.session_folder = usual


def test_alias_and_files_of_the_configuration_say_which_key_is_trusted(tmp_path: Path) -> None:
    """A port, an alias, two files of the user's, a broken line of another host, and in the end a revoked key."""
    with odd_sshd() as target:
        assert target.known_hosts is not None
        _, key_type, blob = Path(target.known_hosts).read_text().split()[:3]
        one, two = tmp_path / "one", tmp_path / "two"
        one.write_text("elsewhere ssh-ed25519 AAAA!!!\n")
        two.write_text(f"shel? {key_type} {blob}\n")
        lines = (f"IdentityFile {target.identity}", f"UserKnownHostsFile {one} {two}", "GlobalKnownHostsFile none")
        aliased = replace(config_of(target, *lines, "HostKeyAlias shelf"), known_hosts=None)
        assert greets(aliased)
        one.write_text(f"@revoked * {key_type} {blob}\n")
        with pytest.raises(HostKeyError, match=f"{one}, line 1 has revoked"):
            SshTransport(aliased)
        with pytest.raises(HostKeyError, match="has revoked"):
            SshTransport(replace(config_of(target, *lines), known_hosts=None))


def test_server_with_several_keys_shows_the_one_on_record(tmp_path: Path) -> None:
    keygen = need_program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(tmp_path / "rsa")], check=True)
    with odd_sshd(f"HostKey {tmp_path / 'rsa'}") as target:
        assert target.known_hosts is not None
        public = " ".join((tmp_path / "rsa.pub").read_text().split()[:2])
        Path(target.known_hosts).write_text(f"[127.0.0.1]:{target.port} {public}\n")
        with contextlib.closing(SshTransport(target)) as transport:
            assert transport.host_key.startswith("ssh-rsa SHA256:")
