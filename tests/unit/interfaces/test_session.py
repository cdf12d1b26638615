"""Sessions of other packages' targets: what is packed for a board, and what is refused before any board sees it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgedeploy.boards.agent.client import AgentClient
from edgedeploy.boards.agent.file import agent_file
from edgedeploy.boards.local import LocalTransport
from edgedeploy.boards.open import open_board
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.errors import TargetUnavailable
from edgedeploy.interfaces import session
from edgedeploy.interfaces.session import PackedSession, files_of, pack_session
from edgedeploy.runtime.sessions.sources import BUILTIN, SessionSource, known
from edgedeploy.targets.registry import find_targets, sessions_of

OPEN = "def open_model(path, settings, threads): ...\n"
FOLDER = "edgedeploy/runtime/sessions/thirdparty"


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PackedSession]:
    """Packs the session of a package ``theirs`` with these files."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def pack(
        files: dict[str, str], module: str = "theirs.session", packages: tuple[str, ...] = ("numpy",)
    ) -> PackedSession:
        for name, text in {"__init__.py": "", **files}.items():
            path = tmp_path / "theirs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return pack_session("capsule", SessionSource(module, packages))

    yield pack
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def test_own_targets_declare_the_rows_of_the_runtimes_table() -> None:
    """One fact in one place: the class names the row, and a board that is opened without any target has it too."""
    own = {plugin.name: plugin.target.session for plugin in find_targets() if plugin.target and plugin.name in BUILTIN}
    assert own == BUILTIN
    assert dict(known()) == BUILTIN
    assert agent_file(sessions_of(BUILTIN)).sha256 == agent_file().sha256


def test_one_module_is_packed_where_it_hides_nothing(theirs: Callable[..., PackedSession]) -> None:
    packed = theirs({"session.py": OPEN, "__init__.py": "import torch\n"})
    assert packed.source.module == "edgedeploy.runtime.sessions.thirdparty.theirs.session"
    files = files_of([packed])
    assert files[f"{FOLDER}/theirs/session.py"] == OPEN
    assert files[f"{FOLDER}/theirs/__init__.py"] == ""
    assert all(path.startswith(f"{FOLDER}/") for path in files)


def test_a_package_is_packed_whole_with_its_relative_imports(theirs: Callable[..., PackedSession]) -> None:
    parts = {
        "session/__init__.py": "from .reader import open_model\n",
        "session/reader.py": f"from .deep import layers\n{OPEN}",
        "session/deep/layers.py": "from .. import reader\n",
        "session/notes.txt": "no source",
        "builder.py": "import torch\n",
    }
    files = dict(theirs(parts).files)
    assert sorted(files) == [
        f"{FOLDER}/theirs/session/{name}" for name in ("__init__.py", "deep/layers.py", "reader.py")
    ]


def test_the_agents_hash_follows_what_is_packed(theirs: Callable[..., PackedSession]) -> None:
    first, second = theirs({"session.py": OPEN}), theirs({"session.py": f"{OPEN}# changed\n"})
    hashes = {agent_file(sessions).sha256 for sessions in ((), (first,), (second,))}
    assert len(hashes) == 3
    assert agent_file((first,)).data == agent_file.__wrapped__((first,)).data


def test_a_board_reports_the_runtime_that_a_session_asks_for(
    theirs: Callable[..., PackedSession], tmp_path: Path
) -> None:
    sessions = (theirs({"session.py": OPEN}, packages=("no-such-distribution", "numpy")),)
    with contextlib.closing(LocalTransport()) as transport:
        options: dict[str, Any] = {"board": "b", "python": sys.executable, "root": str(tmp_path / "root")}
        options["timeout_s"] = 120.0  # on a busy machine
        with_it = AgentClient.install(transport, **options, sessions=sessions).call("probe")["runtimes"]
        without = AgentClient.install(transport, **options).call("probe")["runtimes"]
    assert with_it.pop("capsule")
    assert with_it == without


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "local"},
        {"kind": "ssh", "host": "cart"},
        {"kind": "emulated"},
        {"kind": "emulated", "machine": "x86-avx2"},
        {"kind": "emulated", "machine": "arm64"},
    ],
    ids=lambda table: "-".join(table.values()),
)
def test_every_kind_of_board_takes_the_sessions_along(table: dict[str, str]) -> None:
    sessions = (pack_session("capsule", SessionSource(BUILTIN["onnxruntime"].module, ("onnxruntime",))),)
    board = open_board({"name": "b", **table}, sessions)
    remote = board._board(SshTarget(host="h", home=Path("/root"))) if hasattr(board, "_board") else board
    assert remote._options.sessions == sessions


