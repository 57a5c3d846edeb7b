"""The package itself: what importing it costs, and that every column of every table is explained."""

import subprocess
import sys

import pytest

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


def test_a_folder_without_a_sweep_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no sweep\.json; run the sweep first"):
        gather(tmp_path)
