"use strict";
// One page, fed in two ways: its data stands inside it (#view), or comes from `rrm watch`, which is asked again and again.

const embedded = document.getElementById("view");
const POLL_SECONDS = 2, LOST_SECONDS = 10;
const state = new URLSearchParams(location.hash.slice(1)); // arm, point, seed: filters; at: a place; sweep: which, live
let view = null, arrived = false;

// What comes from the user's files is text, never markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made[key] = value;
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function remember() {
  history.replaceState(null, "", "#" + state);
}

function chosen(name) {
  return state.getAll(name);
}

// A row is shown unless a filter speaks of it and leaves it out. The baseline stays: all else is measured by it.
function fits(row) {
  return ["arm", "point", "seed"].every((name) => {
    const wanted = chosen(name), has = row[name];
    if (!wanted.length || has === undefined || has === null || has === "") return true;
    if (name === "point" && row.points) return row.points.some((point) => wanted.includes(point));
    if (name === "arm" && String(has) === view.baseline) return true;
    return wanted.includes(String(has));
  });
}

// ---- tables

function table(item) {
  const index = Object.fromEntries(item.columns.map((column, i) => [column.name, i]));
  const head = element("tr", {}, ...item.columns.map((column, i) => {
    const kinds = (column.number ? "number" : "");
    return element("th", { class: kinds, scope: "col", title: column.title },
      element("button", { type: "button", onclick: () => sort(head, i, column.number) }, column.label));
  }));
  const body = element("tbody");
  for (const row of item.rows) {
    const named = {};
    for (const name of ["arm", "point", "seed"]) if (name in index) named[name] = cellText(row[index[name]]);
    if (!fits(named)) continue;
    body.append(element("tr", {}, ...row.map((cell, i) => {
      const column = item.columns[i], text = cellText(cell);
      const shown = cell && typeof cell === "object" && cell.at ? element("a", { href: "#" + cell.at }, text) : text;
      const key = cell && typeof cell === "object" ? cell.key : column.number ? text : undefined;
      return element("td", { class: column.number ? "number" : column.words ? "words" : "", "data-key": key }, shown);
    })));
  }
  return element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": item.title }, element("table", {}, element("thead", {}, head), body));
}

function cellText(cell) {
  if (cell === null || cell === undefined) return "";
  return String(typeof cell === "object" ? cell.text : cell);
}

function sort(head, column, number, down = head.cells[column].getAttribute("aria-sort") === "ascending") {
  const body = head.closest("table").tBodies[0], cell = head.cells[column];
  const key = (row) => (number ? row.cells[column].dataset.key ?? "" : row.cells[column].textContent);
  const rows = [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = number ? x - y : x.localeCompare(y, undefined, { numeric: true });
    return down ? -order : order;
  });
  for (const other of head.cells) other.removeAttribute("aria-sort");
  cell.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
}

// ---- figures

// What a chart shows of the rows that it holds. Vega-Embed changes what it is given: each time it gets a copy.
function filtered(spec) {
  const copy = structuredClone(spec);
  for (const [name, rows] of Object.entries(copy.datasets || {})) {
    const shown = rows.filter(fits);
    // A panel that has only the baseline left is that of an arm which is filtered out.
    const own = new Set(shown.filter((row) => row.arm !== view.baseline).map((row) => row.panel));
    copy.datasets[name] = own.size ? shown.filter((row) => row.panel === undefined || own.has(row.panel)) : shown;
  }
  return copy;
}

// Charts are made for a paper's column; here they fill the width that there is.
function fitted(spec, width) {
  const room = Math.max(width - 12, 240);
  if (spec.facet && spec.spec) {
    const labels = 90, panel = spec.spec.width, columns = spec.columns || 1;
    if (typeof panel === "number") {
      const own = panel + 24, fit = columns === 1 ? 1 : Math.max(1, Math.floor((room - labels) / own));
      spec.columns = Math.min(fit, Math.max(columns, fit));
      const labelled = columns === 1 ? Math.min(200, room * 0.42) : labels;
      if (fit === 1) spec.spec.width = Math.max(120, Math.min(columns === 1 ? 640 : 420, room - labelled));
    }
  } else if (typeof spec.width === "number") {
    spec.width = Math.max(160, Math.min(spec.width * 1.5, room - Math.min(110, room * 0.3)));
  }
  if (room < 480 && spec.config && spec.config.legend) spec.config.legend.columns = 2;
  return spec;
}

