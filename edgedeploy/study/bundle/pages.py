"""``MODEL_CARD.md`` and ``CHANGES.md``: what people read before they use a bundle. Evidence, never a claim of compliance."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgedeploy.evidence.front import Row
from edgedeploy.evidence.quantities import heading, quantity, with_span
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.runtime.bundle.manifest import Manifest
from edgedeploy.study.bundle.facts import classes_of
from edgedeploy.study.bundle.golden import GoldenSet
from edgedeploy.study.bundle.material import NO_STEPS, Material
from edgedeploy.study.bundle.options import NOT_STATED, BundleOptions
from edgedeploy.study.front import reason_of_pick

WHY_ONE: Final = (
    "This bundle has one point of the front, not the whole front: a device runs one, its golden vectors and claims are of "
    "that one, and several compressed versions of one model tell more about the cases it was trained on than one does."
)
NO_CLAIM: Final = (
    "This is evidence, in an order that reviewers know. It is no claim that the product or the process complies with any "
    "regulation; whoever makes such a claim answers for it."
)
FRAMES: Final = (
    "A frame is an array (height, width) of grey values or (height, width, 3) of red, green, blue: uint8, or float32 where "
    "there is more to say than 8 bits; black is 0 and white 255."
)


def plain(text: object) -> str:
    """A text of the study, the task or the maker's where Markdown stands: it is shown as it is and does nothing."""
    return html.escape(str(text), quote=False).translate(_NO_MARKUP)


def code(text: object) -> str:
    """The same, as a name in code."""
    return f"`{' '.join(str(text).split()).translate(_NO_CODE)}`"


_NO_MARKUP: Final = str.maketrans({"\n": " ", "|": "\\|", "`": "'", "[": "\\[", "]": "\\]"})
_NO_CODE: Final = str.maketrans({"|": "\\|", "`": "'"})


def model_card(material: Material, options: BundleOptions, manifest: Manifest, golden: GoldenSet) -> str:
    """Markdown. The first line after the title says what is not shown, where something is not."""
    found = material.measurement
    warning = f"> **{plain(material.choice.text)} It was chosen by hand.**\n" if material.choice.warned else ""
    runtime = manifest.compatibility.runtime
    parts = [
        f"# {manifest.name}, release {manifest.release}\n",
        warning,
        _list(
            {
                "Variant": f"{plain(found.variant.label)} ({code(found.digest)})",
                "Why this one": plain(_why(material)),
                "Against the float baseline": plain(material.choice.text),
                "Target": f"{manifest.target}, {runtime.package} {runtime.measured_with}",
                "Measured on": plain(
                    f"{found.board.name}: {found.board.cpu}, {found.board.cores} cores, {found.provenance}"
                ),
                "Stands until": manifest.not_after or "no date is stated",
                "Support": plain(options.support or NOT_STATED),
                "End of support": options.end_of_support or NOT_STATED,
            }
        ),
        WHY_ONE + "\n",
        "## What it takes and gives\n",
        _takes(material, manifest),
        "## What was measured\n",
        _measured(material),
        "## Golden vectors\n",
        _golden(golden),
        "## What is not known\n",
        _unknown(material),
        "## Files\n",
        _FILES,
    ]
    return "\n".join(part for part in parts if part)


def _why(material: Material) -> str:
    if material.choice.picked and material.front.pick:
        return f"the study's pick: {reason_of_pick(material.front)}"
    return "it was named by hand; the study's own rule did not pick it"


def _takes(material: Material, manifest: Manifest) -> str:
    lines = []
    if material.steps.input:
        lines += [FRAMES, "", "Before inference:", "", *(_step(step) for step in manifest.pipeline.input)]
        if getattr(getattr(material.task, "options", None), "value_range", None) == "raw":
            lines += ["", 'The study read its files\' own numbers (`value_range = "raw"`): a frame has these.']
    if material.steps.output:
        lines += ["", "After inference:", "", *(_step(step) for step in manifest.pipeline.output)]
        classes = classes_of(material)
        if classes:
            lines += ["", f"Classes: {', '.join(f'{number} {plain(name)}' for number, name in enumerate(classes))}."]
    if not material.steps.input and not material.steps.output:
        lines.append(f"Tensors: {NO_STEPS}.")
    tensors = [("input", item) for item in manifest.inputs] + [("output", item) for item in manifest.outputs]
    lines += ["", *(f"- {kind} {code(item.name)}: {item.dtype} {list(item.shape)}" for kind, item in tensors)]
    return "\n".join(lines).strip() + "\n"


def _step(step: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key} {plain(value)}" for key, value in step.items() if key != "step")
    return f"1. {step['step']}{f': {settings}' if settings else ''}"


def _measured(material: Material) -> str:
    front, row = material.front, material.choice.row
    reference = front.row(front.reference)
    beside = reference if reference is not None and reference.digest != row.digest else None
    names = sorted(row.estimates)
    lines = [
        f"| metric | this variant |{' float baseline |' if beside else ''}",
        f"|---|---|{'---|' if beside else ''}",
    ]
    for name in names:
        cells = [_cell(front, row, name), *([_baselines(front, row, beside, name)] if beside else [])]
        lines.append(f"| {plain(heading(name))} ({code(name)}) | {' | '.join(cells)} |")
    count = len(material.measurement.cases)
    lines += [
        "",
        f"Of {count} cases of the split `{material.measurement.split}`; intervals of 95 %. The baseline's times and memory "
        "are those of the run that was interleaved with this variant: another session's do not compare. All stand in "
        "`claims.json`.",
    ]
    return "\n".join(lines) + "\n"


