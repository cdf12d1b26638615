"""The reference implementation of OpenSSF Model Signing, in an environment of its own beside the tests' one.

    python tests/signing_peer.py     make it (20 s, 69 MB), or say why not

It brings 33 packages that nothing of edgedeploy needs. pyproject.toml says what is installed, as the extra ``signing-peer``.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).resolve().parents[1]
EXTRA: Final = "signing-peer"

_USE: Final = """
import pathlib, sys
from model_signing import hashing, signing, verifying
what, folder, key = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3])
place = folder / "model.sig"
how = hashing.Config().set_ignored_paths(paths=[place], ignore_git_paths=False)
if what == "sign":
    signer = signing.Config().use_elliptic_key_signer(private_key=key, password=None)
    signer.set_hashing_config(how).sign(folder, place)
else:
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    verifier.set_hashing_config(how).verify(folder, place)
"""


class NotHere(Exception):
    """Why it is not there."""


def python() -> Path:
    """The interpreter of its environment. Raises :class:`NotHere`."""
    found = Path(sys.prefix) / EXTRA / "bin" / "python"
    if not found.with_name("ready").exists():
        raise NotHere("the reference implementation of model signing is not installed: python tests/signing_peer.py")
    return found


def make() -> None:
    """Raises ``CalledProcessError``."""
    folder = Path(sys.prefix) / EXTRA
    if (folder / "bin" / "ready").exists():
        return
    wanted = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"][EXTRA]
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted], check=True)
    (folder / "bin" / "ready").touch()


def used(what: str, folder: Path, key: Path) -> str:
    """Sign or verify ``folder`` by it: empty when it did so, else what it said."""
    argv = [str(python()), "-c", _USE, what, str(folder), str(key)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else (done.stderr.strip() or "it said nothing").splitlines()[-1]


if __name__ == "__main__":
    try:
        make()
    except subprocess.CalledProcessError as exc:
        sys.exit(f"no {EXTRA}: {exc}")
