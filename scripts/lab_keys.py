"""The page of all keys of lab files, made from the models that check them.

python scripts/lab_keys.py           print it
python scripts/lab_keys.py --write   write docs/reference/lab-keys.md
"""

from __future__ import annotations

import sys
from typing import Any, Final

from keys import section
from made_pages import REFERENCE, write_or_print

from edgedeploy.spec.schema import lab_schema

PAGE = REFERENCE / "lab-keys.md"

OF_STUDIES: Final = {"boards": "BoardTable", "measure": "MeasureTable"}
"""Tables that a lab file has as a study file has them."""

HEAD = """\
# All keys of a lab file

Made by `scripts/lab_keys.py` from the models that check a lab file, which `edgedeploy nightly` reads. `[[boards]]` and
`[measure]` are those of a study file: see [its keys](keys.md). Paths are relative to the lab file.

Quantities are texts with a unit (`"6 h"`). An unknown key is an error.
"""


def tables(schema: dict[str, Any]) -> dict[str, str]:
    """The lab file's own tables by their headings, each with its model's name, in the order of the models."""
    found = {}
    for name, value in schema["properties"].items():
        if name not in OF_STUDIES:
            listed = "items" in value
            model = str((value["items"] if listed else value)["$ref"]).rpartition("/")[2]
            found[f"[[{name}]]" if listed else f"[{name}]"] = model
    return {**found, "idle.studies": "IdleStudy"}


def page() -> str:
    schema = lab_schema()
    return "\n".join([HEAD, *(section(title, schema["$defs"][model]) for title, model in tables(schema).items())])


if __name__ == "__main__":
    raise SystemExit(write_or_print(PAGE, page, __doc__, sys.argv[1:]))