def _cell(front: Any, row: Row, name: str) -> str:
    return with_span(row.estimates[name], name, front.unit(name)) if name in row.estimates else "-"


def _baselines(front: Any, row: Row, baseline: Row, name: str) -> str:
    """The baseline's value as it may stand beside the variant's: what depends on the session is of the same session."""
    if name in row.beside:
        return quantity(row.beside[name], name, front.unit(name))
    info = BOARD_METRICS.get(name)
    return _cell(front, baseline, name) if info is None or info.exact else "-"


def _golden(golden: GoldenSet) -> str:
    limits = [
        f"- output {code(name)}: relative L2 {item.relative_l2:g}" for name, item in golden.golden.tolerance.items()
    ]
    share = golden.golden.result_tolerance
    limits += [f"- result: {share.share_differing:.2%} of its elements may differ"] if share else []
    text = f"{len(golden.golden.cases)} cases: {golden.told}. A device that is farther away does not start:"
    return "\n".join([text, "", *limits]) + "\n"


def _unknown(material: Material) -> str:
    found = material.measurement
    lines = [f"- {plain(heading(name))} ({code(name)}): {plain(why)}" for name, why in sorted(found.missing.items())]
    confirmed = any(item.digest == found.digest for item in material.store.confirmations())
    lines += [] if confirmed else ["- The confirmation split was not opened for this variant."]
    named = bool(found.groups) or material.front.clusters_named  # cases that each stand alone leave no groups to keep
    lines += [] if named else ["- Clusters of cases (patients, clips, sites) are unknown: the task names none."]
    if found.variant.image_codec:
        coded = code(found.variant.image_codec)
        lines.append(
            f"- Images that were coded otherwise than by {coded}: accuracy was measured on those that it decoded."
        )
    if found.provenance != "measured":
        lines.append(f"- Times and memory of a real device: these numbers are {found.provenance}.")
    return "\n".join(lines) + "\n" if lines else "Nothing that the study asked for.\n"


def _list(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- **{name}**: {text}" for name, text in facts.items()) + "\n"


_FILES: Final = """\
| file | what |
|---|---|
| `bundle.json` | the manifest: what a runtime checks and loads |
| `artifact/` | what the runtime loads, or builds from |
| `model/reference.onnx` | the ONNX model it was built from |
| `model/weights.edpack` | its weights as they were packed, if they were (`storage`): `edgedeploy pack` sends these |
| `golden/` | golden vectors |
| `recipe.json` | how it was built, with versions |
| `claims.json` | what was measured, with intervals, where and when |
| `provenance.json` | hashes from the checkpoint to the artifact |
| `sbom.cdx.json` | bill of materials (CycloneDX 1.6) |
| `CHANGES.md` | what changed against the float baseline, how that was judged, and what it does |
| `model.sig` | the signature over all of these (OpenSSF Model Signing), if it is signed |
"""


def changes(material: Material) -> str:
    """The change against the float baseline, in the three parts of a predetermined change control plan (FDA)."""
    found, choice = material.measurement, material.choice
    front = material.front
    goals = [f"{goal.metric} ({goal.direction})" for goal in front.objectives]
    reference = front.row(front.reference)
    return "\n".join(
        [
            "# Change report\n",
            NO_CLAIM + "\n",
            "## 1. Description of modifications\n",
            _list(
                {
                    "From": plain(reference.variant.label) if reference else "no float baseline",
                    "To": plain(found.variant.label),
                }
            ),
            *_modifications(found.variant.as_json(), reference.variant.as_json() if reference else {}),
            "",
            "## 2. Modification protocol\n",
            _list(
                {
                    "Objectives": plain(", ".join(goals)),
                    "Limits": plain(
                        "; ".join(item.text(front.unit(item.metric)) for item in front.constraints) or "none"
                    ),
                    "Allowed loss": plain(choice.rules) or "no margin was stated",
                    "Data": _splits(material),
                    "Chosen": plain(_why(material)),
                }
            ),
            "## 3. Impact assessment\n",
            f"{plain(choice.text)}\n",
            _measured(material),
            _unknown(material),
        ]
    )


def _modifications(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What of the variant differs, a line each."""
    names = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]
    return [f"- {name}: {_said(theirs.get(name))} -> {_said(ours.get(name))}" for name in names] or ["- nothing"]


def _said(value: Any) -> str:
    return "the default" if value is None else plain(value)


def _splits(material: Material) -> str:
    kept: Mapping[str, Mapping[str, Any]] = material.study.get("cases") or {}
    counts: Sequence[str] = [f"{split} {item['count']}" for split, item in kept.items()]
    openings = len(material.store.openings())
    return f"cases by split: {', '.join(counts) or 'not recorded'}; the confirmation split was opened {openings} times"
