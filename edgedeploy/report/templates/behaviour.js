"use strict";
(function () {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const narrow = window.matchMedia("(max-width: 600px)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const paper = window.matchMedia("print");
  const drawn = new Set();
  function looks(layout) {
    const css = getComputedStyle(document.documentElement);
    const ink = css.getPropertyValue("--ink").trim(), line = css.getPropertyValue("--line").trim();
    const copy = Object.assign({}, layout);
    copy.font = {family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 13, color: ink};
    if (narrow.matches) {
      copy.margin = Object.assign({}, layout.margin, {l: 44, r: 8});
      if (layout.title) copy.title = null;
    }
    for (const axis of ["xaxis", "yaxis"]) copy[axis] = Object.assign({gridcolor: line, tickcolor: line}, layout[axis]);
    copy.shapes = (layout.shapes || []).map(function (shape, index) {
      return index === 0 ? Object.assign({}, shape, {line: {width: 1, color: ink}}) : shape;
    });
    return copy;
  }
  const night = {"#2166ac": "#7db4e6", "#d6604d": "#f08a72", "#8b95a1": "#9aa6b2"};
  function paints(data) {
    if (!dark.matches || paper.matches) return data;
    let text = JSON.stringify(data);
    for (const colour of Object.keys(night)) text = text.replaceAll(colour, night[colour]);
    return JSON.parse(text);
  }
  function draw(id) {
    const touch = window.matchMedia("(pointer: coarse)").matches;
    const config = {responsive: true, displayModeBar: false, scrollZoom: false};
    const layout = looks(charts[id].layout);
    if (touch) layout.dragmode = false;
    Plotly.react(id, paints(charts[id].data), layout, config);
    drawn.add(id);
  }
  window.edgedeployDraw = function (id, figure) {  // for pages that make a figure when it is asked for
    charts[id] = figure;
    draw(id);
    hush();
    reach();
  };
  function folded(element) { return element.closest("details:not([open])") !== null; }
  function drawVisible(again) {
    for (const id of Object.keys(charts)) {
      if (!folded(document.getElementById(id)) && (again || !drawn.has(id))) draw(id);
    }
  }
  function hush() {  // what plotly measures its letters with says nothing to anybody
    const tester = document.getElementById("js-plotly-tester");
    if (tester) tester.setAttribute("aria-hidden", "true");
  }
  function redraw() { drawVisible(true); }
  function reach() {
    for (const box of document.querySelectorAll(".scroll")) {
      if (folded(box)) continue;
      if (box.scrollWidth > box.clientWidth + 1) {
        const section = box.closest("section"), title = section && section.querySelector("h2");
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", (title ? title.textContent + ": " : "") + "scrolls sideways");
      } else {
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    }
  }
  function unfold() {
    const aim = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = aim && aim.querySelector("details");
    if (fold) fold.open = true;
  }
  for (const fold of document.querySelectorAll("details")) {
    fold.addEventListener("toggle", function () { drawVisible(false); reach(); });
  }
  for (const media of [dark, narrow, paper]) media.addEventListener("change", redraw);
  window.addEventListener("hashchange", unfold);
  window.addEventListener("resize", reach);
  let closed = [];
  window.addEventListener("beforeprint", function () {
    closed = Array.from(document.querySelectorAll("details:not([open])"));
    for (const fold of closed) fold.open = true;
    redraw();
  });
  window.addEventListener("afterprint", function () {
    for (const fold of closed) fold.open = false;
    closed = [];
    redraw();
  });
  unfold();
  drawVisible(false);
  hush();
  reach();
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
