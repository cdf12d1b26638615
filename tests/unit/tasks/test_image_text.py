"""Image and text in one space: descriptions, the towers, retrieval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgedeploy.compress.model import train_baseline
from edgedeploy.errors import DataError, MeasurementError, SpecError
from edgedeploy.interfaces.scores import Grouped, ScoresSplit
from edgedeploy.interfaces.task import Case, Task, Trainable, TrainRecipe, baseline_arch
from edgedeploy.tasks.image_text.descriptions import WORDS, described
from edgedeploy.tasks.image_text.encoder import TextEncoder, TextShape, load_bert
from edgedeploy.tasks.image_text.material import Material
from edgedeploy.tasks.image_text.task import ImageText, ImageTextOptions
from edgedeploy.tasks.load import load_task

SMALL = ImageTextOptions(
    tokens=48,
    dim=16,
    resolutions=(32,),
    image_size=48,
    train_cases=12,
    calibration_cases=2,
    selection_cases=6,
    confirmation_cases=2,
    baseline=TrainRecipe(epochs=12, batch_size=12, learning_rate=3e-3, warmup_epochs=0),
)
CLASSES = {"nerve": 1, "vessel": 2}


@pytest.fixture(scope="module")
def task() -> ImageText:
    return ImageText(SMALL)


def unit(*values: float) -> Any:
    return np.array([values], np.float32)


# -- descriptions


def test_a_description_says_what_the_mask_shows() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[10:20, 5:15] = 2
    labels[70:90, 80:95] = 1
    labels[80:85, 40:45] = 2
    labels[0, 0] = 1
    assert described(labels, CLASSES) == (
        "one nerve and two vessel . a large nerve on the right deep . a small vessel on the left near the skin . "
        "a small vessel in the middle deep"
    )
    assert described(np.zeros((10, 10), np.uint8), CLASSES) == "no nerve and no vessel"


def test_the_random_encoders_vocabulary_has_every_word(task: ImageText) -> None:
    for split in ("train", "selection"):
        for case in task.cases(split):
            assert set(task.description(case).split()) <= set(WORDS)
    ids, mask = Material(None, 8).encode("a small nerve")
    assert ids.tolist() == [[WORDS.index("a"), WORDS.index("small"), WORDS.index("nerve"), 0, 0, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]


# -- towers


def test_padding_changes_no_text() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(TextShape(20, 16, 8, 2, 2)).eval()
    short, long = torch.tensor([[3, 4, 5]]), torch.tensor([[3, 4, 5, 9, 9, 9]])
    with torch.inference_mode():
        wanted = encoder(short, torch.ones_like(short))
        found = encoder(long, torch.tensor([[1, 1, 1, 0, 0, 0]]))
        other = encoder(long, torch.ones_like(long))
    assert torch.allclose(found, wanted, atol=1e-6)
    assert not torch.allclose(other, wanted, atol=1e-3)


def test_weights_of_bert_give_what_bert_gives() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_act="gelu",
    )
    torch.manual_seed(1)
    theirs = transformers.BertModel(config).eval()
    ours = load_bert(theirs.state_dict(), heads=4).eval()
    ids, mask = torch.randint(1, 30, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.inference_mode():
        states = theirs(ids, mask).last_hidden_state * mask[..., None]
        assert torch.allclose(ours(ids, mask), states.sum(1) / mask.sum(1, keepdim=True), atol=1e-5)
    assert not any(value.requires_grad for value in ours.parameters())


def test_every_product_of_the_image_tower_is_a_convolution(task: ImageText) -> None:
    towers = task.build(resolution=32)
    kinds = {type(part).__name__ for part in towers.image.modules()} & {"Conv2d", "Linear"}
    assert kinds == {"Conv2d"}
    assert not [part for part in (*towers.text.modules(), towers.project) if isinstance(part, torch.nn.Conv2d)]


def test_a_folder_that_is_no_encoder_is_told(tmp_path: Path) -> None:
    options = {"text_encoder": "bert"}
    with pytest.raises(SpecError, match=r"config\.json"):
        load_task({"kind": "multi-modal", "options": options}, tmp_path)
    folder = tmp_path / "bert"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        load_task({"kind": "multi-modal", "options": options}, tmp_path)


def test_an_encoder_of_real_weights_is_read_from_its_files(tmp_path: Path) -> None:
    """A small BERT of random weights stands for the published one."""
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import save_file
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    model = transformers.BertModel(config)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    Material(None, 8).tokenizer.save(str(tmp_path / "tokenizer.json"))
    options = {"text_encoder": str(tmp_path), "resolutions": [32], "image_size": 48}
    task: Any = load_task({"kind": "multi-modal", "options": options}, tmp_path)
    towers = task.build(**baseline_arch(task))
    assert torch.equal(towers.text.words.weight, model.embeddings.word_embeddings.weight)
    long = load_task({"kind": "multi-modal", "options": {**options, "tokens": 513}}, tmp_path)
    with pytest.raises(SpecError, match="512 places"):
        long.build(**baseline_arch(task))
    for config, found in (
        ({"num_attention_heads": 2, "model_type": "roberta"}, "its model_type is 'roberta'"),
        ({"num_attention_heads": 2, "hidden_act": "relu"}, "its hidden_act is 'relu'"),
        ({"num_attention_heads": 3}, "3 heads do not share 16 channels"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(DataError, match=found):
            task.build(**baseline_arch(task))
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 2, "model_type": "bert"}))
    more = Tokenizer(WordLevel({f"word{place}": place for place in range(len(WORDS) + 1)}, unk_token="word0"))
    more.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match=f"its tokenizer has {len(WORDS) + 1} words"):
        load_task({"kind": "multi-modal", "options": options}, tmp_path).build(**baseline_arch(task))
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(DataError, match="BERT"):
        task.build(**baseline_arch(task))


# -- the task


def test_it_keeps_the_protocols(task: ImageText) -> None:
    assert all(isinstance(task, protocol) for protocol in (Task, Trainable, ScoresSplit, Grouped))
    case = task.cases("calibration")[0]
    specs = task.input_specs(resolution=32)
    assert {name: (value.dtype.name, value.shape) for name, value in task.inputs(case, resolution=32).items()} == {
        spec.name: (spec.dtype, spec.shape) for spec in specs
    }


class Said(ImageText):
    """Its descriptions are the cases' ids, without their last letter."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.description = lambda case: case.id[:-1]  # type: ignore[assignment]


