"""Options that may be given again say so, and those that may not are refused instead of the last one being taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.errors import SpecError
from edgedeploy.study.oneshot.desk import parse_shapes

APP: Any = typer.main.get_command(app)
AGAIN = "may be given again"


def commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


def test_an_option_says_in_its_help_whether_it_may_be_given_again() -> None:
    for command in commands(APP):
        for option in command.params:
            if option.param_type_name != "option" or option.name == "target":
                continue
            assert (AGAIN in (option.help or "")) == option.multiple, f"{command.name} {option.name}: {option.help}"
    assert AGAIN in next(option.help for option in APP.commands["init"].params if option.name == "target")


@pytest.mark.parametrize("command", ["quantize", "measure"])
def test_a_command_for_one_artifact_refuses_a_second_target(command: str, tmp_path: Path) -> None:
    words = [command, str(tmp_path / "m.onnx"), "--target", "openvino", "--target", "onnxruntime", "--board", "local"]
    words += ["--out", str(tmp_path / "q")] if command == "quantize" else []
    told = CliRunner().invoke(app, words).exception
    assert isinstance(told, SpecError)
    assert told.asked == "--target openvino --target onnxruntime"
    assert "once for each" in told.remedy


def test_an_inputs_shape_is_given_once() -> None:
    with pytest.raises(SpecError, match="input image is named twice"):
        parse_shapes(["image=1,3,32,32", "mask=1,1,32,32", "image=1,3,64,64"])
