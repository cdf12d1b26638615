"""Finds targets: those that come with the package and those that other packages offer as entry points.

No other module loads plugins. A plugin that cannot be loaded is listed with its reason, never skipped: a silently
missing target would look like a target that the study did not ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from edgedeploy.errors import TargetUnavailable
from edgedeploy.interfaces.ability import Demand
from edgedeploy.interfaces.target import Demanding, Target

GROUP: Final = "edgedeploy.targets"
"""Entry-point group; each value is ``module:Class``, a class that is made without arguments and keeps ``Target``."""

BUILTIN_TARGETS: Final[Mapping[str, str]] = {
    "litert": "edgedeploy.targets.litert:LiteRtTarget",
    "onnxruntime": "edgedeploy.targets.onnxruntime:OnnxRuntimeTarget",
    "openvino": "edgedeploy.targets.openvino:OpenVinoTarget",
    "tensorrt": "edgedeploy.targets.tensorrt:TensorRtTarget",
}
"""Targets that come with the package, as entry points: so that a source checkout that is not installed has them too."""


@dataclass(frozen=True)
class Plugin:
    """A target by the name that studies use, loaded or with the reason why it is not. Exactly one of ``target`` and
    ``broken`` is set. ``value`` says where it comes from."""

    name: str
    value: str
    target: Target | None
    broken: str | None

    def load(self) -> Target:
        """The target. Raises ``TargetUnavailable`` with the reason."""
        if self.target is None:
            raise TargetUnavailable(
                f"target {self.name!r} from {self.value}",
                f"its plugin is broken: {self.broken}",
                "Update or uninstall the package that offers it",
            )
        return self.target


def find_targets(builtin: Mapping[str, str] | None = None) -> tuple[Plugin, ...]:
    """All targets, sorted by name. ``builtin`` maps name to ``module:Class``: with it, a source checkout that is not
    installed has its own targets too.

    A name that two packages offer with different values counts as broken, because either of them might run.
    """
    claims: dict[str, dict[str, EntryPoint]] = {}
    own = [EntryPoint(name, value, GROUP) for name, value in (builtin or {}).items()]
    for entry in (*own, *entry_points(group=GROUP)):
        claims.setdefault(entry.name, {})[entry.value] = entry
    return tuple(_plugin(name, tuple(claims[name].values())) for name in sorted(claims))


def demands_of(target: Target) -> Mapping[str, Demand]:
    """What a target's precisions need of a CPU; nothing for a target that does not say."""
    return target.demands if isinstance(target, Demanding) else {}


def _plugin(name: str, entries: tuple[EntryPoint, ...]) -> Plugin:
    value = " and ".join(entry.value for entry in entries)
    if len(entries) > 1:
        return Plugin(name, value, None, "several packages offer this name")
    try:
        target = entries[0].load()()
    except Exception as exc:  # importing foreign code may raise anything; the reason is kept and shown
        return Plugin(name, value, None, f"{type(exc).__name__}: {exc}")
    if not isinstance(target, Target):
        wanted = ("name", "precisions", "extra", "probe", "build")
        missing = ", ".join(member for member in wanted if not hasattr(target, member))
        return Plugin(name, value, None, f"it is no target: it lacks {missing}")
    if target.name != name:
        return Plugin(name, value, None, f"it calls itself {target.name!r}")
    return Plugin(name, value, target, None)
