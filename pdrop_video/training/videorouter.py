"""Training of VideoRouter's routers: which frames a question is about, and whether it is about some at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parts.videorouter import FRAGMENT, GLOBAL, VideoRouterPart
from ..reduce import Reducer
from ..reduce.relevance_pooling import RelevancePooling
from .examples import Example, Examples, answer_losses, reduced_by
from .labels import Labels, key_of
from .lines import Line
from .trainer import Trainer


def relevant_steps(example: Example) -> Tensor:
    """1 for each step that shows a second of the evidence, else 0 [steps]; the step that begins last before it."""
    assert example.line.evidence is not None
    begins = torch.tensor(example.chunk.seconds, dtype=torch.float64)
    label = torch.zeros(len(begins))
    for second in example.line.evidence:
        last = int(torch.searchsorted(begins, torch.tensor(second, dtype=torch.float64), right=True)) - 1
        shows = (begins >= math.floor(second)) & (begins < math.floor(second) + 1)
        label[shows] = 1  # what is to be seen in a second is to be seen in all of its steps
        label[max(last, 0)] = 1
    return label


class VideoRouterTrainer(Trainer):
    """Cross entropy of both routers; the language model stays as it is, where the paper trains it, too, in the end.

    Ours: the labels, which the paper has from other models. A frame's: where a line says its evidence, the steps that
    show it; else the share that each step has of what its tokens' removal would cost the answer, by the derivative of
    the loss, relative to the largest. The question's: the policy of the smaller loss on the answer, at `keep` of the
    tokens, the two losses compared by a softmax, so that questions which do not care teach little.
    """

    part: ClassVar[type[VideoRouterPart]] = VideoRouterPart
    defaults: ClassVar[dict[str, Any]] = {"keep": 0.3, "evidence": True, "policies": 200}
    rate: ClassVar[float] = 2e-3
    steps: ClassVar[int] = 1200

    def prepare(
        self, lines: Sequence[Line], examples: Examples, work: Path, say: Callable[[str], None] = lambda line: None
    ) -> Sequence[Line]:
        """Lines by evidence or by the answer's loss; the policies of some."""
        self._known: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        self._labels = Labels(work / "videorouter.labels.jsonl", self.settings)
        every = max(len(lines) // self.settings["policies"], 1)
        with self._labels as labels:
            for number, line in enumerate(lines):
                if line in labels:
                    continue
                example = examples.of(line)
                policies = self._policies(example) if number % every == 0 else []
                labels.add(line, steps=self._steps(example).tolist(), policies=policies)
                if number % (16 * every) == 0:
                    say(f"videorouter: label {number + 1} of {len(lines)}")
        return lines

    def _steps(self, example: Example) -> Tensor:
        if self.settings["evidence"] and example.line.evidence:
            return relevant_steps(example)
        chunk = example.chunk
        keep = torch.ones(chunk.visual_tokens, device=chunk.embeds.device).requires_grad_()
        answer_losses(self.lm, [example], keep=keep)[0].mean().backward()
        assert keep.grad is not None
        step = chunk.step()[chunk.visual_rows()]
        worth = keep.new_zeros(len(chunk.steps)).index_add(0, step, -keep.grad).clamp(min=0)
        return (worth / worth.max().clamp(min=1e-12)).cpu()

    def _policies(self, example: Example) -> list[float]:
        """Shares of Global and Fragment; frames are ranked by their labels, which the image router is to learn."""
        keep, label = self.settings["keep"], self._steps(example)
        known = {self.part.name: SimpleNamespace(relevance=lambda *of: label)}
        losses = []
        with torch.no_grad():
            for reducer in (RelevancePooling(keep=keep, policy="global"), RelevancePooling(keep, "trained")):
                chunk = reduced_by(self.lm, example, reducer, known)
                losses.append(answer_losses(self.lm, [example], chunk)[0].mean())
        assert (GLOBAL, FRAGMENT) == (0, 1)
        return [float(share) for share in (-torch.stack(losses)).softmax(0)]

    def _entered(self, part: VideoRouterPart, example: Example) -> tuple[Tensor, Tensor]:
        """What the frozen layers make of each frame and of the question alone, which never changes."""
        key = key_of(example.line)
        if key not in self._known:
            steps, words = len(example.chunk.steps), example.words
            frames = part.entered(example.features.view(steps, -1, example.features.shape[1]), words)
            self._known[key] = frames, part.entered(words.new_zeros(1, 0, words.shape[1]), words)
        return self._known[key]

    def loss(self, part: Any, examples: Sequence[Example], draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See the class."""
        frames, policies, right = [], [], []
        for example in examples:
            label_of = self._labels[example.line]
            relevant, shares = label_of["steps"], label_of["policies"]
            entered, alone = self._entered(part, example)
            logits, label = part.frame_logits(entered), torch.tensor(relevant, device=entered.device)
            weight = ((len(label) - label.sum()) / label.sum().clamp(min=1)).clamp(1, 20)  # the relevant ones are few
            frames.append(F.binary_cross_entropy_with_logits(logits, label, pos_weight=weight))
            right.append(float(label[logits.detach().argmax()] > 0.5))
            if shares:
                said = part.policy_logits(alone)
                policies.append(F.cross_entropy(said, torch.tensor(shares, device=said.device)))
        image = torch.stack(frames).mean()
        semantic = torch.stack(policies).mean() if policies else image.new_zeros(())
        figures = {"image": float(image.detach()), "best frame": sum(right) / len(right)}
        return image + semantic, figures | ({"semantic": float(semantic.detach())} if policies else {})

    def reducers(self) -> dict[str, Reducer]:
        """Both routers, the image router alone, and pooling without."""
        keep = self.settings["keep"]
        return {
            "trained": RelevancePooling(keep=keep, relevance="trained", policy="trained"),
            "image router": RelevancePooling(keep=keep, relevance="trained"),
            "cosine": RelevancePooling(keep=keep),
            "global": RelevancePooling(keep=keep, policy="global"),
        }
