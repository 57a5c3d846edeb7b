"use strict";
// One page, fed in two ways: its data stands inside it (#view), or comes from `rrm watch`, which is asked again and
// again (live.js). What a reader can focus, open, sort, scroll or move has an id, by which a page that is made anew
// stays as they left it.

const embedded = document.getElementById("view");
const NARROW = 600; // pixels: a phone, as in style.css
let state = new URLSearchParams(location.hash.slice(1)); // arm, point, seed: filters; at: a place; sweep: which, live
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

function folded(id, summary, ...children) {
  return element("details", { id }, element("summary", { id: `${id}-said` }, summary), ...children);
}

function remember() {
  history.replaceState(null, "", "#" + state);
}

function chosen(name) {
  return state.getAll(name);
}

// The fields of a grid point, as results.points has them.
function fieldsOf(point) {
  const [, ...parts] = point.split(/(?:^| )([A-Za-z_]\w*(?:\.\w+)*)=/);
  return new Map(parts.flatMap((part, i) => (i % 2 ? [] : [[part, parts[i + 1]]])));
}

// An arm that ignores a part of the grid is at every point that agrees with it in the rest.
function isAt(own, point) {
  const fields = fieldsOf(point);
  return own === point || [...fieldsOf(own)].every(([field, value]) => fields.get(field) === value);
}

// A row is shown unless a filter speaks of it and leaves it out. The baseline stays: all else is measured by it.
function fits(row) {
  return ["arm", "point", "seed"].every((name) => {
    const wanted = chosen(name), has = row[name];
    if (!wanted.length || has === undefined || has === null || has === "") return true;
    if (name === "point") return (row.points || [has]).some((own) => wanted.some((point) => isAt(own, point)));
    if (name === "arm" && String(has) === view.baseline) return true;
    return wanted.includes(String(has));
  });
}

const ITEMS = {
  table: (item) => {
    const note = item.note ? element("p", { class: "soft" }, item.note) : "";
    const terms = item.terms.length ? folded(`${item.id}-terms`, "What the words mean", element("dl", {},
      ...item.terms.flatMap(([name, meaning]) => [element("dt", {}, name), element("dd", { class: "soft" }, meaning)]))) : "";
    if (item.folded) return folded(item.id, item.title, note, table(item), terms);
    return element("div", { id: item.id }, item.title ? element("h3", {}, item.title) : "", note, table(item), terms);
  },
  figure, puzzles, trials, downloads,
  text: (item) => element("p", { class: item.bad ? "bad" : "" }, item.text),
  code: (item) => element("div", {}, item.title ? element("h3", {}, item.title) : "", element("pre", { tabindex: 0 }, item.text)),
};

// ---- the whole

function render() {
  seen.disconnect();
  document.getElementById("vg-tooltip-element")?.classList.remove("visible"); // what it was of is going
  heading(view.title, view.said);
  contents(view.sections);
  filters();
  document.getElementById("page").replaceChildren(...view.sections.map((section) => element("section", { id: section.id, "aria-label": section.title },
    element("h2", {}, section.title), section.note ? element("p", { class: "soft" }, section.note) : "", ...section.items.map((item) => ITEMS[item.kind](item)))));
  if (state.get("at") && !arrived) goTo(state.get("at"));
  arrived = true;
}

function heading(title, said) {
  document.title = title;
  document.querySelector("h1").textContent = title;
  document.getElementById("states").textContent = said;
}

function contents(sections) {
  const all = !embedded && state.get("sweep") ? [element("a", { href: "#", id: "to-all" }, "all sweeps")] : [];
  document.getElementById("contents").replaceChildren(...all,
    ...sections.map((section) => element("a", { href: "#" + section.id, id: `to-${section.id}` }, section.title)));
}