def test_a_target_may_run_its_files_with_a_session_of_edgedeploy() -> None:
    packed = pack_session("capsule", SessionSource(BUILTIN["onnxruntime"].module, ("onnxruntime",)))
    assert packed.files == ()
    assert "'capsule': ('edgedeploy.runtime.sessions.onnxruntime'," in files_of([packed])[f"{FOLDER}/__init__.py"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"import torch\n{OPEN}", "session.py, line 1: it imports torch when it is loaded"),
        (f"try:\n    import tvm\nexcept ImportError:\n    tvm = None\n{OPEN}", "line 2: it imports tvm when it is"),
        (f"import tomllib\n{OPEN}", "tomllib"),
        (f"from edgedeploy.records.artifact import Artifact\n{OPEN}", "edgedeploy.records.artifact"),
        ("def open_model(path, settings, threads):\n    import theirs.files\n", "boards have no package theirs"),
        (f"from . import files\n{OPEN}", "relative import"),
        (f"match 1:\n    case 1: pass\n{OPEN}", "3.8"),
        ("def open_session(path): ...\n", "has no open_model"),
        (f"{OPEN}# {'x' * session.LIMIT_BYTES}\n", "bytes of source"),
        ("\0", "session.py"),
    ],
    ids=["runtime", "tried", "newer", "host", "own", "relative", "syntax", "name", "size", "null"],
)
def test_a_session_that_no_board_could_load_is_refused(
    theirs: Callable[..., PackedSession], text: str, told: str
) -> None:
    with pytest.raises(TargetUnavailable, match="capsule") as caught:
        theirs({"session.py": text})
    assert told in str(caught.value)


def test_what_is_imported_inside_functions_is_the_runtimes_business(theirs: Callable[..., PackedSession]) -> None:
    lazy = "from __future__ import annotations\nimport typing\nif typing.TYPE_CHECKING:\n    import torch\n"
    theirs({"session.py": f"{lazy}def open_model(path, settings, threads):\n    import vendor_runtime\n"})


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (SessionSource("theirs.nothing_here", ("numpy",)), "theirs"),
        (SessionSource("../evil", ("numpy",)), "no module's name"),
        (SessionSource("", ("numpy",)), "no module's name"),
        (SessionSource("edgedeploy.targets.common", ("numpy",)), "part of edgedeploy that no board has"),
        (SessionSource("edgedeploy.runtime.sessions.nowhere", ("numpy",)), "there is no module"),
        (SessionSource("math", ()), "names no distribution"),
        (SessionSource("math", "numpy"), "names no distribution"),  # type: ignore[arg-type]
        (SessionSource("math", 7), "names no distribution"),  # type: ignore[arg-type]
        (SessionSource(7, ("numpy",)), "no module's name"),  # type: ignore[arg-type]
        (SessionSource("_struct", ("numpy",)), "no Python source"),
        ("theirs.session", "is a str"),
    ],
)
def test_a_wrong_declaration_is_refused(source: SessionSource, told: str) -> None:
    with pytest.raises(TargetUnavailable, match="capsule") as caught:
        pack_session("capsule", source)
    assert told in str(caught.value)


def test_no_package_takes_the_place_of_an_own_session() -> None:
    with pytest.raises(TargetUnavailable, match="edgedeploy's own target of that name has another session"):
        pack_session("onnxruntime", SessionSource("json", ("numpy",)))
