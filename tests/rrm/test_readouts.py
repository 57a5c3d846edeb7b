"""What K rollouts say together, against counting by hand."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY_HRM, TINY_SRM, tiny_config

from rrm.evaluate import EvalConfig, evaluate_split
from rrm.models.act import Batch, StepOutput
from rrm.models.losses import row_losses
from rrm.readouts import Course, chosen_rollouts, majority, of_those, pass_at_k
from rrm.streams import normals
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


@pytest.mark.parametrize(
    ("answers", "q_halt", "chosen"),
    [
        ([[1], [2], [2]], [9.0, 0.0, 1.0], 2),  # two votes beat the highest q; of the two the higher q
        ([[1], [2], [3]], [0.0, 2.0, 1.0], 1),  # all alone: the highest q
        ([[1], [1], [2], [2]], [0.0, 1.0, 3.0, 2.0], 2),
        ([[1, 1], [1, 2], [1, 2]], [5.0, 0.0, 0.0], 1),  # whole answers count, not cells
    ],
)
def test_majority(answers, q_halt, chosen):
    assert majority(np.array([answers]), np.array([q_halt])).tolist() == [chosen]


def test_each_rule_chooses_its_rollout():
    cells = np.array([[[1], [2], [3], [3]]] * 3)
    q_halt = np.array([[0.0, 4.0, 1.0, 2.0]] * 3)
    change = np.array([[0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.2, 0.3], [0.5, 0.4, 0.3, 0.2]])
    wants = np.array([[2, 3, 0, 0], [0, 0, 0, 0], [3, 2, 2, 4]])
    chosen = {name: k.tolist() for name, k in chosen_rollouts(cells, q_halt, change, wants).items()}
    assert chosen == {
        "best_q": [1, 1, 1],
        "majority": [3, 3, 3],
        "most_settled": [0, 1, 3],  # of equals the higher q
        "first_to_halt": [0, 1, 1],  # none wants to: the highest q
    }


@pytest.mark.parametrize("K", [1, 4, 6])
def test_pass_at_k_is_the_mean_over_all_choices_of_k(K):
    correct = np.random.default_rng(0).random((20, K)) < 0.3
    ks = {1: [1], 4: [1, 2, 4], 6: [1, 2, 4, 6]}[K]
    expected = [
        np.mean([[row[list(some)].any() for some in itertools.combinations(range(K), k)] for row in correct])
        for k in ks
    ]
    assert pass_at_k(correct) == pytest.approx(expected)
    assert pass_at_k(correct)[-1] == correct.any(axis=1).mean()


def test_the_course_of_trajectories():
    """Three rows over five steps: the answers and the wish to halt are given; row 2 never wants to."""
    labels = torch.tensor([[1, 2], [1, 2], [-100, 2]])
    answers = [
        [[1, 0], [0, 2], [0, 2]],
        [[1, 2], [0, 2], [0, 2]],
        [[1, 2], [1, 2], [0, 0]],
        *[[[1, 2], [0, 2], [0, 2]]] * 2,
    ]
    wants = [[-1, 1, -1], [1, -1, -1], [-1, 1, -1], [1, 1, -1], [1, 1, -1]]

    model: Any = SimpleNamespace(learns_q_continue=False)
    course, seen = Course(model, Batch(labels, labels, labels[:, 0])), []
    for step, (answer, want) in enumerate(zip(answers, wants, strict=True)):
        logits = torch.nn.functional.one_hot(torch.tensor(answer), 4).float() * (step + 1)
        course.take(StepOutput(logits, torch.tensor(want).float(), torch.zeros(3)))
        seen.append({name: x[:, 0].tolist() for name, x in course.so_far(1).items()})
    assert [now["wants"] for now in seen] == [[0, 1, 0], [2, 1, 0], [2, 1, 0], [2, 1, 0], [2, 1, 0]]
    assert [now["halted"] for now in seen] == [
        [False, False, True], [True, False, True], [True, False, False], [True, False, True], [True, False, True],
    ]  # fmt: skip
    assert [now["settled"] for now in seen] == [[False] * 3] * 3 + [[False] * 3, [True, False, False]]
    assert seen[0]["change"] == [0, 0, 0]
    # Row 0: its second answer keeps one cell (1 more of 8 numbers) and changes the other (1 + 2 of 8).
    assert seen[1]["change"][0] == pytest.approx(4 / 8)
    assert seen[4]["change"][0] == pytest.approx(2 / 8)


def test_of_those_is_none_where_there_are_none():
    right = np.array([True, False, True])
    assert of_those(right, np.array([True, True, False])) == 0.5
    assert of_those(right, np.array([False, False, False])) is None


@pytest.mark.parametrize("when", ["act_step", "update"])
@pytest.mark.parametrize("model", [{}, {"single_z": True}, TINY_HRM, TINY_SRM], ids=["trm", "single z", "hrm", "srm"])
def test_noise_in_time_is_that_of_a_plain_evaluation(model, when):
    """Each example and rollout alone, deeper than training too; chunks change nothing."""
    trainer = Trainer(tiny_config(model=model), CPU)
    model, batch = trainer.model.eval().double(), trainer.eval_batches["test"]
    torch.nn.init.normal_(model.lm_head.weight, generator=torch.Generator().manual_seed(0))
    noise = [{"when": when, "sigma": 0.5, "where": ["z_L"]}, {"when": "start", "sigma": 0.5}]
    config = EvalConfig(every=1, n=8, noise=noise, rollouts=3, batch_size=6, depths=[4])
    settings = {"token_loss": "stablemax", "seed": 3, "split": "test"}
    rows = list(evaluate_split(model, batch, config, trainer.config.task, **settings))
    assert [(row["when"], row["sigma"], row["depth"]) for row in rows] == [
        ("start", 0, 2), ("start", 0, 4), ("start", 0.5, 2), ("start", 0.5, 4), (when, 0.5, 2), (when, 0.5, 4),
    ]  # fmt: skip
    losses, right = np.zeros((8, 3)), np.zeros((8, 3), bool)
    for i, k in np.ndindex(8, 3):
        alone, z = Batch(*(x[i : i + 1] for x in batch)), model.initial_latents(1)

        def noisy(name, z, moment, i=i, k=k):
            if name != "z_L":
                return z
            return z + 0.5 * normals(3, "eval.test.z_L", 0, range(i, i + 1), k, tuple(z.shape[1:]), CPU, moment)

        output: Any = None
        for t in range(4):
            updates = itertools.count()
            with torch.no_grad():
                if when == "act_step":
                    z = {name: noisy(name, x, (t,)) for name, x in z.items()}
                    z, output = model.act_step(z, alone)
                else:
                    z, output = model.act_step(z, alone, lambda n, x, t=t, u=updates: noisy(n, x, (t, next(u))))
        found = row_losses(output, alone.labels, "stablemax")
        losses[i, k], right[i, k] = found.lm.item(), found.correct.item()
    assert rows[-1]["lm_loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert rows[-1]["exact_accuracy"] == right.mean()
    assert rows[-1]["lm_loss"] != pytest.approx(rows[3]["lm_loss"], rel=1e-5)
    whole = config.model_copy(update={"batch_size": 256})
    other = list(evaluate_split(model, batch, whole, trainer.config.task, **settings))[-1]
    assert other["lm_loss"] == pytest.approx(rows[-1]["lm_loss"], rel=1e-9)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"noise": [{"sigma": 0.1}], "sigmas": [0.1]}, "sigmas: .0.1. with noise, which they are a short form of"),
        ({"noise": [{"sigma": 0.1}, {"sigma": 0.1, "where": ["z_L"]}]}, "sigma 0.1 with when start is there twice"),
        ({"noise": [{"sigma": 0}]}, "greater than 0"),
        ({"noise": [{"sigma": 0.1, "when": "later"}]}, "start"),
    ],
)
def test_noise_that_cannot_be_evaluated_is_named(fields, problem):
    with pytest.raises(ValueError, match=problem):
        EvalConfig(every=1, n=8, **fields)


def test_noise_where_a_model_has_no_latent_is_named_and_sigmas_are_its_short_form():
    fields = {"sigmas": None, "noise": [{"sigma": 0.1, "where": ["z_H"]}]}
    with pytest.raises(ValueError, match=r"eval\.noise\.0\.where: z_H is no latent of this model; it has z_L"):
        tiny_config(model={"single_z": True}, eval=fields)
    short = EvalConfig(every=1, n=8, sigmas=[0.3, 0.1], where=["z_L"])
    long = EvalConfig(every=1, n=8, noise=[{"sigma": 0.3, "where": ["z_L"]}, {"sigma": 0.1, "where": ["z_L"]}])
    assert short.levels == long.levels
    assert short.start_sigmas == long.start_sigmas == (0.1, 0.3)