async function draw(place, spec, name) {
    const options = { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false }, downloadFileName: name, tooltip: { theme: "custom" } };
  try {
    await vegaEmbed(place, fitted(filtered(spec), place.clientWidth), options);
  } catch (error) {
    place.replaceChildren(element("p", { class: "bad" }, "This figure cannot be drawn: " + error.message));
    console.error(error);
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) {
    seen.unobserve(entry.target);
    entry.target.draw();
  }
}, { rootMargin: "600px" });

function figure(item) {
  const place = element("div");
  place.draw = () => draw(place, item.spec, item.id);
  seen.observe(place);
  return element("figure", { id: item.id }, element("h3", {}, item.title), element("figcaption", { class: "soft" }, item.note), place);
}

// ---- puzzles

const KINDS = { // as results.plots.puzzles.cell_kinds
  sudoku: (question, answer, shown) => (shown !== answer ? "wrong" : ".0".includes(question) ? "right" : "given"),
  maze: (question, answer, shown) => {
    if (shown === answer) return { "#": "wall", o: "path" }[answer] || "";
    if (answer === "o") return "missing";
    return shown === "o" && !"SG".includes(question) ? "marked" : "stray";
  },
};

function board(puzzle, shown) {
  const side = Math.sqrt(puzzle.question.length), maze = puzzle.question.includes("S");
  const kind = KINDS[maze ? "maze" : "sudoku"], box = Math.sqrt(side);
  const grid = element("div", { class: "grid", style: `grid-template-columns: repeat(${side}, 1fr); --size: ${Math.min(20, 190 / side)}px` });
  [...puzzle.question].forEach((asked, i) => {
    const text = maze ? ("SG".includes(asked) ? asked : "") : shown[i].replace(".", "");
    const cell = element("span", { class: kind(asked, puzzle.answer[i], shown[i]) }, text);
    if (!maze && Number.isInteger(box)) {
      if (i % side && i % side % box === 0) cell.style.borderLeft = "1.5px solid var(--soft)";
      if (i >= side && Math.floor(i / side) % box === 0) cell.style.borderTop = "1.5px solid var(--soft)";
    }
    grid.append(cell);
  });
  return grid;
}

function puzzles(item) {
  const names = item.puzzles.map((puzzle) => puzzle.name);
  const choose = element("select", { "aria-label": "puzzle" }, ...names.map((name, i) => element("option", { value: i }, name)));
  const slider = element("input", { type: "range", min: 1, value: 1, "aria-label": "ACT step" });
  const said = element("output"), boards = element("div", { class: "boards" });
  const show = () => {
    const puzzle = item.puzzles[choose.value], step = Number(slider.value);
    said.textContent = `ACT step ${step} of ${slider.max}`;
    boards.replaceChildren(...puzzle.runs.filter(fits).map((run) => {
      const shown = run.predicted[Math.min(step, run.predicted.length) - 1], q = run.q_halt[Math.min(step, run.q_halt.length) - 1];
      const wrong = [...shown].filter((cell, i) => cell !== puzzle.answer[i]).length;
      const says = `${wrong ? wrong + " wrong" : "solved"}, q ${q >= 0 ? "+" : "\u2212"}${Math.abs(q).toFixed(1)}`;
      return element("div", { class: "board" }, element("h4", {}, run.name), element("p", { class: "soft" }, says), board(puzzle, shown));
    }));
  };
  choose.onchange = () => {
    slider.max = Math.max(...item.puzzles[choose.value].runs.map((run) => run.predicted.length));
    slider.value = slider.max;
    show();
  };
  slider.oninput = show;
  choose.onchange();
  return element("div", { id: item.id }, element("div", { class: "controls" }, choose, slider, said), boards);
}

// ---- trials

