"""What a diagnosis finds, held to maps whose answer is known: escape rates, basins, a contraction that settles."""

import math
from contextlib import nullcontext
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import TINY_SRM, tiny_config

from results import diagnosis
from rrm.diagnose import DiagnosisConfig, asked_kinds, diagnose_parts, find, part_ranges
from rrm.diagnosis_tables import tables
from rrm.dynamics import Subject, deepen, examine, restart, vary
from rrm.lyapunov import windows
from rrm.models import build_model
from rrm.models.act import Batch, StepOutput
from rrm.puzzles.maze import shortest_path
from rrm.puzzles.tasks import MazeTask, SudokuTask
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch

SUDOKU = SudokuTask.model_validate({"box": 2, "generate": {"puzzles": 1, "blanks": 1}})


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


class Toy:
    """A map of one number, z_H; z_L says whether the run has begun. The answer is right where `is_right` says so."""

    latent_names = ("z_H", "z_L")
    sub_updates = 1
    learns_q_continue = carries_tangents = False
    constant_weights = eagerly = staticmethod(nullcontext)

    def __init__(self, step, is_right, start: float, halt_max_steps: int):
        self.step, self.is_right, self.start, self.halt_max_steps = step, is_right, start, halt_max_steps

    def initial_latents(self, batch_size):
        zero = torch.zeros(1, 1, 1, dtype=torch.float64)
        return {"z_H": (zero + self.start).expand(batch_size, 1, 1), "z_L": zero.expand(batch_size, 1, 1)}

    def embed(self, batch):
        return ((0.5 + 0.6180339887 * batch.puzzle_identifiers.double()) % 1)[:, None, None]  # uniform in [0, 1)

    def reason(self, latents, embedding):
        begun = latents["z_L"]
        return {"z_H": self.step(latents["z_H"] + (1 - begun) * embedding), "z_L": torch.ones_like(begun)}

    def act_step(self, latents, batch):
        after = self.reason(latents, self.embed(batch))
        right = self.is_right(after["z_H"][:, 0, 0])
        logits = torch.zeros(len(right), 16, 6)
        logits[:, :, 1], logits[:, :, 2] = right.float()[:, None], 0.5
        q = torch.where(right, 1.0, -1.0)
        return after, StepOutput(logits, q, q)


def subject(toy: Toy, n: int) -> Subject:
    ones = torch.ones(n, 16, dtype=torch.int64)
    return Subject(toy, Batch(ones, ones, torch.arange(n)), SUDOKU, "softmax")


def frames(of: Subject, n: int, **asked) -> dict[str, pd.DataFrame]:
    """The tables of a diagnosis of n puzzles."""
    config = DiagnosisConfig(n=n, **asked)

    def share_out(kind, work, examples):
        return [find(of, config, kind, rows, examples) for rows in work]

    found = diagnose_parts(config, n, asked_kinds(config), share_out)
    return {name: pd.DataFrame(columns) for name, columns in tables(found, of.model.sub_updates).items()}


HOLE = 0.1  # of the interval: what is in it leaves


def transient(x):
    """Expands both sides of the hole onto [0, 1]: of a uniform density, a share HOLE leaves in each step.

    The escape rate is -ln(1 - HOLE), the exponent of what stays ln(2 / (1 - HOLE)). What has left goes to 3.
    """
    slope = 2 / (1 - HOLE)
    inside = torch.where(x < (1 - HOLE) / 2, slope * x, slope * (x - (1 + HOLE) / 2))
    leaves = ((x >= (1 - HOLE) / 2) & (x < (1 + HOLE) / 2)) | (x > 1.5)
    return torch.where(leaves, 3 + (x - 3) / 4, inside)


@pytest.fixture(scope="module")
def escaping():
    toy = Toy(transient, lambda x: x > 1.5, 0.0, halt_max_steps=8)
    return frames(subject(toy, 600), 600, k=1, depth=96, batch_size=4096)


