// The page of `rrm watch`: all sweeps, or one, asked for again and again.

const POLL_SECONDS = 2, LOST_SECONDS = 10, STANDS = "What stands here is no longer made anew: ";
let heard = Date.now(), timer = null, missing = "";

// The sweep that the address names, or all of them.
function openSweep() {
  view = null;
  arrived = false;
  missing = "";
  heading(state.get("sweep") || "Sweeps", "Reading \u2026");
  contents([]);
  document.getElementById("filters").hidden = true;
  document.querySelector("dialog")?.close();
  document.getElementById("page").replaceChildren();
  window.scrollTo(0, 0);
  poll();
}

async function poll() {
  clearTimeout(timer);
  const sweep = state.get("sweep");
  try {
    const problem = sweep && sweep !== missing ? await follow(sweep) : await overview(sweep);
    heard = Date.now();
    lost(problem);
  } catch (error) {
    if (error.status === 404) gone(sweep, error.message);
    else if (error.status) {
      heard = Date.now();
      if (!view) document.getElementById("states").textContent = "";
      lost(`${view ? STANDS : ""}${error.message}`);
    }
    else if (Date.now() - heard > LOST_SECONDS * 1000 || !view) lost(`No answer from rrm watch for ${when((Date.now() - heard) / 1000)}: what stands here is as old. ${error.message}`);
  }
  clearTimeout(timer);
  timer = setTimeout(poll, POLL_SECONDS * 1000);
}

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer.json();
}

// What changes from second to second is small, and asked for each time; the whole page only when there is a new one.
async function follow(sweep) {
  const path = `api/sweeps/${encodeURIComponent(sweep)}`, fresh = await ask(`${path}/progress`);
  const first = !view || view.title !== sweep, stale = first || (view.version !== fresh.version && !inUse());
  let whole = stale ? await ask(path) : view;
  if (state.get("sweep") !== sweep) return "";
  if (!first && inUse()) whole = view; // the next time
  const renewed = whole !== view;
  view = whole;
  news(fresh);
  if (first) render();
  else if (renewed) keepingPlace(render);
  else for (const item of trialsOf(view)) document.getElementById(item.id).update();
  return fresh.problem ? STANDS + fresh.problem : "";
}

function news(fresh) {
  view.run = fresh.run;
  clock = fresh.now - Date.now() / 1000;
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

// A sweep that was deleted, or never was. It is not asked for again until it is among the others.
function gone(sweep, said) {
  if (state.get("sweep") !== sweep) return;
  missing = sweep;
  heard = Date.now();
  if (!view) document.getElementById("states").textContent = "";
  lost(view ? `${said}. What stands here was read before it went.` : said);
}

// Every sweep at a glance; where one is `awaited` that is missing, whether it is there.
async function overview(awaited) {
  const all = await ask("api/sweeps");
  if (state.get("sweep") !== awaited) return "";
  if (awaited) {
    if (all.sweeps.some((sweep) => sweep.name === awaited)) missing = "";
    return document.getElementById("lost").textContent;
  }
  clock = all.now - Date.now() / 1000;
  heading("Sweeps", all.said);
  const names = all.sweeps.map((sweep) => sweep.name), told = JSON.stringify(names);
  if (document.getElementById("sweeps")?.dataset.names !== told) {
    const cards = names.map((name) => element("li", {}, element("h3", {}, element("a", { href: "#sweep=" + encodeURIComponent(name), id: `sweep-${name}` }, name)), element("div")));
    keepingPlace(() => document.getElementById("page").replaceChildren(element("ul", { class: "cards", id: "sweeps", "data-names": told }, ...cards)));
  }
  const cards = document.getElementById("sweeps").children;
  all.sweeps.forEach((sweep, i) => cards[i].lastChild.replaceChildren(progress(sweep.counts, sweep.run), sweep.problem ? element("p", { class: "bad" }, sweep.problem) : ""));
  return "";
}

if (embedded) {
  view = JSON.parse(embedded.textContent);
  render();
} else openSweep();
