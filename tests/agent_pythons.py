"""Interpreters that boards have, found on this machine, and environments of them with the runtimes that exist for each.

    python tests/agent_pythons.py     make the environments that are missing (a minute, 1.1 GB), say what is not here

Made once, below the user's cache, anew when the interpreter or the packages change. ``EDGEDEPLOY_PYTHON38`` names a Python
3.8 to take; otherwise it is looked for on the path and in pyenv's folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VERSIONS: Final = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")

PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "3.8": ("numpy==1.24.4", "onnxruntime==1.19.2", "openvino==2024.4.0", "tflite-runtime==2.14.0", "onnx==1.17.0"),
    "3.9": ("numpy==2.0.2", "onnxruntime==1.19.2", "openvino==2025.3.0", "ai-edge-litert==2.1.0"),
    "3.13": ("numpy", "onnxruntime>=1.23,<2", "openvino>=2025.4,<2027", "ai-edge-litert>=2.3,<2.4"),
}
"""The last releases for 3.8 and 3.9. ai-edge-litert has none for 3.8, tflite-runtime none for numpy 2. onnx is the simulated
TensorRT's: the real one comes with JetPack 5 for 3.8, and from no index."""

TARGETS: Final = ("onnxruntime", "openvino", "litert")
"""What the packages run."""

_LOOK: Final = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
_READY: Final = "ready"


class NotHere(Exception):
    """Why there is no such interpreter or environment, and what would bring it."""


def find(version: str) -> tuple[str, str]:
    """An interpreter of ``version`` (such as ``3.8``) and its whole version. Raises :class:`NotHere`."""
    variable = f"EDGEDEPLOY_PYTHON{version.replace('.', '')}"
    roots = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob(f"versions/{version}.*/bin/python")
    for name in (os.environ.get(variable, ""), f"python{version}", *sorted(str(path) for path in roots)):
        found = _version_of(name) if name else ""
        if found.startswith(f"{version}."):
            return name, found
    raise NotHere(f"no Python {version} on this machine: install one, or set {variable} to it")


def _version_of(python: str) -> str:
    try:
        done = subprocess.run([python, "-c", _LOOK], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(version: str) -> Path:
    """The interpreter of the environment for ``version``, made first where it is not there. Raises :class:`NotHere`."""
    python, whole = find(version)
    said = "\n".join((os.path.realpath(shutil.which(python) or python), whole, *PACKAGES[version]))
    folder = _home() / f"{version}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    with _locked(version):
        if not (folder / _READY).is_file():
            for old in _home().glob(f"{version}-*"):
                shutil.rmtree(old)
            _step([python, "-m", "venv", str(folder)])
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
            _step([*pip, "--quiet", "--only-binary", ":all:", *PACKAGES[version]])
            (folder / _READY).touch()
    return folder / "bin" / "python"


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "edgedeploy" / "agent-pythons"


def _step(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise NotHere(f"{' '.join(argv)}: {said[0]}")


@contextmanager
def _locked(version: str) -> Iterator[None]:
    """Tests that run side by side make one environment."""
    _home().mkdir(parents=True, exist_ok=True)
    with (_home() / f"{version}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    status = 0
    for version in PACKAGES:
        try:
            sys.stdout.write(f"{version}: {environment(version)}\n")
        except NotHere as exc:
            status = 1
            sys.stdout.write(f"{version}: {exc}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
