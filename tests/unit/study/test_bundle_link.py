"""A signed bundle over a slow link: fewer bytes, the same files in every bit, nothing of what was changed on its way."""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import signed_kit as kit
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.compress.codec.coded import aside, stepped
from edgedeploy.compress.codec.container import Coder, Packed, from_bytes, to_bytes
from edgedeploy.errors import BundleError, DataError, SpecError
from edgedeploy.runtime.bundle.names import MANIFEST
from edgedeploy.runtime.bundle.tree import Tree, read_tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.runtime.faults import BundleError as Refused
from edgedeploy.study.bundle import link
from edgedeploy.study.bundle.pack import pack, unpack

pytestmark = pytest.mark.beside


def release(moved: float, coder: Coder = "rans") -> Packed:
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 32, 3, 3), (24, 32)))
    first += np.float32(moved) * np.random.default_rng(1).standard_normal(first.shape).astype(np.float32)
    return Packed(
        {
            "a.weight": stepped(first, 0.2),
            "b.weight": stepped(second, 0.2),
            "b.bias": aside(rng.standard_normal(24).astype(np.float32)),
        },
        coder,
    )


def files_of(packed: Packed, words: bytes = b"3") -> dict[str, bytes]:
    """What toolchains make of weights: as they are, with the channels last in float16, as int8 with a number or two off."""
    arrays = packed.decoded()
    first, second = arrays["a.weight"], arrays["b.weight"]
    scale = (np.abs(first).max(axis=(1, 2, 3), keepdims=True) / np.float32(127)).astype(np.float32)
    whole = np.clip(np.rint(first / scale), -128, 127).astype(np.int8).transpose(0, 2, 3, 1).copy()
    whole.reshape(-1)[5] += 1
    graph = b"a graph of version " + words
    return {
        **kit.FILES,
        link.WEIGHTS: to_bytes(packed),
        "model/reference.onnx": graph + first.tobytes() + b"::" + second.tobytes() + arrays["b.bias"].tobytes(),
        "artifact/model.onnx": b"TFL" + whole.tobytes() + second.T.astype(np.float16).tobytes() + graph,
    }


def bundle_of(packed: Packed, release_number: int = 3, **more: bytes) -> dict[str, bytes]:
    files = files_of(packed, str(release_number).encode()) | more
    return kit.signed({**files, MANIFEST: kit.manifest(files, release=release_number)})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return kit.written(tmp_path / "old", bundle_of(release(0.0)))


@pytest.fixture
def following(tmp_path: Path) -> Path:
    return kit.written(tmp_path / "new", bundle_of(release(0.02), 4))


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    path = tmp_path / "lab.pub"
    path.write_bytes(kit.public_pem())
    return path


def test_a_bundle_arrives_in_every_byte_and_its_signature_holds(bundle: Path, trust: Path, tmp_path: Path) -> None:
    packed = tmp_path / "b.edlink"
    made = pack(bundle, packed)
    files = read_tree(bundle).files
    sent_anyway = sum(len(data) for name, data in files.items() if not name.endswith((".onnx", ".edpack")))
    assert made.size_bytes < len(files[link.WEIGHTS]) + sent_anyway < 0.4 * made.bundle_bytes
    unpack(packed, tmp_path / "out", trust=trust)
    assert read_tree(tmp_path / "out").files == files
    assert verify(tmp_path / "out", trust).identity == made.identity
    pack(bundle, tmp_path / "again.edlink")
    assert (tmp_path / "again.edlink").read_bytes() == packed.read_bytes()


def test_what_the_weights_say_is_not_sent() -> None:
    found = link.link_of(Tree(bundle_of(release(0.0))))
    arrays = release(0.0).decoded()
    first, second, bias = (arrays[name].size for name in ("a.weight", "b.weight", "b.bias"))
    assert found.of_weights == 4 * (first + second + bias) + first + 2 * second


def test_an_update_is_a_fraction_of_the_release_and_gives_it_in_every_byte(
    bundle: Path, following: Path, trust: Path, tmp_path: Path
) -> None:
    whole, update = tmp_path / "whole.edlink", tmp_path / "update.edlink"
    pack(following, whole)
    assert pack(following, update, base=bundle).size_bytes < 0.6 * whole.stat().st_size
    unpack(update, tmp_path / "out", base=bundle, trust=trust)
    assert read_tree(tmp_path / "out").files == read_tree(following).files
    unpack(update, tmp_path / "by-archive", base=archive(bundle, tmp_path))
    assert read_tree(tmp_path / "by-archive").files == read_tree(following).files


def archive(bundle: Path, folder: Path) -> Path:
    pack(bundle, folder / "base.tar")
    return folder / "base.tar"


