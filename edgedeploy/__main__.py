"""``python -m edgedeploy`` and the ``edgedeploy`` command: a user's mistake is one line, a bug of ours a traceback."""

from __future__ import annotations

import atexit
import os
import sys

from edgedeploy.errors import DISK_REMEDIES, EdgeDeployError

EXIT_USAGE = 2
EXIT_STORAGE = 3


def main() -> None:
    """Run the command line. Exits 2 with the extra to install when the base install lacks what a command needs."""
    # Training shares the host with other work: threads that spin for long while they wait take its cores (six-fold CPU
    # time was seen), threads that never spin sleep at every layer (twice the time of a small network's step). A short
    # spin costs neither. Has to be set before torch loads its OpenMP library; who sets it otherwise keeps that.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before Python began: what nobody can read goes nowhere
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  # for as long as the process
    try:
        _run()
    except SystemExit as exc:
        _leave(exc)
        raise


def _run() -> None:
    try:
        from edgedeploy.cli.app import app

        app(prog_name="edgedeploy")  # also as `python -m edgedeploy`: shell completion asks by this name
    except EdgeDeployError as exc:
        _tell(str(exc))
        raise SystemExit(exc.exit_code) from None
    except ModuleNotFoundError as exc:
        if exc.name == "typer" and sys.argv[1:2] == ["unpack"]:
            from edgedeploy.cli.unpack import main as unpack  # a product's host has numpy alone

            raise SystemExit(unpack(sys.argv[2:])) from None
        if (exc.name or "").partition(".")[0] == "edgedeploy":
            raise
        _tell(f"this command needs the package {exc.name!r}: it is not installed. pip install 'edgedeploy[study]'")
        raise SystemExit(EXIT_USAGE) from None
    except OSError as exc:
        if exc.errno not in DISK_REMEDIES:  # most writers say more of it themselves
            raise
        where = exc.filename or "standard output or a file"
        _tell(f"write to {where}: {exc.strerror}. See to that disk, then run it again")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer has no place either
        raise SystemExit(EXIT_STORAGE) from None


def _tell(text: str) -> None:
    """On standard error. Where that is full too, the exit status says it alone."""
    try:
        sys.stderr.write(f"error: {text}\n")
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _leave(exc: SystemExit) -> None:
    """End the process at once when a board's thread is left in a toolchain's or a driver's code, after Ctrl-C for example:
    Python would take itself down under it, and such code then aborts the process with a status of its own."""
    crew = sys.modules.get("edgedeploy.lab.crew")
    if crew is None or not crew.abandoned():
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    atexit._run_exitfuncs()
    os._exit(exc.code if isinstance(exc.code, int) else int(exc.code is not None))


if __name__ == "__main__":
    main()
