// Puzzles as the model thinks: a board a run, with a slider over ACT steps.

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
  const choose = element("select", { id: `${item.id}-puzzle`, "aria-label": "puzzle" }, ...names.map((name, i) => element("option", { value: i }, name)));
  const slider = element("input", { id: `${item.id}-step`, type: "range", min: 1, value: 1, "aria-label": "ACT step" });
  const said = element("output"), boards = element("div", { class: "boards" });
  const show = () => {
    const puzzle = item.puzzles[choose.value], step = Number(slider.value);
    said.textContent = `ACT step ${step} of ${slider.max}`;
    boards.replaceChildren(...puzzle.runs.filter(fits).map((run) => {
      const shown = run.predicted[Math.min(step, run.predicted.length) - 1], q = run.q_halt[Math.min(step, run.q_halt.length) - 1];
      const wrong = [...shown].filter((cell, i) => cell !== puzzle.answer[i]).length;
      const says = `${wrong ? wrong + " wrong" : "solved"}, q ${q >= 0 ? "+" : "\u2212"}${Math.abs(q).toFixed(1)}`;
      return element("div", { class: "board" }, element("h4", { title: run.name }, run.name), element("p", { class: "soft" }, says), board(puzzle, shown));
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
