"""A study over SSH with a key of its own: neither the key nor where it lies gets into anything that is kept or printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S, need_sshd
from made_up_study import ONE_TRIAL

from edgedeploy.boards.emulated.board import serve
from edgedeploy.errors import Advice, Setting, SpecError
from edgedeploy.report.private import NOT_READ, shown
from edgedeploy.spec.lab import LabSpec
from edgedeploy.spec.public import LAB_PUBLIC, NOT_SHOWN, PUBLIC, hide_in, is_public, private_words, without
from edgedeploy.spec.study import StudySpec, load_spec

pytestmark = pytest.mark.beside

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
DISTINCT = "key-of-the-lab-7f3a91c2"
BOARD = """\
[[boards]]
name = "cart"
kind = "ssh"
host = "{host}"
port = {port}
user = "{user}"
identity = "{identity}"
known_hosts = "{known_hosts}"
python = "{python}"
root = "{root}"
"""


def texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below, and what is inside of zips (artifacts, outputs)."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        yield path, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield path / name, archive.read(name)


@pytest.mark.fault(39)
def test_neither_the_key_nor_its_place_is_kept_or_printed(tmp_path: Path) -> None:
    """The study file itself is kept as it was given, with the path that its author wrote: nothing else may name it."""
    need_sshd()
    out, root = tmp_path / "out", tmp_path / "root"
    shutil.copy(EXAMPLES / "squares.py", tmp_path)
    text = (EXAMPLES / "squares.toml").read_text()
    start, end = text.index("[[boards]]"), text.index("[space]")
    with serve("sshd") as target:
        identity = tmp_path / DISTINCT
        shutil.copy(str(target.identity), identity)
        lines = identity.read_text().splitlines()
        secret = max(lines[1:-1], key=len).encode()
        table = BOARD.format(
            host=target.host,
            port=target.port,
            user=target.user,
            identity=identity,
            known_hosts=target.known_hosts,
            python=sys.executable,
            root=root,
        )
        text = (text[:start] + table + text[end:]).replace(', "openvino"]', "]").replace("count = 32", "count = 8")
        (tmp_path / "squares.toml").write_text(text)
        printed = []
        for arguments in (
            ["search", "squares.toml", "--out", "out", "--trials", "2"],
            ["report", "out"],
            ["front", "out", "--json"],
            ["boards", "squares.toml"],
        ):
            argv = [*warm_cli.command(), *arguments]
            done = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False, timeout=STUDY_LIMIT_S)
            assert done.returncode == 0, done.stdout + done.stderr
            printed.append(done.stdout + done.stderr)
        kept = list(texts(out))
        on_board = list(texts(root))

    assert any(path.name == "report.html" for path, _ in kept)
    assert any(path.suffix == ".json" and path.parent.name == "measurements" for path, _ in kept)
    assert on_board
    for where, data in [*kept, *on_board, *((Path("printed"), text) for text in printed)]:
        assert secret not in data, f"the key itself is in {where}"
        assert b"PRIVATE KEY-----" not in data, f"a private key is in {where}"
        if where != out / "study.toml":
            assert DISTINCT.encode() not in data, f"the key's place is in {where}"


# -- a secret in every text of a study file


def leaves(schema: dict[str, Any], node: dict[str, Any], key: str = "") -> Iterator[str]:
    """The dotted keys whose values may be texts, as the models have them: a key that is added is here by itself."""
    if "$ref" in node:
        node = {**schema["$defs"][node["$ref"].rpartition("/")[2]], **node}
    for option in node.get("anyOf", ()):
        yield from leaves(schema, option, key)
    if node.get("type") == "string" or "enum" in node or "const" in node:
        yield key
    for name, below in node.get("properties", {}).items():
        yield from leaves(schema, below, f"{key}.{name}" if key else name)
    for below in [*node.get("prefixItems", []), *([node["items"]] if "items" in node else [])]:
        yield from leaves(schema, below, key)
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        yield from leaves(schema, more, f"{key}.*")
    elif more is True:
        yield f"{key}.*"


SCHEMA: Final = StudySpec.model_json_schema()
TEXTS: Final = sorted(set(leaves(SCHEMA, SCHEMA)))
TABLES_TOO: Final = frozenset(key for key in TEXTS if f"{key}.*" in TEXTS)
"""Keys that are a text or a table of texts: a file has one of the two."""
SHOWN: Final = {
    *("study.name", "study.targets", "task.kind", "task.checkpoint_key", "space.*", "plans.*.*"),
    *("boards.name", "boards.kind", "boards.machine", "boards.server", "boards.governor", "boards.nvpmodel"),
    *("objectives.metric", "objectives.goal", "objectives.min_effect", "objectives.scale"),
    *("search.sampler", "try.*", "never.*", "only.parameter", "only.when.*"),
    *("constraints.metric", "constraints.at_most", "constraints.at_least", "constraints.margin"),
    *(
        "budget.wall_clock",
        "pick.non_inferiority_margin",
        "evidence.margin",
        "evidence.margin.*",
        "evidence.lost_case",
        "evidence.lost_case.*",
        "measure.scenarios",
        "measure.time_limit",
        "measure.cool_down",
    ),
    *(
        "measure.realtime.policy",
        "measure.realtime.stages",
        "measure.realtime.deadline",
        "measure.multi_stream.interval",
    ),
    *("measure.server.deadline", "measure.server.every", "measure.server.max_wait", "measure.server.time_limit"),
    "measure.server.stuck_after",
    *("measure.sustained.duration", "measure.sustained.window", "measure.resources.period"),
    "measure.flare.period",
    *(
        f"measure.{name}.stuck_after"
        for name in ("sustained", "realtime", "multi_stream", "offline", "resources", "flare")
    ),
}
"""What is published, said a second time: who adds to it decides twice."""

LAB_SHOWN: Final = {
    *("lab.name", "lab.budget", "idle.studies.board", "entries.id", "entries.pick", "entries.boards"),
    *("entries.owner", "entries.metrics", "entries.accuracy_margin"),
}
"""The same of a lab file's own tables."""


