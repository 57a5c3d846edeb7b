"""The package itself: what importing it costs, and that every column of every table is explained."""

import subprocess
import sys

import pytest

from results.depths import peak
from results.gather import gather
from results.schema import TABLE_SCHEMAS, UNROLLS_SCHEMA


def test_importing_results_needs_neither_torch_nor_ray():
    script = "import sys, results.gather, results.text; print([m for m in ('torch', 'ray', 'rrm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("schema", [*TABLE_SCHEMAS.values(), UNROLLS_SCHEMA])
def test_every_column_says_what_it_is(schema):
    for field in schema:
        assert field.metadata[b"description"].endswith(b"."), field.name
        assert b"unit" in field.metadata


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        ({4: 0.5, 8: 0.7, 16: 0.69}, (8, False)),  # by no more than two points
        ({4: 0.5, 8: 0.7, 16: 0.67}, (8, True)),
        ({4: 0.7, 8: 0.5, 16: 0.7}, (4, True)),  # of equals the first
        ({4: 0.5}, (4, None)),
        ({}, (None, None)),
    ],
)
def test_the_depth_of_the_peak_and_whether_it_decays(accuracy, expected):
    assert peak(accuracy) == expected


def test_a_folder_without_a_sweep_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no sweep\.json; run the sweep first"):
        gather(tmp_path)
