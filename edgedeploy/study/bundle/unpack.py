"""``python -m edgedeploy.study.bundle.unpack``: `edgedeploy unpack` for an integrator's host, with numpy alone.

    python -m edgedeploy.study.bundle.unpack PACKED OUT [--from BASE] (--trust KEY | --unsigned)

Exit status 2 with one line on standard error for what is refused, 3 for a disk that fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edgedeploy.errors import EdgeDeployError
from edgedeploy.study.bundle.pack import unpack


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m edgedeploy.study.bundle.unpack", description=unpack.__doc__)
    parser.add_argument("packed", type=Path, metavar="PACKED", help="what `edgedeploy pack` made")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--from", dest="base", type=Path, metavar="BASE", help="the bundle that an update is for")
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--trust", type=Path, metavar="KEY", help="public key (PEM) of who may have made it")
    key.add_argument("--unsigned", action="store_true", help="take a bundle that nobody signed")
    told = parser.parse_args(argv)
    try:
        size_bytes = unpack(told.packed, told.out, base=told.base, trust=told.trust)
    except EdgeDeployError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    sys.stdout.write(f"{told.out}: {size_bytes} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
