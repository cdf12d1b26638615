"""Our side: `edgedeploy search` on the contest's study file, in a process of its own, and what it measured."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.contest_kit.checkpoint import Source
from benchmarks.contest_kit.entries import Entry
from benchmarks.shared.sources import say
from edgedeploy.errors import SpecError
from edgedeploy.files import read_json, write_json
from edgedeploy.records.measurement import Measurement
from edgedeploy.search.history import STUDY_NAME, sqlite_url
from edgedeploy.study.store import Store

KIT: Final = Path(__file__).parent
STUDY: Final = KIT / "study.toml"
MINUTES: Final = 45.0
TIMED: Final = "cpu_time_ratio"


@dataclass(frozen=True)
class Searched:
    """What the search did: ``wall_s`` (NaN: it has not ended), variants with a measured time, proposals of a variant that
    was proposed before, and failures by kind."""

    wall_s: float
    timed: int
    proposals: int
    duplicates: int
    failures: Counter[str]

    @property
    def ended(self) -> bool:
        return math.isfinite(self.wall_s)


def search(source: Source, study: Path, minutes: float) -> None:
    """Run the search, unless its folder says that it was run to its end. The time is for one go: the folder of one that was
    cut off is moved aside, and it begins anew."""
    place = source.folder / "ours"
    ended = place / "ended.json"
    if ended.is_file():
        return
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(KIT / "task.py", place / "task.py")
    shutil.copyfile(source.checkpoint, place / source.checkpoint.name)
    path = place / "study.toml"
    path.write_text(written(study.read_text(encoding="utf-8"), source.root, minutes), encoding="utf-8")
    if (place / "run").exists():
        (place / "run").rename(place / f"cut-off-{time.time_ns()}")
    command = [sys.executable, "-m", "edgedeploy", "search", str(path), "--out", str(place / "run"), "--no-confirm"]
    say(f"our search: {minutes:g} min")
    started_s = time.monotonic()
    status = subprocess.run(command, check=False, stdout=sys.stderr).returncode
    took_s = time.monotonic() - started_s
    if status not in ENDED:
        raise SpecError("our search", f"it ended with exit code {status}", "See what it says above, then run again")
    write_json(ended, {"wall_s": took_s, "status": status})


ENDED: Final = (0, 1, 4)
"""Exit codes of a search that came to its end: all goals met, not met, or the time over."""


def written(text: str, root: Path, minutes: float) -> str:
    """The study file for data in ``root`` and so many minutes. Raises ``SpecError`` where it has no place for them."""
    for key, value in (("root", f'"{root}"'), ("wall_clock", f'"{minutes:g} min"')):
        text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        if found != 1:
            raise SpecError(f"{key} in the contest's study file", f"it stands there {found} times", "Write it once")
    return text


def ours_entries(source: Source) -> list[Entry]:
    """Every artifact that the search measured, each once."""
    store = Store(source.folder / "ours" / "run")
    if not store.exists():
        return []
    found: dict[str, Entry] = {}
    for item in store.measurements():
        found.setdefault(item.artifact.digest, _entry(store, item))
    return list(found.values())


def _entry(store: Store, item: Measurement) -> Entry:
    folder = (store.root / item.file).parent
    return Entry("ours", item.variant.label, "edgedeploy", "", 0.0, item.artifact, folder)


def searched(source: Source) -> Searched:
    place = source.folder / "ours"
    store = Store(place / "run")
    digests = _proposed(store.optimiser_path)
    ended = place / "ended.json"
    return Searched(
        wall_s=float(read_json(ended)["wall_s"]) if ended.is_file() else float("nan"),
        timed=sum(TIMED in item.metrics for item in store.measurements()),
        proposals=len(digests),
        duplicates=len(digests) - len(set(digests)),
        failures=Counter(failure.kind for failure in store.failures()),
    )


def _proposed(path: Path) -> Sequence[str]:
    """The variant of every proposal in Optuna's history."""
    import optuna

    if not path.is_file():
        return []
    history: Any = optuna.load_study(study_name=STUDY_NAME, storage=sqlite_url(path))
    return [
        trial.user_attrs["variant"] for trial in history.get_trials(deepcopy=False) if "variant" in trial.user_attrs
    ]
