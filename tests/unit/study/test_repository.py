"""Repositories of model servers: their form is the published one, and nothing is lost without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from edgedeploy.errors import SpecError
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.runtime.pipeline.tiles import SETTING
from edgedeploy.study.oneshot.repository import REPOSITORIES, Served, write_repository

Field = descriptor_pb2.FieldDescriptorProto

STRING, INT32, INT64, UINT32, UINT64, ENUM = (
    *(Field.TYPE_STRING, Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_UINT32, Field.TYPE_UINT64),
    Field.TYPE_ENUM,
)

# What we write of Triton's model_config.proto (triton-inference-server/common, protobuf/): messages with their fields, each
# with its number, its type, and "*" where there may be many. Names and numbers are those of the published file.
MESSAGES: dict[str, dict[str, tuple[Any, ...]]] = {
    "ModelTensorReshape": {"shape": (1, INT64, "*")},
    "ModelInput": {
        **{"name": (1, STRING), "data_type": (2, "DataType"), "dims": (4, INT64, "*")},
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelOutput": {
        **{"name": (1, STRING), "data_type": (2, "DataType"), "dims": (3, INT64, "*")},
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelInstanceGroup": {"count": (2, INT32), "kind": (4, "Kind")},
    "Specific": {"versions": (1, INT64, "*")},
    "ModelVersionPolicy": {"specific": (3, "Specific")},
    "ModelQueuePolicy": {"max_queue_size": (4, UINT32)},
    "ModelDynamicBatching": {
        "preferred_batch_size": (1, INT32, "*"),
        "max_queue_delay_microseconds": (2, UINT64),
        "default_queue_policy": (7, "ModelQueuePolicy"),
    },
    "ModelParameter": {"string_value": (1, STRING)},
    "ParametersEntry": {"key": (1, STRING), "value": (2, "ModelParameter")},
    "ModelConfig": {
        "name": (1, STRING),
        "backend": (17, STRING),
        "version_policy": (3, "ModelVersionPolicy"),
        "max_batch_size": (4, INT32),
        "input": (5, "ModelInput", "*"),
        "output": (6, "ModelOutput", "*"),
        "instance_group": (7, "ModelInstanceGroup", "*"),
        "default_model_filename": (8, STRING),
        "dynamic_batching": (11, "ModelDynamicBatching"),
        "parameters": (14, "ParametersEntry", "*"),
    },
}
ENUMS = {
    "DataType": {"TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_INT64": 9, "TYPE_FP16": 10, "TYPE_FP32": 11},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2},
}

# What OpenVINO Model Server's configuration schema (src/schema.cpp) says of the keys that we write.
OVMS = {
    "type": "object",
    "required": ["model_config_list"],
    "additionalProperties": False,
    "properties": {
        "model_config_list": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["config"],
                "additionalProperties": False,
                "properties": {
                    "config": {
                        "type": "object",
                        "required": ["name", "base_path"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "base_path": {"type": "string"},
                            "model_version_policy": {"type": "object"},
                            "nireq": {"type": "integer", "minimum": 0},
                            "target_device": {"type": "string"},
                            "plugin_config": {"type": "object"},
                        },
                    }
                },
            },
        }
    },
}


def parsed(text: str) -> Any:
    """The text as a message of the published form; an unknown field or value raises."""
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", package="triton", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for word, number in values.items():
            enum.value.add(name=word, number=number)
    for name, members in MESSAGES.items():
        message = file.message_type.add(name=name)
        for member, (number, kind, *many) in members.items():
            field = message.field.add(name=member, number=number)
            field.label = Field.LABEL_REPEATED if many else Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = ENUM if kind in ENUMS else Field.TYPE_MESSAGE, f".triton.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))()
    return text_format.Parse(text, config)


def served(folder: Path, target: str = "onnxruntime", settings: dict[str, str] | None = None, **how: Any) -> Served:
    place = folder / "artifact"
    place.mkdir()
    names = {"onnxruntime": ["model.onnx"], "openvino": ["model.xml", "model.bin"]}.get(target, ["model.tflite"])
    for name in names:
        (place / name).write_bytes(name.encode())
    artifact = Artifact.of_folder(
        place,
        target=target,
        precision="float32",
        entry=names[0],
        inputs=(TensorSpec('a "quoted" x', "float32", (1, 3, 8, 8)),),
        outputs=(TensorSpec("y", "int64", (1, 5)),),
        settings=settings or {},
        reference_sha256="0" * 64,
        built_with={},
    )
    return Served("cart", artifact, place, 2, **how)


def test_a_triton_repository_has_the_published_form(tmp_path: Path) -> None:
    how = {"instances": 3, "max_batch": 8, "max_wait_ns": 2_500_000, "queue": 40}
    told = write_repository("triton", served(tmp_path, **how), tmp_path / "out")
    assert told == ["Written by the form of Triton's model_config.proto; no server has loaded it here."]
    assert (tmp_path / "out" / "cart" / "1" / "model.onnx").read_bytes() == b"model.onnx"
    config = parsed((tmp_path / "out" / "cart" / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.default_model_filename) == ("cart", "onnxruntime", "model.onnx")
    assert config.max_batch_size == 8
    assert (config.input[0].name, list(config.input[0].dims)) == (
        'a "quoted" x',
        [3, 8, 8],
    )  # the server adds the cases
    assert (config.output[0].data_type, list(config.output[0].dims)) == (9, [5])
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (3, 2)
    assert config.dynamic_batching.max_queue_delay_microseconds == 2500
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 40
    assert {item.key: item.value.string_value for item in config.parameters} == {"intra_op_thread_count": "2"}


def test_without_batches_the_model_has_its_own_shapes(tmp_path: Path) -> None:
    write_repository("triton", served(tmp_path), tmp_path / "out")
    config = parsed((tmp_path / "out" / "cart" / "config.pbtxt").read_text())
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [1, 3, 8, 8])
    assert not config.HasField("dynamic_batching")


def test_one_number_a_case_has_the_form_that_the_server_asks_for(tmp_path: Path) -> None:
    """Its validation refuses empty dims, and a reshape to none where the model makes no batches."""
    found = served(tmp_path, max_batch=4)
    scores = replace(found, artifact=replace(found.artifact, outputs=(TensorSpec("y", "float32", (1,)),)))
    write_repository("triton", scores, tmp_path / "out")
    (output,) = parsed((tmp_path / "out" / "cart" / "config.pbtxt").read_text()).output
    assert list(output.dims) == [1] and output.HasField("reshape") and not output.reshape.shape
    none = replace(scores, max_batch=1, artifact=replace(found.artifact, outputs=(TensorSpec("y", "float32", ()),)))
    with pytest.raises(SpecError, match="no tensors without axes"):
        write_repository("triton", none, tmp_path / "none")
    write_repository("triton", replace(scores, max_batch=1), tmp_path / "alone")
    (output,) = parsed((tmp_path / "alone" / "cart" / "config.pbtxt").read_text()).output
    assert list(output.dims) == [1] and not output.HasField("reshape")


def test_what_a_backend_is_not_told_is_said(tmp_path: Path) -> None:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    told = write_repository("triton", served(tmp_path, "openvino", settings), tmp_path / "out")
    assert "is not told INFERENCE_PRECISION_HINT=f32, 2 threads" in told[1]


def test_tritons_python_backend_gets_the_session_that_was_measured(tmp_path: Path) -> None:
    write_repository("triton-python", served(tmp_path, "litert", {"delegate": "xnnpack"}), tmp_path / "out")
    config = parsed((tmp_path / "out" / "cart" / "config.pbtxt").read_text())
    told = {item.key: item.value.string_value for item in config.parameters}
    assert told == {"target": "litert", "entry": "model.tflite", "threads": "2", "setting:delegate": "xnnpack"}
    assert config.backend == "python"
    compile((tmp_path / "out" / "cart" / "1" / "model.py").read_text(), "model.py", "exec")


def test_an_ovms_repository_has_the_published_form(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    told = write_repository("ovms", served(tmp_path, "openvino", settings, instances=3, max_batch=4), tmp_path / "out")
    assert any("merges no requests" in line for line in told)
    assert (tmp_path / "out" / "cart" / "1" / "model.bin").is_file()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    jsonschema.Draft7Validator(OVMS).validate(config)
    plugin = config["model_config_list"][0]["config"]["plugin_config"]
    assert plugin == {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "3", "INFERENCE_NUM_THREADS": "6"}


@pytest.mark.parametrize(
    ("kind", "target", "found"),
    [
        ("ovms", "onnxruntime", "'onnxruntime' is what was measured"),
        ("triton", "litert", "no backend for such files"),
        ("tritn", "onnxruntime", "there is no such repository"),
    ],
)
def test_what_a_server_does_not_take_is_refused(kind: str, target: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=found):
        write_repository(kind, served(tmp_path, target), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "target"), [("triton", "onnxruntime"), ("ovms", "openvino")])
def test_a_server_that_opens_the_file_itself_gets_no_tile_for_a_volume(kind: str, target: str, tmp_path: Path) -> None:
    cut = served(tmp_path, target, {SETTING: "tiles.json"})
    with pytest.raises(SpecError, match=r"the network of one tile.*triton-python"):
        write_repository(kind, cut, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_repository("triton-python", cut, tmp_path / "python")
    config = parsed((tmp_path / "python" / "cart" / "config.pbtxt").read_text())
    assert {item.key: item.value.string_value for item in config.parameters}[f"setting:{SETTING}"] == "tiles.json"


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for kind in REPOSITORIES:
        with pytest.raises(SpecError):
            write_repository(
                kind, served(tmp_path / kind if (tmp_path / kind).mkdir() is None else tmp_path), tmp_path / "out"
            )
