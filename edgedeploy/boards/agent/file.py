"""The agent as one file: the runtime package as a zip, the same bytes wherever and whenever it is made."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from edgedeploy.interfaces.session import PackedSession, files_of

_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_MAIN = "import sys\nfrom edgedeploy.runtime.agent.commands import main\nsys.exit(main())\n"
_PACKAGE = '"""Only what runs on a board."""\n'


@dataclass(frozen=True)
class AgentFile:
    """``sha256`` is that of the sources, name by name: what is on a board is held against it there, unpacked."""

    data: bytes
    sha256: str


@functools.cache
def agent_file(sessions: tuple[PackedSession, ...] = ()) -> AgentFile:
    """Built from the installed package, with the sessions of other packages' targets. Fixed times and order, so that its
    hash changes only when what is in it does."""
    sources = {"__main__.py": _MAIN, "edgedeploy/__init__.py": _PACKAGE}
    sources |= _sources(resources.files("edgedeploy.runtime"), "edgedeploy/runtime")
    del sources["edgedeploy/runtime/__main__.py"]  # the packed file's own __main__ takes its place
    sources |= files_of(sessions)
    buffer = io.BytesIO()
    digest = hashlib.sha256()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, _FIXED_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            data = sources[name].encode()
            archive.writestr(info, data)
            digest.update(f"{name} {len(data)}\n".encode() + data)
    return AgentFile(buffer.getvalue(), digest.hexdigest())


def _sources(folder: Traversable, name: str) -> dict[str, str]:
    """Text by path of all Python files in ``folder`` and its subfolders."""
    sources: dict[str, str] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            sources |= _sources(entry, f"{name}/{entry.name}")
        elif entry.name.endswith(".py"):
            sources[f"{name}/{entry.name}"] = entry.read_text(encoding="utf-8")
    return sources
