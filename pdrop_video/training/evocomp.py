"""Training of EvoComp's compressor: labels by a search with the right answer's loss, GHM loss, and a cosine term."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parts.evocomp import EvoCompPart
from ..reduce import Reducer
from ..reduce.evocomp import EvoComp
from ..reduce.learnpruner import LearnPruner
from ..reduce.sppruner import SPpruner
from ..search.evolution import Counted, Kept, evolve
from .examples import Example, Examples, answer_losses
from .labels import Labels
from .lines import Line
from .trainer import Trainer

BINS = 10
"""Of gradient norms |p - y| from 0 to 1, over which their density is taken."""


def ghm_weights(probability: Tensor, label: Tensor, bins: int = BINS) -> Tensor:
    """Weights [tokens] of the cross entropy: tokens / density of the gradient norm, GHM-C (arXiv 1811.05181).

    The density at a token is the number of tokens in its bin of |p - y|, divided by the bin's width; the sum of the
    weighted cross entropies is divided by the number of tokens. Where all bins hold equally many all weights are equal.

    Parameters
    ----------
    probability, label : Tensor [tokens]
    bins : int
    """
    at = ((probability - label).abs() * bins).long().clamp(max=bins - 1)
    density = torch.bincount(at, minlength=bins).to(probability) * bins
    return len(probability) / density[at]


def apart_term(states: Tensor, label: Tensor) -> Tensor:
    """Mean cosine between the states of kept and of dropped tokens; 0 where one kind is missing.

    Parameters
    ----------
    states : Tensor [tokens, width]
    label : Tensor [tokens]
        1 for kept, 0 for dropped.
    """
    rows = F.normalize(states, dim=-1)
    kept, dropped = rows[label > 0.5], rows[label <= 0.5]
    if not len(kept) or not len(dropped):
        return states.new_zeros(())
    return kept.mean(0) @ dropped.mean(0)


class EvoCompTrainer(Trainer):
    """GHM loss on the labels, and `alpha` times the mean cosine between kept and dropped tokens' states.

    The labels are the best sets that EvoComp's search finds (`pdrop_video.search.evolution`) by the loss on the right
    answer, of `lines` lines. Ours: `alpha`, which the paper does not say; bins and their number; sets of a given size,
    the share `keep` of the tokens, where the paper's number follows from the vocabulary; a smaller search, which begins
    with scorers' sets (`LearnPruner`, by length and by residual), and with those in which the tokens that the answer's
    loss depends on most, by its derivative at all tokens, take a third of the room.
    """

    part: ClassVar[type[EvoCompPart]] = EvoCompPart
    defaults: ClassVar[dict[str, Any]] = {
        "keep": 0.1,
        "alpha": 0.1,
        "videos": 32,
        "lines": 4,
        "population": 10,
        "generations": 2,
    }
    rate: ClassVar[float] = 2e-3
    steps: ClassVar[int] = 400

    def prepare(
        self, lines: Sequence[Line], examples: Examples, work: Path, say: Callable[[str], None] = lambda line: None
    ) -> list[Line]:
        """Search a label for some lines; what was found is in a journal."""
        chosen = _some(lines, self.settings["videos"], self.settings["lines"])
        self._labels = Labels(work / "evocomp.labels.jsonl", self.settings)
        with self._labels as labels:
            for number, line in enumerate(chosen):
                if line in labels:
                    continue
                kept, before, after = self.label(examples.of(line), number)
                labels.add(line, kept=list(kept))
                if number % 8 == 0:
                    say(f"evocomp: label {number + 1} of {len(chosen)}, loss {before:.3f} random, {after:.3f} found")
        return chosen

    def label(self, example: Example, seed: int = 0) -> tuple[Kept, float, float]:
        """The best set found, the loss of a random one, and its own."""
        count = max(int(example.chunk.visual_tokens * self.settings["keep"]), 1)
        keep = torch.ones(example.chunk.visual_tokens, device=example.chunk.embeds.device).requires_grad_()
        answer_losses(self.lm, [example], keep=keep)[0].mean().backward()
        assert keep.grad is not None
        rows = example.tokens()
        share, device = self.settings["keep"], example.chunk.embeds.device
        begin = [
            tuple(LearnPruner(keep=share, score=score)(rows, {})[0].kept.tolist()) for score in ("length", "residual")
        ]
        # what the answer depends on is few tokens, and the order of the others is noise: a scorer's fill the set up
        needed = rows.best(-keep.grad, max(count // 3, 1)).tolist()
        begin += [_filled(needed, each, count) for each in begin] + [tuple(rows.best(-keep.grad, count).tolist())]

        @torch.no_grad()
        def fitness(kept: Kept) -> float:
            chunk = example.chunk.keep(torch.tensor(kept, device=device))
            return float(answer_losses(self.lm, [example], chunk)[0].mean())

        sets = Counted(example.chunk.visual_tokens, count)
        population = max(self.settings["population"], len(begin))
        found = evolve(
            fitness,
            sets,
            seed=seed,
            population=population,
            parents=max(population // 3, 1),
            generations=self.settings["generations"],
            begin=begin,
        )
        return found.best, fitness(sets.draw(random.Random(seed))), found.fitness

    def loss(self, part: Any, examples: Sequence[Example], draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See the class."""
        losses, hit = [], 0.0
        for example in examples:
            kept = torch.tensor(self._labels[example.line]["kept"], device=example.chunk.embeds.device)
            logits, states = part(example.features, example.words)
            label = torch.zeros_like(logits).index_fill(0, kept, 1.0)
            weights = ghm_weights(logits.detach().sigmoid(), label)
            entropy = F.binary_cross_entropy_with_logits(logits, label, weights)
            losses.append(entropy + self.settings["alpha"] * apart_term(states, label))
            hit += float(label[logits.detach().topk(len(kept)).indices].mean()) / len(examples)
        loss = torch.stack(losses).mean()
        return loss, {"loss": float(loss.detach()), "hit": hit}

    def reducers(self) -> dict[str, Reducer]:
        """At the share that labels keep."""
        keep = self.settings["keep"]
        return {"trained": EvoComp(keep=keep), "sppruner": SPpruner(keep=keep), "residual": LearnPruner(keep=keep)}


def _filled(first: Sequence[int], others: Sequence[int], count: int) -> Kept:
    """So many tokens: some first, and of others as many as there is room for, evenly over them."""
    more = [token for token in others if token not in set(first)]
    room = count - len(first)
    return tuple(sorted([*first, *(more[n * len(more) // room] for n in range(room))]))


def _some(lines: Sequence[Line], videos: int, each: int) -> list[Line]:
    """Some lines of some videos, evenly."""
    by: dict[str, list[Line]] = {}
    for line in lines:
        by.setdefault(line.video, []).append(line)
    rng = random.Random("labels")
    chosen = rng.sample(sorted(by), min(videos, len(by)))
    return [line for video in chosen for line in rng.sample(by[video], min(each, len(by[video])))]
