"""Settings of the documentation: `scripts/docs` builds it, offline, with warnings as errors."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from edgedeploy import __version__

project = "edgedeploy"
copyright = "the authors of edgedeploy"  # noqa: A001 (Sphinx's name)
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["examples/*/data/**"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_mock_imports: list[str] = []
nitpicky = False

html_theme = "furo"
html_title = f"edgedeploy {version}"
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False

ROOT = Path(__file__).resolve().parents[1]
OF_THE_ROOT = {
    "ARCHITECTURE": "architecture",
    "CHANGELOG": "changelog",
    "CONTRIBUTING": "contributing",
    "README": "index",
}
"""Pages that lie in the project's root, where people and forges look for them, and their names here."""


def link_in_root(link: str) -> str:
    """A link of a page in the root, as it reads from this folder."""
    name, hash_, anchor = link.partition("#")
    if name.removesuffix(".md") in OF_THE_ROOT:
        return f"{OF_THE_ROOT[name.removesuffix('.md')]}.md{hash_}{anchor}"
    return link.removeprefix("docs/") if link.startswith("docs/") else f"../{link}"


def read_source(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the root's pages in the place of their namesakes, and lead links to the root's pages to these."""
    for name, here in OF_THE_ROOT.items():
        if page == here and page != root_doc:
            text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
            source[0] = re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", lambda found: f"]({link_in_root(found[1])})", text)
        up = "../" * (page.count("/") + 1)
        source[0] = source[0].replace(f"]({up}{name}.md", f"]({up[3:]}{here}.md")


def setup(app: Sphinx) -> None:
    app.connect("source-read", read_source)
