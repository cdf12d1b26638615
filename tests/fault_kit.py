"""What several tests of faults share: boards to hurt, networks to cut, boots to pretend. All of it cleans up behind it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from board_kit import MACHINE_WAIT_S, need_sshd
from restarted_sshd import board_config

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.emulated.board import find_sshd, make_key
from edgedeploy.boards.local import LocalTransport
from edgedeploy.boards.ssh.config import SshTarget, user_name
from edgedeploy.interfaces.board import Transport
from edgedeploy.runtime.agent.claim import Claim
from edgedeploy.runtime.processes import end_all_with_argument, start_ticks, with_argument

Found = TypeVar("Found")

_ANY = random.SystemRandom()
"""Test runs beside this one have networks of their own."""


def need_root(why: str) -> None:
    if os.getuid() != 0:
        pytest.skip(f"{why} needs root")


def need_program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"no {name} on this machine: apt-get install {package}")
    return found


def command(*argv: str | Path, input_text: str | None = None) -> None:
    subprocess.run([str(item) for item in argv], check=True, capture_output=True, text=True, input=input_text)


def wait_for(what: str, condition: Callable[[], Found], patience_s: float = 300.0) -> Found:
    """Look again and again; what was found. The patience is for a machine with much other work: it tells what hangs, not
    what is slow."""
    give_up_s = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < give_up_s, f"waited {patience_s} s for {what}"
        time.sleep(0.02)
    return found


def local_board(
    root: Path, connect: Callable[[], Transport] = LocalTransport, *, python: str = sys.executable, **options: object
) -> RemoteBoard:
    given = {"reconnect_pause_s": 0.0, "wait_s": MACHINE_WAIT_S, **options}
    settings = BoardOptions(python=python, root=str(root), **given)  # type: ignore[arg-type]
    return RemoteBoard("b", connect, provenance="measured", options=settings)


def inside(folder: Path, before: str) -> str:
    """A board's Python that does something to itself first."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\n{before}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


@dataclass(frozen=True)
class Gate:
    """A board's Python whose jobs' workers wait until they are let go: what is to hit a job that runs hits it, however late
    it comes."""

    python: str
    opened: Path

    def open(self) -> None:
        self.opened.touch()


def gate(folder: Path, closed_while: str = "true") -> Gate:
    """``closed_while`` is a condition of the shell: workers for which it is false do not wait."""
    opened = folder / "let go"
    waits = f"while [ ! -e '{opened}' ] && {closed_while}; do sleep 0.05; done"
    return Gate(inside(folder, f'case " $* " in *" worker "*) {waits};; esac'), opened)


@functools.cache
def agent_pace_s() -> float:
    """What this machine takes to look for the agent and have it answer: limits that a sound board keeps are multiples."""
    with tempfile.TemporaryDirectory(prefix="edgedeploy-pace-") as folder:
        board = local_board(Path(folder))
        board.probe()
        started_s = time.monotonic()
        board.probe()
        return time.monotonic() - started_s


def running_jobs(root: Path) -> list[str]:
    """Jobs whose status file says that they run, and that have a worker beside their supervisor."""
    found = []
    for path in root.glob("jobs/*/status.json"):
        with contextlib.suppress(OSError, ValueError):
            alive = set(with_argument(path.parent.name))
            if (
                json.loads(path.read_text())["state"] == "running"
                and len(alive) >= 2
                and alive & {*with_argument("worker")}
            ):
                found.append(path.parent.name)
    return found


def processes_of(job: Path) -> list[int]:
    """The supervisor and the workers of the job in a board's folder, without the commands that ask how it is. The board is
    this machine: in a container the supervisor has another number."""
    alive = set(with_argument(job.name))
    supervisor = json.loads((job / "status.json").read_text())["supervisor"]["pid"]
    return sorted(alive & {int(supervisor), *with_argument("worker")})


def living(job_id: str) -> list[int]:
    """The job's processes, without those that only wait to be reaped."""
    return [pid for pid in with_argument(job_id) if start_ticks(pid) is not None]


def workers_of(job_id: str, side: str = "candidate") -> list[int]:
    """The job's processes that run the candidate, or the baseline."""
    return sorted(set(with_argument(job_id)) & set(with_argument(side)))


def has_loaded(pid: int) -> bool:
    """Whether that worker is there and has its artifact in use. Workers come and go while they are looked at."""
    with contextlib.suppress(OSError):
        return "/inputs/0.npy" in Path(f"/proc/{pid}/maps").read_text()
    return False


@contextlib.contextmanager
def machine_claimed() -> Iterator[None]:
    """As long as another board's job would time something on this machine."""
    with Claim() as claim:
        wait_for("another test on this machine that is timing right now", claim.take, MACHINE_WAIT_S)
        yield


# -- reboots


