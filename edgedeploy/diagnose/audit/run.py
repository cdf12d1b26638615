"""``edgedeploy audit``: the parts one after the other on one variant of a study, kept as they are made, told as one
page.

A part that is whole is kept under ``parts/`` with what it was made from (the artifact, the model, seed and shadows,
the release of edgedeploy) and is not made again. ``audit.json`` and ``audit.md`` are each written whole or not at
all, when all parts that were asked for are there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy._version import __version__
from edgedeploy.diagnose.audit.page import page, verdict_of
from edgedeploy.diagnose.audit.parts import NAMES, PARTS, Asked, Part, Result
from edgedeploy.diagnose.audit.subject import Subject, open_pair
from edgedeploy.errors import BuildError, GoalNotMet, MeasurementError, SpecError, TargetUnavailable, nearest
from edgedeploy.files.writing import write_atomic
from edgedeploy.interfaces.task import Array, Case
from edgedeploy.study.bundle.material import Material, gather
from edgedeploy.study.cases import inputs_of

FORM: Final = 1
MOST_CASES: Final = 256
MOST_VALUES: Final = 64 * 2**20
"""Numbers of all images that are held at once: 256 MiB."""
FOLDER: Final = "audit"
SEARCHES: Final = ("residuals", "triggers")
"""The parts that look for sleeping backdoors."""
KEPT: Final = {
    *("name", "title", "measured", "why_not", "plant", "complete", "again", "limits", "wall_s", "processor_s"),
    *("files", "data", "made_from"),
}
"""Keys of a part's file."""


@dataclass(frozen=True)
class Audit:
    """``parts`` are as in ``audit.json``. ``plant`` names those that found a sleeping backdoor, ``incomplete`` those
    whose time was over, or whose search for one could not be made on this machine."""

    folder: Path
    variant: str
    digest: str
    parts: tuple[dict[str, Any], ...]

    @property
    def plant(self) -> tuple[str, ...]:
        return tuple(part["name"] for part in self.parts if part["plant"])

    @property
    def looked(self) -> tuple[str, ...]:
        """The parts that looked for sleeping backdoors: of a part that abstained, or was not asked for, none is found
        either."""
        return tuple(part["name"] for part in self.parts if part["name"] in SEARCHES and not part["why_not"])

    @property
    def incomplete(self) -> tuple[str, ...]:
        late = (part["name"] for part in self.parts if not part["complete"])
        here = (part["name"] for part in self.parts if part["again"] and part["name"] in SEARCHES)
        return tuple(dict.fromkeys([*late, *here]))

    @property
    def verdict(self) -> str:
        return verdict_of(self.plant, self.looked)

    def as_json(self) -> dict[str, Any]:
        return {
            "form": FORM,
            "edgedeploy": __version__,
            "variant": self.variant,
            "digest": self.digest,
            "sleeping_backdoor_found_by": list(self.plant),
            "sleeping_backdoor_looked_for_by": list(self.looked),
            "incomplete": list(self.incomplete),
            "parts": list(self.parts),
        }


