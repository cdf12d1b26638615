"""Speaks to the agent of one board: brings it there, runs its commands, turns its faults into errors."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.boards.agent import answers
from edgedeploy.boards.agent.answers import Installed, plain
from edgedeploy.boards.agent.broken import remedy_for
from edgedeploy.boards.agent.file import agent_file
from edgedeploy.errors import (
    BundleError,
    Busy,
    CommandFailed,
    DidNotRun,
    EdgeDeployError,
    Hung,
    MeasurementError,
    Rebooted,
    Unreachable,
    Unstable,
)
from edgedeploy.interfaces.board import Completed, Transport
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.runtime import OLDEST_PYTHON

COMMAND_TIMEOUT_S: Final = 15.0

BOOTSTRAP: Final = """
import hashlib, json, os, subprocess, sys
if sys.version_info[:2] < OLDEST:
    names = ["python3.%d" % minor for minor in range(29, OLDEST[1] - 1, -1)]
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    others = [os.path.join(folder, name) for name in names for folder in folders]
    def runs(path):
        if not os.access(path, os.X_OK):
            return False
        null = open(os.devnull, "r+b")
        check = "import sys; sys.exit(sys.version_info < OLDEST)"
        return subprocess.call([path, "-c", check], stdin=null, stdout=null, stderr=null) == 0
    others = [path for path in others if runs(path)]
    print(json.dumps({"python": list(sys.version_info[:3]), "others": others[:5]}))
    sys.exit()
root, sha256 = os.path.abspath(os.path.expanduser(sys.argv[1])), sys.argv[2]
path = os.path.join(root, "agents", sha256)

def digest(folder):
    names = []
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        names += [os.path.relpath(os.path.join(base, name), folder) for name in files]
    total = hashlib.sha256()
    for name in sorted(names):
        with open(os.path.join(folder, name), "rb") as stream:
            data = stream.read()
        total.update(("%s %d\\n" % (name, len(data))).encode() + data)
    return total.hexdigest()

def unpack(data):
    import fcntl, io, shutil, uuid, zipfile
    part = path + ".part-" + uuid.uuid4().hex
    try:
        zipfile.ZipFile(io.BytesIO(data)).extractall(part)
        alone = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            fcntl.flock(alone, fcntl.LOCK_EX)
        except OSError:
            pass
        if digest(part) == sha256 and digest(path) != sha256:
            shutil.rmtree(path, ignore_errors=True)
            os.replace(part, path)
        os.close(alone)
    except zipfile.BadZipFile:
        pass
    finally:
        shutil.rmtree(part, ignore_errors=True)

data = sys.stdin.buffer.read()
try:
    for name in ("agents", "blobs", "jobs"):
        os.makedirs(os.path.join(root, name), mode=0o700, exist_ok=True)
    if data:
        unpack(data)
    answer = {"here": digest(path) == sha256, "root": root, "path": path}
except OSError as exc:
    answer = {"problem": str(exc)}
