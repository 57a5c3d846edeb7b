"""A few test puzzles as the model thinks: what the evaluation's own trajectories answer after every ACT step."""

from typing import Any

from torch import Tensor

from rrm.evaluate import EvalConfig, EvalNoise
from rrm.models.act import Batch, StepOutput
from rrm.puzzles.tasks import BaseTask

UNROLLED = 2  # the first puzzles of the split


class Unrolls:
    """Watches one `evaluate_split` of `batch` and keeps what it says of the first UNROLLED examples.

    Of the clean run, and of rollout 0 with the last of `config.levels` (noise that comes later in an unroll, then the
    larger), for the first `steps` ACT steps.
    """

    def __init__(self, config: EvalConfig, task: BaseTask, batch: Batch, steps: int):
        self.levels = (None, *config.levels[-1:])
        self.task = task
        self.batch = batch
        self.steps = steps
        self._seen: dict[tuple[int, float], list[tuple[Tensor, Tensor]]] = {}

    def watch(self, level: EvalNoise | None, rows: range, step: int, output: StepOutput) -> None:
        """Keep an ACT step's answers to the examples `rows`; output holds [len(rows) * K], trajectory fastest."""
        examples = range(rows.start, min(rows.stop, UNROLLED))
        if not examples or level not in self.levels or step > self.steps:
            return
        # All rows at once, as the evaluation does: of equal logits the same one is taken.
        predicted, K = output.logits.argmax(-1), len(output.logits) // len(rows)
        for example in examples:
            row = (example - rows.start) * K
            self._seen.setdefault((example, level.sigma if level else 0.0), []).append(
                (predicted[row], output.q_halt_logits[row])
            )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each example and sigma: question, answer and `predicted`, a text an ACT step, as a CSV holds grids.

        q_halt: the halting logit of each ACT step.
        """
        return [
            {
                "example": example,
                "sigma": sigma,
                "question": self._text(self.batch.inputs[example]),
                "answer": self._text(self.batch.labels[example]),
                "predicted": [self._text(tokens) for tokens, _ in seen],
                "q_halt": [q_halt.item() for _, q_halt in seen],
            }
            for (example, sigma), seen in sorted(self._seen.items())
        ]

    def _text(self, tokens: Tensor) -> str:
        return self.task.text(tokens.cpu().numpy() - 1)
