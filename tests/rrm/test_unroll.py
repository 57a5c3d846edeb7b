"""Puzzles solved step by step: the trajectories kept are those that the evaluation scores."""

import numpy as np
import pytest
import torch
from tiny import MULTI, TINY_HRM, tiny_config

from results.rows import unpack_correct
from rrm.perturb import perturb_latents
from rrm.puzzles.tasks import GenerateMaze, MazeTask, SudokuTask
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

CPU = torch.device("cpu")
WATCHED = {"sigmas": [0.1, 3.0], "rollouts": 3, "depths": [5]}


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


def with_random_heads(trainer: Trainer) -> Trainer:
    """The trainer, whose untrained heads would say the same of every puzzle, with others."""
    for head in (trainer.model.lm_head, trainer.model.q_head):
        torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    for name, shadow in trainer.ema.shadow.items():
        shadow.copy_(trainer.model.state_dict()[name])
    return trainer


@pytest.mark.parametrize("changes", [{}, {"model": TINY_HRM}, {"eval": {"batch_size": 3}}, MULTI])
def test_its_last_step_is_what_the_evaluation_scores(changes):
    """Each text after the last ACT step is the answer if and only if `correct` has that example and rollout."""
    config = tiny_config(**changes | {"eval": WATCHED | changes.get("eval", {})})
    trainer = with_random_heads(Trainer(config, CPU))
    batch = trainer.eval_batches["test"]
    trainer.train_until(0)
    assert [(row["step"], row["example"], row["sigma"]) for row in trainer.unrolls] == [
        (0, example, sigma) for example in (0, 1) for sigma in (0.0, 3.0)
    ]
    # What the clean run says of the first example, and the perturbed one of the second, become the answers.
    for row in (trainer.unrolls[0], trainer.unrolls[3]):
        batch.labels[row["example"]] = tokens_of(row["predicted"][-1], config.task)
    trainer.history, trainer.unrolls = [], []
    trainer.train_until(0)
    scored = {row["sigma"]: row for row in trainer.history if row["split"] == "test" and row["depth"] == 2}
    for row, right in zip(trainer.unrolls, (True, False, False, True), strict=True):
        correct = unpack_correct(scored[row["sigma"]]["correct"], 8, scored[row["sigma"]]["rollouts"])
        assert (row["predicted"][-1] == row["answer"]) == correct[row["example"], 0] == right
        assert len(row["predicted"]) == len(row["q_halt"]) == 2


def tokens_of(text: str, task: SudokuTask) -> torch.Tensor:
    return torch.tensor([task.symbols.find(symbol) + 1 for symbol in text])


def test_it_is_the_run_from_the_evaluations_noise():
    """A run of its own from the same latents: the answers and halting logits of every ACT step, z_H alone perturbed."""
    config = tiny_config(eval={"where": ["z_H"], "sigmas": [3.0]}, model={"halt_max_steps": 3})
    trainer = with_random_heads(Trainer(config, CPU))
    trainer.train_until(0)
    batch, model = trainer.eval_batches["test"], trainer.model.eval()
    for sigma in (0.0, 3.0):
        noise = {"seed": 0, "stream": "eval.test", "step": 0, "rows": range(8)}
        latents = perturb_latents(
            model.initial_latents(8), sigma=sigma, where=("z_H",), rollouts=1, clean_first=False, **noise
        )
        kept = [row for row in trainer.unrolls if row["sigma"] == sigma]
        for step in range(3):
            with torch.no_grad():
                latents, output = model.act_step(latents, batch)
            for row in kept:
                answer = output.logits[row["example"]].argmax(-1).numpy() - 1
                assert row["predicted"][step] == config.task.text(answer)
                assert row["q_halt"][step] == pytest.approx(output.q_halt_logits[row["example"]].item(), abs=1e-5)
        assert [row["question"] for row in kept] == [config.task.text(x.numpy() - 1) for x in batch.inputs[:2]]
        assert [row["answer"] for row in kept] == [config.task.text(x.numpy() - 1) for x in batch.labels[:2]]
    clean, perturbed = trainer.unrolls[:2]
    assert clean["q_halt"] != perturbed["q_halt"]


def test_without_sigmas_and_with_one_example_there_is_the_clean_run_alone():
    trainer = Trainer(tiny_config(eval={"sigmas": [], "n": 1}), CPU)
    trainer.train_until(0)
    assert [(row["example"], row["sigma"]) for row in trainer.unrolls] == [(0, 0.0)]


def test_watching_changes_no_number():
    trainer = Trainer(tiny_config(), CPU)
    trainer.train_until(4)
    plain = trainer.evaluate()
    assert [row for row in trainer.history if row["step"] == 4] == [
        {name: row[name] for name in ("step", "optimizer_steps", "act_steps", "train_flops", "train_loss")} | one
        for row, one in zip(trainer.history[-4:], plain, strict=True)
    ]


def test_only_the_last_evaluation_is_kept_and_a_resume_has_it():
    trainer = Trainer(tiny_config(), CPU)
    trainer.train_until(6)
    assert {row["step"] for row in trainer.unrolls} == {4}
    resumed = Trainer(trainer.config, CPU)
    resumed.load_state_dict(trainer.state_dict())
    assert resumed.unrolls == trainer.unrolls


@pytest.mark.parametrize(
    ("task", "cells", "text"),
    [
        (SudokuTask(box=2, train="a", test="b"), [[0, 4], [-1, 5]], ".4??"),
        (
            MazeTask(name="maze", side=5, generate=GenerateMaze(puzzles=1, min_path=4)),
            [[0, 1, 2], [3, 4, -101]],
            "# SGo?",
        ),
    ],
)
def test_what_is_no_cell_is_a_question_mark(task, cells, text):
    assert task.text(np.array(cells)) == text