print(json.dumps(answer))
""".replace("OLDEST", str(OLDEST_PYTHON))
ONE_LINE: Final = f"import base64; exec(base64.b64decode('{base64.b64encode(BOOTSTRAP.encode()).decode()}'))"
"""Any Python from 2.7 on can parse it: one that is too old for the agent says so, names those beside it that are not, and
touches nothing. It unpacks the agent when it is sent along, and says whether the right one is there. Of two hosts that bring
it at once one waits, where its file system has locks: it had removed what the other one had brought and used already. The
agent lies there as files and not as a zip, so that Python keeps its bytecode: compiling it anew cost each command 15 to
60 ms. csh takes no newline in an argument."""

_OLDEST: Final = ".".join(str(part) for part in OLDEST_PYTHON)
_NAME_ANOTHER: Final = (
    f"Name a Python of the board, {_OLDEST} or newer with numpy and its runtimes, in the board's table"
)

_NOT_OURS: Final = (
    "Let the commands that are sent run as they are: look for ForceCommand in the board's sshd_config, command= in its "
    "authorized_keys, and for a Python that prints at its end"
)

_BOARD_CAUSES: Final = {
    "runtime_missing": "Install the runtime for the Python that the board's table names",
    "runtime_too_old": "Install a newer one for the Python that the board's table names, or export an older kind of file",
    "disk_full": "Free space on the board",
    "corrupt_blob": "The damaged file was removed from the board; run it again",
    "bad_job": "The agent and this program disagree; install one version of edgedeploy",
    "codec_missing": "On the board: pip install imagecodecs, for the Python that the board's table names",
    "codec_differs": "Install the host's imagecodecs on the board, or leave the codec out of [space]",
    "unfit_stages": "In [measure.realtime], name only stages that fit the task's arrays",
    "power_mode_refused": "Ask for a mode that the board has, or let the board's user set it without a password (sudoers)",
    "no_such_cores": "Name cores that the board has and its user may use, in its table: cores = [...]",
    "supervisor_died": "The run ended without a word: look for a reboot or the kernel's out-of-memory killer; run it again",
    "internal": "This is a bug of the agent; the board's log above says where",
}
_HOLDER_CAUSES: Final = {
    "busy": "Wait until the board is free, or give it more time to become free",
    "stale_token": "Somebody else has had the board since; run it again",
    "lease_lost": "Somebody else has had the board since; run it again",
}
_OUTPUT_CAUSES: Final = {
    "non_finite": "Do not ship this artifact",
    "constant_output": "Do not ship this artifact",
}
_LIMIT_CAUSES: Final = {
    "memory_limit": "Take a smaller model, or give variants more in the board's table: memory = ...",
}
_RUN_CAUSES: Final = {
    "open_failed": "The board's runtime cannot load this artifact; compare its version with the one that built it",
    "run_failed": "The board's runtime cannot run this artifact",
    "memory_exceeded": "Take a smaller model, or a board with more memory",
    "killed_at_limit": "Memory is the likely cause: take a smaller model, or a board with more memory",
    "killed": "Look on the board for who ends processes: a watchdog, a limit of its system, somebody by hand",
    "worker_crashed": "The runtime crashed on this artifact; the board's log says more",
    "unfit_batch": "Leave max_batch out of [space]: this model mixes up the requests of a batch",
    "time_limit": "Allow the run more time, or ask for fewer queries",
}
_CONDITIONS: Final = {
    "memory_taken": "End what uses the board's memory, or give it more, then run it again",
}
_KINDS: Final[Mapping[type[EdgeDeployError], Mapping[str, str]]] = {
    CommandFailed: _BOARD_CAUSES,
    Busy: _HOLDER_CAUSES,
    Rebooted: {"rebooted": "Its job is lost; run it again"},
    Hung: {"hung": "Turn the board off and on"},
    DidNotRun: _RUN_CAUSES,
    Unstable: _CONDITIONS,
    MeasurementError: {**_OUTPUT_CAUSES, **_LIMIT_CAUSES},
}


def error_of(asked: str, cause: str, message: str, side: str = "candidate") -> EdgeDeployError:
    """An agent's fault as this project's error: about the board, about who holds it, or about the artifact. ``side`` is
    the one that failed: what the baseline did says nothing about the candidate."""
    found = f"{cause}: {message}"
    if side == "baseline" and any(cause in causes for causes in (_RUN_CAUSES, _OUTPUT_CAUSES, _CONDITIONS)):
        return CommandFailed(
            asked, found, "The baseline failed, not the candidate: see to the board, then run it again"
        )
    for kind, remedies in _KINDS.items():
        if cause in remedies:
            if issubclass(kind, MeasurementError):
                return kind(asked, found, remedies[cause], cause)
            return kind(asked, found, remedies[cause])
    return CommandFailed(asked, found, remedy_for(message) if cause == "runtime_broken" else "")


@dataclass(frozen=True)
class AgentClient:
    """An agent that is in place. ``root`` is its folder on the board, absolute; ``board`` the board's name for messages;
    ``timeout_s`` what one command may take."""

    transport: Transport
    board: str
    command: tuple[str, ...]
    root: str
    timeout_s: float = COMMAND_TIMEOUT_S

    @classmethod
    def install(
        cls,
        transport: Transport,
        *,
        board: str,
        python: str,
        root: str,
        timeout_s: float = COMMAND_TIMEOUT_S,
        sessions: Sequence[PackedSession] = (),
        cores: Sequence[int] = (),
    ) -> AgentClient:
        """Bring the agent with these sessions to the board unless it is there; it keeps to ``cores`` where some are given.
        Raises ``BoardError``."""
        agent = agent_file(tuple(sessions))
        argv = [python, "-c", ONE_LINE, root, agent.sha256]
        asked = f"board {board!r}: start its agent in {root}"
        answer = _bootstrap_answer(asked, python, transport.run(argv, timeout_s=timeout_s))
        if not answer.here:
            done = transport.run(argv, timeout_s=timeout_s, stdin=agent.data)
            answer = _bootstrap_answer(asked, python, done)
        if not answer.here:
            raise CommandFailed(asked, "the agent's file is damaged after the upload", "Check the board's disk")
        kept_to = ("--cores", ",".join(map(str, cores))) if cores else ()
        return cls(transport, board, (python, answer.path, "--root", answer.root, *kept_to), answer.root, timeout_s)

    def call(self, *arguments: str, stdin: bytes = b"", timeout_s: float | None = None) -> dict[str, Any]:
        """One command's answer. Raises the agent's fault as an error, ``CommandFailed`` when it gave no answer, and
        ``Unreachable`` when it is not known whether it ran: every command may be given again."""
        done = self.transport.run([*self.command, *arguments], timeout_s=timeout_s or self.timeout_s, stdin=stdin)
        asked = f"board {self.board!r}: {arguments[0]}"
        if done.exit_status is None and not done.stdout:
            raise Unreachable(asked, "the command ended without an exit status: it may have run or not", "Run it again")
        return answer_of(asked, done.stdout, done)

    def product(self, *arguments: str, timeout_s: float) -> dict[str, Any]:
        """The last answer of a product's command, which has no root of the agent. Raises as :meth:`call`, and
        ``BundleError`` for a bundle that is refused there."""
        done = self.transport.run([*self.command[:2], *arguments], timeout_s=timeout_s)
        asked = f"board {self.board!r}: {arguments[0]} a bundle"
        if done.exit_status is None and not done.stdout:
            raise Unreachable(asked, "the command ended without an exit status: it may have run or not", "Run it again")
        answer = answer_of(asked, done.stdout, done)
        if "refused" in answer:
            told = answers.read(answers.Refused, asked, answer)
            raise BundleError(asked, plain(f"{told.refused}: {told.message}"), plain(told.remedy))
        return answer


def answer_of(asked: str, text: bytes, done: Completed | None = None) -> dict[str, Any]:
    """The JSON that an agent printed last; raises its fault as an error. Start-up files of the board's shell may have
    printed something before."""
    try:
        answer = last_object(text)
    except (ValueError, RecursionError) as exc:
        said = _said(done.stderr) if done else ""
        status = f"exit status {done.exit_status}" if done else "no exit status"
        found = said or _said(text, first=True) or "silence"
        raise CommandFailed(asked, f"the agent gave no answer ({status}): {found}") from exc
    if "fault" in answer:
        fault = answers.read(answers.Fault, asked, answer)
        told = error_of(asked, plain(fault.fault), plain(fault.message))
        # A command runs no artifact: a process of the agent's own that lacks memory says nothing about one.
        raise CommandFailed(asked, told.found, told.remedy) if isinstance(told, MeasurementError) else told
    return answer


def last_object(text: bytes) -> dict[str, Any]:
    """The JSON object on the last line. Raises ``ValueError`` and ``RecursionError``."""
    return answers.object_of(text.rstrip(b"\n").rpartition(b"\n")[2])


def _said(data: bytes, *, first: bool = False) -> str:
    """The end (or the beginning) of what a command printed, for people."""
    part = data[:2000] if first else data[-2000:]
    return plain(part.decode("utf-8", errors="replace").strip())[-500:]


def _bootstrap_answer(asked: str, python: str, done: Completed) -> Installed:
    said = _said(done.stderr or done.stdout)
    if done.exit_status != 0:
        remedy = f'{_NAME_ANOTHER}: python = "/path/to/python3"'
        if "not available" in said or (not said and done.exit_status == 1):  # nologin; false
            remedy = f"If its user has no login shell, give it one: chsh -s /bin/sh. Else: {remedy}"
        found = f"{python} did not run (exit status {done.exit_status}): {said or 'silence'}"
        raise CommandFailed(asked, found, remedy)
    try:
        answer = answers.installed(asked, last_object(done.stdout))
    except (ValueError, RecursionError) as exc:
        if not done.stdout.strip():
            found = f"{python} answered nothing: it is no Python"
            raise CommandFailed(asked, found, f'{_NAME_ANOTHER}: python = "/path/to/python3"') from exc
        raise CommandFailed(asked, f"{python} printed {said!r}", _NOT_OURS) from exc
    if answer.problem:
        raise CommandFailed(asked, answer.problem, "Free space there, or name another folder: root = ...")
    if answer.python:
        version, others = ".".join(str(n) for n in answer.python), answer.others
        found = f"{python} is Python {version}, and the agent needs {_OLDEST} or newer"
        found += f"; the board also has {', '.join(others)}" if others else ""
        raise CommandFailed(asked, found, f'{_NAME_ANOTHER}: python = "{next(iter(others), "/path/to/python3")}"')
    return answer
