"""What a device remembers of the releases that it has seen, outside of them: without it, an old bundle looks like a new
one.

The types are evaluated, by Python 3.8 too: see :mod:`edgedeploy.runtime.wire.serde`.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Optional, Tuple

from edgedeploy.runtime.faults import BundleError
from edgedeploy.runtime.files import write_durably
from edgedeploy.runtime.wire.serde import WireError, from_json, to_json

MOST_BYTES = 1 << 16
IDENTITY = re.compile(r"[0-9a-f]{64}")
"""Names of releases' folders: nothing else becomes a path."""


@dataclass(frozen=True)
class State:
    """``release`` is the highest that was ever activated, with its bundle's ``identity``; ``history`` are the
    identities from the oldest that is kept to the one that is to be current. All are empty or 0 before the first
    activation."""

    format: Literal["edgedeploy-releases"] = "edgedeploy-releases"
    version: int = 1
    name: str = ""
    release: int = 0
    identity: str = ""
    history: Tuple[str, ...] = ()

    def admit(self, name: str, release: int, identity: str) -> None:
        """Raises :class:`BundleError`: ``incompatible`` for a bundle of another name, ``downgrade`` for a release below
        the highest, or for another bundle that says it is that one."""
        if self.name not in ("", name):
            raise BundleError(
                "incompatible",
                f"this root has releases of {self.name!r}, and the bundle is {name!r}",
                "Use another root",
            )
        if release < self.release:
            raise BundleError("downgrade", f"it is release {release}, and release {self.release} was active here")
        if release == self.release and identity != self.identity:
            raise BundleError("downgrade", f"another bundle was active here as release {release}")

    def activated(self, name: str, release: int, identity: str, current: Optional[str]) -> "State":
        """Before ``identity`` becomes current in the place of ``current``. The one before that stays in the history
        too: until the change has taken place, it is the way back."""
        kept = [item for item in (self.before(current), current) if item not in (None, identity)]
        history = tuple(str(item) for item in kept)
        return replace(self, name=name, release=release, identity=identity, history=(*history, identity))

    def rolled_back(self, previous: str) -> "State":
        """What was highest stays so."""
        return replace(self, history=(previous,))

    def before(self, current: Optional[str]) -> Optional[str]:
        """The release to go back to from ``current``; None where there is none. A ``current`` that is not in the
        history is one whose roll-back was cut short: the history's last was meant to take its place."""
        if current not in self.history:
            return self.history[-1] if self.history else None
        index = self.history.index(current)
        return self.history[index - 1] if index else None


def read_state(path: Path) -> Optional[State]:
    """None when there is no file. Raises :class:`BundleError` ``missing_state`` for one that is damaged."""
    try:
        with path.open("rb") as stream:
            text = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        if len(text) > MOST_BYTES:
            raise ValueError("it is too large")
        found = from_json(State, json.loads(text.decode("utf-8")))
        if found.version != 1:
            raise ValueError(f"its version is {found.version}, and this runtime reads 1")
        if not all(IDENTITY.fullmatch(item) for item in found.history):
            raise ValueError("its history has what is no identity")
    except (ValueError, WireError, RecursionError) as exc:
        raise BundleError("missing_state", f"{path} is damaged ({exc})") from exc
    return found


def write_state(path: Path, state: State) -> None:
    """On the disk before this returns."""
    write_durably(path, (json.dumps(to_json(state), sort_keys=True, indent=1) + "\n").encode("utf-8"))
