
"use strict";
(() => {
  const $ = id => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { metrics, columns, rows, pairs } = data;
  const MINUS = "\u2212";
  const measured = metrics.map((m, i) => i).filter(i => !metrics[i].missing);

  /** An element; what is text stays text. */
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter(c => c !== null && c !== undefined));
    return made;
  }
  /** A name from a file: of any direction of writing, and of no effect on what stands around it. */
  const named = text => el("bdi", {}, text);

  function number(value, decimals) {
    const text = value.toFixed(decimals);
    return text.startsWith("-") ? (Number(text) === 0 ? text.slice(1) : MINUS + text.slice(1)) : text;
  }
  const signed = (value, decimals) => (value > 0 && Number(value.toFixed(decimals)) > 0 ? "+" : "") + number(value, decimals);
  const count = (n, what, more) => `${n} ${n === 1 ? what : more || what + "s"}`;

  /** How far a value is from the best: of two, the smaller is the better one. */
  function distance(metric, value) {
    if (typeof metric.best === "number") return Math.abs(value - metric.best);
    return metric.best === "high" ? -value : value;
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, label]) => el("option", { value, selected: value === chosen }, label)));
    if (chosen !== undefined) select.value = chosen;
  }

  // -- header ------------------------------------------------------------------------------------------------

  const made = new Map(data.made);
  $("summary").textContent = [
    count(pairs.length, data.kind === "pairs" ? "pair" : "picture"),
    count(rows.length, "row"),
    made.get("date"),
  ].filter(Boolean).join(" · ");
  document.title = `Benchmark: ${rows.map(r => r.name).join(", ")}`.slice(0, 200);

  const THEMES = [["", "as the system"], ["dark", "dark"], ["light", "light"]];
  $("theme").addEventListener("click", () => {
    const now = THEMES.findIndex(([name]) => name === (document.documentElement.dataset.theme || ""));
    const [name, words] = THEMES[(now + 1) % THEMES.length];
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
    $("theme").textContent = `Colours: ${words}`;
  });

  // -- the table of means ------------------------------------------------------------------------------------

  const timed = rows.some(r => r.seconds !== null);
  // The column that the table is in the order of: -1 is the rows' own, metrics.length seconds.
  let sorted = -1, turned = false;

  function keyOf(r, column) {
    if (column === metrics.length) return rows[r].seconds;
    const cell = data.table.cells[r][column];
    return cell ? distance(metrics[column], cell.mean) : null;
  }

  function tableOrder() {
    const order = rows.map((_, r) => r);
    if (sorted < 0) return turned ? order.reverse() : order;
    return order.sort((a, b) => {
      const [x, y] = [keyOf(a, sorted), keyOf(b, sorted)];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return (turned ? y - x : x - y) || a - b;
    });
  }

  function head(column, title, about) {
    const here = sorted === column;
    const button = el("button", { type: "button", title: about || null }, title, " ", el("span", { class: "turn", "aria-hidden": "true" }, here ? (turned ? "▼" : "▲") : ""));
    button.addEventListener("click", () => {
      turned = here && !turned;
      sorted = column;
      drawTable();
      $("table").querySelectorAll("thead button")[[...heads()].indexOf(column)].focus();
    });
    return el("th", { scope: "col", "aria-sort": here ? (turned ? "descending" : "ascending") : "none" }, button);
  }
  const heads = () => [-1, ...metrics.keys(), ...(timed ? [metrics.length] : [])];

  function cellOf(r, c, against) {
    const cell = data.table.cells[r][c], metric = metrics[c];
    if (!cell) return el("td", { class: "missing" }, "–");
    const td = el("td", { class: data.table.best[c].includes(r) ? "best" : null }, el("span", { class: "mean" }, number(cell.mean, metric.decimals)));
    if (data.table.best[c].includes(r)) td.title = "best";
    if (cell.low !== null) td.append(el("span", { class: "interval" }, `${number(cell.low, metric.decimals)} … ${number(cell.high, metric.decimals)}`));
    const d = against === "" ? null : data.table.differences[r][Number(against)][c];
    if (d) {
      const kind = d.beyond && metric.ranked ? (d.better ? "better" : "worse") : "";
      const sign = d.beyond ? (metric.ranked ? (d.better ? "✓" : "✗") : "") : "≈";
      const interval = d.low === null ? "no interval" : `${signed(d.low, metric.decimals)} … ${signed(d.high, metric.decimals)}`;
      const words = d.beyond === null ? "too few pictures to tell from chance" : d.beyond ? `${kind || "different"}, beyond chance` : "may be chance";
      td.append(el("span", { class: `difference ${kind}`, title: `${interval}; ${words}; ${count(d.count, "picture")}` }, `${signed(d.mean, metric.decimals)} ${sign}`.trim()));
    }
    if (cell.count !== pairs.length) td.append(el("span", { class: "interval" }, `of ${cell.count}`));
    return td;
  }

  function drawTable() {
    const against = $("against").value;
    const top = el("tr", {}, head(-1, "Row"), ...metrics.map((m, c) => head(c, `${m.head} ${m.arrow}`.trim(), m.about)));
    if (timed) top.append(head(metrics.length, "s / picture", "Median seconds of a picture"));
    $("table").tHead.replaceChildren(top);
    $("table").tBodies[0].replaceChildren(...tableOrder().map(r => {
      const row = rows[r];
      const first = el("th", { scope: "row" }, named(row.name));
      if (row.failed) first.append(el("small", { class: "failed" }, `${row.failed} failed`));
      const tr = el("tr", {}, first, ...metrics.map((_, c) => cellOf(r, c, against)));
      if (timed) tr.append(el("td", {}, row.seconds === null ? "–" : el("span", { class: "mean" }, number(row.seconds, row.seconds < 10 ? 2 : 1))));
      return tr;
    }));
    const words = pairs.length > 1 ? `Mean and 95 % interval over ${count(pairs.length, "picture")} (bootstrap). ` : "One picture has no interval. ";
    $("legend").textContent = words + "Green: the best of a column. " + (against === "" ? "" :
      "Small beneath: the paired difference to the row chosen above; ✓ better and ✗ worse beyond chance (its 95 % interval leaves out 0), ≈ may be chance.");
  }

  fill($("against"), [["", "none"], ...rows.map((r, i) => [String(i), r.name])], rows.length > 1 ? "0" : "");
  $("against-label").hidden = rows.length < 2;
  $("against").addEventListener("change", drawTable);
  drawTable();
  $("missing").append(...metrics.filter(m => m.missing).map(m => el("li", {}, el("b", {}, m.head), `: ${m.missing}`)));

  async function copy(text, what) {
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      // Browsers that do not count a file as a secure page.
      const area = el("textarea", { "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    $("copied").textContent = done ? `${what} copied` : "The browser does not allow it";
  }
  $("copy-markdown").addEventListener("click", () => copy(data.table.markdown, "Markdown"));
  $("copy-latex").addEventListener("click", () => copy(data.table.latex, "LaTeX"));

  // -- which pictures, in which order ------------------------------------------------------------------------

  const state = { pair: 0, left: "", right: "", zoom: 0, x: 0.5, y: 0.5, at: 0.5 };
  let shown = pairs.map((_, n) => n);

  const last = rows.length - 1;
  fill($("by"), measured.map(c => [String(c), metrics[c].head]));
  for (const [id, chosen] of [["row-a", last], ["row-b", 0]]) fill($(id), rows.map((r, i) => [String(i), r.name]), String(chosen));
  if (!measured.length || !rows.length) for (const option of [...$("order").options].slice(1)) option.disabled = true;
  if (rows.length < 2) $("order").options[3].disabled = true;

  /** What a picture is put in order by, and in words; null where it has no figure. */
  function rank(n) {
    const order = $("order").value, c = Number($("by").value), a = Number($("row-a").value), b = Number($("row-b").value);
    if (order === "name") return null;
    const metric = metrics[c], value = pairs[n].scores[a][c];
    if (order === "difference") {
      const other = pairs[n].scores[b][c];
      if (value === null || other === null) return null;
      return { key: -Math.abs(value - other), text: `${signed(value - other, metric.decimals)} ${metric.head}` };
    }
    if (value === null) return null;
    const far = distance(metric, value);
    return { key: order === "worst" ? -far : far, text: `${number(value, metric.decimals)} ${metric.head}` };
  }

  function arrange() {
    const order = $("order").value, wanted = $("filter").value.toLocaleLowerCase();
    $("by-label").hidden = $("row-a-label").hidden = order === "name";
    $("row-b-label").hidden = order !== "difference";
    $("row-a-label").firstElementChild.textContent = order === "difference" ? "between" : "of";
    const ranks = new Map(pairs.map((_, n) => [n, rank(n)]));
    shown = pairs.map((_, n) => n).filter(n => pairs[n].name.toLocaleLowerCase().includes(wanted));
    if (order !== "name") shown.sort((a, b) => {
      const [x, y] = [ranks.get(a), ranks.get(b)];
      // Failures are worse than any figure.
      const none = order === "best" ? 1 : order === "worst" ? -1 : 1;
      if (!x || !y) return ((!x) - (!y)) * none || a - b;
      return x.key - y.key || a - b;
    });
    $("count").textContent = shown.length === pairs.length ? count(shown.length, "picture") : `${shown.length} of ${count(pairs.length, "picture")}`;
    watcher.disconnect();
    $("list").replaceChildren(...shown.map(n => {
      const failures = Object.keys(pairs[n].failed).length;
      const button = el("button", { type: "button", "data-pair": n }, thumbnail(n), el("span", { class: "what" }, named(pairs[n].name),
        ranks.get(n) ? el("small", {}, ranks.get(n).text) : null,
        failures ? el("small", { class: "failed" }, ` failed in ${count(failures, "row")}`) : null));
      button.addEventListener("click", () => show(n));
      return el("li", {}, button);
    }));
    mark();
  }

  function thumbnail(n) {
    const there = pairs[n].pictures;
    // The smallest is the quickest.
    const column = Object.keys(there).sort((a, b) => there[a][0] * there[a][1] - there[b][0] * there[b][1])[0];
    if (!column || there[column][0] * there[column][1] > 2_000_000) return el("span", { class: "blank" });
    const image = el("img", { alt: "", decoding: "async", width: 40, height: 40, "data-column": column, "data-of": n });
    watcher.observe(image);
    return image;
  }

  const watcher = new IntersectionObserver(entries => {
    for (const { target, isIntersecting } of entries) {
      const source = isIntersecting && sourceOf(target.dataset.column, Number(target.dataset.of));
      if (!source) continue;
      target.src = source;
      watcher.unobserve(target);
    }
  }, { rootMargin: "200px" });

  function mark() {
    for (const button of $("list").querySelectorAll("button")) {
      const here = Number(button.dataset.pair) === state.pair;
      if (!here) { button.removeAttribute("aria-current"); continue; }
      button.setAttribute("aria-current", "true");
      // Not scrollIntoView, which would move the page too.
      const list = $("list"), [a, b] = [list.getBoundingClientRect(), button.getBoundingClientRect()];
      if (b.top < a.top) list.scrollTop -= a.top - b.top;
      else if (b.bottom > a.bottom) list.scrollTop += b.bottom - a.bottom;
    }
    const at = shown.indexOf(state.pair);
    $("previous").disabled = at <= 0;
    $("next").disabled = at < 0 ? !shown.length : at >= shown.length - 1;
  }

  function step(by) {
    const at = shown.indexOf(state.pair);
    const next = at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + by));
    if (shown.length && shown[next] !== state.pair) show(shown[next]);
  }

  for (const id of ["order", "by", "row-a", "row-b"]) $(id).addEventListener("change", () => { arrange(); if (shown.length) show(shown[0]); });
  $("filter").addEventListener("input", () => { arrange(); if (shown.length && !shown.includes(state.pair)) show(shown[0]); });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("list").addEventListener("keydown", event => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
    $("list").querySelector("[aria-current]")?.focus();
  });

  // -- one picture -------------------------------------------------------------------------------------------

  /** A picture's address, made of its text when it is looked at; null while the page is still being read. */
  function sourceOf(column, n) {
    const holder = $(`${column}-${n}`);
    return holder ? `data:image/webp;base64,${holder.textContent}` : null;
  }

  function put(image, column, n) {
    const key = `${column}-${n}`;
    if (image.dataset.key === key) return;
    const source = pairs[n].pictures[column] ? sourceOf(column, n) : null;
    image.hidden = !source;
    image.classList.toggle("alpha", Boolean(source && pairs[n].pictures[column][2]));
    if (source) { image.src = source; image.dataset.key = key; }
    else { image.removeAttribute("src"); delete image.dataset.key; }
  }

  const ZOOMS = [[0, "Fit"], [1, "1:1"], [2, "2×"], [4, "4×"], [8, "8×"]];
  const stage = $("stage"), layers = { left: $("layer-left"), right: $("layer-right") };
  const imageOf = { left: layers.left.firstElementChild, right: layers.right.firstElementChild };

  $("zooms").append(...ZOOMS.map(([zoom, label]) => {
    const button = el("button", { type: "button", "aria-pressed": "false", "data-zoom": zoom }, label);
    button.addEventListener("click", () => setZoom(zoom));
    return button;
  }));

  /** Width and height that all pictures of a pair are shown at: the largest's. */
  function frameOf(n) {
    const sizes = Object.values(pairs[n].pictures);
    return [Math.max(1, ...sizes.map(s => s[0])), Math.max(1, ...sizes.map(s => s[1]))];
  }

  /** CSS pixels of one of the frame's pixels. 1:1 is one pixel of the screen. */
  function scaleIn(width, height, n) {
    const [w, h] = frameOf(n);
    return state.zoom ? state.zoom / (window.devicePixelRatio || 1) : Math.min(width / w, height / h);
  }

  function lay(image, column, width, height) {
    const n = state.pair, [w, h] = frameOf(n), scale = scaleIn(width, height, n);
    const own = pairs[n].pictures[column];
    const along = (room, size, at) => size * scale <= room ? (room - size * scale) / 2 : room / 2 - at * size * scale;
    image.style.width = `${w * scale}px`;
    image.style.height = `${h * scale}px`;
    image.style.transform = `translate(${along(width, w, state.x)}px, ${along(height, h, state.y)}px)`;
    if (own) image.classList.toggle("pixels", scale * w / own[0] * (window.devicePixelRatio || 1) >= 1.5);
  }

  function clamp() {
    const [w, h] = frameOf(state.pair), scale = scaleIn(stage.clientWidth, stage.clientHeight, state.pair);
    for (const [key, size, room] of [["x", w, stage.clientWidth], ["y", h, stage.clientHeight]]) {
      const half = Math.min(0.5, room / 2 / (size * scale));
      state[key] = Math.min(1 - half, Math.max(half, state[key]));
    }
  }

  function draw() {
    if (!pairs.length) return;
    const [width, height] = [stage.clientWidth, stage.clientHeight];
    clamp();
    for (const side of ["left", "right"]) lay(imageOf[side], state[side], width, height);
    const x = state.at * width;
    layers.left.style.clipPath = `inset(0 ${width - x}px 0 0)`;
    layers.right.style.clipPath = `inset(0 0 0 ${x}px)`;
    $("handle").style.left = `${x}px`;
    $("divider").value = String(Math.round(state.at * 1000));
    stage.classList.toggle("zoomed", state.zoom !== 0);
    for (const button of $("zooms").children) button.setAttribute("aria-pressed", String(Number(button.dataset.zoom) === state.zoom));
    for (const button of $("strip").children) {
      const frame = button.firstElementChild, image = frame.querySelector("img");
      if (image) lay(image, button.dataset.column, frame.clientWidth, frame.clientHeight);
    }
  }

  const labelOf = column => (columns.find(c => c.key === column) || { label: "" }).label;

  /** Why there is no picture in a column; in words. */
  function why(column, n) {
    const pair = pairs[n];
    const failed = column.startsWith("row") ? pair.failed[column.slice(3)] : null;
    if (failed) return `failed: ${failed}`;
    if (pair.unread[column]) return pair.unread[column];
    return Object.keys(pair.pictures).length ? "there is no picture" : "there was no room for this picture on the page";
  }

  function show(n) {
    state.pair = n;
    const pair = pairs[n];
    $("name").replaceChildren(named(pair.name));
    drawStrip();
    drawSides();
    drawScores();
    $("remark").textContent = pair.cut ? `Shown: ${pair.cut} pixels, for which there is room on this page.` : "";
    mark();
    draw();
  }

  function drawSides() {
    const absent = [];
    for (const side of ["left", "right"]) {
      const column = state[side], there = pairs[state.pair].pictures[column];
      $(side).value = column;
      put(imageOf[side], column, state.pair);
      imageOf[side].alt = `${labelOf(column)} of ${pairs[state.pair].name}`;
      $(`tag-${side}`).replaceChildren(named(labelOf(column)));
      if (!there && column) absent.push(`${labelOf(column)}: ${why(column, state.pair)}`);
    }
    $("nothing").hidden = !absent.length;
    $("nothing").textContent = [...new Set(absent)].join(" · ");
    for (const button of $("strip").children) {
      const at = ["left", "right"].filter(side => state[side] === button.dataset.column);
      button.lastElementChild.lastElementChild.textContent = at.join(" ");
    }
  }

  function drawStrip() {
    const n = state.pair;
    $("strip").replaceChildren(...columns.map(({ key, label }) => {
      const frame = el("span", { class: "frame" });
      if (pairs[n].pictures[key]) {
        const image = el("img", { alt: "", draggable: "false", decoding: "async" });
        put(image, key, n);
        frame.append(image);
      } else frame.append(el("span", { class: "why" }, why(key, n)));
      const button = el("button", { type: "button", "data-column": key, "aria-label": `${label}: show it on the right` }, frame,
        el("span", { class: "label" }, named(label), el("span", { class: "at" })));
      button.addEventListener("click", event => choose(event.shiftKey ? "left" : "right", key));
      return button;
    }));
  }

  function drawScores() {
    const n = state.pair, pair = pairs[n], clocked = pair.seconds.some(s => s !== null);
    const top = el("tr", {}, el("th", { scope: "col" }, "This picture"), ...measured.map(c => el("th", { scope: "col", title: metrics[c].about || null }, `${metrics[c].head} ${metrics[c].arrow}`.trim())));
    if (clocked) top.append(el("th", { scope: "col" }, "s"));
    $("scores").tHead.replaceChildren(top);
    const best = measured.map(c => {
      // As they are shown: what looks the same is as good.
      const far = rows.map((_, r) => pair.scores[r][c] === null ? Infinity : distance(metrics[c], Number(pair.scores[r][c].toFixed(metrics[c].decimals))));
      return !metrics[c].ranked || far.filter(Number.isFinite).length < 2 ? NaN : Math.min(...far);
    });
    $("scores").tBodies[0].replaceChildren(...rows.map((row, r) => {
      const tr = el("tr", {}, el("th", { scope: "row" }, named(row.name)));
      if (pair.failed[r]) {
        tr.append(el("td", { class: "failed", colspan: measured.length + clocked }, named(pair.failed[r])));
        return tr;
      }
      tr.append(...measured.map((c, i) => {
        const value = pair.scores[r][c];
        return el("td", { class: value !== null && best[i] === distance(metrics[c], Number(value.toFixed(metrics[c].decimals))) ? "best one" : value === null ? "missing" : null }, value === null ? "–" : number(value, metrics[c].decimals));
      }));
      if (clocked) tr.append(el("td", {}, pair.seconds[r] === null ? "–" : number(pair.seconds[r], 2)));
      return tr;
    }));
  }

  function choose(side, column) {
    state[side] = column;
    drawSides();
    draw();
  }

  for (const side of ["left", "right"]) {
    fill($(side), columns.map((c, i) => [c.key, i < 9 ? `${i + 1}  ${c.label}` : c.label]));
    $(side).addEventListener("change", () => choose(side, $(side).value));
  }
  const swap = () => { [state.left, state.right] = [state.right, state.left]; drawSides(); draw(); };
  $("swap").addEventListener("click", swap);

  // -- divider, zoom and place -------------------------------------------------------------------------------

  function divide(at) {
    state.at = Math.min(1, Math.max(0, at));
    draw();
  }

  /** Zoom so that the place under a point of the stage stays there. */
  function setZoom(zoom, px = stage.clientWidth / 2, py = stage.clientHeight / 2) {
    if (!pairs.length) return;
    const [w, h] = frameOf(state.pair), [width, height] = [stage.clientWidth, stage.clientHeight];
    const before = scaleIn(width, height, state.pair);
    const place = [state.x + (px - width / 2) / (w * before), state.y + (py - height / 2) / (h * before)];
    state.zoom = zoom;
    const after = scaleIn(width, height, state.pair);
    state.x = place[0] - (px - width / 2) / (w * after);
    state.y = place[1] - (py - height / 2) / (h * after);
    if (!zoom) state.x = state.y = 0.5;
    draw();
  }

  function zoomBy(by, px, py) {
    const scale = scaleIn(stage.clientWidth, stage.clientHeight, state.pair) * (window.devicePixelRatio || 1);
    const levels = ZOOMS.map(([z]) => z).filter(Boolean);
    const next = by > 0 ? levels.find(z => z > scale * 1.01) : levels.filter(z => z < scale * 0.99).pop();
    if (by > 0) { if (next) setZoom(next, px, py); }
    else if (state.zoom) setZoom(next && next * 1.01 > fitted() ? next : 0, px, py);
  }
  function fitted() {
    const [w, h] = frameOf(state.pair);
    return Math.min(stage.clientWidth / w, stage.clientHeight / h) * (window.devicePixelRatio || 1);
  }

  function move(dx, dy) {
    const [w, h] = frameOf(state.pair), scale = scaleIn(stage.clientWidth, stage.clientHeight, state.pair);
    state.x -= dx / (w * scale);
    state.y -= dy / (h * scale);
    draw();
  }

  const fingers = new Map();
  let dividing = false, apart = 0;
  const gap = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  stage.addEventListener("pointerdown", event => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 2) { apart = gap(); dividing = false; return; }
    dividing = $("handle").contains(event.target) || !state.zoom;
    if (dividing) divide((event.clientX - stage.getBoundingClientRect().left) / stage.clientWidth);
    else stage.classList.add("moving");
  });
  stage.addEventListener("pointermove", event => {
    const was = fingers.get(event.pointerId);
    if (!was) return;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 2) {
      const now = gap();
      if (now > apart * 1.4 || now < apart / 1.4) { zoomBy(now > apart ? 1 : -1); apart = now; }
    } else if (dividing) divide((event.clientX - stage.getBoundingClientRect().left) / stage.clientWidth);
    else move(event.clientX - was.x, event.clientY - was.y);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, event => {
    fingers.delete(event.pointerId);
    stage.classList.remove("moving");
  });
  stage.addEventListener("dblclick", event => {
    const box = stage.getBoundingClientRect();
    setZoom(state.zoom ? 0 : 2, event.clientX - box.left, event.clientY - box.top);
  });
  stage.addEventListener("wheel", event => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoomBy(-event.deltaY, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  $("divider").addEventListener("input", () => divide(Number($("divider").value) / 1000));
  new ResizeObserver(() => draw()).observe(stage);

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const digit = /^Digit([1-9])$/.exec(event.code);
    if (digit) {
      const column = columns[Number(digit[1]) - 1];
      if (column) choose(event.shiftKey ? "right" : "left", column.key);
    } else if (event.target === stage && state.zoom && event.key.startsWith("Arrow")) {
      const [dx, dy] = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
      move(dx, dy);
    } else if (event.target.closest(".scroll") && event.key.startsWith("Arrow")) return;
    else if (event.key === "j" || event.key === "ArrowRight") step(1);
    else if (event.key === "k" || event.key === "ArrowLeft") step(-1);
    else if (event.key === "x") swap();
    else if (event.key === "[" || event.key === "]") divide(state.at + (event.key === "]" ? 0.05 : -0.05));
    else if (event.key === "+" || event.key === "=") zoomBy(1);
    else if (event.key === "-") zoomBy(-1);
    else if (event.key === "0") setZoom(0);
    else return;
    event.preventDefault();
  });

  // -- how it was made ---------------------------------------------------------------------------------------

  function lines(pairsOfWords) {
    return el("dl", { class: "settings" }, ...pairsOfWords.flatMap(([name, value]) => [el("dt", {}, named(name)), el("dd", {}, named(value))]));
  }
  function part(title, content, open) {
    const made = el("details", { open }, el("summary", {}, title), content);
    $("about").append(made);
  }
  const bullets = texts => el("ul", { class: "notes" }, ...texts.map(t => el("li", {}, named(t))));

  $("notes").append(...data.notes.map(n => el("li", {}, n)));
  const failures = rows.flatMap((row, r) => pairs.filter(p => p.failed[r]).map(p => `${row.name}: ${p.name}: ${p.failed[r]}`));
  if (failures.length) part(`Failed (${failures.length})`, bullets(failures), failures.length <= 10);
  const unread = pairs.flatMap(p => Object.entries(p.unread).map(([c, text]) => `${labelOf(c)}: ${p.name}: ${text}`));
  if (unread.length) part(`Files that cannot be shown (${unread.length})`, bullets(unread), false);
  if (data.unmatched.length) part(`Files without a partner (${data.unmatched.length})`, bullets(data.unmatched), data.unmatched.length <= 10);
  if (data.made.length) part("Versions, machine and command", lines(data.made), true);
  for (const row of rows) {
    const where = row.folders.length ? [["pictures are in", row.folders.join(", ")]] : [];
    part(row.name, lines([["kind", row.kind], ...row.settings, ...where]), false);
  }
  const originals = [["LQ", data.folders.lq], ["HQ", data.folders.hq]].filter(([, f]) => f.length).map(([name, f]) => [name, f.join(", ")]);
  if (originals.length) part("Where the originals are", lines(originals), true);
  if (metrics.length) part("What the metrics are", lines(metrics.map(m => [`${m.head} ${m.arrow}`.trim(), m.about || "–"])), false);

  // -- start -------------------------------------------------------------------------------------------------

  if (pairs.length && columns.length) {
    const keys = columns.map(c => c.key);
    const models = keys.filter(k => k.startsWith("row") && rows[Number(k.slice(3))].kind !== "bicubic");
    state.right = models[models.length - 1] || keys[keys.length - 1];
    state.left = keys.find(k => k.startsWith("row") && rows[Number(k.slice(3))].kind === "bicubic") || keys[0];
    arrange();
    show(shown[0]);
  } else {
    $("pictures").hidden = true;
  }
  // Pictures stand after this script: those that were not there yet are now.
  document.addEventListener("DOMContentLoaded", () => { if (pairs.length) { arrange(); show(state.pair); } });
})();