function when(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function isStalled(trial) {
  const patience = Math.max(60, 3 * (trial.longest_silence || 0)); // as results.progress has it
  return trial.status === "running" && trial.heard !== undefined && view.run && view.run.heard - trial.heard > patience;
}

function now() {
  return Date.now() / 1000 + (view.clock || 0); // by the server's clock
}

function describe(trial) {
  const where = [trial.arm, trial.point, `seed ${trial.seed}`].filter(Boolean).join(", ");
  const heard = trial.heard === undefined ? "" : `, last heard ${when(now() - trial.heard)} ago`;
  const rate = trial.rate ? `, ${trial.rate.toPrecision(3)} steps/s` : "";
  return `${where}: ${trial.status}, step ${trial.step ?? 0} of ${trial.steps}${rate}${trial.status === "running" ? heard : ""}`;
}

function square(trial) {
  const share = trial.status === "done" ? 100 : (100 * (trial.step || 0)) / trial.steps;
  const kinds = `trial ${trial.status}` + (isStalled(trial) ? " stalled" : "");
  return element("button", { type: "button", class: kinds, "data-trial": trial.trial_id, style: `--share: ${share}%`, title: describe(trial), "aria-label": describe(trial), onclick: () => open(trial) }, String(trial.seed));
}

function trials(item) {
  const shown = item.trials.filter(fits), rows = new Map();
  for (const trial of shown) {
    const key = JSON.stringify([trial.arm, trial.point]);
    if (!rows.has(key)) rows.set(key, []);
    rows.get(key).push(trial);
  }
  const troubled = shown.filter((trial) => trial.status === "failed" || isStalled(trial));
  const parts = [progress(countsOf(item.trials), view.run)];
  if (troubled.length) {
    parts.push(element("h3", {}, "Failed or stalled"), element("ul", {}, ...troubled.slice(0, 50).map((trial) => element("li", { class: "bad" },
      element("button", { type: "button", onclick: () => open(trial) }, "details"), ` ${describe(trial)}${trial.reason ? ": " + trial.reason : ""}`))));
    if (troubled.length > 50) parts.push(element("p", { class: "soft" }, `and ${troubled.length - 50} more; the table below has all`));
  }
  const body = element("tbody", {}, ...[...rows].map(([key, mine]) => {
    const [arm, point] = JSON.parse(key);
    return element("tr", {}, element("td", {}, [arm, point].filter(Boolean).join(", ")), element("td", {}, element("div", { class: "seeds" }, ...mine.map(square))));
  }));
  parts.push(element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "arms and seeds" }, element("table", {}, body)));
  return element("div", { id: item.id }, ...parts);
}

const STATUSES = ["done", "stopped", "running", "unfinished", "failed", "unreadable", "waiting"];

function countsOf(trials) {
  const counts = {};
  for (const trial of trials) counts[trial.status] = (counts[trial.status] || 0) + 1;
  return counts;
}

// A bar of the trials by status, and how the run goes on: of a view's `run`, or of a sweep in the overview.
function progress(counts, run) {
  const held = STATUSES.filter((status) => counts[status]), all = held.reduce((sum, status) => sum + counts[status], 0);
  const bar = element("div", { class: "bar", role: "img", "aria-label": held.map((s) => `${counts[s]} ${s}`).join(", ") },
    ...held.map((s) => element("span", { class: s, style: `width: ${(100 * counts[s]) / all}%` })));
  const legend = element("p", { class: "legend" }, ...held.flatMap((s) => [element("span", { class: `swatch state ${s}` }), `${counts[s]} ${s}   `]));
  const facts = [];
  if (run && run.rate) facts.push(`${run.rate.toPrecision(3)} steps a second`);
  if (run && run.left !== null && run.left !== undefined) facts.push(`about ${when(run.left)} left`);
  if (run && run.heard) facts.push(`last heard ${when(Math.max(0, now() - run.heard))} ago`);
  return element("div", {}, bar, legend, facts.length ? element("p", { class: "soft pace" }, facts.join(", ")) : "");
}

async function open(trial) {
  const dialog = element("dialog", { "aria-label": describe(trial), onclose: () => dialog.remove() });
  const place = element("div");
  const facts = [["trial", trial.trial_id], ["reason", trial.reason], ["where", trial.where], ["log", trialsOf(view)[0]?.log]].filter(([, value]) => value);
  dialog.append(element("h3", {}, describe(trial)), element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", { class: "soft" }, name), element("dd", {}, element("code", {}, value))])),
    place, element("form", { method: "dialog" }, element("button", {}, "close")));
  document.body.append(dialog);
  dialog.showModal();
  const points = await curveOf(trial).catch(() => []);
  if (points.length) {
    const spec = { data: { values: points }, mark: { type: "line", point: true, tooltip: true }, height: 160, width: 480,
      encoding: { x: { field: "step", type: "quantitative", title: "batches trained" }, y: { field: "accuracy", type: "quantitative", axis: { format: "%" }, title: "clean accuracy on test" } },
      config: view.look };
    await draw(place, spec, trial.trial_id);
  } else place.replaceChildren(element("p", { class: "soft" }, "No evaluation yet."));
}

async function curveOf(trial) {
  if (!embedded) return ask(`api/sweeps/${encodeURIComponent(view.title)}/trials/${trial.trial_id}`);
  return (view.curves[trial.trial_id] || []).map(([step, accuracy]) => ({ step, accuracy }));
}

// ---- what else a section holds

