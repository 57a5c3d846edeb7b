"""What an evaluation says of K rollouts: chosen answers, deeper unrolls, mazes."""

import itertools

import numpy as np
import pytest
import torch
from tiny import MULTI, tiny_config

from rrm.evaluate import EvalConfig, evaluate_split
from rrm.models.act import Batch, Latents, StepOutput
from rrm.puzzles.dataset import load_task
from rrm.puzzles.maze import judge
from rrm.puzzles.tasks import GenerateMaze, MazeTask
from rrm.train import Trainer

CPU = torch.device("cpu")


class Script:
    """A model whose rollouts answer as scripted: right[step][k] and q[k], whatever the puzzle."""

    latent_names, halt_max_steps, learns_q_continue = ("z_H", "z_L"), 2, False

    def __init__(self, right: list[list[bool]], q: list[float]):
        self.right, self.q = right, q

    def initial_latents(self, batch_size: int) -> Latents:
        return {name: torch.zeros(batch_size, 1, 1) for name in self.latent_names}

    def act_step(self, latents: Latents, batch: Batch) -> tuple[Latents, StepOutput]:
        step = {name: z + 1 for name, z in latents.items()}
        at, K = round(step["z_H"].mean().item()) - 1, len(self.q)
        logits = torch.nn.functional.one_hot(batch.labels, 6).float()
        wrong = ~torch.tensor(self.right[at]).repeat(len(logits) // K)
        logits[wrong, 0] = logits[wrong, 0].flip(-1)
        return step, StepOutput(logits, torch.tensor(self.q).repeat(len(logits) // K), torch.zeros(len(logits)))


def test_shares_of_rollouts_by_depth():
    """Four rollouts, of which some are right, at the training's depth 2 and at 3."""
    trainer = Trainer(tiny_config(), CPU)
    batch = trainer.eval_batches["test"]
    right = [[True] * 4, [True, False, False, True], [False, False, True, False]]
    config = EvalConfig(every=1, n=8, sigmas=(1e-6,), rollouts=4, depths=(3,))
    model = Script(right, q=[0.0, 1.0, 3.0, 2.0])
    rows = list(evaluate_split(model, batch, config, trainer.config.task, token_loss="softmax", seed=0, split="test"))[
        2:
    ]
    assert [(row["sigma"], row["depth"], row["rollouts"], row["n"]) for row in rows] == [
        (1e-6, 2, 4, 8),
        (1e-6, 3, 4, 8),
    ]
    names = ("exact", "all_exact", "any_exact", "best_q_exact", "majority_exact")
    assert [rows[0][f"{name}_accuracy"] for name in names] == [0.5, 0, 1, 0, 0]  # two votes each: the higher q is wrong
    assert [rows[1][f"{name}_accuracy"] for name in names] == [0.25, 0, 1, 1, 0]
    assert np.unpackbits(np.frombuffer(rows[0]["correct"], np.uint8)).reshape(8, 4).tolist() == [[1, 0, 0, 1]] * 8
    # Rollout 0 never wants to halt, the others at once: they are right then, whatever they say later.
    said = [{name: row[name] for name in row if name.startswith(("halting", "done", "settled"))} for row in rows]
    assert said == [
        {
            "halting_exact_accuracy": halting,
            "halting_steps": steps,
            "done_share": 0.75,
            "done_exact_accuracy": pytest.approx(1 / 3),
            "settled_share": 0.0,  # three steps that change nothing
            "settled_exact_accuracy": None,
        }
        for halting, steps in ((1.0, 1.25), (0.75, 1.5))
    ]
    rules = ("most_settled", "first_to_halt")  # of those that changed as little, 3 has the higher q
    assert [[row[f"{rule}_exact_accuracy"] for rule in rules] for row in rows] == [[1, 0], [0, 1]]
    assert rows[0]["pass_at_k"] == pytest.approx([1 / 2, 5 / 6, 1])
    assert rows[1]["best_q_correct"] == b"\xff"
    assert rows[1]["majority_correct"] == b"\x00"


def test_deeper_is_more_act_steps_of_the_same_run():
    """Depth 4 of a model trained at 2 is what a model with halt_max_steps 4 and the same weights says."""
    trainer = Trainer(tiny_config(eval={"depths": [4]}), CPU)
    torch.nn.init.normal_(trainer.model.lm_head.weight, generator=torch.Generator().manual_seed(0))
    deeper = Trainer(tiny_config(model={"halt_max_steps": 4}), CPU)
    deeper.model.load_state_dict(trainer.model.state_dict())
    settings = {"token_loss": "stablemax", "seed": 0, "split": "test"}
    task, batch = trainer.config.task, trainer.eval_batches["test"]
    rows = list(evaluate_split(trainer.model.eval(), batch, trainer.config.eval, task, **settings))
    others = list(evaluate_split(deeper.model.eval(), batch, deeper.config.eval, task, **settings))
    assert [row["depth"] for row in rows] == [2, 4, 2, 4]
    assert [row for row in rows if row["depth"] == 4] == others
    assert rows[0]["lm_loss"] != rows[1]["lm_loss"]


def test_history_keeps_training_depth_for_best_and_progress():
    trainer = Trainer(tiny_config(eval={"depths": [4, 3]}), CPU)
    trainer.train_until(4)
    rows = [row for row in trainer.history if row["step"] == 4]
    assert len(rows) == 2 * 2 * 3
    clean = {row["depth"]: row["exact_accuracy"] for row in rows if row["split"] == "validation" and not row["sigma"]}
    assert list(clean) == [2, 3, 4]
    assert trainer.last_accuracy == clean[2]


def test_the_share_of_evaluation_is_counted_beforehand():
    config = tiny_config(eval={"depths": [3]}, **MULTI)
    training = 12 * 4 * 2 * 2  # steps, puzzles, rollouts, ACT steps
    evaluating = 4 * 2 * 8 * (1 + 2) * 3  # evaluations, splits, puzzles, trajectories, ACT steps
    assert config.evaluation_share == evaluating / (evaluating + training)


def test_mazes_are_judged():
    task = MazeTask(name="maze", side=5, generate=GenerateMaze(puzzles=4, min_path=4))
    data = load_task(task, 8)
    batch = data.eval_batch("test", 8)
    model = Script([[True], [True]], q=[0.0])
    config = EvalConfig(every=1, n=8, sigmas=())
    (row,) = evaluate_split(model, batch, config, task, token_loss="softmax", seed=0, split="test")
    assert (row["exact_accuracy"], row["valid_accuracy"], row["shortest_accuracy"]) == (1, 1, 1)
    assert row["correct"] == row["valid_correct"] == row["shortest_correct"] == b"\xff"
    answers = data.splits["test"].answers
    detours = next(
        (question, other)
        for question, answer in zip(data.splits["test"].questions, answers, strict=True)
        for other in other_paths(question, answer)
    )
    grids = [torch.from_numpy(grid.reshape(1, -1).astype(np.int64) + 1) for grid in detours]
    batch = Batch(grids[0], grids[1], torch.zeros(1, dtype=torch.int64))  # the detour as label: the model says it
    (row,) = evaluate_split(model, batch, config, task, token_loss="softmax", seed=0, split="test")
    assert (row["exact_accuracy"], row["valid_accuracy"], row["shortest_accuracy"]) == (1, 1, 0)


def other_paths(question: np.ndarray, answer: np.ndarray):
    """Valid answers that are not shortest, made by marking two or four cells more."""
    free = np.argwhere((question == 1) & (answer != 4))
    for cells in itertools.combinations(free, 2):
        other = answer.copy()
        for cell in cells:
            other[tuple(cell)] = 4
        judged = judge(question[None], other[None])
        if judged.valid[0] and not judged.shortest[0]:
            yield other
