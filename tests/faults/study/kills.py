"""Runs a study again and again and kills it each time, prints JSON: ``python kills.py STUDY FOLDER BOARDS KILLS SEED``.

The runs are forks of this process, which has imported everything and started nothing: a real process is killed with
SIGKILL, without paying for its imports a hundred times. When a study ends before it could be killed, a new one begins.
After each kill and at each end the evidence is looked at; the first thing that is wrong ends this program with a message.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import nncf  # noqa: F401  (imported before the forks)
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import openvino  # noqa: F401
import optuna
import torch
import torch_pruning  # noqa: F401

import edgedeploy
from edgedeploy.study.account import summarise
from edgedeploy.study.front import read_front
from edgedeploy.study.store import Store

LONGEST_S = 5.0
SLOWEST_RUN_S = 240.0
REPLAYED = ("study.json", "study.toml", "measurements", "failures")
"""What a front may depend on."""


def run_study(study: Path, out: Path, board: str) -> None:
    """In the fork."""
    os.setpgid(0, 0)
    status = 1
    try:
        edgedeploy.load_study(study).run(
            edgedeploy.RunOptions(out=out, resume=True, boards=board.split(","), confirm=False)
        )
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def killed(study: Path, out: Path, board: str, after_s: float) -> bool:
    """Whether the run was still going after that time; it is dead now."""
    child = os.fork()
    if child == 0:
        run_study(study, out, board)
    give_up_s = time.monotonic() + after_s
    while time.monotonic() < give_up_s:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            if status:
                raise SystemExit(f"a resumed run failed with status {status}")
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def evidence(out: Path) -> dict[str, str]:
    folders = ("measurements", "failures")
    paths = [path for folder in folders for path in (out / folder).glob("*.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def front_bytes(out: Path) -> bytes:
    return json.dumps(read_front(out).as_json(), sort_keys=True).encode()


def check_end(study: Path, out: Path, board: str, kills: int) -> dict[str, Any]:
    """What a finished study has to be, however often it was killed."""
    store = Store(out)
    found = evidence(out)
    wanted = edgedeploy.load_study(study).spec.budget.trials
    assert len(found) == wanted, f"{len(found)} of {wanted} variants have an outcome"
    history = optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{store.optimiser_path}").trials
    told = {trial.user_attrs.get("variant") for trial in history if trial.state.name in ("COMPLETE", "FAIL")}
    assert {name.removesuffix(".json") for name in found} <= told, "an outcome was not told to the optimiser"
    assert not [trial for trial in history if trial.state.name == "RUNNING"], "a trial is left running"
    assert not list(out.rglob(".part-*")), "half a file is left"
    runs = [entry for entry in store.times() if entry["phase"] == "evaluate"]
    assert wanted <= len(runs) <= wanted + kills, f"{len(runs)} evaluations of {wanted} variants after {kills} kills"

    front = front_bytes(out)
    replay = out.with_name(f"{out.name}-replay")
    replay.mkdir()
    for name in REPLAYED:
        source = out / name
        if source.is_dir():
            shutil.copytree(source, replay / name)
        elif source.exists():
            shutil.copy(source, replay / name)
    assert front_bytes(replay) == front, "the front that is replayed from the evidence differs"
    assert not killed(study, out, board, SLOWEST_RUN_S), "resuming a finished study does not end"
    assert evidence(out) == found, "resuming a finished study changed its evidence"
    assert front_bytes(out) == front, "resuming a finished study changed its front"
    shutil.rmtree(replay)
    return {"kills": kills, "evaluations": len(runs), "wall_s": summarise(store.times()).wall_s}


def main() -> None:
    study, folder, board = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    wanted, rng = int(sys.argv[4]), random.Random(int(sys.argv[5]))
    torch.set_num_threads(1)
    ends: list[dict[str, Any]] = []
    points: list[float] = []
    while len(points) < wanted:
        out, kills = folder / f"study-{len(ends)}", 0
        known: dict[str, str] = {}
        while True:
            last = len(points) == wanted
            after_s = SLOWEST_RUN_S if last else rng.uniform(0.05, LONGEST_S)
            if not killed(study, out, board, after_s):
                break
            assert not last, "the last run does not end"
            points.append(round(after_s, 3))
            kills += 1
            now = evidence(out)
            changed = [name for name, digest in known.items() if now.get(name) != digest]
            assert not changed, f"evidence was lost or made again: {changed}"
            known = now
        ends.append(check_end(study, out, board, kills))
    sys.stdout.write(json.dumps({"points_s": points, "ends": ends}) + "\n")


if __name__ == "__main__":
    main()