def test_a_chaotic_transient_escapes_at_its_known_rate(escaping):
    (fate,) = diagnosis.fates(escaping["diagnostics"]).to_dict("records")
    assert abs(fate["failed"] / 600 - (1 - HOLE) ** 8) < 0.06
    known = math.log(2) / -math.log1p(-HOLE)
    assert fate["low"] < known < fate["high"]
    assert abs(fate["half_life"] / known - 1) < 0.15
    assert fate["escaped"] + fate["moving"] == fate["failed"]
    assert (fate["lost"], fate["settled_wrong"]) == (0, 0)
    curve = diagnosis.escape(escaping["depths"], escaping["diagnostics"]).set_index("depth")
    np.testing.assert_allclose(curve.solved, 1 - (1 - HOLE) ** curve.index, atol=0.06)
    assert curve.escaped[8] == 0
    assert curve.kept[8] == curve.kept[96] == 1
    assert (curve.drift_failed[7] > 0.1, curve.drift_solved[96] < 1e-9) == (True, True)


def test_failures_that_wander_have_the_exponent_of_the_transient(escaping):
    rows = escaping["diagnostics"]
    late = escaping["windows"].query("window == 'late half'").set_index("example").lambda_1
    failed = rows.loc[~rows.solved, "example"]
    assert np.allclose(late[failed], math.log(2 / (1 - HOLE)), atol=1e-9)
    areas = diagnosis.auc(rows, escaping["windows"], measures=["-lambda_1"]).set_index("window").auc
    assert areas["quarter 4"] > areas["quarter 1"]
    assert areas["late half"] == 1
    assert (rows.halt_step.dropna() == rows.solved_from[rows.halt_step.notna()]).all()


def test_restarts_find_the_basins_of_two_fixed_points():
    """From -0.1 everything goes to -1; a start at -0.1 + sigma xi goes to 1 with probability Phi(-0.1 / sigma)."""
    toy = Toy(lambda x: x + 0.5 * (torch.where(x > 0, 1.0, -1.0) - x), lambda x: x > 0, -0.1, halt_max_steps=6)
    toy.embed = lambda batch: torch.zeros(len(batch.inputs), 1, 1, dtype=torch.float64)
    toy.reason = lambda latents, embedding: {"z_H": toy.step(latents["z_H"]), "z_L": latents["z_L"]}
    of = subject(toy, 25)
    found = frames(of, 25, k=1, restarts=80, sigma=(0.01, 0.1, 1.0), batch_size=64)
    rows = diagnosis.restarts(found["restarts"], found["diagnostics"]).set_index("sigma")
    for sigma in (0.01, 0.1, 1.0):
        p = NormalDist().cdf(-0.1 / sigma)
        assert abs(rows.share[sigma] - p) <= 4 * math.sqrt(p * (1 - p) / 2000)
        assert abs(rows.some[sigma] - (1 - (1 - p) ** 80)) < 0.1
    assert set(rows.puzzles) == {25}
    fewer = restart(of, range(3, 5), torch.tensor([True, False]), 7, (0.1, 1.0), 256)
    own = found["restarts"].query("example == 3 and restart < 7 and sigma > 0.05")
    assert fewer["example"].tolist() == [3]
    assert fewer["solved"].flatten().tolist() == own.solved.tolist()


def srm(steps: int) -> Subject:
    config = tiny_config(model=TINY_SRM | {"halt_max_steps": steps}).model
    model = build_model(config, seq_len=16, vocab_size=6, num_puzzles=1, generator=torch_generator(0, "init")).double()
    tokens = torch.randint(1, 6, (6, 16), generator=torch_generator(0, "tokens"))
    return Subject(model, Batch(tokens, tokens, torch.zeros(6, dtype=torch.int64)), SUDOKU, "softmax")


