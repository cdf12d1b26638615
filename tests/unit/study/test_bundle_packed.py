"""A bundle of a variant whose weights are packed, from a study's folder to the runtime on the other side of a link."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bundle_kit import FLOAT, INT8, STUDY, made_up_study
from product_kit import make_key

from edgedeploy.runtime import load
from edgedeploy.runtime.bundle.tree import read_tree
from edgedeploy.runtime.faults import BundleError
from edgedeploy.study.bundle.link import WEIGHTS, link_of
from edgedeploy.study.bundle.make import make_bundle
from edgedeploy.study.bundle.options import BundleOptions
from edgedeploy.study.bundle.pack import pack, unpack
from edgedeploy.study.models import DECODING, PACKED, decoding_of
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

WAY = "uniform:0.3"
VARIANTS = tuple(replace(variant, storage=WAY) for variant in (FLOAT, INT8))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    text = STUDY.replace("[space]\n", f'[space]\nstorage = ["none", "{WAY}"]\n')
    variants = [(FLOAT, 6.0), *((variant, 5.0 - place) for place, variant in enumerate(VARIANTS))]
    return made_up_study(tmp_path_factory.mktemp("packed") / "study", text, variants=variants)


def test_what_arrives_starts_and_what_was_changed_does_not(store: Store, tmp_path: Path) -> None:
    key, trust = make_key(tmp_path)
    bundle = make_bundle(store.root, VARIANTS[0].digest, tmp_path / "bundle", BundleOptions(sign=key)).folder
    kept = store.model_folder(VARIANTS[0].model_digest) / PACKED
    assert (bundle / WEIGHTS).read_bytes() == kept.read_bytes()
    pack(bundle, tmp_path / "b.edlink")
    unpack(tmp_path / "b.edlink", tmp_path / "here", trust=trust)
    assert read_tree(tmp_path / "here").files == read_tree(bundle).files
    assert load(tmp_path / "here", trust=trust).proof.cases == 3
    for name in ("artifact/model.onnx", WEIGHTS):
        path = tmp_path / "here" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(BundleError, match=r"tampered|untrusted"):
            load(tmp_path / "here", trust=trust)
        path.write_bytes(whole)
    assert load(tmp_path / "here", trust=trust).proof.cases == 3


@pytest.mark.parametrize("variant", VARIANTS, ids=["float32", "int8"])
def test_the_weights_of_artifact_and_reference_are_not_sent(variant: object, store: Store, tmp_path: Path) -> None:
    made = make_bundle(store.root, variant.digest, tmp_path / "bundle")  # type: ignore[attr-defined]
    tree = read_tree(made.folder)
    found = link_of(tree)
    weights = sum(array.size for array in _arrays(tree.files[WEIGHTS]))
    width = 4 if variant is VARIANTS[0] else 1  # of a weight in the artifact
    assert found.of_weights > 0.9 * weights * (4 + width)


def _arrays(packed: bytes) -> list[object]:
    from edgedeploy.compress.codec.container import from_bytes

    return [array for array in from_bytes(packed)[1].values() if array.ndim > 1]  # type: ignore[misc]


def test_what_is_not_packed_has_no_such_file(store: Store, tmp_path: Path) -> None:
    made = make_bundle(store.root, FLOAT.digest, tmp_path / "bundle")
    assert WEIGHTS not in read_tree(made.folder).files


def test_times_of_decoding_are_kept_with_the_model(store: Store, tmp_path: Path) -> None:
    folder = store.model_folder(VARIANTS[0].model_digest)
    times = decoding_of(folder)
    assert len(times) > 2 and min(times) > 0
    found = {item.variant: item.artifact.decode_ns for item in store.measurements()}
    assert found == {FLOAT: (), VARIANTS[0]: times, VARIANTS[1]: times}
    for text in ("{", "[]", '{"decode_ns": 5}', '{"decode_ns": [-1, "x", true]}'):
        (tmp_path / DECODING).write_text(text)
        assert decoding_of(tmp_path) == ()
    assert decoding_of(tmp_path / "nowhere") == ()
