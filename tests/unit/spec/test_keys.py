"""Every key of a study file has a description, stands on the page of all keys, and in the JSON schema."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import keys
import lab_keys
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.records.shrink import SHRINK_KEYS
from edgedeploy.records.variant import DEPLOYMENT_KEYS
from edgedeploy.spec.lab import LabSpec, parse_lab
from edgedeploy.spec.schema import lab_schema, quantity_text, study_schema
from edgedeploy.spec.space import SPACE_KEYS
from edgedeploy.spec.study import StudySpec

REPO = Path(__file__).resolve().parents[3]
FILES = sorted([*REPO.glob("docs/**/*.toml"), *REPO.glob("edgedeploy/study/recipes/*.toml")])
LABS = [path for path in FILES if "lab" in tomllib.loads(path.read_text(encoding="utf-8"))]
STUDIES = [path for path in FILES if path not in LABS]
WHOLE = (REPO / "edgedeploy" / "study" / "recipes" / "demo.toml").read_text(encoding="utf-8")


def models(table: type[BaseModel], seen: set[type[BaseModel]] | None = None) -> Iterator[type[BaseModel]]:
    seen = set() if seen is None else seen
    if table in seen:
        return
    seen.add(table)
    yield table
    for field in table.model_fields.values():
        kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from models(kind, seen)


@pytest.mark.parametrize(
    "table", [*dict.fromkeys([*models(StudySpec), *models(LabSpec)])], ids=lambda table: table.__name__
)
def test_every_key_is_described(table: type[BaseModel]) -> None:
    assert table.__doc__
    assert [name for name, field in table.model_fields.items() if not field.description] == []


def test_every_table_stands_on_the_page() -> None:
    assert {table.__name__ for table in models(StudySpec)} - {"StudySpec"} == set(keys.tables(study_schema()).values())


def test_the_page_of_all_keys_is_the_one_that_the_models_give() -> None:
    assert keys.PAGE.read_text(encoding="utf-8") == keys.page(), "python scripts/keys.py --write makes it anew"


def test_the_page_of_a_lab_files_keys_is_the_one_that_the_models_give() -> None:
    assert lab_keys.PAGE.read_text(encoding="utf-8") == lab_keys.page(), "python scripts/lab_keys.py --write"
    own = {table.__name__ for table in models(LabSpec)} - {table.__name__ for table in models(StudySpec)} - {"LabSpec"}
    assert own == set(lab_keys.tables(lab_schema()).values())


def is_table(field: Any) -> bool:
    kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
    return any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)


def test_every_key_stands_on_the_page() -> None:
    page = keys.page()
    tables = [table for table in models(StudySpec) if table is not StudySpec]
    rows = [name for table in tables for name, field in table.model_fields.items() if not is_table(field)]
    assert [name for name in rows if f"| `{name}` |" not in page] == []
    assert len(rows) > 60


def test_the_space_names_what_edgedeploy_understands() -> None:
    assert set(SPACE_KEYS) == {*DEPLOYMENT_KEYS, *SHRINK_KEYS} - {"target"}  # targets are named in [study]


def test_the_command_prints_the_schema() -> None:
    done = CliRunner().invoke(app, ["schema"], catch_exceptions=False)
    assert json.loads(done.stdout) == study_schema()
    of_labs = CliRunner().invoke(app, ["schema", "--lab"], catch_exceptions=False)
    assert json.loads(of_labs.stdout) == lab_schema()
    assert "null" not in done.stdout


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (86400.0, "s", "24 h"),
        (90.0, "s", "90 s"),
        (0.5, "s", "0.5 s"),
        (50_000_000, "ns", "50 ms"),
        (1500, "ns", "1500 ns"),
    ],
)
def test_defaults_are_said_with_their_unit(value: float, unit: str, text: str) -> None:
    assert quantity_text(value, unit) == text


# -- the schema accepts what a search accepts


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def problems(validator: Any, text: str) -> list[str]:
    return [error.message for error in validator.iter_errors(tomllib.loads(text))]


def test_there_are_study_files_to_hold_against_the_schema() -> None:
    assert {
        path.name for path in resources.files("edgedeploy.study.recipes").iterdir() if path.name.endswith(".toml")
    } <= {path.name for path in STUDIES}


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: str(path.relative_to(REPO)))
def test_the_schema_takes_every_study_file_that_ships(study: Path, validator: Any) -> None:
    assert problems(validator, study.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("lab", LABS, ids=lambda path: str(path.relative_to(REPO)))
def test_every_lab_file_that_ships_is_taken(lab: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = lab_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    text = lab.read_text(encoding="utf-8")
    parse_lab(text, lab)
    assert problems(jsonschema.Draft202012Validator(schema), text) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('[[boards]]\nname = "loopback"\nkind = "emulated"', '[board]\nname = "x"\nkind = "emulated:arm64"'),
        ("[budget]", '[measure]\nprotocols = ["offline"]\n[budget]'),
        ("[budget]", '[measure]\nscenarios = ["multi_stream"]\nmulti_stream = { interval = "33 ms" }\n[budget]'),
        ("width = [1.0, 0.75, 0.5, 0.25]", "width = { low = 0.25, high = 1.0, step = 0.25 }"),
    ],
)
def test_other_ways_to_say_it_are_taken(old: str, new: str, validator: Any) -> None:
    text = re.sub(r"kind = \"emulated\" #.*", 'kind = "emulated"', WHOLE)
    assert old in text
    assert problems(validator, text.replace(old, new)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trials = 22", "trails = 22"),
        ("trials = 22", "trials = 0"),
        ("trials = 22", 'trials = "22"'),
        ('"14 min"', '"14 minutes"'),
        ('"14 min"', "840"),
        ('kind = "synthetic-ultrasound"', 'kind = "synthetic"'),
        ('kind = "emulated"', 'kind = "emulated:arm46"'),
        ("width = [1.0, 0.75, 0.5, 0.25]", "width = []"),
        ("width = [1.0, 0.75, 0.5, 0.25]", "width = { low = 0.25 }"),
        ('at_most = "1 GB"', "at_most = true"),
        ("[[boards]]", "[[boards]]\nport = 70000"),
        ("[[boards]]", "[[machines]]"),
        ("[budget]", '[measure]\nscenarios = ["sustaned"]\n[budget]'),
    ],
)
def test_what_a_file_gets_wrong_is_refused(old: str, new: str, validator: Any) -> None:
    assert old in WHOLE
    assert problems(validator, WHOLE.replace(old, new)) != []


def test_a_number_that_stays_below_its_bound_is_said_so() -> None:
    assert keys._range({"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.0}) == " (0.0 or more and below 1.0)"
    assert keys._range({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}) == " (above 0 and below 1)"
    assert keys._range({"type": "integer", "minimum": 0, "exclusiveMaximum": 8}) == " (0 to 7)"
