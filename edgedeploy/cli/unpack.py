"""`edgedeploy unpack` where nothing but numpy is installed: the base install, as a product's host has it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edgedeploy.errors import EdgeDeployError
from edgedeploy.study.bundle.pack import unpack


def main(argv: Sequence[str]) -> int:
    """The exit status: that of the error for what is refused, which is one line on standard error."""
    parser = argparse.ArgumentParser(prog="edgedeploy unpack", description="Write a packed bundle into a new folder.")
    parser.add_argument("packed", type=Path, metavar="ARCHIVE", help="what `edgedeploy pack` made")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--from", dest="base", type=Path, metavar="BASE", help="the bundle that an update is for")
    parser.add_argument(
        "--trust", type=Path, metavar="KEY", help="public key (PEM): nothing is kept that it did not sign"
    )
    parser.add_argument("--identity", type=Path, metavar="KEY", help="private key of age, where it is encrypted")
    told = parser.parse_args(argv)
    try:
        size_bytes = unpack(told.packed, told.out, told.identity, base=told.base, trust=told.trust)
    except EdgeDeployError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    sys.stdout.write(f"{told.out}: {size_bytes} bytes\n")
    return 0
