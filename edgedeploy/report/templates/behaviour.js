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