function downloads(item) {
  return element("ul", {}, ...item.files.map((file) => {
    if (!file.url && !file.gzip) return element("li", {}, `${file.name} ${file.said}`);
    const link = element("a", { href: file.url || "#", download: file.name }, file.name);
    if (!file.url) link.onclick = (event) => { event.preventDefault(); save(file); };
    return element("li", {}, link, ` ${file.said}`);
  }));
}

async function save(file) {
  const bytes = Uint8Array.from(atob(file.gzip), (letter) => letter.charCodeAt(0));
  const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const url = URL.createObjectURL(new Blob([await new Response(text).arrayBuffer()], { type: "text/csv" }));
  element("a", { href: url, download: file.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const ITEMS = {
  table: (item) => element(item.folded ? "details" : "div", { id: item.id }, item.title ? element(item.folded ? "summary" : "h3", {}, item.title) : "", item.note ? element("p", { class: "soft" }, item.note) : "", table(item),
    item.terms && item.terms.length ? element("details", {}, element("summary", {}, "What the words mean"), element("dl", {}, ...item.terms.flatMap(([name, meaning]) => [element("dt", {}, name), element("dd", { class: "soft" }, meaning)]))) : ""),
  figure, puzzles, trials, downloads,
  text: (item) => element("p", { class: item.bad ? "bad" : "" }, item.text),
  code: (item) => element("div", {}, item.title ? element("h3", {}, item.title) : "", element("pre", { tabindex: 0 }, item.text)),
};

// ---- the whole

function render() {
  seen.disconnect();
  document.title = view.title;
  document.querySelector("h1").textContent = view.title;
  document.getElementById("states").textContent = view.said;
  document.getElementById("contents").replaceChildren(...(view.home ? [element("a", { href: "#", onclick: home }, "all sweeps")] : []),
    ...view.sections.map((section) => element("a", { href: "#" + section.id }, section.title)));
  filters();
  document.getElementById("page").replaceChildren(...view.sections.map((section) => element("section", { id: section.id, "aria-label": section.title },
    element("h2", {}, section.title), section.note ? element("p", { class: "soft" }, section.note) : "", ...section.items.map((item) => ITEMS[item.kind](item)))));
  if (state.get("at") && !arrived) scrollTo(state.get("at"));
  arrived = true;
}

function filters() {
  const form = document.getElementById("filters");
  const choose = (name, values, label) => values.length < 2 ? "" : element("label", {}, `${name} `,
    element("select", { onchange: (event) => { state.delete(name); if (event.target.value) state.append(name, event.target.value); remember(); render(); } },
      element("option", { value: "" }, "all"), ...values.map((value) => element("option", { value, selected: chosen(name).includes(String(value)) }, label(value)))));
  const boxes = view.arms.filter((arm) => arm.name !== view.baseline).map((arm) => element("label", {},
    element("input", { type: "checkbox", value: arm.name, checked: !chosen("arm").length || chosen("arm").includes(arm.name), onchange: () => {
      const all = [...form.querySelectorAll("fieldset input")], on = all.filter((box) => box.checked);
      state.delete("arm");
      if (!on.length) state.append("arm", view.baseline); // none but the baseline
      if (on.length < all.length) for (const box of on) state.append("arm", box.value);
      remember();
      render();
    } }), " ", element("span", { class: "swatch", "data-dash": arm.dash, style: `background: ${arm.colour}` }), arm.name));
  form.hidden = !view.arms.length;
  form.replaceChildren(boxes.length > 1 ? element("fieldset", { "aria-label": "arms" }, ...boxes) : "",
    choose("point", view.points, String), choose("seed", view.seeds, String));
}

function scrollTo(id) {
  const place = document.getElementById(id);
  if (place && place.tagName === "DETAILS") place.open = true;
  if (place) place.scrollIntoView();
}

addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link || link.download || link.onclick) return;
  event.preventDefault();
  state.set("at", link.getAttribute("href").slice(1));
  remember();
  scrollTo(state.get("at"));
});
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width || !view || !view.sections) return;
  width = innerWidth;
  clearTimeout(window.redraw);
  window.redraw = setTimeout(render, 200);
});

function home(event) {
  if (event) event.preventDefault();
  for (const name of [...state.keys()]) state.delete(name);
  remember();
  view = null;
  poll();
}

// ---- live

let heard = Date.now(), timer = null;

