"""NNCF and OpenVINO's converter as a build needs them: silent, and without PyTorch where nothing else has it in memory."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_OF_TORCH: Final = tuple(f"nncf.tensor.functions.torch_{part}" for part in ("io", "linalg", "numeric"))
"""What NNCF does to PyTorch's tensors. It imports these modules, and PyTorch with them, wherever PyTorch is installed, and
goes on without them where it is not."""

_QUESTIONS: Final = ("is_torch_model", "is_torch_fx_model")


def quiet_nncf() -> Any:
    """NNCF without telemetry, progress bars, log lines, and PyTorch that nobody asked for.

    A build must not call home, and a second live progress bar breaks the first one. PyTorch takes 120 MB, and models of
    OpenVINO have no use for it. NNCF offers a switch for none of these: its own continuous-integration variable turns
    telemetry off, its progress classes and its questions about PyTorch are replaced.
    """
    os.environ.setdefault("NNCF_CI", "1")
    with _torch_left_out():
        import nncf
        from nncf.common.logging import track_progress
        from nncf.common.utils import backend

    for name in ("Progress", "WeightedProgress"):
        progress = getattr(track_progress, name, None)
        if isinstance(progress, type):
            setattr(track_progress, name, _silent(progress))
    for name in _QUESTIONS:
        asks = getattr(backend, name, None)
        if callable(asks) and not isinstance(asks, _OfTorch):
            setattr(backend, name, _OfTorch(asks))
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


_REPORTERS: Final = ("convert_impl", "telemetry_utils", "utils")
"""Modules of OpenVINO's converter that have its reports to Intel by the name ``tm``."""


def convert(path: Path) -> Any:
    """OpenVINO's model of an ONNX file, with its constants folded.

    The converter takes silence for consent: it wrote an identifier into the user's home and started a process with each of
    its five reports. A build must not call home, so it gets the stand-in that the converter itself has for where the
    package of reports is not installed.
    """
    import openvino as ov
    from openvino.tools.ovc import telemetry_stub

    for name in _REPORTERS:
        importlib.import_module(f"openvino.tools.ovc.{name}").__dict__["tm"] = telemetry_stub
    return ov.convert_model(str(path))


@contextmanager
def _torch_left_out() -> Iterator[None]:
    """NNCF that is imported within does not import PyTorch. Where PyTorch is in this process already, it costs nothing."""
    if "torch" in sys.modules:
        yield
        return
    finder = _NotFound()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NotFound(MetaPathFinder):
    """Says of NNCF's modules for PyTorch what Python says where PyTorch is not installed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname in _OF_TORCH:
            raise ModuleNotFoundError(f"{fullname} is left out: no PyTorch is in this process", name=fullname)


@dataclass(frozen=True)
class _OfTorch:
    """A question of NNCF about a model, asked only where PyTorch is in this process: elsewhere nothing is a model of its.
    A program that has come to have PyTorch since finds NNCF whole."""

    asks: Callable[[Any], bool]

    def __call__(self, model: Any) -> bool:
        if "torch" not in sys.modules:
            return False
        for name in _OF_TORCH:
            importlib.import_module(name)
        return self.asks(model)


def _silent(progress: type) -> Callable[..., Any]:
    def make(*columns: Any, **options: Any) -> Any:
        return progress(*columns, **{**options, "disable": True})

    return make
