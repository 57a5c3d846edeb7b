"""The README's first command, as it is: the shipped spec in a process of its own, from start to comparison."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from launch.cli import main

PROJECT = Path(__file__).parents[2]
CROSSED = """
final = crossed.query("metric == 'final'")
print(final[["sweep", "arm", "baseline", "n_seeds"]].values.tolist())
"""


def test_quickstart_learns_and_prints_the_comparison(tmp_path, capsys, monkeypatch):
    spec = str(PROJECT / "launch" / "specs" / "quickstart.yaml")
    command = [Path(sys.executable).with_name("rrm"), "run", spec]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=480, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert "quickstart: 4 trials, 4 done" in ran.stdout
    assert "ETA" in ran.stdout  # progress, where no terminal is, as lines
    assert "Against baseline: clean accuracy (best), in points of accuracy" in ran.stdout
    tables, report = tmp_path / "runs" / "tables", tmp_path / "runs" / "quickstart" / "report.html"
    for name in ("trials", "evals", "comparison", "differences", "puzzles"):
        assert str(tables / name / "sweep=quickstart" / f"{name}.parquet") in ran.stdout
    assert "x the compute: too few seeds (2 of 6); worst seed " in ran.stdout.replace("\n  ", " ")
    assert "80 % power" not in ran.stdout  # two seeds tell nothing of the spread
    assert ran.stdout.endswith(f"  {report}\n")
    assert "4 trials: 4 done" in report.read_text()
    evals = pd.read_parquet(tables / "evals")
    final = evals[(evals.step == evals.step.max()) & (evals.sigma == 0) & (evals.split == "test")]
    assert len(final) == 4
    assert final.exact_accuracy.min() > 0.8

    monkeypatch.chdir(tmp_path)
    assert main(["run", spec]) == 0
    again = capsys.readouterr().out
    assert again == ran.stdout[ran.stdout.index("quickstart: 4 trials, 4 done") :]
    assert len(list((tmp_path / "runs" / "quickstart" / "attempts").iterdir())) == 1

    # The other sweep of its questions: the same trials under another name stand for what one would train.
    shutil.copytree(tmp_path / "runs" / "quickstart", tmp_path / "runs" / "sigma-ladder")
    assert main(["results", "gather", "runs/sigma-ladder"]) == 0
    blocks = (PROJECT / "README.md").read_text().split("```python\n")[1:]
    script = "\n".join(block.partition("```")[0] for block in blocks)
    script = script.replace("results.compare(", "crossed = results.compare(") + CROSSED
    assert script.count("# 10. ") == 1
    asked = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("clean accuracy (best) ")
    assert "TRM fixed multi4, seed 1: initial " in asked.stdout
    across = [["quickstart", arm, "sigma-ladder/baseline", 2] for arm in ("baseline", "multi4")]
    assert asked.stdout.splitlines()[-1] == str([*across, ["sigma-ladder", "multi4", "baseline", 2]])
    assert {path.name for path in tmp_path.glob("*.png")} == {"curves.png", "solving.png"}
