"""The metrics of the comparison: what each is, in which unit, and what kind of score it has."""

from collections.abc import Iterator

LAST_K = 3
MODES = "positive_modes"
PASSES = (2, 4, 8, 16, 32)  # k of pass@k; of 1 it is `perturbed`, of all rollouts `perturbed_any`

RIGHT = {"solved": "exactly right", "valid": "a valid path", "shortest": "a shortest path"}  # outcomes of an answer
# In a metric's name, of the examples that have an outcome and of those that have not. All but the first are of mazes.
OUTCOMES = {"solved": ("solved", "failed"), "valid": ("valid", "invalid"), "shortest": ("shortest", "not_shortest")}
_BY = "by the run's own threshold"  # Otsu's of its late drift: two runs of a pair may have different ones


def _of_outcomes() -> Iterator[tuple[str, tuple[str, str]]]:
    for outcome, (good, bad) in OUTCOMES.items():
        is_right = RIGHT[outcome]
        yield f"lambda_1_{good}", ("nats/sub-update", f"The same over the examples whose answer is {is_right}.")
        yield f"lambda_1_{bad}", ("nats/sub-update", "The same over the examples whose answer is not.")
        yield f"settled_{good}", ("share", f"Of the diagnosed examples: settled, {_BY}, and the answer is {is_right}.")
        yield f"settled_{bad}", ("share", f"Settled, {_BY}, and it is not.")
        yield f"wandering_{good}", ("share", f"Still wandering, {_BY}, and it is {is_right}.")
        yield f"wandering_{bad}", ("share", f"Still wandering, {_BY}, and it is not.")


# metric -> (unit, what it is); all of exact correctness on test puzzles, unless it says otherwise
METRICS = {
    "best": ("share", "Clean run at the step whose clean accuracy on validation is highest."),
    "final": ("share", "Clean run, last evaluation."),
    "last_k": ("share", f"Clean run, mean of the last {LAST_K} evaluations after training began."),
    "equal_compute": ("share", "Clean run, last evaluation within the FLOPs that both sides were trained for."),
    "final_valid": ("share", "Clean run of mazes, last evaluation: answers that are a path from start to goal."),
    "final_shortest": ("share", "Clean run of mazes, last evaluation: answers that are a shortest path."),
    "halting": ("share", "Clean run, last evaluation, answers of the ACT step where it wants to halt, else the last."),
    "halting_steps": ("ACT steps", "Steps that the clean run takes so, mean over examples."),
    "done": ("share", "Answers of the clean run that it says are done: a halting logit above 0."),
    "done_accuracy": ("share", "Solved, of those answers alone."),
    "settled": ("share", "Answers of the clean run that stayed the same over the last 3 ACT steps."),
    "settled_accuracy": ("share", "Solved, of those answers alone."),
    "winner_changes": ("share", "ACT steps after the first won by another trajectory; 0 without a race."),
    "winner_entropy": ("nats", "Of which trajectory wins, at the last evaluation; 0 without a race."),
    "aurc": ("share", "Of the diagnosed examples by falling halting logit: share failed, mean over all coverages."),
    "perturbed": ("share", "Mean over perturbed rollouts, last evaluation."),
    "perturbed_all": ("share", "Solved by every perturbed rollout."),
    **{f"perturbed_pass_{k}": ("share", f"Solved by some of {k} perturbed rollouts, unbiased.") for k in PASSES},
    "perturbed_any": ("share", "Solved by some perturbed rollout (pass@K)."),
    "perturbed_best_q": ("share", "Solved by the perturbed rollout with the highest halting logit."),
    "perturbed_majority": ("share", "Solved by the answer that most perturbed rollouts give."),
    "perturbed_most_settled": ("share", "Solved by the perturbed rollout whose logits change least at the end."),
    "perturbed_first_to_halt": ("share", "Solved by the perturbed rollout that wants to halt first."),
    "perturbed_act_step": ("share", "Mean over rollouts with noise as every ACT step begins, last evaluation."),
    "perturbed_update": ("share", "Mean over rollouts with noise on every update of a latent, last evaluation."),
    MODES: ("modes", "Lyapunov vectors that grew by more than e, mean over diagnosed examples."),
    "lambda_1": ("nats/sub-update", "First Lyapunov exponent, median over diagnosed examples."),
    **dict(_of_outcomes()),
}
MEDIANS = frozenset(name for name in METRICS if name.startswith("lambda_1"))  # of examples, those that are not nan
CELLS = frozenset(f"{end}_{name}" for end in ("settled", "wandering") for names in OUTCOMES.values() for name in names)
# Of a whole evaluation, by run: no example has a score that it would be the mean of.
OF_RUN = {
    "halting": "halting_exact_accuracy",
    "halting_steps": "halting_steps",
    "done": "done_share",
    "done_accuracy": "done_exact_accuracy",
    "settled": "settled_share",
    "settled_accuracy": "settled_exact_accuracy",
    "winner_changes": "winner_changes",
    "winner_entropy": "winner_entropy",
}
RACE = ("winner_changes", "winner_entropy")
AURC = "aurc"
DIAGNOSED = frozenset((MODES, AURC, *MEDIANS, *CELLS))  # of the diagnosed examples, which are not all
# Metrics that are yes or no for an example, as McNemar's test needs them.
BINARY = frozenset(
    (
        *("final", "best", "equal_compute", "final_valid", "final_shortest"),
        *("perturbed_all", "perturbed_any", "perturbed_best_q", "perturbed_majority"),
        *("perturbed_most_settled", "perturbed_first_to_halt"),
    )
)
_WRONG = (f"{end}_{bad}" for end in ("settled", "wandering") for _, bad in OUTCOMES.values())
WORSE = frozenset((MODES, AURC, "halting_steps", *MEDIANS, *_WRONG))  # if there is more of it
_SHARES = frozenset(name for name, (unit, _) in METRICS.items() if unit == "share")
BOUNDED = _SHARES - {*CELLS, AURC, *OF_RUN} | {"halting"}  # accuracies, of which a run that failed has none
