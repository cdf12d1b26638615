"""Kills what a study is made of again and again, prints JSON: ``python kills.py STUDY FOLDER KILLS SEED``.

The study runs on a board behind a real sshd. At random moments one of these gets SIGKILL, each as often as the others:
the host's process, the agent's supervisor of the job, the worker that runs the candidate, the sshd process of the
connection, the sshd that listens (which is started again, as a service manager does). A killed host is started again
with ``resume``. Every run is a fork of this process, which has imported everything and started nothing: a real process
is killed without paying for its imports a hundred times.

First the study runs undisturbed. Each study that was killed must end with the same front, byte for byte, and the same
variants with the same artifacts, scores of cases and parity. Times are a STAND-IN (``tests/stand_in_times.py``), or no
two runs could be compared; of a measurement nothing else is left out but when it was made, how long uploads and waiting
took, and the identity of the boot. After each kill the evidence that was there must be there unchanged. The first thing
that is wrong ends this program.

With ``--boards=NAME,NAME`` the study runs on several; which of them measured what is then left out too.

A worker is killed at most once under one run between two outcomes: killed twice, it would be the variant's failure by
the rules. With ``--patient`` the product's own pauses hold; without, a job that says nothing is asked after half a
second and an attempt is repeated at once, which takes nothing from what has to be true and minutes from the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import nncf  # noqa: F401  (imported before the forks)
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import openvino  # noqa: F401
import optuna
import torch
import torch_pruning  # noqa: F401
from fault_kit import local_board, running_jobs, workers_of
from restarted_sshd import RestartedSshd, restarted_sshd
from stand_in_times import standing_in

import edgedeploy
from edgedeploy.boards import open as opening
from edgedeploy.boards.agent.session import BoardOptions, RemoteSession
from edgedeploy.boards.care.attempts import Patience
from edgedeploy.errors import BoardError
from edgedeploy.study import run
from edgedeploy.study.account import summarise
from edgedeploy.study.front import read_front
from edgedeploy.study.store import Store

LONGEST_PAUSE_S: Final = 1.2
FOR_A_VICTIM_S: Final = 20.0
SLOWEST_RUN_S: Final = 240.0
DAEMON_AWAY_S: Final = 0.2
BOARD_STATUS: Final = 3
"""A run's exit status when its board failed more often than a run bears: it is taken up again, as a user would."""

MOMENTS: Final = ("created_utc", "phases_ns", "board")
"""What two measurements of the same thing may differ in."""

BOARDS: Final = next((word.partition("=")[2].split(",") for word in sys.argv if word.startswith("--boards=")), None)
"""The boards of the study, where it has several."""

VICTIMS: Final = ("host", "supervisor", "worker", "session", "daemon")


class Killer:
    """One study under fire. ``root`` is the board's folder."""

    def __init__(self, study: Path, root: Path, server: RestartedSshd, seed: int, patient: bool) -> None:
        self.study = study
        self.root = root
        self.server = server
        self.rng = random.Random(seed)
        self.hits: Counter[str] = Counter()
        self._turn: list[str] = []
        self._patient = patient
        self.disturbed = False
        """Whether something of the run under way was killed."""
        self._child = 0
        self._out = Path()
        self._worker_hit_at: int | None = None

    def begin(self, out: Path) -> None:
        self._out, self._worker_hit_at, self.disturbed = out, None, False
        self._child = os.fork()
        if self._child == 0:
            run_study(self.study, out, self._patient)

    def ended(self) -> int | None:
        """The exit status of the run, None while it goes on."""
        pid, status = os.waitpid(self._child, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self, limit_s: float, until: Callable[[], bool] = lambda: False) -> int | None:
        """The exit status of the run, None when it goes on after that time, or when ``until`` came true."""
        give_up_s = time.monotonic() + limit_s
        while (status := self.ended()) is None and time.monotonic() < give_up_s and not until():
            time.sleep(0.005)
        return status

    def next_victim(self) -> str:
        """In a random order all of them have their turn before one has it again."""
        self._turn = self._turn or self.rng.sample(VICTIMS, len(VICTIMS))
        return self._turn.pop()

    def strike(self, victim: str) -> int | None:
        """Kill it as soon as there is one, for a while. Returns the exit status of a run that ended meanwhile."""
        kill: Callable[[], bool] = getattr(self, f"_kill_{victim}")

        def struck() -> bool:
            self.hits[victim] += (hit := kill())
            self.disturbed |= hit
            return hit

        return self.wait(FOR_A_VICTIM_S, struck)

    def _kill_host(self) -> bool:
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        return True

    def _kill_supervisor(self) -> bool:
        for job_id in running_jobs(self.root):
            with suppress(OSError, ValueError, KeyError):
                status = json.loads((self.root / "jobs" / job_id / "status.json").read_text())
                os.kill(int(status["supervisor"]["pid"]), signal.SIGKILL)
                return True
        return False

    def _kill_worker(self) -> bool:
        outcomes = len(evidence(self._out))
        if self._worker_hit_at == outcomes:
            return False
        for job_id in running_jobs(self.root):
            for pid in workers_of(job_id):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self._worker_hit_at = outcomes
                    return True
        return False

    def _kill_session(self) -> bool:
        return self.server.kill_session()

    def _kill_daemon(self) -> bool:
        self.server.kill_daemon(DAEMON_AWAY_S)
        return True