def audit(
    folder: str | Path,
    pick: str,
    *,
    out: Path | None = None,
    only: Sequence[str] = (),
    minutes: float = 5.0,
    shadows: int = 0,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> Audit:
    """Audit one variant of a study: ``pick`` as for a bundle. ``minutes`` is what each part may take at most.

    Raises what :func:`edgedeploy.study.bundle.material.gather` raises, and ``SpecError`` for a part that is not known.
    """
    wanted = _parts(only)
    if not minutes > 0:
        raise SpecError(f"--minutes {minutes:g}", "no part can be made in no time", "Give more than 0")
    if seed < 0:
        raise SpecError(f"--seed {seed}", "a seed is a whole number from 0 up", "Give one")
    try:
        material = gather(folder, pick)
    except GoalNotMet as exc:  # its exit code says of an audit that a backdoor was found
        raise SpecError(exc.asked, exc.found, exc.remedy) from None
    place = out or Path(folder) / FOLDER / material.measurement.digest
    _check_place(place)
    subject = subject_of(material)
    identity = _identity(material, shadows, seed)
    variant = material.measurement.variant
    pair = cache(partial(open_pair, subject))
    found = []
    for part in wanted:
        kept = _kept(place, part, identity)
        if kept is None:
            tell(f"{part.name} ...")
            end_s = time.monotonic() + 60 * minutes
            asked = Asked(subject, pair, variant, seed, shadows, partial(_is_over, end_s), tell)
            kept = _made(part, asked, place, identity)
        tell(_told(part, kept))
        found.append(kept)
    result = Audit(place, variant.label, material.measurement.digest, tuple(found))
    write_atomic(place / "audit.json", (json.dumps(result.as_json(), indent=1, allow_nan=False) + "\n").encode())
    write_atomic(place / "audit.md", page(result.as_json()).encode())
    return result


def _is_over(end_s: float) -> bool:
    return time.monotonic() > end_s


def _parts(only: Sequence[str]) -> tuple[Part, ...]:
    for name in only:
        if name not in NAMES:
            raise SpecError(f"--only {name}", "there is no such part", nearest(name, NAMES))
    return tuple(part for part in PARTS if not only or part.name in only)


def _check_place(place: Path) -> None:
    """A link is never followed for writing."""
    for path in (place, place.parent, place / "parts"):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise SpecError(
                f"write the audit to {path}", "it is a link, or no folder", "Remove it, or give another --out"
            )


def subject_of(material: Material) -> Subject:
    """The variant with its float model and at most :data:`MOST_CASES` cases of the selection split."""
    reference = material.reference
    plain = Subject(
        name=material.measurement.variant.label,
        reference=reference.path,
        quantized=reference.quantized or reference.as_given,
        artifact=material.artifact,
        folder=material.artifact_folder,
        images=None,
        task=material.task,
        arch=material.arch,
    )
    if reference.states:
        return replace(plain, why_no_images="the network carries state: its cases are clips")
    if len(reference.inputs) != 1 or reference.inputs[0].dtype != "float32":
        return replace(plain, why_no_images="the network has several inputs, or one that is not float32")
    spec = reference.inputs[0]
    count = min(MOST_CASES, max(1, MOST_VALUES // int(np.prod(spec.shape))))
    cases: list[Case] = list(material.task.cases("selection"))[:count]
    images: Array = np.concatenate([inputs_of(material.task, case, material.arch)[spec.name] for case in cases])
    return replace(plain, images=images, cases=tuple(cases))


def _identity(material: Material, shadows: int, seed: int) -> dict[str, Any]:
    return {
        "form": FORM,
        "edgedeploy": __version__,
        "artifact": material.artifact.digest,
        "reference": material.reference.sha256,
        "shadows": shadows,
        "seed": seed,
    }


def _kept(place: Path, part: Part, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The part as it was made before, of the same things; None where it is not there, is incomplete or of others."""
    try:
        data = json.loads((place / "parts" / f"{part.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or set(data) != KEPT or data["name"] != part.name or data["made_from"] != identity:
        return None
    return data if data["complete"] and not data["again"] else None


def _made(part: Part, asked: Asked, place: Path, identity: dict[str, Any]) -> dict[str, Any]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    try:
        result = part.make(asked)
    except (BuildError, MeasurementError, TargetUnavailable) as exc:  # of a machine that does not run the artifact
        result = Result((), {}, f"{exc.asked}: {exc.found}", again=True)
    data = {
        "name": part.name,
        "title": part.title,
        "measured": list(result.lines),
        "why_not": result.why_not,
        "plant": result.plant,
        "complete": result.complete,
        "again": result.again,
        "limits": part.limits,
        "wall_s": round(time.perf_counter() - wall_s, 2),
        "processor_s": round(time.process_time() - cpu_s, 2),
        "files": sorted(result.files),
        "data": result.data,
        "made_from": identity,
    }
    for name, content in result.files.items():
        write_atomic(place / name, content)
    text = json.dumps(data, indent=1, allow_nan=False)
    write_atomic(place / "parts" / f"{part.name}.json", f"{text}\n".encode())
    kept: dict[str, Any] = json.loads(text)
    return kept


def _told(part: Part, kept: dict[str, Any]) -> str:
    if kept["why_not"]:
        said = f"not measured, because {kept['why_not']}"
    else:
        said = "FOUND" if kept["plant"] else kept["measured"][0]
    return f"{part.name}: {said} ({kept['wall_s']:.0f} s)"
