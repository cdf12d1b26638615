"""OpenVINO files without the bytes that say nothing.

OpenVINO writes the shape of every port of every layer, though it infers them again on reading, and indents each line. Of a
network of 23 convolutions that is half of ``model.xml``, which is more than the int8 weights of a network pruned to a
quarter. What is left out here no release reads back (2023.3, 2024.4, 2025.3 and 2026.4 were tried: the outputs are equal bit
for bit):

- shapes of ports (but of layers with a body, as loops), precisions of input ports, white space;
- constants of up to :data:`SMALL` bytes that are there twice, and the names of constants;
- what the converter wrote about itself.

Layers keep their names: profiles and ``edgedeploy debug`` find the reference's layers by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

SMALL: Final = 64
"""Bytes of constants that are merged where they are equal: ranges and scales, no weights."""

_ABOUT_THE_CONVERTER: Final = ("info", "conversion_parameters", "framework")
_BODIES: Final = ("body", "then_body", "else_body")


def save_compact(model: Any, path: Path) -> None:
    """Write ``model`` as ``path`` and the weights beside it."""
    import openvino as ov

    ov.save_model(model, str(path), compress_to_fp16=False)
    network = ElementTree.parse(path).getroot()  # noqa: S314  # OpenVINO wrote it just now
    _strip_ports(network)
    _merge_constants(network)
    information = network.find("rt_info")
    for entry in list(information) if information is not None else ():
        if information is not None and entry.tag in _ABOUT_THE_CONVERTER:
            information.remove(entry)
    for element in network.iter():
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = None
    text = ElementTree.tostring(network).replace(b" />", b"/>")  # values have no ">": it is written as an entity
    path.write_bytes(b'<?xml version="1.0"?>' + text)


def _layers(network: ElementTree.Element) -> list[ElementTree.Element]:
    return network.findall("layers/layer")


def _strip_ports(network: ElementTree.Element) -> None:
    for layer in _layers(network):
        if any(layer.find(name) is not None for name in _BODIES):
            continue
        for port in layer.findall("input/port") + layer.findall("output/port"):
            for size in port.findall("dim"):
                port.remove(size)
        for port in layer.findall("input/port"):
            port.attrib.pop("precision", None)


def _merge_constants(network: ElementTree.Element) -> None:
    layers = network.find("layers")
    kept: dict[tuple[tuple[str, str], ...], str] = {}
    instead: dict[str, str] = {}
    taken = {layer.get("name") for layer in _layers(network)}
    for layer in _layers(network):
        data = layer.find("data")
        if layer.get("type") != "Const" or data is None or layers is None:
            continue
        number = str(layer.get("id"))
        if layer.find("rt_info") is None and int(data.get("size", SMALL + 1)) <= SMALL:
            first = kept.setdefault(tuple(sorted(data.attrib.items())), number)
            if first != number:
                instead[number] = first
                layers.remove(layer)
                continue
        if f"c{number}" not in taken:
            layer.set("name", f"c{number}")
    for edge in network.findall("edges/edge"):
        source = str(edge.get("from-layer"))
        edge.set("from-layer", instead.get(source, source))
