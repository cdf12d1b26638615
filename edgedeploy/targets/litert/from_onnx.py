"""Converts ONNX files without a torch program, by onnx2tf in a separate environment.

onnx2tf 2.x needs Python 3.12 or 3.13 and pins its whole toolchain (numpy, onnx, protobuf) to single releases, so it
cannot share an environment. The environment (about 700 MB) is made in the user's cache when the first such file is
built; ``EDGEDEPLOY_ONNX2TF_PYTHON`` names the interpreter for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import TargetUnavailable, Unsupported
from edgedeploy.files import lock_file
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.reference.translate import with_node

PACKAGE: Final = "onnx2tf>=2.6,<3"
INTERPRETER_VARIABLE: Final = "EDGEDEPLOY_ONNX2TF_PYTHON"
_ASKED: Final = "LiteRT from an ONNX file without a torch program"
_FITS: Final = "import ensurepip, sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14))"
_READY: Final = "ready.json"


def home() -> Path:
    """Where the environment lies or will lie."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "edgedeploy" / "onnx2tf"


def found_converter() -> str:
    """One clause for people. It does not look for an interpreter: that happens when the environment is made."""
    if (home() / _READY).is_file():
        return f"onnx2tf {_version(home())}"
    return "onnx2tf, installed when the first one is built (needs Python 3.12 or 3.13)"


def find_python() -> str | None:
    """An interpreter that onnx2tf can run on."""
    roots = [Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")]
    installed = sorted(str(path) for root in roots for path in root.glob("versions/3.1[23].*/bin/python"))
    for name in (os.environ.get(INTERPRETER_VARIABLE, ""), "python3.12", "python3.13", *installed):
        if name and _fits(name):
            return name
    return None


def _fits(python: str) -> bool:
    try:
        done = subprocess.run([python, "-c", _FITS], capture_output=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def environment() -> tuple[Path, str]:
    """The environment's interpreter and onnx2tf's release; the environment is made if it is missing.

    Raises ``TargetUnavailable`` when no interpreter fits or the packages cannot be installed.
    """
    folder = home()
    with _locked(folder):
        if not (folder / _READY).is_file():
            _install(folder)
        return folder / "bin" / "python", _version(folder)


def convert(request: BuildRequest, desk: Path) -> tuple[Path, str]:
    """The float model of an ONNX file, below ``desk``, and onnx2tf's release.

    Inputs keep the file's dimensions. Outputs may have channels last; the comparison with the reference detects this.
    Raises ``TargetUnavailable`` as :func:`environment` does, ``Unsupported`` for what onnx2tf refuses.
    """
    python, version = environment()
    source, made = desk / "model.onnx", desk / "onnx2tf"
    shutil.copyfile(request.reference, source)
    argv = [str(python), "-m", "onnx2tf", "--input_onnx_file_path", str(source), "--output_folder_path", str(made)]
    argv += ["--copy_onnx_input_output_names_to_tflite", "--verbosity", "error"]
    argv += ["--keep_shape_absolutely_input_names", *(spec.name for spec in request.inputs)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=desk)
    path = made / "model_float32.tflite"
    if done.returncode or not path.is_file():
        found = with_node(_said(done), _nodes(request.reference))
        asked = f"{request.reference.name} in onnx2tf {version}"
        raise Unsupported(asked, found, "Replace the operator it names, or give the torch model")
    return path, version


def _nodes(reference: Path) -> Any:
    import onnx

    return onnx.load(str(reference), load_external_data=False)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of a tool's complaint."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1][:400] if lines else f"it ended with status {done.returncode}"


def _install(folder: Path) -> None:
    python = find_python()
    if python is None:
        raise TargetUnavailable(
            _ASKED,
            "it needs onnx2tf, which needs Python 3.12 or 3.13, and none was found",
            f"Install one and set {INTERPRETER_VARIABLE} to it, or give the torch model instead of the file",
        )
    shutil.rmtree(folder, ignore_errors=True)
    _step([python, "-m", "venv", str(folder)])
    inside = str(folder / "bin" / "python")
    _step([inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE])
    code = "import importlib.metadata as m; print(m.version('onnx2tf'))"
    version = subprocess.run([inside, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    (folder / _READY).write_text(json.dumps({"onnx2tf": version}), encoding="utf-8")


def _step(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetUnavailable(
            f"{_ASKED}: {' '.join(argv[1:])}", _said(done), "Give the torch model, or run it by hand"
        )


def _version(folder: Path) -> str:
    return str(json.loads((folder / _READY).read_text(encoding="utf-8"))["onnx2tf"])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock: two studies that start together make the environment once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(folder.with_suffix(".lock")) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    python, version = environment()
    sys.stdout.write(f"onnx2tf {version}: {python}\n")
