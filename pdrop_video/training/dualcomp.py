"""Training of DualComp's router: lambda by the answer's loss and by a rule, rho by what may go at no loss."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..parts.dualcomp import LEAST, DualCompPart
from ..reduce import Reducer
from ..reduce.dualcomp import DualComp
from ..reduce.geometric import geometric_by_rule
from .examples import Example, Examples, answer_losses, reduced_by
from .labels import Labels
from .lines import Line
from .trainer import Trainer

LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARES = (LEAST, 0.5, 1.0)
"""Values of lambda, and of rho, that are tried for a label."""
_COLD, _COSTS = 0.2, 0.05
"""Temperature, in nats, of the mean over lambdas; nats that less tokens may cost."""


def lambda_truth(losses: Sequence[float], rule: float, alpha: float, cold: float = _COLD) -> float:
    """lambda_gt = alpha * lambda_llm + (1 - alpha) * lambda_rule.

    Parameters
    ----------
    losses : sequence of float
        Of the right answer, in nats, at each of `LAMBDAS`: lambda_llm is their mean weighted by softmax(-loss / cold).
    rule : float
        lambda_rule, by the question's words.
    alpha : float
    cold : float

    Examples
    --------
    >>> round(lambda_truth((0.0, 9.0, 9.0, 9.0, 9.0), rule=0.7, alpha=0.5), 6)
    0.35
    """
    weights = (-torch.tensor(losses, dtype=torch.float64) / cold).softmax(0)
    llm = float(weights @ torch.tensor(LAMBDAS, dtype=torch.float64))
    return alpha * llm + (1 - alpha) * rule


def rho_truth(losses: Sequence[float], costs: float = _COSTS) -> float:
    """The smallest of `SHARES` at which the answer's loss is no more than `costs` above that at all of the budget."""
    return next(share for share, loss in zip(SHARES, losses, strict=True) if loss <= losses[-1] + costs)


class DualCompTrainer(Trainer):
    """Mean squared errors of lambda and of rho.

    The paper says lambda_gt = alpha * lambda_llm + (1 - alpha) * lambda_rule, and none of the constants, nor how
    lambda_llm comes about. Ours: `alpha`; lambda_llm is the mean of a few lambdas weighted by how well the frozen model
    answers under each; the rule is that of `pdrop_video.reduce.geometric`; rho is learned from the smallest share of
    the budget that costs the answer nothing. At `keep` of the tokens, of `videos` * `lines` lines.
    """

    part: ClassVar[type[DualCompPart]] = DualCompPart
    defaults: ClassVar[dict[str, Any]] = {"keep": 0.25, "alpha": 0.8, "videos": 48, "lines": 4}
    rate: ClassVar[float] = 1e-3
    steps: ClassVar[int] = 400

    def prepare(
        self, lines: Sequence[Line], examples: Examples, work: Path, say: Callable[[str], None] = lambda line: None
    ) -> Sequence[Line]:
        """Try lambdas and shares on some lines; what was found is in a journal."""
        said, self._labels = self.settings, Labels(work / "dualcomp.labels.jsonl", self.settings)
        videos = sorted({line.video for line in lines})
        some = set(random.Random("router").sample(videos, min(said["videos"], len(videos))))
        chosen = []
        for video in sorted(some):
            about = [line for line in lines if line.video == video]
            chosen += random.Random(video.rpartition("/")[2]).sample(about, min(said["lines"], len(about)))
        with self._labels as labels:
            for number, line in enumerate(chosen):
                if line in labels:
                    continue
                geometric, needed = self.label(examples.of(line))
                labels.add(line, **{"lambda": geometric, "rho": needed})
                if number % 16 == 0:
                    say(f"dualcomp: label {number + 1} of {len(chosen)}")
        return chosen

    @torch.no_grad()
    def label(self, example: Example) -> tuple[float, float]:
        """lambda_gt and rho of a line."""

        def loss(geometric: float, share: float = 1.0) -> float:
            chunk = reduced_by(self.lm, example, DualComp(self.settings["keep"] * share, geometric), {})
            return float(answer_losses(self.lm, [example], chunk)[0].mean())

        losses, rule = [loss(each) for each in LAMBDAS], geometric_by_rule(example.line.question)
        best = LAMBDAS[min(range(len(LAMBDAS)), key=lambda n: losses[n])]
        shares = [loss(best, share) for share in SHARES[:-1]]
        return lambda_truth(losses, rule, self.settings["alpha"]), rho_truth([*shares, min(losses)])

    def loss(self, part: Any, examples: Sequence[Example], draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See the class."""
        found = torch.stack([torch.stack(part(example.words)) for example in examples])
        labels = [self._labels[example.line] for example in examples]
        wanted = torch.tensor([(label["lambda"], label["rho"]) for label in labels]).to(found)
        errors = (found - wanted).square().mean(0)
        geometric, needed = errors.detach().tolist()
        return errors.sum(), {"lambda": geometric, "rho": needed}

    def reducers(self) -> dict[str, Reducer]:
        """Lambda by the router, by the rule, and both by the router, which keeps fewer."""
        keep = self.settings["keep"]
        return {
            "trained": DualComp(keep=keep, router="lambda"),
            "rule": DualComp(keep=keep),
            "trained, fewer": DualComp(keep=keep, router="both"),
        }
