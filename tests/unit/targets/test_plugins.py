"""Finding targets: real modules and real package metadata on a path of their own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edgedeploy.diagnose.doctor import target_findings
from edgedeploy.errors import TargetUnavailable
from edgedeploy.targets.registry import BUILTIN_TARGETS, GROUP, Plugin, find_targets, sessions_of

GOOD = """
from edgedeploy.interfaces.target import SessionSource

def open_model(path, settings, threads): ...

class Good:
    name = "good"
    session = SessionSource("edgedeploy.runtime.sessions.onnxruntime", ("onnxruntime",))
    precisions = ("float32",)
    extra = "good"
    def probe(self): ...
    def build(self, request, folder): ...
class Unfinished:
    name = "unfinished"
    precisions = ("float32",)
class Nothing(Good):
    name = "nothing"
    precisions = ()
class Astray(Good):
    name = "astray"
    session = SessionSource("brokenpackage.session", ("numpy",))
class Heavy(Good):
    name = "heavy"
    session = SessionSource("brokenpackage", ("numpy",))
class Picky(Good):
    def __init__(self): raise OSError("no licence file")
class Leaving(Good):
    def __init__(self): raise SystemExit(0)
class Loud(Good):
    name = "loud"
    def probe(self): raise ValueError("no dongle")
"""


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Puts a package on the path that offers the given entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(package: str, **entries: str) -> None:
        (tmp_path / f"{package}.py").write_text(GOOD, encoding="utf-8")
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]), encoding="utf-8")

    return write


def found(name: str) -> Plugin:
    return next(plugin for plugin in find_targets() if plugin.name == name)


def test_a_checkout_has_the_targets_that_come_with_it() -> None:
    plugins = {plugin.name: plugin for plugin in find_targets()}
    assert {"litert", "onnxruntime", "openvino"} <= set(plugins)
    assert plugins["openvino"].load().precisions == ("float32", "bfloat16", "int8", "int8-weights", "int4-weights")
    assert [plugin.name for plugin in find_targets()] == sorted(plugins)


def test_installed_and_checkout_agree(pytestconfig: pytest.Config) -> None:
    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"][GROUP] == dict(BUILTIN_TARGETS)


def test_a_package_can_bring_a_target(offer) -> None:  # type: ignore[no-untyped-def]
    """It is loaded, it stands beside the package's own, and boards are given what runs its artifacts: the module that it
    names, and no other."""
    before = [plugin.name for plugin in find_targets()]
    assert sessions_of(["good"]) == ()
    offer("goodpackage", good="goodpackage:Good")
    plugin = found("good")
    assert (plugin.broken, plugin.value) == (None, "goodpackage:Good")
    assert (plugin.load().name, type(plugin.load()).__module__) == ("good", "goodpackage")
    assert [item.name for item in find_targets()] == sorted([*before, "good"])
    (session,) = sessions_of(["good"])
    assert (session.target, session.source.packages) == ("good", ("onnxruntime",))
    assert session.source.module == "edgedeploy.runtime.sessions.onnxruntime"
    assert session.files == (), "a session of the package's own is in every agent"
    assert session in sessions_of() and session == plugin.session


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("gone", "nosuchmodule_anywhere:Target", "nosuchmodule_anywhere"),
        ("typo", "brokenpackage:Goood", "Goood"),
        ("picky", "brokenpackage:Picky", "no licence file"),
        ("leaving", "brokenpackage:Leaving", "SystemExit"),
        ("unfinished", "brokenpackage:Unfinished", "session, extra, probe, build"),
        ("nothing", "brokenpackage:Nothing", "precisions = ()"),
        ("astray", "brokenpackage:Astray", "brokenpackage.session"),
        ("heavy", "brokenpackage:Heavy", "edgedeploy.interfaces.target"),
        ("alias", "brokenpackage:Good", "calls itself 'good'"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_reason(offer, name: str, value: str, told: str) -> None:  # type: ignore[no-untyped-def]
    offer("brokenpackage", **{name: value})
    plugin = found(name)
    assert plugin.target is None
    assert plugin.broken is not None
    assert told in plugin.broken
    with pytest.raises(TargetUnavailable, match=name):
        plugin.load()


def test_a_name_that_two_packages_claim_is_broken(offer) -> None:  # type: ignore[no-untyped-def]
    offer("firstpackage", good="firstpackage:Good")
    offer("secondpackage", good="secondpackage:Good")
    assert "several packages" in (found("good").broken or "")
    assert "firstpackage:Good" in found("good").value


def test_looking_for_targets_imports_no_toolchain() -> None:
    script = (
        "import sys; from edgedeploy.targets.registry import BUILTIN_TARGETS, find_targets;"
        "assert all(plugin.broken is None for plugin in find_targets());"
        "targets = [plugin.load() for plugin in find_targets()];"
        "assert all(target.probe().ready for target in targets if target.extra == 'study');"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'openvino', 'litert_torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"


def test_a_probe_that_raises_is_told_and_hides_no_other_target(offer) -> None:  # type: ignore[no-untyped-def]
    offer("loudpackage", loud="loudpackage:Loud")
    told = found("loud").readiness()
    assert (told.ready, told.found) == (False, "its probe ended with ValueError: no dongle")
    findings = {finding.what: finding for finding in target_findings()}
    assert "no dongle" in findings["target loud"].found
    assert findings["target onnxruntime"].ok
