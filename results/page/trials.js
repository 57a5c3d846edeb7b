// How each trial stands: a bar, what failed, a square a trial. While a sweep runs they change in place, so that a reader
// who is on one of them stays there.

const STATUSES = ["done", "stopped", "running", "unfinished", "failed", "unreadable", "waiting"];
const FIRST = 3, MOST = 50; // of the failures those that are shown at once, and on demand

function when(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function isStalled(trial) {
  const patience = Math.max(60, 3 * (trial.longest_silence || 0)); // as results.progress has it
  return trial.status === "running" && trial.heard !== undefined && view.run && view.run.heard - trial.heard > patience;
}

let clock = 0; // seconds that the server's clock is ahead of this one

function now() {
  return Date.now() / 1000 + clock;
}

// The clock of a driver on another machine may be ahead.
function ago(heard) {
  return `${when(Math.max(0, now() - heard))} ago`;
}

function describe(trial) {
  const where = [trial.arm, trial.point, `seed ${trial.seed}`].filter(Boolean).join(", ");
  const heard = trial.heard === undefined ? "" : `, last heard ${ago(trial.heard)}`;
  const rate = trial.rate ? `, ${trial.rate.toPrecision(3)} steps/s` : "";
  return `${where}: ${trial.status}, step ${trial.step ?? 0} of ${trial.steps}${rate}${trial.status === "running" ? heard : ""}`;
}

function trials(item) {
  const shown = item.trials.filter(fits), rows = new Map();
  const squares = shown.map((trial) => element("button", { type: "button", id: `square-${trial.trial_id}`, onclick: (event) => details(trial, event.target.id) }, String(trial.seed)));
  shown.forEach((trial, i) => {
    const name = [trial.arm, trial.point].filter(Boolean).join(", ");
    if (!rows.has(name)) rows.set(name, []);
    rows.get(name).push(squares[i]);
  });
  const grid = element("table", {}, element("tbody", {}, ...[...rows].map(([name, mine]) => element("tr", {},
    element("td", { title: name }, name), element("td", {}, element("div", { class: "seeds" }, ...mine))))));
  const bar = element("div"), trouble = element("div");
  const place = element("div", { id: item.id }, bar, trouble, element("div", { class: "wide", id: `${item.id}-rows`, tabindex: 0, role: "region", "aria-label": "arms and seeds" }, grid));
  place.update = () => {
    bar.replaceChildren(progress(countsOf(item.trials), view.run));
    shown.forEach((trial, i) => stand(squares[i], trial));
    const told = troubles(shown);
    if (told.textContent === trouble.textContent) return;
    if (trouble.isConnected) keepingPlace(() => trouble.replaceChildren(told));
    else trouble.replaceChildren(told);
  };
  place.update();
  return place;
}

function stand(square, trial) {
  const share = trial.status === "done" ? 100 : (100 * (trial.step || 0)) / trial.steps;
  square.className = `trial ${trial.status}` + (isStalled(trial) ? " stalled" : "");
  square.style.setProperty("--share", `${share}%`);
  square.title = describe(trial);
  square.setAttribute("aria-label", square.title);
}

function troubles(shown) {
  const troubled = shown.filter((trial) => trial.status === "failed" || isStalled(trial));
  const list = (some) => element("ul", {}, ...some.map((trial) => element("li", { class: "bad" },
    element("button", { type: "button", id: `details-${trial.trial_id}`, onclick: (event) => details(trial, event.target.id) }, "details"), ` ${describe(trial)}${trial.reason ? ": " + trial.reason : ""}`)));
  const parts = troubled.length ? [element("h3", {}, "Failed or stalled"), list(troubled.slice(0, FIRST))] : [];
  const left = troubled.length > MOST ? element("p", { class: "soft" }, `and ${troubled.length - MOST} more; the table below has all`) : "";
  if (troubled.length > FIRST) parts.push(folded("more-trouble", `${troubled.length - FIRST} more`, list(troubled.slice(FIRST, MOST)), left));
  return element("div", {}, ...parts);
}

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
  if (run && run.heard) facts.push(`last heard ${ago(run.heard)}`);
  return element("div", {}, bar, legend, facts.length ? element("p", { class: "soft pace" }, facts.join(", ")) : "");
}

// What is known of a trial, over the page; closed, the reader is back at what opened it.
async function details(trial, opener) {
  const closed = () => {
    dialog.remove();
    document.getElementById(opener)?.focus();
  };
  const dialog = element("dialog", { "aria-label": describe(trial), onclose: closed });
  const place = element("div"), { look } = view;
  const facts = [["trial", trial.trial_id], ["reason", trial.reason], ["where", trial.where], ["log", trialsOf(view)[0]?.log]].filter(([, value]) => value);
  dialog.append(element("h3", {}, describe(trial)), element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", { class: "soft" }, name), element("dd", {}, element("code", {}, value))])),
    place, element("form", { method: "dialog" }, element("button", {}, "close")));
  document.body.append(dialog);
  dialog.showModal();
  let points = [], none = "No evaluation yet.";
  try {
    points = await curveOf(trial);
  } catch (error) {
    none = `Its curve cannot be shown: ${error.message}`;
  }
  if (points.length) {
    const spec = { data: { values: points }, mark: { type: "line", point: true, tooltip: true }, height: 160, width: 480,
      encoding: { x: { field: "step", type: "quantitative", title: "batches trained" }, y: { field: "accuracy", type: "quantitative", axis: { format: "%" }, title: "clean accuracy on test" } },
      config: look };
    await draw(place, spec);
  } else place.replaceChildren(element("p", { class: "soft" }, none));
}

async function curveOf(trial) {
  if (!embedded) return ask(`api/sweeps/${encodeURIComponent(view.title)}/trials/${trial.trial_id}`);
  if (!view.curves) throw new Error("a report of so many trials has none of their own curves; rrm watch has them");
  return (view.curves[trial.trial_id] || []).map(([step, accuracy]) => ({ step, accuracy }));
}

function trialsOf(whole) {
  return whole.sections.flatMap((section) => section.items).filter((item) => item.kind === "trials");
}
