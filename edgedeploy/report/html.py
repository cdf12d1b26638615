"""The page around the report's content: looks, behaviour, and the policy that lets nothing else run or load.

The policy (CSP) names the page's scripts by their hash and allows no connection at all: whatever a model or a layer is
called, it cannot become a script, and the page shows the same offline.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.report.blocks import Chart, Section, Summary
from edgedeploy.report.drawing import DARK, PAINTS, Drawing, styles

if TYPE_CHECKING:
    from jinja2 import Environment

_PAINTS: Final = f"{styles(PAINTS)}\n@media screen and (prefers-color-scheme:dark){{{styles(DARK)}}}\n"

_NO_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML file may have."""


@cache
def templates() -> Environment:
    """The folder ``templates``. Every value is escaped, and a name that a template misspells is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("edgedeploy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"allow_nan": False, "sort_keys": True}
    return found


def page(summary: Summary, sections: Sequence[Section]) -> str:
    """The whole document."""
    charts = {block.id: block.figure for section in sections for block in section.blocks if isinstance(block, Chart)}
    content = {"summary": summary, "sections": sections, "charts": charts}
    return document("page.html", content, {"library": plotly(), "behaviour": template_file("behaviour.js")})


def document(template: str, content: Mapping[str, Any], scripts: Mapping[str, str]) -> str:
    """The template with ``content``, which it escapes, our ``style``, the ``scripts`` by their names, and the ``policy``
    that lets these scripts run and nothing load."""
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src {' '.join(map(_hash, scripts.values()))}"
    )
    style = f"{template_file('style.css')}{_PAINTS}"
    return templates().get_template(template).render(content, policy=policy, style=style, **scripts)


def plotly() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text.replace("</script", "<\\/script")  # by hand: a script's text has no escapes of HTML


def svg(drawing: Drawing) -> str:
    """The drawing as a file of its own, in light colours: on slides the paper is white."""
    text = templates().get_template("drawing.svg").render(it=drawing, styles=styles(PAINTS))
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def template_file(name: str) -> str:
    """As it is on disk, not as a template: braces mean something else in CSS and JavaScript."""
    return files("edgedeploy.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
