"""The JSON schema of sweep files: what an editor would say of them."""

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML
from tiny import tiny_sweep

from launch.cli import main
from launch.schema import NAME, described, sweep_schema
from rrm.config import TrialConfig
from tune.spec import SweepSpec

SPECS = Path(__file__).parents[2] / "launch" / "specs"
SCHEMA = sweep_schema()


def problems(content) -> list[str]:
    """Where a sweep file's content does not fit."""
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(content)
    return [".".join(map(str, error.absolute_path)) or error.message for error in found]


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_specs_fit_it_and_name_it_in_their_first_line(path):
    text = path.read_text()
    assert text.startswith(f"# yaml-language-server: $schema={NAME}\n")
    assert problems(YAML(typ="safe", pure=True).load(text)) == []


def test_the_file_beside_the_specs_is_what_the_command_prints(capsys):
    assert main(["schema"]) == 0
    assert (SPECS / NAME).read_text() == capsys.readouterr().out, f"rrm schema > launch/specs/{NAME}"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"base": {"train": {"stepz": 4}}}, "base.train"),
        ({"base": {"model": {"hidden_size": "wide"}}}, "base.model"),
        ({"arms": {"multi2": {"perturb": {"sigma": "much"}}}}, "arms.multi2"),
        ({"resources": {"cpu": -1}}, "resources"),
        ({"scheduler": "hyperband"}, "scheduler"),
        ({"sedes": [1]}, "Additional properties are not allowed ('sedes' was unexpected)"),
        ({"base": {"preset": "sudoku-5x5"}}, "base.preset"),
    ],
)
def test_what_is_wrong_is_marked_where_it_is(change, where):
    good = tiny_sweep()
    assert problems(good) == []
    assert problems(tiny_sweep(**change)) == [where]


def test_it_is_a_schema_by_the_standard():
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(SCHEMA)))


def test_a_field_in_words(capsys):
    assert main(["schema", "perturb"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Noise of standard deviation sigma on the locations `where`")
    assert "perturb.sigma         needed      number | [number, number]\n" in printed
    assert "perturb.p_clean       0.0         number >= 0, < 1\n" in printed
    assert "task.box" in described("task")
    assert "task.side" in described("task")  # of each kind of task
    assert described("seeds") == "seeds: [integer >= 0, <= 2.14748e+09, ...]"
    assert "margin            0.02    number > 0, < 1\n" in described("sweep")
    for field in {**TrialConfig.model_fields, **SweepSpec.model_fields}:
        assert described(field)
    assert main(["schema", "nowhere"]) == 2
    assert "argument FIELD: invalid choice: 'nowhere' (choose from " in capsys.readouterr().err
