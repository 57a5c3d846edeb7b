// Tables that sort, and as files.

function table(item) {
  const index = Object.fromEntries(item.columns.map((column, i) => [column.name, i]));
  const head = element("tr", {}, ...item.columns.map((column) => {
    const id = `${item.id}-${column.name}`;
    const cell = element("th", { id, class: column.number ? "number" : "", scope: "col", title: column.title },
      element("button", { type: "button", id: `${id}-sort`, onclick: () => sort(cell) }, column.label));
    return cell;
  }));
  const body = element("tbody");
  item.rows.forEach((row, at) => {
    const named = {};
    for (const name of ["arm", "point", "seed"]) if (name in index) named[name] = cellText(row[index[name]]);
    if (fits(named)) body.append(element("tr", {}, ...row.map((cell, i) => tableCell(cell, item.columns[i], `${item.id}-${at}-${i}`))));
  });
  return element("div", { class: "wide", id: `${item.id}-rows`, tabindex: 0, role: "region", "aria-label": item.title || "the answer" },
    element("table", {}, element("thead", {}, head), body));
}

function tableCell(cell, column, id) {
  const text = cellText(cell), rich = cell && typeof cell === "object" ? cell : {};
  let shown = rich.at ? element("a", { href: "#" + rich.at, id }, text) : text;
  if (column.words && text && innerWidth <= NARROW) shown = folded(id, column.label, text);
  return element("td", {
    class: column.number ? "number" : column.words ? "words" : "",
    title: text.length > 30 && !column.words ? text : null,
    "data-label": column.label,
    "data-key": column.number ? rich.key ?? text : null,
  }, shown);
}

function cellText(cell) {
  if (cell === null || cell === undefined) return "";
  return String(typeof cell === "object" ? cell.text : cell);
}

function sort(cell, down = cell.getAttribute("aria-sort") === "ascending") {
  const body = cell.closest("table").tBodies[0], number = cell.className === "number";
  const key = (row) => (number ? row.cells[cell.cellIndex].dataset.key : row.cells[cell.cellIndex].textContent);
  const rows = [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = number ? x - y : x.localeCompare(y, undefined, { numeric: true });
    return down ? -order : order;
  });
  for (const other of cell.parentNode.cells) other.removeAttribute("aria-sort");
  cell.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
}

function downloads(item) {
  return element("ul", {}, ...item.files.map((file) => {
    if (!file.url && !file.gzip) return element("li", {}, `${file.name} ${file.said}`);
    const link = element("a", { href: file.url || "#", id: `file-${file.name}`, download: file.name }, file.name);
    if (!file.url) link.onclick = (event) => { event.preventDefault(); unpack(file); };
    return element("li", {}, link, ` ${file.said}`);
  }));
}

async function unpack(file) {
  const bytes = Uint8Array.from(atob(file.gzip), (letter) => letter.charCodeAt(0));
  const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  save(URL.createObjectURL(new Blob([await new Response(text).arrayBuffer()], { type: "text/csv" })), file.name);
}

function save(url, name) {
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