def secret_of(key: str) -> str:
    return f"SECRET-{key.replace('.', '-').replace('*', 'any')}-7f3a"


def maximal() -> dict[str, Any]:
    """A study file with a secret in each text. No search takes it: what is published must not depend on that."""
    data: dict[str, Any] = {}
    for key in sorted({*TEXTS} - TABLES_TOO):
        *tables, name = key.replace("*", "any").split(".")
        place = data
        for table in tables:
            place = place.setdefault(table, {})
        place[name] = secret_of(key)
    return {key: [value] if key in ("boards", "objectives", "constraints") else value for key, value in data.items()}


def as_toml(data: dict[str, Any]) -> str:
    """As an author might write it, with what is private in a comment too."""
    lines = [f"# the password was {secret_of('comment')}"]
    for name, value in data.items():
        rows = value if isinstance(value, list) else [value]
        head = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
        for row in rows:
            lines += [
                head,
                *(f"{json.dumps(key)} = {inline(item)} # {secret_of('comment')}" for key, item in row.items()),
            ]
    return "\n".join(lines)


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {inline(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


@pytest.mark.fault(53)
def test_only_what_the_allow_list_names_is_published() -> None:
    assert len(TEXTS) > 40, "the schema was walked"
    assert set(SHOWN) >= PUBLIC and {key for key in TEXTS if is_public(key)} <= SHOWN
    data = maximal()
    text = shown(as_toml(data))
    there = {key for key in TEXTS if secret_of(key) in text}
    assert there <= SHOWN | {"task.object", "task.model", "task.checkpoint", "search.warm_start", "study.ranges"}
    assert not {"study.storage", "boards.host", "boards.power_cycle", "task.options.*", "measure.realtime.clip"} & there
    assert secret_of("comment") not in text
    hidden = private_words(data)
    assert {secret_of(key) for key in TEXTS if key not in there | TABLES_TOO} <= set(hidden)
    assert tomllib.loads(text)["boards"][0]["host"] == NOT_SHOWN


@pytest.mark.fault(53)
def test_of_a_lab_file_too_only_what_the_allow_list_names_is_published() -> None:
    schema = LabSpec.model_json_schema()
    texts = {*leaves(schema, schema)}
    assert {"lab.storage", "alarm.command", "entries.bundle", "idle.studies.file"} <= texts, "the schema was walked"
    assert LAB_PUBLIC <= LAB_SHOWN and {key for key in texts if is_public(key)} <= LAB_SHOWN | SHOWN


@pytest.mark.fault(53)
def test_a_key_that_nobody_decided_on_is_not_shown() -> None:
    text = shown('[boards]\nnew_key = "SECRET"\n[task.options]\npin = 1234\n[new]\na = ["SECRET", { b = "SECRET" }]')
    assert "SECRET" not in text and "1234" not in text
    assert shown('identity = "SECRET') == NOT_READ


@pytest.mark.fault(53)
def test_of_a_file_its_name_is_shown() -> None:
    text = shown('[task]\nkind = "onnx"\nmodel = "/home/jane.doe/clinic/net.onnx"\nobject = "lab/a.py:make"')
    assert 'model = "net.onnx"' in text and 'object = "a.py:make"' in text
    assert "jane" not in text and "lab" not in text


def test_what_is_shown_is_a_study_file_again() -> None:
    text = """[study]
name = "a" # as it was
targets = ["onnxruntime"]
storage = "postgresql+psycopg://lab@db/optuna"
[[boards]]
name = "cart"
host = "cart.lab"
power_cycle = ["relay", "cycle", "cart.lab", "1"] # port 1
[space]
width = [1.0, 0.5]
threads = { low = 1, high = 4, step = 1 }
[measure]
scenarios = ["realtime"]
realtime = { deadline = "40 ms", clip = "/data/patient.npy" }
"""
    assert (
        shown(text)
        == """[study]
name = "a"
targets = ["onnxruntime"]
storage = "(not shown)"

[[boards]]
name = "cart"
host = "(not shown)"
power_cycle = "(not shown)"

[space]
width = [1.0, 0.5]
threads = { low = 1, high = 4, step = 1 }

[measure]
scenarios = ["realtime"]
realtime = { deadline = "40 ms", clip = "(not shown)" }
"""
    )


def test_words_are_taken_out_where_they_are_words() -> None:
    hidden = ("postgresql://me@db", "secret-of-the-lab", "root", "://me:pw@")
    assert without("rooted in root, at postgresql://me@db/x", hidden) == "rooted in (left out), at (left out)/x"
    assert without("http://me:pw@host xsecret-of-the-laby", hidden) == "http(left out)host x(left out)y"


def test_words_are_taken_out_as_python_and_json_quote_them() -> None:
    token = "tok'en\\se\"cret\nLINE2 \u00e9"
    words = private_words({"task": {"options": {"token": token}}})
    for told in (token, repr(token), json.dumps(token)):
        assert "se" not in without(f"no access with {told}", words).replace("access", ""), told


def test_words_are_taken_out_of_what_an_error_has_as_values() -> None:
    """What says it in other words has these alone."""
    advice = Advice("Not", {"colour": "'tokA-0b51'"}, "[task.options]", ", tokA-0b51")
    exc = SpecError(Setting("task.options.tokA-0b51", "'tokA-0b51'"), "it is tokA-0b51", advice)
    hide_in(exc, ["tokA-0b51"])
    assert "0b51" not in f"{exc} {exc.args} {vars(exc)}" and exc.setting is not None and exc.advice is not None


# -- a search whose study file is full of them, and which fails in many ways

THEIR_TASK: Final = """
from squares import Squares

class Leaky(Squares):
    def __init__(self, count, token, deep):
        super().__init__(count)
        self._token = token + " " + deep["key"]

    def build(self, **arch):
        if arch["kernel"] == 5:
            raise RuntimeError("no access with " + self._token)
        return super().build(**arch)

def make_task(**options):
    return Leaky(**options)
"""
OPTION, DEEP, RELAY, COORDINATOR = (f"SECRET-{name}-0b51" for name in ("option", "deep", "relay", "coordinator"))
KEY_FILE, HOST, USER = (f"secret-{name}-0b51" for name in ("keyfile", "host", "user"))
AWAY: Final = f"""
[[boards]]
name = "away"
kind = "ssh"
host = "{HOST}.invalid"
user = "{USER}"
identity = "/nowhere/{KEY_FILE}"
known_hosts = "/nowhere/{KEY_FILE}.hosts"
power_cycle = ["/nowhere/{RELAY}", "--password", "{RELAY}-password"]
away = "0 s"

[[boards]]
name = "away in a lab"
kind = "ssh"
host = "{HOST}.invalid"
labgrid = "{RELAY}"
labgrid_coordinator = "{COORDINATOR}:20408"
away = "0 s"

[space]
"""


@pytest.mark.fault(53)
def test_a_secret_anywhere_in_a_study_is_neither_written_nor_printed(tmp_path: Path) -> None:
    """The folder's copy of the study file has them: it is what --resume is held against, and it is the owner's. A host and
    the place of a key are told to the author on the terminal where that board fails, and nowhere else."""
    shutil.copy(EXAMPLES / "squares.py", tmp_path)
    (tmp_path / "leaky.py").write_text(THEIR_TASK)
    text = (EXAMPLES / "squares.toml").read_text()
    for old, new in (
        ('object = "squares.py:make_task"', 'object = "leaky.py:make_task"'),
        ("options = { count = 32 }", f'options = {{ count = 8, token = "{OPTION}", deep = {{ key = "{DEEP}" }} }}'),
        (', "openvino"]', "]"),
        ("queries = 64", "queries = 16"),
        ("[space]\n", AWAY),
        ("width = [1.0, 0.5]", "width = [1.0]"),
        ('precision = ["float32", "int8"]', 'precision = ["float32"]'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "leaky.toml").write_text(text)
    search = ["search", "leaky.toml", "--out", "out", "--trials", "2"]
    printed, told = [], []
    for arguments, statuses, private in (
        ([*search, "--board", "here"], (0, 2, 3, 4), True),
        (["front", "out", "--json"], (0, 1), True),
        (["report", "out"], (0,), True),
        (["report", "out", "--markdown", "out/page.md"], (0,), True),
        (["plot", "out", "--out", "out/front.svg"], (0, 2), True),
        (["search", "leaky.toml", "--out", "other", "--board", "away"], (2, 3), False),
        (["search", "leaky.toml", "--out", "other", "--board", "away in a lab"], (2, 3), False),
    ):
        argv = [*warm_cli.command(), *arguments]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False, timeout=STUDY_LIMIT_S)
        assert done.returncode in statuses, done.stdout + done.stderr
        assert b"Traceback" not in done.stderr
        (printed if private else told).append((Path(arguments[0]), done.stdout + done.stderr))
    kept = [(where, data) for where, data in texts(tmp_path / "out") if where != tmp_path / "out" / "study.toml"]
    assert {"report.html", "page.md"} <= {where.name for where, _ in kept}
    assert b"no access with" in (tmp_path / "out" / "events.jsonl").read_bytes(), "the failure that quotes it was told"
    for where, data in [*kept, *printed]:
        for word in (OPTION, DEEP, RELAY, COORDINATOR, KEY_FILE, HOST, USER):
            assert word.encode() not in data, f"{word} is in {where}"
    for where, data in told:
        for word in (OPTION, DEEP, RELAY + "-password", COORDINATOR):
            assert word.encode() not in data, f"{word} is printed by {where}: {data!r}"


@pytest.mark.fault(53)
def test_a_database_with_a_password_is_refused_though_another_is_given(tmp_path: Path) -> None:
    """The folder would keep the study file's."""
    (tmp_path / "study.toml").write_text(ONE_TRIAL.replace("[task]", 'storage = "postgresql://me:SECRET@db/o"\n[task]'))
    argv = [sys.executable, "-m", "edgedeploy", "search", "study.toml", "--out", "out"]
    argv += ["--storage", "postgresql+psycopg://lab@db/optuna"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=STUDY_LIMIT_S)
    assert done.returncode == 2 and "storage" in done.stderr
    assert "SECRET" not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(53)
@pytest.mark.parametrize("wrong", ["storage = ['SECRET']", "seed = 'SECRET'", "[[boards]]\npower_cycle = 'SECRET'"])
def test_what_a_study_file_gets_wrong_is_not_quoted_where_it_may_be_private(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(f"[study]\nname = 'a'\ntargets = ['onnxruntime']\n{wrong}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "study.toml")
    assert "SECRET" not in str(caught.value)