function filters() {
  const form = document.getElementById("filters");
  const refine = () => {
    remember();
    keepingPlace(render);
  };
  const choose = (name, values) => values.length < 2 ? "" : element("label", {}, `${name} `,
    element("select", { id: `filter-${name}`, onchange: (event) => { state.delete(name); if (event.target.value) state.append(name, event.target.value); refine(); } },
      element("option", { value: "" }, "all"), ...values.map((value) => element("option", { value, selected: chosen(name).includes(String(value)) }, String(value)))));
  const boxes = view.arms.filter((arm) => arm.name !== view.baseline).map((arm) => element("label", { title: arm.name },
    element("input", { type: "checkbox", id: `filter-arm-${arm.name}`, value: arm.name, checked: !chosen("arm").length || chosen("arm").includes(arm.name), onchange: () => {
      const all = [...form.querySelectorAll("fieldset input")], on = all.filter((box) => box.checked);
      state.delete("arm");
      if (!on.length) state.append("arm", view.baseline); // none but the baseline
      if (on.length < all.length) for (const box of on) state.append("arm", box.value);
      refine();
    } }), " ", element("span", { class: "swatch", "data-dash": arm.dash, style: `background: ${arm.colour}` }), arm.name));
  form.hidden = !view.arms.length;
  form.replaceChildren(boxes.length > 1 ? element("fieldset", { "aria-label": "arms" }, ...boxes) : "",
    choose("point", view.points), choose("seed", view.seeds));
}

// To a place of the page, from where Tab goes on.
function goTo(id) {
  const place = document.getElementById(id);
  if (!place) return;
  if (place.tagName === "DETAILS") place.open = true;
  place.tabIndex = -1;
  place.focus({ preventScroll: true });
  place.scrollIntoView();
}

// What is made anew leaves the reader where they were: what is open, sorted, scrolled or focused stays so, and figures
// keep their height until they are drawn.
function keepingPlace(work) {
  const every = (selector, told) => [...document.querySelectorAll(selector)].map((one) => [one.id, told(one)]);
  const at = scrollY, focused = document.activeElement?.id;
  const heights = every("figure", (one) => one.offsetHeight), opened = every("details", (one) => one.open);
  const sorted = every("th[aria-sort]", (cell) => cell.getAttribute("aria-sort") === "descending");
  const scrolled = every(".wide", (one) => [one.scrollLeft, one.scrollTop]);
  const moved = every("#boards select, #boards input", (one) => one.value);
  work();
  const again = (all, set) => {
    for (const [id, told] of all) if (document.getElementById(id)) set(document.getElementById(id), told);
  };
  again(heights, (one, height) => { one.style.minHeight = `${height}px`; });
  again(opened, (one, open) => { one.open = open; });
  again(sorted, sort);
  again(moved, (one, value) => {
    if (one.options && value >= one.options.length) return; // that puzzle is no more
    one.value = value;
    (one.onchange || one.oninput)();
  });
  again(scrolled, (one, [left, top]) => one.scrollTo(left, top));
  if (focused && document.activeElement.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
  if (at) window.scrollTo(0, at);
}

addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]'), id = link && link.getAttribute("href").slice(1);
  if (!id || link.download || !document.getElementById(id)) return;
  event.preventDefault();
  state.set("at", id);
  remember();
  goTo(id);
});

// Back, forward, or another hash in the address.
addEventListener("hashchange", () => {
  const before = state;
  state = new URLSearchParams(location.hash.slice(1));
  if (!embedded && state.get("sweep") !== before.get("sweep")) {
    openSweep();
    return;
  }
  if (view) keepingPlace(render);
  if (state.get("at") !== before.get("at")) goTo(state.get("at"));
});

// Whether a list is open or a slider held, as far as a page is told: it must not be replaced then.
const USED_SECONDS = 15;
let used = 0;
for (const kind of ["pointerdown", "keydown", "input", "change"]) addEventListener(kind, (event) => {
  if (event.target.matches?.("select, input[type=range]")) used = kind === "change" ? 0 : Date.now();
}, true);

function inUse() {
  return document.activeElement?.matches("select, input[type=range]") && Date.now() - used < USED_SECONDS * 1000;
}

let width = innerWidth, redraw = null;
addEventListener("resize", () => {
  if (innerWidth === width || !view) return;
  width = innerWidth;
  clearTimeout(redraw);
  redraw = setTimeout(() => view && keepingPlace(render), 200);
});
