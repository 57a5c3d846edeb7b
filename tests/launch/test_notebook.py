"""A Jupyter kernel: a sweep from a cell, as a function and as `!rrm`, and its tables and figures."""

import re

import nbformat
from nbclient import NotebookClient
from tiny import tiny_sweep, write_spec

CURSOR = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*[A-HJK])")
FIGURE = """
import results
from results.plots import accuracy_curves

trials, evals = results.load("trials", "runs"), results.load("evals", "runs")
accuracy_curves(results.curve(trials, evals), results.snapshot(trials, evals))
"""


def printed(cell) -> str:
    assert {output.get("name", "stdout") for output in cell.outputs} <= {"stdout"}, cell.outputs
    return "".join(output.get("text", "") for output in cell.outputs)


def test_a_sweep_in_a_notebook(tmp_path, local_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", local_ray.address)
    raw = tiny_sweep(storage=str(tmp_path / "runs"), seeds=[0])
    del raw["arms"]["multi2"]
    spec = write_spec(tmp_path, raw)
    cells = [
        f"from launch.cli import main\nmain(['run', {spec!r}])",
        f"!rrm run {spec} --set seeds=[0,1]",
        FIGURE,
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    called, shell, figure = notebook.cells
    for cell, seed in ((called, 0), (shell, 1)):
        assert re.search(rf"\d:\d\d  baseline seed={seed}: done, accuracy \d", printed(cell))
        assert not CURSOR.search(printed(cell))  # a cell keeps every line
        assert f"Written:\n  {tmp_path}/runs/tables/trials/" in printed(cell).replace("\r", "")
    assert called.outputs[-1]["data"]["text/plain"] == "0"  # the exit code
    assert '"mode": "vega-lite"' in figure.outputs[-1]["data"]["text/html"]  # it is drawn