def test_ranks_are_among_different_descriptions() -> None:
    task = Said()
    cases = [Case(name, "selection") for name in ("xa", "ya", "za", "xb")]
    angles = {"xa": (0, 0), "ya": (40, 90), "za": (180, 180), "xb": (50, 0)}

    def outputs(name: str) -> dict[str, Any]:
        image, text = np.radians(angles[name])
        return {
            "image_embedding": unit(np.cos(image), np.sin(image)),
            "text_embedding": 3 * unit(np.cos(text), np.sin(text)),
        }

    given = [outputs(case.id) for case in cases]
    assert task.score(cases, given) == {"recall_at_1": 0.5, "recall_at_5": 1.0, "median_rank": 1.5}
    assert task.score(cases[::-1], given[::-1]) == task.score(cases, given)
    assert task.score([*cases, cases[2]], [*given, given[2]])["recall_at_1"] == pytest.approx(0.6)
    assert task.evaluate(given[1], cases[1]) == {"agreement": pytest.approx(np.cos(np.radians(50)))}


def test_an_answer_for_everything_is_no_answer() -> None:
    """Equal embeddings leave every description as near as its own."""
    cases = [Case(f"{name}a", "selection") for name in "wxyz"]
    same = [{"image_embedding": unit(1, 0), "text_embedding": unit(1, 0)} for _ in cases]
    assert Said().score(cases, same) == {"recall_at_1": 0.0, "recall_at_5": 1.0, "median_rank": 4.0}


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_embeddings_without_direction_are_told(task: ImageText, value: float) -> None:
    with pytest.raises(MeasurementError, match="image_embedding"):
        task.evaluate({"image_embedding": unit(value, 0), "text_embedding": unit(1, 0)}, task.cases("selection")[0])


def test_training_brings_pairs_together(task: ImageText) -> None:
    arch = baseline_arch(task)

    def found(model: Any) -> dict[str, float | None]:
        cases = task.cases("train")
        outputs = []
        with torch.inference_mode():
            for case in cases:
                feed = {name: torch.from_numpy(value) for name, value in task.inputs(case, **arch).items()}
                outputs.append({name: value.numpy() for name, value in model(**feed).items()})
        return task.score(cases, outputs)

    before, after = found(task.build(**arch).eval()), found(train_baseline(task, arch))
    assert after["median_rank"] is not None
    assert before["median_rank"] is not None
    assert after["median_rank"] < before["median_rank"]