def run_study(study: Path, out: Path, patient: bool) -> None:
    """In the fork."""
    os.setpgid(0, 0)
    status = 1
    if not patient:
        opening.BoardOptions = partial(BoardOptions, unchanged_s=0.5, reconnect_pause_s=0.1)  # type: ignore[misc,assignment]
        run.Patience = partial(Patience, pause_s=0.05)  # type: ignore[misc,assignment]
    RemoteSession.measure = standing_in(RemoteSession.measure)  # type: ignore[method-assign]
    try:
        edgedeploy.load_study(study).run(
            edgedeploy.RunOptions(out=out, resume=True, boards=BOARDS or (), confirm=False)
        )
        status = 0
    except BoardError as exc:
        sys.stderr.write(f"{exc}\n")
        status = BOARD_STATUS
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def evidence(out: Path) -> dict[str, str]:
    folders = ("measurements", "failures", "invalid")
    paths = [path for folder in folders for path in (out / folder).glob("*.json")]
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def without_moments(out: Path) -> dict[str, Any]:
    """Every measurement but its moments, by variant."""
    kept = {item.digest: item.as_json() for item in Store(out).measurements()}
    return {digest: {k: v for k, v in item.items() if k not in MOMENTS} for digest, item in kept.items()}


def front_bytes(out: Path) -> bytes:
    front = read_front(out).as_json()
    if BOARDS is not None:
        for part in (front, *front["rows"]):
            part.pop("board")
        front.pop("processors")
    return json.dumps(front, sort_keys=True).encode()


