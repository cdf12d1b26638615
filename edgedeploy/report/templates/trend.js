"use strict";
(function () {
  const data = JSON.parse(document.getElementById("trend").textContent);
  const nights = data.nights.length, count = data.series.length, NONE = -32768;
  const chosen = {entry: 0, board: 0, metric: 0};
  const boxes = {};
  for (const name of Object.keys(chosen)) boxes[name] = document.getElementById("choose-" + name);
  const names = {entry: data.entries, board: data.boards, metric: data.metrics.map(function (one) { return one[1]; })};
  const place = {entry: 0, board: 1, metric: 2};
  let losses, limits, statuses;

  function bytes(text) {
    const raw = atob(text), found = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
    return found;
  }
  async function unpack() {
    const stream = new Blob([bytes(data.points)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const all = new Uint8Array(await new Response(stream).arrayBuffer()), size = nights * count;
    const whole = function (start) {
      const found = new Int16Array(size);
      for (let i = 0; i < size; i++) found[i] = all[start + i] | (all[start + size + i] << 8);
      return found;
    };
    losses = whole(0);
    limits = whole(2 * size);
    statuses = all.subarray(4 * size);
    for (let row = 0; row < count; row++) {
      for (let i = row * nights + 1; i < (row + 1) * nights; i++) limits[i] += limits[i - 1];
    }
  }

  function fitting(kind) {  // the series that the choices above this one leave
    return data.series.filter(function (one) {
      return (kind === "entry" || one[0] === chosen.entry) && (kind !== "metric" || one[1] === chosen.board);
    });
  }
  function fill(kind) {
    const there = new Set(fitting(kind).map(function (one) { return one[place[kind]]; }));
    if (!there.has(chosen[kind])) chosen[kind] = there.values().next().value;
    boxes[kind].replaceChildren(...Array.from(there).sort(function (a, b) { return a - b; }).map(function (at) {
      const option = document.createElement("option");
      option.value = at;
      option.textContent = names[kind][at];
      option.selected = at === chosen[kind];
      return option;
    }));
  }
  function fillAll() { for (const kind of ["entry", "board", "metric"]) fill(kind); }

  function said(loss, ratio) {
    if (loss === null) return "no number";
    return (loss >= 0 ? "+" : "\u2212") + Math.abs(loss).toFixed(ratio ? 1 : 4) + (ratio ? "\u202f%" : "");
  }
  function escaped(text) { return text.replace(/&/g, "&amp;").replace(/</g, "&lt;"); }
  function values(all, row, scale, ratio) {
    return Array.from(all.subarray(row * nights, (row + 1) * nights), function (step) {
      if (step === NONE) return null;
      return ratio ? 100 * Math.expm1(Math.min(20, step * scale)) : step * scale;
    });
  }
  function happenings(row, entry, board) {
    const pair = entry + "," + board, marks = data.marks;
    const found = [].concat(marks.lab, marks.boards[board] || [], marks.entries[entry] || [], marks.pairs[pair] || [], marks.series[row] || []);
    const by = new Map();
    for (const one of found.sort(function (a, b) { return a[0] - b[0]; })) {
      if (!by.has(one[0])) by.set(one[0], []);
      by.get(one[0]).push(one[1]);
    }
    return Array.from(by);
  }
  function segments(pair) {  // where each history of a board's key begins
    const starts = (data.keys[pair] || []).map(function (one) { return one[0]; });
    return starts.length ? starts : [0];
  }
  function traces(row, one) {
    const ratio = data.metrics[one[2]][2] === 1, pair = one[0] + "," + one[1];
    const loss = values(losses, row, one[3], ratio), limit = values(limits, row, one[3], ratio);
    const status = statuses.subarray(row * nights, (row + 1) * nights);
    const starts = segments(pair).filter(function (at) { return at > 0; });
    const x = [], y = [];
    loss.forEach(function (value, at) {
      if (starts.includes(at)) { x.push(data.nights[at]); y.push(null); }
      if (value !== null) { x.push(data.nights[at]); y.push(value); }
    });
    const line = {type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false};
    const found = [
      Object.assign({x: x, y: y, opacity: 0.6, line: {color: data.blue, width: 1}}, line),
      Object.assign({}, line, {x: data.nights, y: limit, name: "limit", showlegend: true, connectgaps: false,
        line: {color: data.grey, width: 1.5, dash: "dash", shape: "hv"}}),
    ];
    data.looks.forEach(function (look, code) {
      const at = [];
      for (let i = 0; i < nights; i++) if (status[i] === code && loss[i] !== null) at.push(i);
      if (at.length) found.push({
        type: "scatter", mode: "markers", name: look[3],
        x: at.map(function (i) { return data.nights[i]; }), y: at.map(function (i) { return loss[i]; }),
        text: at.map(function (i) {
          return data.nights[i] + "<br>" + said(loss[i], ratio) + ", limit " + said(limit[i], ratio) + "<br>" + look[3];
        }),
        hovertemplate: "%{text}<extra></extra>",
        marker: {color: look[1], symbol: look[2], size: look[0] === "regression" ? 10 : 5, line: {width: 1.5, color: look[1]}},
      });
    });
    return {data: found, loss: loss, limit: limit, status: status, ratio: ratio};
  }
  function layoutOf(one, ratio, happened) {
    const layout = JSON.parse(JSON.stringify(data.layout));
    layout.xaxis.title.text = "night";
    layout.xaxis.type = "date";
    layout.yaxis.title.text = escaped(data.metrics[one[2]][1]) + (ratio ? " against the baseline, %" : " lost against the baseline");
    layout.margin.t = 56;
    layout.legend.y = 1.06;
    layout.shapes = [{type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: {width: 1}}];
    layout.annotations = [];
    happened.forEach(function (event, number) {
      const at = data.nights[event[0]];
      layout.shapes.push({type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: {width: 1, dash: "dot", color: data.grey}});
      layout.annotations.push({x: at, y: 1, yref: "paper", yanchor: "bottom", text: String(number + 1), showarrow: false});
    });
    return layout;
  }
  function sentence(row, one, found) {
    let last = nights - 1;
    while (last > 0 && found.loss[last] === null) last--;
    const measured = found.loss.filter(function (value) { return value !== null; }).length;
    const over = Array.from(found.status).filter(function (code) { return code === 3; }).length;
    const limit = found.limit[last] === null ? "" : ", limit " + said(found.limit[last], found.ratio);
    const look = data.looks[found.status[last]];
    return names.metric[one[2]] + " of " + names.entry[one[0]] + " on " + names.board[one[1]] + ": " + measured +
      (measured === 1 ? " night" : " nights") + ", " + over + (over === 1 ? " regression" : " regressions") + "; " +
      data.nights[last] + ": " + said(found.loss[last], found.ratio) + limit + (look ? ", " + look[3] : "") + ".";
  }
  function tell(happened) {
    const rows = [];
    happened.forEach(function (event, number) {
      for (const text of event[1]) {
        const row = document.createElement("tr");
        for (const part of [number + 1, data.nights[event[0]], text]) {
          row.appendChild(document.createElement("td")).textContent = part;
        }
        rows.push(row);
      }
    });
    document.querySelector("#happened tbody").replaceChildren(...rows.reverse());
    document.getElementById("happened").hidden = rows.length === 0;
  }
  function show() {
    const row = data.series.findIndex(function (one) {
      return one[0] === chosen.entry && one[1] === chosen.board && one[2] === chosen.metric;
    });
    if (row < 0) return;
    const one = data.series[row], found = traces(row, one), happened = happenings(row, one[0], one[1]);
    const words = sentence(row, one, found);
    document.getElementById("said").textContent = words;
    document.getElementById("trend-chart").setAttribute("aria-label", "Chart over time. " + words);
    tell(happened);
    window.edgedeployDraw("trend-chart", {data: found.data, layout: layoutOf(one, found.ratio, happened)});
  }
  function follow() {  // a link to a number, from a table here or from anywhere else
    let parts = [];
    try {
      parts = location.hash.slice(1).split("/").map(decodeURIComponent);
    } catch (error) {
      return false;  // a link that somebody cut
    }
    if (parts[0] !== "show" || parts.length !== 4) return false;
    const metric = data.metrics.findIndex(function (one) { return one[0] === parts[3]; });
    const asked = {entry: data.entries.indexOf(parts[1]), board: data.boards.indexOf(parts[2]), metric: metric};
    if (Object.values(asked).includes(-1)) return false;
    Object.assign(chosen, asked);
    fillAll();
    show();
    const aim = document.querySelector("#one-number h2");
    aim.tabIndex = -1;
    aim.focus();
    return true;
  }
  for (const kind of Object.keys(boxes)) {
    boxes[kind].addEventListener("change", function () {
      chosen[kind] = Number(boxes[kind].value);
      fillAll();
      show();
    });
  }
  window.addEventListener("hashchange", follow);
  if (!count) {
    document.getElementById("said").textContent = "No number was ever taken.";
    return;
  }
  unpack().then(function () {
    document.querySelector(".choose").hidden = false;
    [chosen.entry, chosen.board, chosen.metric] = data.series[0];
    if (!follow()) { fillAll(); show(); }
    document.documentElement.dataset.ready = "yes";
  }, function () {
    document.getElementById("said").textContent = "This browser cannot unpack the numbers; the tables below have the latest.";
  });
})();
