"""CONTRIBUTING.md keeps what it promises: a board and a task are added here as its chapters say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from extending_kit import REPO, Tree, promised

BOARD = re.compile(r"^## A kind of board.*?```toml\n(.*?)```", re.DOTALL | re.MULTILINE)


def test_a_kind_of_board_is_as_many_files_as_promised(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    (board,) = BOARD.findall((REPO / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    tree.add("boards/catalog/unseen-cart.toml", board)
    done = tree.run("-m", "edgedeploy", "boards", "--catalog", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = [board for board in json.loads(done.stdout) if board["id"] == "unseen-cart"]
    assert found["name"] == "A cart"
    assert len(tree.changed()) == promised("kind of board")
    tree.passes("tests/unit/boards/test_board_catalog.py")


def test_a_task_is_as_many_files_as_promised(tmp_path: Path) -> None:
    """Beside the study that names it, in the user's own folder: nothing of the package changes."""
    shutil.copy(REPO / "docs/examples/squares.py", tmp_path / "my_task.py")
    study = (REPO / "docs/examples/squares.toml").read_text(encoding="utf-8")
    (tmp_path / "study.toml").write_text(study.replace("squares.py:", "my_task.py:"), encoding="utf-8")
    script = "import edgedeploy; print(edgedeploy.load_study('study.toml').check().name)"
    done = Tree(tmp_path / "tree").run("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = [path.name for path in tmp_path.iterdir() if path.suffix == ".py"]
    assert len(written) == promised("task")