@dataclass
class PretendedBoots:
    """SIMULATION of a reboot: a private mount puts a file of ours where the kernel tells the boot id, the job and the
    lease's holder are killed as a reboot does. The machine itself goes on."""

    python: str
    boot_id: Path
    root: Path

    def reboot(self) -> None:
        self.boot_id.write_text(f"{uuid.uuid4()}\n")
        lease = json.loads((self.root / "lease.json").read_text())
        for folder in list((self.root / "jobs").iterdir()):
            end_all_with_argument(folder.name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(lease["holder"]["pid"], 9)


def pretended_boots(folder: Path) -> PretendedBoots:
    need_root("a mount over the kernel's boot id")
    unshare = need_program("unshare", "util-linux")
    boot_id = folder / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    python = folder / "python"
    python.write_text(
        f"#!/bin/sh\nexec {unshare} -m sh -c "
        f'\'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec "$@"\' sh {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    if subprocess.run([str(python), "-c", "pass"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not allow a private mount over /proc/sys/kernel/random/boot_id")
    return PretendedBoots(str(python), boot_id, folder / "root")


# -- networks


@dataclass
class Cable:
    """The link to a board in a network namespace of its own, with a firewall on the board's side."""

    namespace: str
    target: SshTarget

    def _filter(self, *rules: str, answers: tuple[str, ...] = ()) -> None:
        """``rules`` are for what comes to the board, ``answers`` for what it says."""
        text = "table inet faults\ndelete table inet faults\n"
        if rules or answers:
            chains = (("input", rules), ("output", answers))
            text += "table inet faults {\n"
            for hook, wanted in chains:
                text += (
                    f"chain {hook} {{\ntype filter hook {hook} priority 0; policy accept;\n{'; '.join(wanted)}\n}}\n"
                )
            text += "}\n"
        command("ip", "netns", "exec", self.namespace, "nft", "-f", "-", input_text=text)

    def silence(self) -> None:
        """Packets vanish: the peer looks frozen."""
        self._filter(f"tcp dport {self.target.port} drop")

    def mute(self) -> None:
        """The board hears everything, and nothing that it says arrives."""
        self._filter(answers=(f"tcp sport {self.target.port} drop",))

    def reset(self) -> None:
        """Every packet is answered by a TCP reset."""
        self._filter(f"tcp dport {self.target.port} reject with tcp reset")

    def lose(self, percent: int) -> None:
        """In both directions."""
        lost = f"numgen random mod 100 < {percent} counter drop"
        self._filter(f"tcp dport {self.target.port} {lost}", answers=(f"tcp sport {self.target.port} {lost}",))

    def lost_packets(self) -> list[int]:
        """How many packets each rule of :meth:`lose` has taken so far."""
        argv = ["ip", "netns", "exec", self.namespace, "nft", "list", "table", "inet", "faults"]
        told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        return [int(found) for found in re.findall(r"counter packets (\d+)", told)]

    def mend(self) -> None:
        self._filter()


@contextlib.contextmanager
def board_behind_cable() -> Iterator[Cable]:
    """A real sshd in a network namespace, reached over a veth pair."""
    need_sshd()
    need_root("a network namespace")
    need_program("ip", "iproute2")
    need_program("nft", "nftables")
    number = _ANY.randrange(16384)
    name = f"ed{number}"
    ours, theirs = (f"10.213.{number // 64}.{number % 64 * 4 + host}" for host in (1, 2))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedeploy-netns-")))
        try:
            command("ip", "netns", "add", name)
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"this machine does not allow network namespaces: {exc.stderr}")
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        command("ip", "link", "add", f"{name}h", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        for prefix, device, address in (([], f"{name}h", ours), (["ip", "netns", "exec", name], f"{name}b", theirs)):
            command(*prefix, "ip", "addr", "add", f"{address}/30", "dev", device)
            command(*prefix, "ip", "link", "set", device, "up")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        host_key, client_key = make_key(folder / "host_key"), make_key(folder / "client_key")
        (folder / "authorized_keys").write_text(f"{client_key}\n")
        (folder / "known_hosts").write_text(f"[{theirs}]:2022 {host_key}\n")
        text = board_config(folder, 2022)
        (folder / "sshd_config").write_text(text.replace("ListenAddress 127.0.0.1", f"ListenAddress {theirs}"))
        server = subprocess.Popen(
            ["ip", "netns", "exec", name, str(find_sshd()), "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
        )
        stack.callback(server.wait)
        stack.callback(server.terminate)
        wait_for("sshd to listen", lambda: b"listening" in (folder / "log").read_bytes())
        target = SshTarget(
            host=theirs,
            port=2022,
            user=user_name(),
            identity=str(folder / "client_key"),
            known_hosts=str(folder / "known_hosts"),
            home=folder,
        )
        cable = Cable(name, target)
        try:
            cable.mend()
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"nft does not work here: {exc.stderr}")
        yield cable


# -- disks


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    need_root("mounting a small disk")
    need_program("mount", "mount")
    place.mkdir(exist_ok=True)
    try:
        command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"this machine does not allow mounts: {exc.stderr}")
    try:
        yield place
    finally:
        command("umount", "-l", place)


# -- control groups


@contextlib.contextmanager
def cgroup_v1(controller: str) -> Iterator[Path]:
    """A new group of an old-style controller."""
    need_root("a control group")
    place = Path("/sys/fs/cgroup") / controller
    if not (place / "tasks").is_file():
        pytest.skip(f"this machine has no cgroup v1 controller {controller!r} at {place}")
    group = place / f"edgedeploy-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    try:
        yield group
    finally:
        if controller == "freezer":
            (group / "freezer.state").write_text("THAWED")
        for line in (group / "tasks").read_text().split():
            with contextlib.suppress(OSError):
                (place / "tasks").write_text(line)
        group.rmdir()


def processes_after_kill(code: str, processes: Callable[[Path], list[int]]) -> list[int]:
    """Run Python ``code``, which prints its board's folder and waits, kill it, and see what is left of the board after at
    most a minute."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    try:
        assert processes(folder)
        process.kill()
        process.wait()
        give_up_s = time.monotonic() + 60
        while processes(folder) and time.monotonic() < give_up_s:
            time.sleep(0.05)
        return processes(folder)
    finally:
        process.kill()
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)
