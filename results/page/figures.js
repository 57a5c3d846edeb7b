// Figures: charts of Vega-Lite, drawn as wide as there is room when they come into view, and saved as they are on paper.

const GAP = 24, LEAST = 40; // pixels: between panels, and the width of a cell with a number in it
const ruler = document.createElement("canvas").getContext("2d");

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

// The names that an encoding lists: of `key` (y, color), those of its `list` (sort, or a scale's domain).
function named(spec, key, list) {
  const found = new Set();
  JSON.stringify({ ...spec, datasets: null, config: null }, (at, value) => {
    const own = at === key && value ? (list === "sort" ? value.sort : value.scale?.domain) : null;
    if (Array.isArray(own)) for (const name of own) found.add(String(name));
    return value;
  });
  return [...found];
}

function longest(names) {
  ruler.font = "12px system-ui, sans-serif";
  return Math.max(0, ...names.map((name) => ruler.measureText(name).width));
}

const between = (low, value, high) => Math.max(low, Math.min(value, high));

// Charts are made for a paper's column; here they fill the room that there is, and have their title above them.
function fitted(spec, width) {
  delete spec.title;
  const room = Math.max(width - 12, 240), limit = Math.min(260, room * 0.35);
  const labels = Math.min(limit, Math.max(30, longest(named(spec, "y", "sort")))) + 40;
  const steps = named(spec, "x", "sort").length;
  const legend = Math.min(260, longest(named(spec, "color", "domain")) + 10, room - labels - 40) + 40;
  spec.config.axisY = { ...spec.config.axisY, labelLimit: limit };
  spec.config.legend = { ...spec.config.legend, columns: between(1, Math.floor((room - labels) / legend), 3), labelLimit: legend - 40 };
  spec.config.text = { ...spec.config.text, limit: Math.min(260, room * 0.5) };
  if (spec.facet && spec.spec) {
    const { step } = spec.spec.width, panel = step ? step * steps : spec.spec.width;
    const most = new Set(spec.datasets[spec.data.name].map((row) => row[spec.facet.field])).size;
    const fit = between(1, Math.floor((room - labels) / (panel + GAP)), most);
    spec.columns = Math.ceil(most / Math.ceil(most / fit));
    const own = (room - labels) / spec.columns - GAP;
    if (step) spec.spec.width.step = between(LEAST, own / steps, 1.8 * step);
    else spec.spec.width = between(120, own, 1.8 * panel);
    // As results.plots has it: a shared axis would stand below empty places, too.
    if (spec.columns > 1) spec.resolve = { ...spec.resolve, axis: { x: "independent" } };
  } else if (typeof spec.width === "number") {
    spec.width = between(160, room - labels - 20, 2 * spec.width);
  } else if (spec.width?.step) {
    spec.width.step = between(LEAST, (room - labels) / steps, 1.8 * spec.width.step);
  }
  return spec;
}

const choices = new Map(); // what the reader chose of a figure, such as thin lines for seeds, stays when it is drawn again

async function draw(place, spec, id = "") {
  const bound = (spec.params || []).filter((param) => param.bind);
  for (const param of bound) param.value = choices.get(id + param.name) ?? param.value;
  try {
    const drawn = await vegaEmbed(place, fitted(filtered(spec), place.clientWidth), { renderer: "svg", actions: false, tooltip: { theme: "custom" } });
    for (const param of bound) drawn.view.addSignalListener(param.name, (_, value) => {
      param.value = value;
      choices.set(id + param.name, value);
    });
  } catch (error) {
    place.replaceChildren(element("p", { class: "bad" }, "This figure cannot be drawn: " + error.message));
    console.error(error);
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting && entry.target.isConnected) {
    seen.unobserve(entry.target);
    entry.target.draw();
  }
}, { rootMargin: "600px" });

// On paper nothing comes into view.
addEventListener("beforeprint", () => {
  for (const place of document.querySelectorAll(".chart:empty")) {
    seen.unobserve(place);
    place.draw();
  }
});

function figure(item) {
  const place = element("div", { class: "chart" });
  place.draw = async () => {
    await draw(place, item.spec, item.id);
    place.parentNode.style.minHeight = "";
  };
  seen.observe(place);
  const saves = ["svg", "png"].map((type) => element("button", { type: "button", id: `${item.id}-${type}`, "aria-label": `Save ${item.title} as ${type.toUpperCase()}`, onclick: () => picture(item, type) }, `Save ${type.toUpperCase()}`));
  return element("figure", { id: item.id, class: item.spec.facet ? "" : "half" }, element("h3", {}, item.title), element("figcaption", { class: "soft" }, item.note), place, element("div", { class: "saves" }, ...saves));
}

// A figure as a file is one for paper: of its own size, with its title, black on white.
async function picture(item, type) {
  const spec = { ...filtered(item.spec), background: "white" };
  const drawn = await vegaEmbed(element("div"), spec, { renderer: "svg", actions: false });
  save(await drawn.view.toImageURL(type, type === "png" ? 2 : 1), `${view.file}-${item.id.replace("figure-", "")}.${type}`);
  drawn.finalize();
}