def test_releases_that_were_packed_are_bases_too(bundle: Path, following: Path, tmp_path: Path) -> None:
    old, update = tmp_path / "old.edlink", tmp_path / "update.edlink"
    pack(bundle, old)
    pack(following, update, base=old)
    unpack(update, tmp_path / "out", base=old)
    assert read_tree(tmp_path / "out").files == read_tree(following).files
    with pytest.raises(DataError, match="no bundle was given"):
        unpack(update, tmp_path / "again", base=update)
    with pytest.raises(SpecError, match="lies in the bundle"):
        unpack(update, bundle / "inside", base=bundle)
    assert read_tree(bundle).files == link.tree_of(old.read_bytes()).files


def test_an_update_is_for_one_base(bundle: Path, following: Path, tmp_path: Path) -> None:
    update, out = tmp_path / "update.edlink", tmp_path / "out"
    pack(following, update, base=bundle)
    with pytest.raises(DataError, match=r"no bundle was given.*--from"):
        unpack(update, out)
    with pytest.raises(DataError, match=f"for bundle {read_tree(bundle).identity[:12]}, and"):
        unpack(update, out, base=following)
    (bundle / "recipe.json").write_bytes(b"{ }")
    with pytest.raises(DataError, match="it is for bundle"):
        unpack(update, out, base=bundle)
    with pytest.raises(BundleError, match="--from"):
        unpack(update, out, base=tmp_path / "nowhere")
    assert not out.exists() and not list(tmp_path.glob(".part-*"))


