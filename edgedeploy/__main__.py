"""``python -m edgedeploy`` and the ``edgedeploy`` command: a user's mistake is one line, a bug of ours a traceback."""

from __future__ import annotations

import os
import sys

from edgedeploy.errors import EdgeDeployError

EXIT_USAGE = 2


def main() -> None:
    """Run the command line. Exits 2 with the extra to install when the base install lacks what a command needs."""
    # Training shares the host with other work: threads that spin for long while they wait take its cores (six-fold CPU
    # time was seen), threads that never spin sleep at every layer (twice the time of a small network's step). A short
    # spin costs neither. Has to be set before torch loads its OpenMP library; who sets it otherwise keeps that.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        from edgedeploy.cli.app import app

        app()
    except EdgeDeployError as exc:
        sys.stderr.write(f"error: {exc}\n")
        raise SystemExit(exc.exit_code) from None
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] == "edgedeploy":
            raise
        sys.stderr.write(
            f"error: this command needs the package {exc.name!r}: it is not installed. pip install 'edgedeploy[study]'\n"
        )
        raise SystemExit(EXIT_USAGE) from None


if __name__ == "__main__":
    main()
