"""The page around the report's content: looks, behaviour, and the policy that lets nothing else run or load.

The policy (CSP) names the two scripts by their hash and allows no connection at all: whatever a model or a layer is
called, it cannot become a script, and the page shows the same offline.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

STYLE: Final = """
:root{--ink:#1b2430;--muted:#5a6572;--line:#dde2e8;--soft:#f4f6f8;--paper:#fff;--blue:#2166ac;--orange:#b8432f;
--good:#e8f0f8;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--ink:#e3e8ee;--muted:#9aa6b2;--line:#323c47;--soft:#1c242d;--paper:#141a21;
--blue:#7db4e6;--orange:#f08a72;--good:#1b2c3d}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:1200px;margin:0 auto;padding:28px 32px 64px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:19px;margin:44px 0 6px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:15px;margin:22px 0 6px} h4{font-size:13px;margin:0 0 6px;color:var(--muted);font-weight:600}
p{margin:6px 0 10px;max-width:100ch} .note,figcaption,caption{color:var(--muted);font-size:13px}
.meta{color:var(--muted);font-size:13.5px;margin:0 0 18px}
.badge{display:inline-block;border:1px solid currentColor;border-radius:999px;padding:0 9px;font-size:12px;
font-weight:600;color:var(--blue)} .badge.warn{color:var(--orange)}
.answer{background:var(--soft);border-left:4px solid var(--blue);border-radius:4px;padding:16px 20px;margin:14px 0 18px}
.answer.none{border-color:var(--orange)} .answer strong{font-size:18px} .answer p{margin:6px 0 0;max-width:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:0 0 10px}
.tile{border:1px solid var(--line);border-radius:6px;padding:10px 14px}
.tile .name{font-size:12.5px;color:var(--muted)} .tile .big{font-size:22px;font-weight:600;line-height:1.3}
.tile .small{font-size:12.5px;color:var(--muted)}
.scroll{overflow-x:auto;margin:8px 0 12px}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:12.5px;vertical-align:bottom} td.n,th.n{text-align:right}
td.n{white-space:nowrap} .n+:not(.n){padding-left:16px} .narrow{width:auto;min-width:46%} .narrow .n{padding-left:36px}
td .i{display:block;color:var(--muted);font-size:11.5px} tbody th{color:var(--ink);font-size:13.5px;
vertical-align:top;min-width:140px}
tr.pick{background:var(--good)} tr.pick>:first-child{box-shadow:-4px 0 0 var(--blue)}
tr.base>:first-child{color:var(--orange)}
th button{all:unset;cursor:pointer;font:inherit;color:inherit} th button:focus-visible{outline:2px solid var(--blue)}
th button::after{content:"\\a0\\2195";opacity:.45} th[aria-sort=ascending] button::after{content:"\\a0\\2191";opacity:1}
th[aria-sort=descending] button::after{content:"\\a0\\2193";opacity:1}
.bar{display:flex;height:26px;border-radius:4px;overflow:hidden;margin:10px 0 12px;border:1px solid var(--line)}
.bar span{display:block;height:100%} .key{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:7px}
.trio{display:flex;flex-wrap:wrap;gap:14px;margin-bottom:18px} .case{break-inside:avoid}
figure{margin:0} .trio img{display:block;width:260px;max-width:100%;height:auto;border:1px solid var(--line)}
pre{background:var(--soft);padding:12px 16px;border-radius:4px;font:12.5px/1.5 ui-monospace,Menlo,Consolas,monospace;
white-space:pre-wrap;overflow-wrap:anywhere} code{font:12.5px ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:8px 36px}
.chart{min-height:300px}
@media print{:root{--ink:#000;--muted:#444;--line:#ccc;--soft:#f4f4f4;--paper:#fff;--good:#eee}main{max-width:none;padding:0}
h2{break-after:avoid}table,pre,.chart{break-inside:avoid}table{font-size:11px}.scroll{overflow:visible}
th button::after{content:""}}
"""

BEHAVIOUR: Final = """
"use strict";
(function () {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const config = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"]};
  function looks(layout) {
    const css = getComputedStyle(document.documentElement);
    const ink = css.getPropertyValue("--ink").trim(), line = css.getPropertyValue("--line").trim();
    const copy = Object.assign({}, layout);
    copy.font = {family: getComputedStyle(document.body).fontFamily, size: 13, color: ink};
    for (const axis of ["xaxis", "yaxis"]) copy[axis] = Object.assign({gridcolor: line, tickcolor: line}, layout[axis]);
    copy.shapes = (layout.shapes || []).map(function (shape, index) {
      return index === 0 ? Object.assign({}, shape, {line: {width: 1, color: ink}}) : shape;
    });
    return copy;
  }
  function draw() {
    for (const id of Object.keys(charts)) Plotly.react(id, charts[id].data, looks(charts[id].layout), config);
  }
  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead button").forEach(function (button) {
      button.addEventListener("click", function () {
        const head = button.closest("th"), body = table.tBodies[0];
        const column = Array.from(head.parentNode.children).indexOf(head);
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const key = function (row) { return row.children[column].dataset.v || ""; };
        const rows = Array.from(body.rows);
        rows.sort(function (one, two) {
          const a = key(one), b = key(two);
          if (a === "" || b === "") return (a === "") - (b === "");
          return sign * (a - b || (isNaN(a - b) ? a.localeCompare(b) : 0));
        });
        rows.forEach(function (row) { body.appendChild(row); });
      });
    });
  }
})();
"""


def script_json(value: object) -> str:
    """JSON that cannot end a script element, open a comment or break a line: ``<``, ``>`` and ``&`` as \\u escapes."""
    text = json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(title: str, body: str, charts: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole document. ``body`` is HTML; ``charts`` maps element ids to plotly figures."""
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs().replace("</script", "<\\/script")
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src {_hash(library)} {_hash(BEHAVIOUR)}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=True)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main>\n"
        f'<script type="application/json" id="charts">{script_json(charts)}</script>\n'
        f"<script>{library}</script>\n<script>{BEHAVIOUR}</script>\n</body></html>\n"
    )


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