def same(found: Any, wanted: Any, what: str) -> None:
    """Ends the program with the first place where the two differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        assert found.keys() == wanted.keys(), f"{what}: {sorted(found)} instead of {sorted(wanted)}"
        for key, value in wanted.items():
            same(found[key], value, f"{what} {key}")
    assert found == wanted, f"{what}: {str(found)[:300]} instead of {str(wanted)[:300]}"


def check_end(out: Path, undisturbed: Path, hits: int) -> dict[str, Any]:
    """What a finished study has to be, however often it was killed."""
    store = Store(out)
    assert not store.failures() and not store.invalid(), f"a kill was stored as a variant's: {sorted(evidence(out))}"
    same(without_moments(out), without_moments(undisturbed), "measurements")
    same(json.loads(front_bytes(out)), json.loads(front_bytes(undisturbed)), "front")
    assert front_bytes(out) == front_bytes(undisturbed)
    history = optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{store.optimiser_path}").trials
    told = {trial.user_attrs.get("variant") for trial in history if trial.state.name == "COMPLETE"}
    assert {item.digest for item in store.measurements()} <= told, "an outcome was not told to the optimiser"
    assert not [trial for trial in history if trial.state.name == "RUNNING"], "a trial is left running"
    assert not [path for path in out.rglob("*") if re.match(r"\.part-", path.name)], "half a file is left"
    runs = [entry for entry in store.times() if entry["phase"] == "evaluate"]
    wanted = len(store.measurements())
    assert wanted <= len(runs) <= wanted + hits, f"{len(runs)} evaluations of {wanted} variants after {hits} kills"
    return {"kills": hits, "variants": wanted, "evaluations": len(runs), "wall_s": summarise(store.times()).wall_s}


def check_board(root: Path) -> None:
    """Nobody holds the board, and nothing of a job is left."""
    with local_board(root, wait_s=5.0).session() as session:
        assert session.info.identity
    assert list(root.glob("jobs/*")) == []


def run_to_the_end(killer: Killer, out: Path, undisturbed: Path | None = None) -> None:
    """No more kills from here. A run that remembered a failure for itself alone is followed by another, as a user would do;
    so is the one under way, if its board had failed too often when the kills ended."""
    for _ in range(3 + killer.disturbed):
        status = killer.wait(SLOWEST_RUN_S)
        spent = killer.disturbed and status == BOARD_STATUS
        assert status == 0 or spent, f"an undisturbed run ended with status {status}"
        whole = undisturbed is None or without_moments(out).keys() == without_moments(undisturbed).keys()
        if whole and not spent:
            return
        killer.begin(out)
    raise SystemExit("a variant gave no number in three runs")


def under_fire(killer: Killer, out: Path, kills: int) -> int:
    """Run the study with at most ``kills`` kills; it goes on, or has ended, when they are spent. Returns how many there
    were."""
    known: dict[str, str] = {}
    killer.begin(out)
    before = killer.hits.total()
    while (done := killer.hits.total() - before) < kills:
        victim = killer.next_victim()
        status = killer.wait(killer.rng.uniform(0.0, LONGEST_PAUSE_S))
        if status is None:
            status = killer.strike(victim)
        if status == 0:
            break
        assert status in (None, BOARD_STATUS), f"a run failed with status {status}"
        now = evidence(out)
        changed = [name for name, digest in known.items() if now.get(name) != digest]
        assert not changed, f"evidence was lost or made again: {changed}"
        known = now
        sys.stderr.write(
            f"{time.monotonic():.1f} s: {victim} {'killed' if status is None else 'spared'}, {len(known)} kept\n"
        )
        if status is not None or victim == "host":
            killer.begin(out)
    return done


def main() -> None:
    study, folder = Path(sys.argv[1]), Path(sys.argv[2])
    kills, seed = int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    ends: list[dict[str, Any]] = []
    with restarted_sshd() as server:
        root = folder / "root"
        text = study.read_text(encoding="utf-8")
        for key in ("port", "identity", "known_hosts"):
            text = text.replace(f"@{key}@", str(getattr(server.target, key)))
        study.write_text(
            text.replace("@python@", sys.executable)
            .replace("@root@", str(root))
            .replace("@second@", str(folder / "second")),
            encoding="utf-8",
        )
        killer = Killer(study, root, server, seed, "--patient" in sys.argv[5:])
        undisturbed = folder / "undisturbed"
        killer.begin(undisturbed)
        run_to_the_end(killer, undisturbed)
        while killer.hits.total() < kills:
            out = folder / f"study-{len(ends)}"
            done = under_fire(killer, out, kills - killer.hits.total())
            if killer.hits.total() == kills or without_moments(out).keys() != without_moments(undisturbed).keys():
                if killer.ended() is not None:
                    killer.begin(out)
                run_to_the_end(killer, out, undisturbed)
            ends.append(check_end(out, undisturbed, done))
        before = evidence(out)
        killer.begin(out)
        run_to_the_end(killer, out)
        assert evidence(out) == before, "resuming a finished study changed its evidence"
        shutil.rmtree(undisturbed)
        for place in (root, folder / "second"):
            check_board(place)
    sys.stdout.write(json.dumps({"hits": killer.hits, "ends": ends}) + "\n")


if __name__ == "__main__":
    main()