async function poll() {
  clearTimeout(timer);
  const sweep = state.get("sweep");
  try {
    if (!sweep) overview(await ask("api/sweeps"));
    const problem = sweep ? await follow(sweep) : "";
    heard = Date.now();
    lost(problem ? `What stands here is no longer made anew: ${problem}` : "");
  } catch (error) {
    if (Date.now() - heard > LOST_SECONDS * 1000 || !view) lost(`No answer from rrm watch for ${when((Date.now() - heard) / 1000)}: what stands here is as old. ${error.message}`);
  }
  timer = setTimeout(poll, POLL_SECONDS * 1000);
}

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// What changes from second to second is small, and asked for each time; the whole page only when there is a new one.
async function follow(sweep) {
  const path = `api/sweeps/${encodeURIComponent(sweep)}`, fresh = await ask(`${path}/progress`);
  if (state.get("sweep") !== sweep) return "";
  if (!view || view.title !== sweep || view.version !== fresh.version) {
    const whole = await ask(path);
    if (state.get("sweep") !== sweep) return "";
    const first = !view || view.title !== sweep;
    view = whole;
    news(fresh);
    if (first) render();
    else keepingPlace(render);
    return fresh.problem;
  }
  news(fresh);
  for (const item of trialsOf(view)) {
    const old = document.getElementById(item.id), focused = document.activeElement && document.activeElement.dataset.trial;
    if (!old) continue;
    const fresh = trials(item);
    old.replaceWith(fresh);
    if (focused) (fresh.querySelector(`[data-trial="${focused}"]`) || document.body).focus({ preventScroll: true });
  }
}

function trialsOf(whole) {
  return whole.sections.flatMap((section) => section.items).filter((item) => item.kind === "trials");
}

function news(fresh) {
  view.home = true;
  view.run = fresh.run;
  view.clock = fresh.now - Date.now() / 1000;
  for (const item of trialsOf(view)) for (const trial of item.trials) {
    const told = fresh.trials[trial.trial_id];
    if (!told) continue;
    for (const name of ["rate", "reason", "heard"]) delete trial[name];
    Object.assign(trial, told);
  }
}

function lost(text) {
  const place = document.getElementById("lost");
  place.hidden = !text;
  place.textContent = text;
}

// A new version of the page leaves the reader where they were: what is open stays so, tables as they were sorted,
// figures keep their height.
function keepingPlace(work) {
  const at = scrollY, opened = [...document.querySelectorAll("details[id][open]")].map((one) => one.id);
  const heights = [...document.querySelectorAll("figure")].map((one) => [one.id, one.offsetHeight]);
  const chosen = [...document.querySelectorAll("#boards select, #boards input")].map((one) => one.value);
  const sorted = [...document.querySelectorAll("th[aria-sort]")].map((cell) => (
    { of: cell.closest("[role=region]").getAttribute("aria-label"), column: cell.cellIndex, down: cell.getAttribute("aria-sort") === "descending" }));
  work();
  for (const { of, column, down } of sorted) {
    const head = document.querySelector(`[role=region][aria-label="${CSS.escape(of)}"] thead tr`);
    if (head && head.cells[column]) sort(head, column, head.cells[column].className === "number", down);
  }
  for (const id of opened) if (document.getElementById(id)) document.getElementById(id).open = true;
  for (const [id, height] of heights) if (document.getElementById(id)) document.getElementById(id).style.minHeight = `${height}px`;
  const [puzzle, slider] = document.querySelectorAll("#boards select, #boards input");
  if (puzzle && chosen[0] < puzzle.options.length) {
    puzzle.value = chosen[0];
    puzzle.onchange();
    slider.value = chosen[1];
    slider.oninput();
  }
  if (at) window.scrollTo(0, at);
}

function overview(all) {
  if (state.get("sweep")) return;
  view = { clock: all.now - Date.now() / 1000 };
  document.title = "rrm watch";
  document.querySelector("h1").textContent = "Sweeps";
  document.getElementById("states").textContent = all.said;
  document.getElementById("contents").replaceChildren();
  document.getElementById("filters").hidden = true;
  document.getElementById("page").replaceChildren(element("ul", { class: "cards" }, ...all.sweeps.map((sweep) => element("li", {},
    element("h3", {}, element("a", { href: "#sweep=" + encodeURIComponent(sweep.name), onclick: (event) => {
      event.preventDefault();
      state.set("sweep", sweep.name);
      remember();
      view = null;
      poll();
    } }, sweep.name)), progress(sweep.counts, sweep.run), sweep.problem ? element("p", { class: "bad" }, sweep.problem) : ""))));
}

if (embedded) {
  view = JSON.parse(embedded.textContent);
  render();
} else poll();
