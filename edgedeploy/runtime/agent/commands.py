"""The agent's command line: ``python agent.pyz --root FOLDER COMMAND ...``, one JSON value a line on standard output.

    probe                                   what this machine is
    lease --owner TEXT --wait S             hold the board while heartbeat lines arrive on standard input
    commit PART:SHA256 ...                  uploaded parts become blobs
    start JOB SHA256:BYTES ...              start the job given as JSON on standard input, in the background; or say which of
                                            the blobs that it needs are missing, and the bytes free
    status JOB                              the job's status, corrected when its supervisor is gone
    worker FOLDER JOB SIDE [--cold | --case N]  (the supervisor's own) one artifact in a process of its own

    verify, activate, run                   a product's: see ``edgedeploy.runtime.bundle.commands``

``--cores 2,3`` before the command keeps it, and all that it starts, to these cores, which are leased apart from others.

A fault is ``{"fault": CAUSE, "message": TEXT}`` and exit status 3. Modules are imported by the command that needs them:
every command starts a process, on boards where that is slow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault, from_exception
from edgedeploy.runtime.files import Root, print_json

FAULT_STATUS = 3


PRODUCT = ("verify", "activate", "run")
"""Commands of :mod:`edgedeploy.runtime.bundle.commands`, which come first where the agent's own options would stand."""


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in PRODUCT:
        from edgedeploy.runtime.bundle.commands import main as product

        return product(argv)
    arguments = _parser().parse_args(argv)
    if arguments.command == "worker":
        from edgedeploy.runtime.agent.worker import work

        return work(Path(arguments.folder), arguments.side, arguments.cold, arguments.case)
    try:
        _keep_to(arguments.cores)
        answer = _answer(arguments)
        if answer is not None:
            print_json(answer)
    except Exception as exc:  # the host reads causes, not tracebacks
        with contextlib.suppress(RuntimeFault):  # where nobody hears it
            print_json(from_exception(exc, "internal").as_json())
        return FAULT_STATUS
    return 0


def _answer(arguments: argparse.Namespace) -> Any:
    root = Root(Path(arguments.root).expanduser())
    command = arguments.command
    if command == "probe":
        return _probe(arguments.cores)
    if command == "lease":
        return _lease(root, arguments)
    if command == "commit":
        from edgedeploy.runtime.agent import blobs

        return blobs.commit(root, [(part, sha256) for part, sha256 in _pairs(arguments)])
    from edgedeploy.runtime.agent import supervisor

    if command == "start":
        wanted = {sha256: int(size) for sha256, size in _pairs(arguments)}
        return supervisor.start(root, arguments.job, json.load(sys.stdin), wanted, arguments.cores)
    return {**supervisor.job_status(root, arguments.job), "log": supervisor.log_tail(root, arguments.job)}


def _cores(text: str) -> tuple[int, ...]:
    return tuple(int(core) for core in text.split(",") if core)


def _keep_to(cores: tuple[int, ...]) -> None:
    """Bind this process, and with it all that it starts, to leased cores. Raises :class:`RuntimeFault` ``no_such_cores``."""
    if not cores:
        return
    before = sorted(os.sched_getaffinity(0))
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cores)
    if os.sched_getaffinity(0) != {*cores}:
        os.sched_setaffinity(0, before)
        raise RuntimeFault("no_such_cores", f"cores {list(cores)} are asked for, and it has {before}")


def _pairs(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    return [(first, second) for first, _, second in (pair.rpartition(":") for pair in arguments.pairs)]


def _probe(cores: tuple[int, ...]) -> dict[str, Any]:
    from edgedeploy.runtime.agent.claim import claim_note, leased_note
    from edgedeploy.runtime.sensors.probe import probe

    found, told = probe(), [claim_note()]
    if cores:
        found["leased_cores"] = list(cores)
        told.append(leased_note(cores))
    return {**found, "notes": [*found["notes"], *filter(None, told)]}


def _lease(root: Root, arguments: argparse.Namespace) -> None:
    from edgedeploy.runtime.agent.lease import hold

    hold(
        root,
        owner=arguments.owner,
        wait_s=arguments.wait,
        resume=arguments.resume,
        grant=lambda lease: print_json({**lease, "probe": _probe(arguments.cores)}),
        heartbeat_limit_s=arguments.heartbeat_limit,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edgedeploy.runtime",
        description=f"Of bundles, for a product: {', '.join(PRODUCT)} (each has --help). All else is the measuring agent's.",
    )
    parser.add_argument("--root", default="~/.edgedeploy")
    parser.add_argument("--cores", type=_cores, default=())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("probe")
    lease = commands.add_parser("lease")
    lease.add_argument("--owner", required=True)
    lease.add_argument("--wait", type=float, default=0.0)
    lease.add_argument("--resume", type=int)
    lease.add_argument("--heartbeat-limit", type=float, required=True)
    commit, start = commands.add_parser("commit"), commands.add_parser("start")
    for command in (start, commands.add_parser("status")):
        command.add_argument("job")
    for command in (start, commit):
        command.add_argument("pairs", nargs="*")
    worker = commands.add_parser("worker")
    worker.add_argument("folder")
    worker.add_argument("job")
    worker.add_argument("side")
    worker.add_argument("--cold", action="store_true")
    worker.add_argument("--case", type=int)
    return parser
