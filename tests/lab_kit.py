"""Labs for tests: a folder with a lab file, signed bundles of a small network, and a key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import night_kit
import product_kit

MEASURE = """
[measure]
queries = 16
warmup = 1
block = 4
cold_starts = 0
retries = 0
max_drift = 1e6
max_spread = 1e6
max_background_cores = 1e6
max_heating_c = 1e6
max_clock_drift = 1e6
"""
"""Short, and no run is disturbed: what a test looks at does not hang on the host's load."""


def local(folder: Path, name: str = "desk") -> str:
    return f'[[boards]]\nname = "{name}"\nkind = "local"\nroot = "{folder / name}"\n'


def entry(name: str, bundle: str, **more: Any) -> str:
    more = {"trust": "key.pem.pub", **more}
    lines = [f'id = "{name}"', f'bundle = "{bundle}"']
    lines += [f"{key} = {value!r}".replace("'", '"') for key, value in more.items()]
    return "\n".join(["[[entries]]", *lines, ""])


def write_lab(
    folder: Path, boards: str, entries: Sequence[str], *, head: str = 'name = "ward"\nbudget = "1 h"\n', more: str = ""
) -> Path:
    """The lab file."""
    path = folder / "lab.toml"
    path.write_text(f"[lab]\n{head}{boards}{''.join(entries)}{MEASURE}{more}")
    return path


def write_bundle(folder: Path, name: str, **fields: Any) -> Path:
    """A signed bundle, with ``folder/key.pem``, which is made when there is none."""
    key = folder / "key.pem"
    if not key.exists():
        product_kit.make_key(folder)
    files = night_kit.with_reference(product_kit.make_files(steps=product_kit.NO_STEPS, **fields))
    return product_kit.write_signed(folder / name, files, key)
