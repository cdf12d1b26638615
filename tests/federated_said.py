"""A request and an answer of the site ``north``, as keywords, for tests of what travels and what may leave."""

from __future__ import annotations

from typing import Any, Final

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
