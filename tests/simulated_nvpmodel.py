"""A simulation of NVIDIA's ``nvpmodel``: it keeps a number in a file. Mode 9 wants a reboot and stays undone."""

from __future__ import annotations

from pathlib import Path

PROGRAM = """#!/bin/sh
case "$1" in
-q) echo "NV Power Mode: MODE_$(cat {state})"; cat {state} ;;
-m) echo "$2" >> {state}.log
    if [ "$2" = 9 ]; then echo "NVPM WARN: Reboot required. DO YOU WANT TO REBOOT NOW?"; read answer
    else echo "$2" > {state}; fi ;;
esac
"""


def install(folder: Path, mode: int) -> Path:
    """Put it into ``folder`` under the name of the real program, in ``mode``. The file that the mode is kept in; the one
    beside it that ends in ``.log`` lists the modes that were set."""
    state = folder / "mode"
    state.write_text(f"{mode}\n", encoding="ascii")
    program = folder / "nvpmodel"
    program.write_text(PROGRAM.format(state=state), encoding="utf-8")
    program.chmod(0o755)
    return state
