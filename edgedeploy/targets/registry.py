"""Finds targets: those that come with the package and those that other packages offer as entry points.

No other module loads plugins. A plugin that cannot be loaded is listed with its reason, never skipped: a silently
missing target would look like a target that the study did not ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from edgedeploy.errors import TargetUnavailable
from edgedeploy.interfaces.ability import Demand
from edgedeploy.interfaces.session import PackedSession, pack_session
from edgedeploy.interfaces.target import Demanding, HasQuantizers, Readiness, Target

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
    ``broken`` is set, and ``session`` with the target. ``value`` says where it comes from."""

    name: str
    value: str
    target: Target | None
    broken: str | None
    session: PackedSession | None = None

    def load(self) -> Target:
        """The target. Raises ``TargetUnavailable`` with the reason."""
        if self.target is None:
            raise TargetUnavailable(
                f"target {self.name!r} from {self.value}",
                f"its plugin is broken: {self.broken}",
                "Update or uninstall the package that offers it",
            )
        return self.target

    def readiness(self) -> Readiness:
        """What the target's probe says; a probe that raises is told as its reason. Raises as :meth:`load` does."""
        try:
            return self.load().probe()
        except TargetUnavailable:
            raise
        except (Exception, SystemExit) as exc:  # foreign code may raise anything
            found = f"its probe ended with {type(exc).__name__}: {exc}"
            return Readiness(False, {}, found, f"Update or uninstall the package of {self.value}")


def find_targets() -> tuple[Plugin, ...]:
    """All targets, sorted by name: the package's own, also in a checkout that is not installed, and other packages'.

    A name that two packages offer with different values counts as broken, because either of them might run.
    """
    claims: dict[str, dict[str, EntryPoint]] = {}
    own = [EntryPoint(name, value, GROUP) for name, value in BUILTIN_TARGETS.items()]
    for entry in (*own, *entry_points(group=GROUP)):
        claims.setdefault(entry.name, {})[entry.value] = entry
    return tuple(_plugin(name, tuple(claims[name].values())) for name in sorted(claims))


def sessions_of(names: Iterable[str] | None = None) -> tuple[PackedSession, ...]:
    """What boards need to run the artifacts of these targets, of all that work when there are no names."""
    chosen = None if names is None else set(names)
    plugins = [plugin for plugin in find_targets() if chosen is None or plugin.name in chosen]
    return tuple(plugin.session for plugin in plugins if plugin.session is not None)


def demands_of(target: Target) -> Mapping[str, Demand]:
    """What a target's precisions need of a CPU; nothing for a target that does not say."""
    return target.demands if isinstance(target, Demanding) else {}


def quantizers_of(target: Target) -> Mapping[str, tuple[str, ...]]:
    """A target's quantizers with their calibration methods, the default first; none of a target that does not say."""
    return target.quantizers if isinstance(target, HasQuantizers) else {}


def _plugin(name: str, entries: tuple[EntryPoint, ...]) -> Plugin:
    value = " and ".join(entry.value for entry in entries)
    if len(entries) > 1:
        return Plugin(name, value, None, "several packages offer this name")
    try:
        target = entries[0].load()()
        problem = _problem(name, target)
        session = None if problem is not None else pack_session(name, target.session)
    except TargetUnavailable as exc:
        return Plugin(name, value, None, f"{exc.asked}: {exc.found}. {exc.remedy}")
    except (Exception, SystemExit) as exc:  # foreign code may raise anything; the reason is kept and shown
        return Plugin(name, value, None, f"{type(exc).__name__}: {exc}")
    return Plugin(name, value, None if problem is not None else target, problem, session)


def _problem(name: str, target: object) -> str | None:
    """Why an object is not the target of that name; None when it is."""
    if not isinstance(target, Target):
        wanted = ("name", "session", "precisions", "extra", "probe", "build")
        return f"it is no target: it lacks {', '.join(member for member in wanted if not hasattr(target, member))}"
    if target.name != name:
        return f"it calls itself {target.name!r}"
    if not isinstance(target.precisions, tuple) or not target.precisions:
        return f"precisions = {target.precisions!r} is no tuple of names"
    return None
