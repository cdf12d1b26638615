"""Bundles of a small study with real artifacts: two builds, and what outside validators say."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ROOT
from benchmarks.evidence_kit.asked import Asked
from benchmarks.shared.rows import Row

sys.path.append(str(ROOT / "tests"))  # bundle_kit and product_kit


@contextmanager
def _study() -> Iterator[Path]:
    import bundle_kit

    with tempfile.TemporaryDirectory(prefix="edgedeploy-bundles-") as place:
        bundle_kit.made_up_study(Path(place) / "study")
        yield Path(place)


def bundle_built_twice(asked: Asked) -> Row:
    """Every byte, the signature's included."""
    import product_kit

    from edgedeploy.runtime.bundle.tree import read_tree
    from edgedeploy.study.bundle.make import make_bundle
    from edgedeploy.study.bundle.options import BundleOptions

    with _study() as place:
        key, _ = product_kit.make_key(place)
        options = BundleOptions(sign=key)
        made = [make_bundle(place / "study" / "runs", "pick", place / name, options).folder for name in ("a", "b")]
        first, second = ({**read_tree(folder).files} for folder in made)
    others = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    return Row(
        "two builds of one signed bundle", ", ".join(others) or f"{len(first)} files, equal", "equal", not others
    )


def bill_of_materials_valid(asked: Asked) -> Row:
    """CycloneDX 1.6 by the schema of cyclonedx-python-lib, offline, and every reference named."""
    import json

    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    from edgedeploy.study.bundle.make import make_bundle
    from edgedeploy.study.bundle.sbom import require_whole

    with _study() as place:
        folder = make_bundle(place / "study" / "runs", "pick", place / "bundle").folder
        text = (folder / "sbom.cdx.json").read_text("utf-8")
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    require_whole(json.loads(text))
    return Row("bill of materials (CycloneDX 1.6)", str(fault or "valid, no reference dangles"), "valid", fault is None)


ROWS = (bundle_built_twice, bill_of_materials_valid)