def test_from_is_for_links_alone(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is no update"):
        pack(bundle, tmp_path / "b.tar", base=bundle)
    with pytest.raises(SpecError, match="no update of another bundle"):
        unpack(archive(bundle, tmp_path), tmp_path / "out", base=bundle)


@pytest.mark.parametrize("where", [0, 7, 9, 41, 60, 200, -1])
def test_a_link_that_was_changed_gives_nothing(where: int, bundle: Path, tmp_path: Path) -> None:
    packed = tmp_path / "b.edlink"
    pack(bundle, packed)
    data = bytearray(packed.read_bytes())
    data[where] ^= 1
    packed.write_bytes(data)
    with pytest.raises((DataError, BundleError)):
        unpack(packed, tmp_path / "out")
    packed.write_bytes(bytes(data)[: len(data) // 2])
    with pytest.raises((DataError, BundleError)):
        unpack(packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def retold(data: bytes, change: Any, *, of: Any = lambda parts: parts) -> bytes:
    """A link with another header, whose hash is right: made by somebody who wants to harm."""
    told, update, literals = link._parts(data)
    change(told)
    update, literals = of((update, literals))
    header = zlib.compress(json.dumps(told).encode())
    rest = header + update + literals
    head = link._HEAD.pack(link.MAGIC, link.VERSION, hashlib.sha256(rest).digest(), len(header), len(update))
    return head + rest


def _piece(kind: str, *told: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        header["files"][1][3] = [[kind, *told]]

    return change


def _set(place: int, value: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        header["files"][1][place] = value

    return change


HOSTILE = {
    "a name outside": _set(0, "../../etc/passwd"),
    "two of a name": _set(0, link.WEIGHTS),
    "a huge file": _set(1, 1 << 40),
    "a size below zero": _set(1, -5),
    "huge literals": _piece("l", 1 << 41),
    "literals below zero": _piece("l", -1),
    "no such weights": _piece("w", "z", ["same", [0], -1, 0], 0),
    "another form": _piece("w", "a.weight", ["exec", [0, 1, 2, 3], -1, 0], 0),
    "axes twice": _piece("w", "a.weight", ["same", [0, 0, 2, 3], -1, 0], 0),
    "no base": _piece("b", "recipe.json", 0, 3),
    "no update": _piece("u"),
    "a piece that is none": _piece("x"),
    "no pieces": _set(3, 5),
    "no list": lambda header: header.update(files=7),
    "another identity": lambda header: header.update(bundle="0" * 64),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_link_is_refused_and_writes_nothing(change: Any, tmp_path: Path) -> None:
    data = link.link_of(Tree(bundle_of(release(0.0)))).data
    assert link.tree_of(retold(data, lambda header: None)).files  # the tool makes links that are read
    packed = tmp_path / "b.edlink"
    packed.write_bytes(retold(data, change))
    with pytest.raises(DataError, match="Fetch it anew"):
        unpack(packed, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["b.edlink"]


def test_literals_make_no_more_than_was_told() -> None:
    data = link.link_of(Tree(bundle_of(release(0.0)))).data
    bomb = lzma.compress(bytes(50_000_000))
    with pytest.raises(DataError, match="more or fewer"):
        link.tree_of(retold(data, lambda header: None, of=lambda parts: (parts[0], bomb)))


def test_an_update_of_other_weights_is_found_out() -> None:
    """Of a base whose identity was forged: the hash of the packed file tells."""
    old, new = Tree(bundle_of(release(0.0))), Tree(bundle_of(release(0.02), 4))
    other = Tree(bundle_of(release(0.5)))
    update = retold(link.link_of(new, old).data, lambda header: header.update(base=other.identity))
    with pytest.raises(DataError, match="Fetch it anew"):
        link.tree_of(update, other)


def test_no_change_of_an_update_gets_through() -> None:
    """Whoever changes an update and its hash gets an error of ours and never other weights."""
    old, new = Tree(bundle_of(release(0.0))), Tree(bundle_of(release(0.02), 4))
    data = link.link_of(new, old).data
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):

        def spoiled(parts: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
            update = bytearray(parts[0])
            update[rng.integers(len(update))] ^= 1 << rng.integers(8)
            return bytes(update[: rng.integers(len(update))] if rng.random() < 0.2 else update), parts[1]

        try:
            found = link.tree_of(retold(data, lambda header: None, of=spoiled), old)
        except DataError:
            refused += 1
        else:
            assert found.files == new.files
    assert refused > 50


def test_weights_by_zstd_are_updated_whole() -> None:
    pytest.importorskip("zstandard")
    old, new = (Tree(bundle_of(release(moved, "zstd"), number)) for moved, number in ((0.0, 3), (0.02, 4)))
    found = link.link_of(new, old)
    assert link.tree_of(found.data, old).files == new.files


def test_a_bundle_without_packed_weights_goes_too(tmp_path: Path, trust: Path) -> None:
    plain = kit.written(tmp_path / "plain", kit.signed({**kit.FILES, MANIFEST: kit.manifest()}))
    result = CliRunner().invoke(app, ["pack", str(plain), str(tmp_path / "p.edlink")])
    assert result.exit_code == 0 and "no model/weights.edpack" in result.output
    unpack(tmp_path / "p.edlink", tmp_path / "out", trust=trust)
    assert read_tree(tmp_path / "out").files == read_tree(plain).files


def test_with_trust_nothing_of_another_maker_is_kept(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "b.edlink")
    other = tmp_path / "other.pub"
    other.write_bytes(kit.public_pem(1))
    with pytest.raises(BundleError, match="untrusted"):
        unpack(tmp_path / "b.edlink", tmp_path / "out", trust=other)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".part-*"))


def test_what_is_unpacked_is_held_against_the_manifest(bundle: Path, trust: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "b.edlink")
    unpack(tmp_path / "b.edlink", tmp_path / "out")
    path = tmp_path / "out/artifact/model.onnx"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refused, match=r"model\.onnx"):
        verify(tmp_path / "out", trust)


def test_a_link_is_no_archive_and_says_what_to_do(bundle: Path, trust: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "b.edlink")
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "b.edlink"), "--trust", str(trust)])
    assert isinstance(result.exception, BundleError) and "edgedeploy unpack" in str(result.exception)


def test_it_is_encrypted_too(bundle: Path, tmp_path: Path) -> None:
    pyrage = pytest.importorskip("pyrage")
    key = pyrage.x25519.Identity.generate()
    (tmp_path / "id").write_text(str(key))
    pack(bundle, tmp_path / "b.edlink.age", [str(key.to_public())])
    unpack(tmp_path / "b.edlink.age", tmp_path / "out", tmp_path / "id")
    assert read_tree(tmp_path / "out").files == read_tree(bundle).files


ALONE = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is not there", name=name)

ALLOWED = {*sys.stdlib_module_names, "edgedeploy", "numpy"}
sys.meta_path.insert(0, Refused())
from edgedeploy.__main__ import main

main()
"""


def alone(*argv: object) -> subprocess.CompletedProcess[str]:
    """What the command says where nothing but numpy is installed."""
    return subprocess.run(
        [sys.executable, "-c", ALONE, "unpack", *map(str, argv)], capture_output=True, text=True, check=False
    )


def test_unpacking_needs_numpy_alone(bundle: Path, following: Path, trust: Path, tmp_path: Path) -> None:
    update, out = tmp_path / "u.edlink", tmp_path / "out"
    pack(following, update, base=bundle)
    without = alone(update, out, "--trust", trust)
    assert without.returncode == 2 and "--from" in without.stderr and "Traceback" not in without.stderr
    done = alone(update, out, "--from", bundle, "--trust", trust)
    assert done.returncode == 0, done.stderr
    assert read_tree(out).files == read_tree(following).files


def test_commands(bundle: Path, following: Path, trust: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    packed = run(app, ["pack", str(following), str(tmp_path / "u.edlink"), "--from", str(bundle), "--json"])
    assert packed.exit_code == 0, packed.output
    told = json.loads(packed.output)
    assert told["base"] == read_tree(bundle).identity and told["size_bytes"] == (tmp_path / "u.edlink").stat().st_size
    argv = ["unpack", str(tmp_path / "u.edlink"), str(tmp_path / "out"), "--from", str(bundle), "--trust", str(trust)]
    done = run(app, argv)
    assert done.exit_code == 0 and "signed by the key" in done.output
    assert from_bytes((tmp_path / "out" / link.WEIGHTS).read_bytes())[1].keys() == release(0.0).arrays.keys()
