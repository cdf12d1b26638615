"""A request and an answer of the site ``north``, as keywords, and a checkpoint, for tests of what travels and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

POINT: Final = {"target": "onnxruntime", "precision": "int8"}
SAID: Final[dict[str, Any]] = {
    "site": "north",
    "number": 1,
    "kind": "measured",
    "release": "3" * 16,
    "request_sha256": "4" * 64,
    "baseline": {"artifact": "2" * 16, "size_bytes": 9, "cases": 2, "accuracy": 0.9, "worst": 0.8},
    "cells": ({"candidate": 0, "word": "not shown", "cases": 2, "accuracy": 0.5},),
}
ASKED: Final[dict[str, Any]] = {
    "site": "north",
    "number": 1,
    "kind": "measure",
    "release": "3" * 16,
    "metric": "dice",
    "candidates": (POINT,),
    "upto": 1,
    "checkpoint_sha256": "4" * 64,
    "checkpoint_bytes": 10,
}


def write_weights(path: Path, count: int = 4) -> None:
    """A checkpoint of one tensor with so many float32: what a release reads before it asks any site."""
    save_file({"w": np.arange(count, dtype=np.float32)}, path)


def site_file(way: str) -> str:
    """What stands in the file of the site ``north``; ``way``: the lines that say how it meets its coordinator."""
    return f"""
[site]
name = "north"
{way}
[task]
kind = "synthetic-ultrasound"
[board]
name = "cart"
kind = "local"
[evidence]
margin = 0.02
"""


def sites_file(listening: str = "", token: str = "") -> str:
    """What stands in the coordinator's file for it, with lines of ``[federate]`` and of the site after the others."""
    return f"""
[federate]
name = "r"
checkpoint = "w.pt"
metric = "dice"
{listening}[[candidate]]
target = "onnxruntime"
precision = "int8"
[[site]]
name = "north"
margin = 0.02
{token}"""
