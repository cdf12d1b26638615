"""`init` writes a study file that loads and passes every check; `recipe` prints files that run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from small_onnx import convolutional
from typer.testing import CliRunner

import edgedeploy
from edgedeploy.cli import begin
from edgedeploy.cli.app import app
from edgedeploy.errors import Advice, EdgeDeployError, Setting, SpecError
from edgedeploy.evidence.noninferiority import LEVEL, share_upper
from edgedeploy.records.metrics import Clock
from edgedeploy.spec.boards import board_of_word
from edgedeploy.spec.study import load_spec, parse_spec
from edgedeploy.spec.task import TaskTable
from edgedeploy.study.beginning import Beginning, study_text

pytestmark = pytest.mark.beside


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with models, arrays and images."""
    convolutional(tmp_path / "m.onnx")
    convolutional(tmp_path / "open.onnx", side="side")
    rng = np.random.default_rng(0)
    for folder, count in (("cases", 8), ("split/calibration", 2), ("split/val", 2), ("split/test", 2)):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(count):
            np.save(tmp_path / folder / f"{index}.npy", rng.standard_normal((1, 3, 16, 16)).astype(np.float32))
    (tmp_path / "images").mkdir()
    for index in range(8):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, asked: str | None = None) -> str:
    done = CliRunner().invoke(app, list(words), input=asked)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def written(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def test_init_writes_a_study_of_an_onnx_file_that_passes_every_check(place: Path) -> None:
    said = run("init", "--model", "m.onnx", "--data", "cases", "--board", "local", "--out", "sub/study.toml")
    assert "Next: edgedeploy search sub/study.toml" in said
    found = written(place / "sub" / "study.toml")
    assert found["task"] == {"kind": "onnx", "model": "../m.onnx", "options": {"data": "../cases"}}
    assert found["study"]["targets"] == ["onnxruntime", "openvino"]
    assert found["boards"] == [{"name": "local", "kind": "local"}]
    assert found["space"]["precision"] == ["float32", "bfloat16", "int8"]
    assert edgedeploy.load_study(place / "sub" / "study.toml").check().name == "local"
    assert sorted(path.name for path in (place / "sub").iterdir()) == ["study.toml"]


def test_a_folder_with_splits_keeps_them_and_images_say_how_they_are_read(place: Path) -> None:
    run("init", "--model", "m.onnx", "--data", "split", "--board", "local")
    options = written(place / "study.toml")["task"]["options"]
    assert options == {"calibration": "split/calibration", "selection": "split/val", "confirmation": "split/test"}
    flags = ("--colour", "bgr", "--mean", "123.7,116.3,103.5", "--std", "58.4", "--name", "fundus", "--force")
    run("init", "--model", "m.onnx", "--data", "images", "--board", "local", "--target", "openvino", *flags)
    found = written(place / "study.toml")
    assert found["task"]["options"] == {
        "data": "images",
        "preprocessing": {"colour": "bgr", "mean": [123.7, 116.3, 103.5], "std": [58.4]},
    }
    assert (found["study"]["name"], found["study"]["targets"]) == ("fundus", ["openvino"])


def test_open_shapes_are_filled_where_the_file_decides_them(place: Path) -> None:
    model = onnx.load(place / "m.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, place / "batch.onnx")
    run("init", "--model", "batch.onnx", "--data", "cases", "--board", "local")
    assert written(place / "study.toml")["task"]["options"]["shapes"] == {"image": [1, 3, 16, 16]}
    with pytest.raises(edgedeploy.Unsupported, match=r"add --shape image=1,3,side,side"):
        run("init", "--model", "open.onnx", "--data", "cases", "--board", "local", "--force")
    run("init", "--model", "open.onnx", "--data", "cases", "--board", "local", "--force", "--shape", "image=1,3,16,16")
    assert written(place / "study.toml")["task"]["options"]["shapes"] == {"image": [1, 3, 16, 16]}


def test_a_board_that_does_not_answer_yet_is_said_and_the_file_written(place: Path) -> None:
    done = CliRunner().invoke(app, ["init", "--model", "m.onnx", "--data", "cases", "--board", "edge@127.0.0.1:9"])
    assert done.exit_code == 0
    assert "does not answer yet" in done.stderr
    (board,) = load_spec(place / "study.toml")[0].boards
    assert (board.kind, board.host, board.port, board.user) == ("ssh", "127.0.0.1", 9, "edge")


@pytest.mark.parametrize(
    ("word", "clock", "metric"),
    [
        ("local", "wall", "latency_ratio"),
        ("emulated", "wall", "latency_ratio"),
        ("emulated:arm64", "none", "size_bytes"),
        ("emulated:x86-avx2", "none", "size_bytes"),
        ("emulated:arm64-system", "virtual", "virtual_ns"),
    ],
)
def test_a_new_study_asks_for_a_cost_that_its_board_can_tell(word: str, clock: Clock, metric: str, place: Path) -> None:
    board = board_of_word(word)
    text = study_text(Beginning(place / "study.toml", board, place / "m.onnx", place / "cases"))
    spec, source = parse_spec(text, place / "study.toml")
    spec.check_clock(source, board.name, clock)
    assert [goal.metric for goal in spec.objectives] == ["reference_rel_l2", metric]


def test_an_error_about_the_new_file_names_it_as_the_user_did(place: Path) -> None:
    with pytest.raises(EdgeDeployError) as told:
        run("init", "--model", "m.onnx", "--data", "cases", "--board", "local", "--name", "x" * 200, "--out", "a.toml")
    assert "a.toml:" in str(told.value) and ".part-" not in str(told.value)


def test_an_error_of_the_check_is_told_with_all_that_it_carries(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SpecError(Setting("space.kernel"), "no network has it", Advice("Write", {"kernel": "[3]"}))

    def refuse(study: edgedeploy.Study) -> None:
        raise found

    monkeypatch.setattr(edgedeploy.Study, "check", refuse)
    run("recipe", "my_task.py", "--out", ".", "--quiet")
    with pytest.raises(EdgeDeployError) as told:
        run("init", "--task", "my_task.py:make_task", "--board", "local", "--out", "a.toml")
    assert told.value is found


def test_on_a_terminal_what_is_missing_is_asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "_on_terminal", lambda: True)
    run("init", asked="open.onnx\nimage=1,3,16,16\nimages\nrgb\n0\n255\n\n")
    found = written(place / "study.toml")
    assert found["task"]["model"] == "open.onnx"
    assert found["task"]["options"]["shapes"] == {"image": [1, 3, 16, 16]}
    assert found["task"]["options"]["preprocessing"] == {"colour": "rgb", "mean": [0.0], "std": [255.0]}
    assert found["boards"][0]["kind"] == "local"


def test_an_answer_that_does_not_hold_is_told_at_once_and_asked_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "_on_terminal", lambda: True)
    (place / "empty").mkdir()
    (place / "half" / "calibration").mkdir(parents=True)
    (place / "net.pt").write_bytes(b"weights")
    conversation = [
        ("absent.onnx", "absent.onnx: there is no such file"),
        ("net.pt", "it is a checkpoint"),
        ("cases/0.npy", "it is no ONNX model"),
        ("open.onnx", "Shape, such as"),
        ("image", "--shape: got 'image'"),
        ("imge=1,3,16,16", "the model has no such input. Did you mean 'image'?"),
        ("image=1,4,16,16", "the model has [1, 3,"),
        ("image=1,3,16,16", "Folder with inputs"),
        ("absent", "--data absent: there is no such file or folder"),
        ("empty", "--data empty: there is neither an image nor an .npy or .npz file in it"),
        ("half", "but none for selection, confirmation"),
        ("net.pt", "no folder and no .npz file"),
        ("images", "Order of the model's channels"),
        ("rbg", "got 'rbg'. Known: rgb, bgr, grey"),
        ("grey", "has 3 channels"),
        ("bgr", "Mean that is subtracted"),
        ("1,2", "--mean: got [1.0, 2.0]"),
        ("zero", "--mean: got 'zero'"),
        ("1,2,3", "What they are divided by"),
        ("0", "--std: got [0.0]. One number, or one per channel. For example --colour rgb --mean 0 --std 255"),
        ("", "Board (local"),  # 255
        ("emulated:armm64", "there is no such emulated machine"),
        ("edge@127.0.0.1:0", "board 'edge@127.0.0.1:0': its port: Input should be greater than or equal to 1"),
        ("edge@127.0.0.1:9", "To take it as it is, name it again"),
        ("edge@127.0.0.1:9", "Its board does not answer yet"),
    ]
    done = CliRunner().invoke(app, ["init"], input="".join(f"{answer}\n" for answer, _ in conversation))
    assert done.exit_code == 0, done.output
    place_in_text = 0
    for answer, reply in conversation:
        assert reply in done.stderr[place_in_text:], (answer, done.stderr)
        place_in_text = done.stderr.index(reply, place_in_text) + len(reply)
    found = written(place / "study.toml")
    assert found["task"]["options"]["preprocessing"] == {"colour": "bgr", "mean": [1.0, 2.0, 3.0], "std": [255.0]}
    assert found["boards"][0]["host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("given", "answers", "told"),
    [
        ("--data cases", "~nobody-of-this-name/m.onnx\n~/m.onnx\n\n", "m.onnx: there is no such file"),
        ("--model m.onnx", "~nobody-of-this-name/cases\n~/cases\n\n", "cases: there is no such file or folder"),
    ],
)
def test_an_answer_below_a_home_that_nobody_has_is_told_and_asked_again(
    given: str, answers: str, told: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "_on_terminal", lambda: True)
    monkeypatch.setenv("HOME", str(place))
    done = CliRunner().invoke(app, ["init", *given.split()], input=answers)
    assert done.exit_code == 0, done.output
    assert f"~nobody-of-this-name/{told}" in done.stderr
    found = written(place / "study.toml")["task"]
    assert (found["model"], found["options"]) == ("m.onnx", {"data": "cases"}), "one's own home is known"


def test_cases_that_do_not_fit_the_model_are_asked_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "_on_terminal", lambda: True)
    (place / "other").mkdir()
    np.save(place / "other" / "0.npy", np.zeros((1, 1, 8, 8), np.float32))
    done = CliRunner().invoke(app, ["init", "--model", "m.onnx"], input="other\ncases\n\n")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("Folder with inputs") == 2 and "0.npy" in done.stderr
    assert written(place / "study.toml")["task"]["options"] == {"data": "cases"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--board emulated:armm64", "there is no such emulated machine"),
        ("--target opnvino", "Did you mean 'openvino'"),
        ("--model absent.onnx", "there is no such file"),
        ("--task nowhere.py:make", "no file at"),
        ("--colour rgb", "--mean, --std is not given"),
        ("--shape image", "got 'image'"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_told_before_any_question(
    words: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "_on_terminal", lambda: True)
    done = CliRunner().invoke(app, ["init", *words.split()], input="")
    assert isinstance(done.exception, EdgeDeployError), done.output
    assert message in str(done.exception)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data cases --board local", "--model: it is missing"),
        ("--model m.onnx --board local", "--data: it is missing"),
        ("--model m.onnx --data cases", "--board: it is missing"),
        ("--model absent.onnx --data cases --board local", "absent.onnx: there is no such file"),
        ("--model m.onnx --data absent --board local", "--data absent: there is no such file"),
        ("--model m.onnx --data images --board local", "--colour rgb --mean 0 --std 255"),
        ("--model m.onnx --data images --board local --colour grey --mean 0 --std 1", "Use 'grey' for one channel"),
        ("--model m.onnx --data two --board local", "leave none for"),
        ("--model m.onnx --data half --board local", "none for selection, confirmation"),
        ("--model m.onnx --data cases --board local --target opnvino", "Did you mean 'openvino'"),
        ("--model net.pt --data cases --board local", "Add --task file.py:factory"),
        ("--task nowhere.py:make --board local", "no file at"),
        ("--task nowhere --board local", "Write --task file.py:factory"),
        ("--model m.onnx --data cases --board local --out kept.toml", "kept.toml: it exists already. Add --force"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(words: str, message: str, place: Path) -> None:
    (place / "kept.toml").write_text("mine")
    (place / "net.pt").write_bytes(b"weights")
    (place / "half" / "calibration").mkdir(parents=True)
    (place / "two").mkdir()
    for index in range(2):
        np.save(place / "two" / f"{index}.npy", np.full((1, 3, 16, 16), index, np.float32))
    before = sorted(place.rglob("*"))
    with pytest.raises(EdgeDeployError) as caught:
        run("init", *words.split())
    assert message in str(caught.value)
    assert (caught.value.exit_code, bool(caught.value.remedy)) == (2, True)
    assert sorted(place.rglob("*")) == before
    assert (place / "kept.toml").read_text() == "mine"


def test_the_python_recipe_is_a_task_and_a_study_that_pass_every_check(place: Path) -> None:
    said = run("recipe", "python", "--out", "mine")
    assert said.split() == ["mine/study.toml", "mine/my_task.py"]
    assert edgedeploy.load_study(place / "mine" / "study.toml").check().name == "here"
    assert run("recipe", "python") == (place / "mine" / "study.toml").read_text()
    assert run("recipe", "my_task.py") == (place / "mine" / "my_task.py").read_text()
    with pytest.raises(edgedeploy.SpecError, match=r"study.toml is there already"):
        run("recipe", "python", "--out", "mine")
    (place / "other").mkdir()
    (place / "other" / "my_task.py").symlink_to(place / "elsewhere.py")
    with pytest.raises(edgedeploy.SpecError, match=r"my_task.py is there already"):
        run("recipe", "python", "--out", "other")
    assert [path.name for path in (place / "other").iterdir()] == ["my_task.py"] and not (
        place / "elsewhere.py"
    ).exists()


def test_the_python_recipe_has_enough_cases_to_show_its_margin_in_the_strictest_step(place: Path) -> None:
    run("recipe", "python", "--out", "mine")
    found = written(place / "mine" / "study.toml")
    count, trials, margin = found["task"]["options"]["count"], found["budget"]["trials"], found["evidence"]["margin"]
    assert share_upper(0, count, level=1 - (1 - LEVEL) / trials) <= margin


def test_init_takes_a_task_of_ones_own_and_its_first_metric(place: Path) -> None:
    run("recipe", "my_task.py", "--out", ".", "--quiet")
    run("init", "--task", "my_task.py:make_task", "--board", "local", "--out", "mine.toml")
    found = written(place / "mine.toml")
    assert found["task"] == {"kind": "python", "object": "my_task.py:make_task"}
    assert found["objectives"][0]["metric"] == "correct"
    text = (place / "mine.toml").read_text()
    line = "kernel = [3, 5] # of the task's architecture; the baseline's first\n"
    assert f"\n# {line}" in text and "kernel" not in found["space"], "what is trained is for the user to take in"
    (place / "mine.toml").write_text(text.replace(f"# {line}", line))
    planned = edgedeploy.load_study(place / "mine.toml").plan()
    assert planned.tried is not None and max(kind.architectures for kind in planned.tried.kinds) == 2


@pytest.mark.skipif("checkpoint" not in TaskTable.model_fields, reason="study files have no checkpoint here")
def test_init_names_the_checkpoint_of_a_task(place: Path) -> None:
    import torch

    run("recipe", "my_task.py", "--out", ".", "--quiet")
    namespace: dict[str, Any] = {}
    exec((place / "my_task.py").read_text(), namespace)
    torch.save(namespace["make_task"]().build(kernel=3).state_dict(), place / "net.pt")
    run("init", "--task", "my_task.py:make_task", "--model", "net.pt", "--board", "local", "--out", "mine.toml")
    assert written(place / "mine.toml")["task"]["checkpoint"] == "net.pt"