def test_a_contraction_settles_everywhere_and_its_failures_never_escape():
    """Not with more ACT steps, nor from another start: a puzzle has one fixed point. Half of them are made right."""
    of = srm(steps=40)
    z = of.model.initial_latents(6)
    with torch.no_grad():
        for _ in range(200):
            z, output = of.model.act_step(z, of.batch)
    labels = output.logits.argmax(-1)
    labels[3:] = labels[3:] % 5 + 1
    of = of._replace(batch=of.batch._replace(labels=labels))
    found = frames(of, 6, k=2, depth=200, restarts=4, sigma=(1.0,))
    rows = found["diagnostics"]
    assert rows.solved.tolist() == [True] * 3 + [False] * 3
    assert rows.settled.all()
    assert (rows.lambda_1 < 0).all()
    (fate,) = diagnosis.fates(rows).to_dict("records")
    assert (fate["failed"], fate["settled_wrong"], fate["escaped"], fate["lost"]) == (3, 3, 0, 0)
    assert math.isinf(fate["half_life"])
    (again,) = diagnosis.restarts(found["restarts"], rows).to_dict("records")
    assert (again["puzzles"], again["some"]) == (3, 0)


def test_parts_in_any_cut_find_the_same():
    of = srm(steps=3)
    whole, cut = (
        frames(of, 6, k=2, depth=5, restarts=3, sigma=(0.5,), robustness=True, batch_size=size) for size in (512, 5)
    )
    for name, rows in whole.items():
        for column in rows:
            if rows[column].dtype == float:
                np.testing.assert_allclose(
                    rows[column], cut[name][column], rtol=0, atol=1e-9, err_msg=f"{name}.{column}"
                )
    assert len(part_ranges("examples", DiagnosisConfig(k=2, batch_size=5), 6)) == 6


def test_estimates_that_differ_in_rounding_alone_agree():
    """Where vectors are made orthonormal, and how many there are, the first exponent does not depend on."""
    lambda_1 = vary(srm(steps=5), range(4), 2)["lambda_1"]
    for other in (1, 4):
        torch.testing.assert_close(lambda_1[:, other], lambda_1[:, 0], rtol=0, atol=1e-12)
    assert (lambda_1[:, 2] - lambda_1[:, 0]).abs().max() > 1e-6  # other vectors, and five steps


def test_windows_cover_the_run():
    assert windows(16) == {
        "first eighth": range(2),
        **{f"quarter {i + 1}": range(4 * i, 4 * i + 4) for i in range(4)},
        "late half": range(8, 16),
    }
    assert [*windows(1)] == ["first eighth", "quarter 3", "late half"]
    assert all(set().union(*(windows(T)[q] for q in windows(T) if q[0] == "q")) == set(range(T)) for T in range(1, 30))


def test_mazes_are_judged_as_paths_too():
    """The label turns down first; another way round is as short: valid and shortest, and not exact."""
    question = np.ones((3, 3), dtype=np.int8)
    question[0, 0], question[2, 2] = 2, 3
    answer = shortest_path(question)
    other = answer.T.copy()
    assert (other != answer).any()
    task = MazeTask.model_validate({"name": "maze", "side": 3, "generate": {"puzzles": 1, "min_path": 2}})
    said = torch.from_numpy(np.stack([answer, other, question]).reshape(3, 9).astype(np.int64) + 1)
    batch = Batch(said[2].repeat(3, 1), said[0].repeat(3, 1), torch.arange(3))

    class Says(Toy):
        def act_step(self, latents, batch):
            logits = torch.nn.functional.one_hot(said[batch.puzzle_identifiers], 6).float()
            q = torch.full((len(logits),), -1.0)
            return {name: z + 1 for name, z in latents.items()}, StepOutput(logits, q, q)

    of = Subject(Says(lambda x: x / 2, None, 0.0, 2), batch, task, "softmax")
    found = examine(of, range(3), 1)
    assert found["solved"].tolist() == [True, False, False]
    assert found["valid"].tolist() == found["shortest"].tolist() == [True, True, False]
    assert deepen(of, range(3), 4)["valid"].tolist() == [[True] * 4, [True] * 4, [False] * 4]
    again = restart(of, range(3), ~found["solved"], 2, (1.0,), 8)
    assert again["valid"].tolist() == [[[True, True]], [[False, False]]]
