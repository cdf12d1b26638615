"""A study over SSH with a key of its own: neither the key nor where it lies gets into anything that is kept or printed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_kit import STUDY_LIMIT_S, need_sshd

from edgedeploy.boards.emulated.board import serve
from edgedeploy.report.private import NOT_SHOWN, shown

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
            argv = [sys.executable, "-m", "edgedeploy", *arguments]
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
        assert b"PRIVATE KEY" not in data, f"a private key is in {where}"
        if where != out / "study.toml":
            assert DISTINCT.encode() not in data, f"the key's place is in {where}"


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    "text",
    [
        'identity = "SECRET"',
        "known_hosts='SECRET'",
        'identity = "a \\" SECRET"',
        'identity = """\nSECRET"""',
        'power_cycle = [\n  "curl", "-u", "me:SECRET",\n]',
        'power_cycle = ["]", "SECRET"]',
        'boards = [{ name = "b", identity = "SECRET" }]',
        '"identity" = "SECRET"',
        "'known_hosts' = 'SECRET'",
        '"power_cycle" = ["curl", "-u", "me:SECRET"]',
        "'power_cycle' = ['curl', 'me:SECRET']",
        'power_cycle = [\n  "curl", # not ] but "\n  "me:SECRET",\n]',
        "power_cycle = [ # SECRET\n]",
        'power_cycle = ["curl", """\na "quoted" ]SECRET"""]',
        "power_cycle = ['''it's ]SECRET''']",
        'identity = """a \\""" SECRET"""',
        'identity = """SECRET"""""',
        '[study]\nstorage = "postgresql+psycopg://me:SECRET@db/optuna"',
        'study.storage = "postgresql+psycopg://me:SECRET@db/optuna"',
        '[study]\n"storage" = "postgresql+psycopg://me:SECRET@db/optuna"',
    ],
)
def test_report_shows_a_study_file_without_its_secrets(text: str) -> None:
    assert "SECRET" in text
    assert "SECRET" not in shown(text)
    assert shown('host = "cart"\nprecision = ["int8"]') == 'host = "cart"\nprecision = ["int8"]'


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    "text",
    [
        '[[boards]]\n"power\\u005fcycle" = ["curl", "me:SECRET"]',
        '[[boards]]\n"\\u0069dentity" = "SECRET"',
        '[study]\n"stor\\u0061ge" = "postgresql://me:SECRET@db/o"',
        '[[boards]]\npower_cycle = [["curl", "SECRET"], "b"]',
        '# it was me:SECRET once\n[[boards]]\npower_cycle = ["curl", "me:SECRET"]',
        '[[boards]]\nidentity = "~/SECRET"\npython = "ssh -i ~/SECRET python"',
        'identity = "SECRET',
    ],
)
def test_a_study_file_whose_secrets_cannot_be_hidden_is_left_out(text: str) -> None:
    assert "SECRET" in text
    assert shown(text) == NOT_SHOWN


def test_the_rest_of_a_study_file_stays_as_its_author_wrote_it() -> None:
    text = """[study]
name = "a" # as it was
storage = "postgresql+psycopg://lab@db/optuna"
[[boards]]
host = "cart.lab"
power_cycle = ["relay", "cycle", "cart.lab", "1"] # port 1
identity = '~/.ssh/lab'
"""
    hidden = """[study]
name = "a" # as it was
storage = "(left out)"
[[boards]]
host = "cart.lab"
power_cycle = "(left out)" # port 1
identity = "(left out)"
"""
    assert shown(text) == hidden
