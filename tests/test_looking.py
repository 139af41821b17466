"""What an answer looks at: the examples of the specifications, the rules written out, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import build, video
from torch import Tensor, nn

import pdrop_video as pv
from pdrop_video.common.kinds import LayerKind
from pdrop_video.memory import Limits, StreamCache, TokenTable
from pdrop_video.memory.evictors import EVICTORS
from pdrop_video.stream.looking import DECODES, Gaze, Glance, Row, decode_named
from pdrop_video.stream.looking.dstp import Dstp
from pdrop_video.stream.looking.fixation import Fixation

QUESTION = "what is shown first ?"
HALF = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))


class Toy:
    """Layers of one head whose keys are unit vectors: a row's numbers are its logits over the columns."""

    def __init__(self, columns: int, layers: int = 1, text: int = 0) -> None:
        self.columns = columns
        table = TokenTable.text(torch.arange(columns), *[torch.arange(columns)[:, None]] * 2)
        table = TokenTable(
            **{name: getattr(table, name) for name in ("index", "until", "chunk", "score", "position", "entered")},
            **dict(seconds=torch.arange(columns) / 2, step=torch.arange(columns), now=table.now),
            **dict(row=torch.zeros(columns).long(), column=torch.zeros(columns).long()),
            visual=torch.arange(columns) >= text,
        )
        self.cache = StreamCache((LayerKind(),) * layers, Limits(), EVICTORS["oldest"])
        self.cache.tables = [table] * layers
        keys = torch.eye(columns, dtype=torch.float64)[None, None]
        for i in range(layers):
            self.cache.update(keys, keys, i)
        self.module = SimpleNamespace(
            self_attn=SimpleNamespace(
                q_proj=nn.Identity(),
                k_proj=torch.zeros_like,
                head_dim=columns,
                o_proj=nn.Linear(columns, columns),
                scaling=1.0,
            )
        )

    def row(self, logits: list[float] | Tensor, layer: int = 0) -> Row:
        return Row(layer, self.module, torch.as_tensor(logits, dtype=torch.float64)[None, None], None)

    def step(self, gaze: Gaze, *logits: list[float] | Tensor) -> tuple[list[list[int]], list[Glance]]:
        """What each layer shows of its columns to a token with these logits in it, and what is looked at after it."""
        seen = []
        for i, each in enumerate(logits):
            gaze.before(self.row(each, i))
            shown = self.cache.layers[i].shown
            seen.append(list(range(self.columns)) if shown is None else shown.tolist())
            self.cache.update(*[torch.zeros(1, 1, 1, self.columns, dtype=torch.float64)] * 2, i)
        return seen, gaze.after()


def logs(*weights: float) -> Tensor:
    """Logits of weights; nothing for the columns that have none."""
    return torch.tensor(weights, dtype=torch.float64).log()


# -- dstp -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("joint", "union"), [(True, [0, 1, 2, 3, 4, 5]), (False, [0, 1, 2, 3, 4])])
def test_the_example_of_dstp(joint: bool, union: list[int]) -> None:
    toy, kept = Toy(6), [0, 1, 2]
    gaze = Dstp(joint=joint)(toy.cache)
    toy.cache.layers[0].show(torch.tensor(kept))
    gaze.asked(toy.row(logs(0.5, 0.3125, 0.1875, 1e-3, 1e-3, 1e-3)), 0, torch.tensor(kept))
    torch.testing.assert_close(gaze._anchor[:3], logs(0.5, 0.3125, 0.1875).exp())
    near, far = [0.2, 0.1, 0.0, 9.0, 9.0, 9.0], [-1.0, -1.2, 2.0, 3.0, 2.8, 2.5]  # what is hidden does not count
    assert toy.step(gaze, near) == ([kept], [])
    assert float(gaze._likeness) == pytest.approx(0.959164, abs=1e-6)
    attended = gaze._attention(toy.row(far), gaze._first[0])
    assert attended.tolist() == pytest.approx([0.045653, 0.037378, 0.916969], abs=1e-6)
    (seen,), (glance,) = toy.step(gaze, far)
    assert seen == kept and float(gaze._likeness) == pytest.approx(0.363117, abs=1e-6)
    assert (glance.token, glance.first, glance.last, glance.layers) == (1, 2, 21, (0,))
    assert glance.table.index.tolist() == sorted(set(union) - set(kept))
    weights = torch.tensor(far, dtype=torch.float64).softmax(0) if joint else torch.tensor(far[3:]).double().softmax(0)
    weights = weights[3:][: len(union) - 3] if joint else weights[:2]
    torch.testing.assert_close(glance.weight, weights)
    for _ in range(20):
        assert toy.step(gaze, far) == ([union], [])
    (seen,), glances = toy.step(gaze, near)
    assert seen == kept and glances == []


@pytest.mark.parametrize("seed", range(8))
def test_dstp_against_its_rule_written_out(seed: int) -> None:
    """Random logits, with text among the columns; who is seen for every token, by plain Python."""
    generator = torch.Generator().manual_seed(seed)
    columns, text, tau, steps = 12, 2, (0.5, 0.75, 0.9, 0.97)[seed % 4], 1 + seed % 3
    toy = Toy(columns, text=text)
    kept = [0, 1, *sorted((2 + torch.randperm(10, generator=generator)[:4]).tolist())]
    gaze = Dstp(tau=tau, steps=steps)(toy.cache)
    rows = 2 * torch.randn(30, columns, generator=generator, dtype=torch.float64)
    toy.cache.layers[0].show(torch.tensor(kept))
    gaze.asked(toy.row(rows[0]), 0, torch.tensor(kept))

    def softmax(row: Tensor, among: list[int]) -> dict[int, float]:
        powers = {j: float(row[j].exp()) for j in among}
        return {j: power / sum(powers.values()) for j, power in powers.items()}

    anchor, want, left, shifts = softmax(rows[0], kept[text:]), list(kept), 0, 0
    for row in rows[1:]:
        (seen,), glances = toy.step(gaze, row)
        assert seen == want
        if left:
            left -= 1
            want = want if left else list(kept)
            continue
        now = softmax(row, kept[text:])
        dot = sum(anchor[j] * now[j] for j in anchor)
        cosine = dot / (sum(a * a for a in anchor.values()) * sum(a * a for a in now.values())) ** 0.5
        assert bool(glances) == (cosine < tau)
        if cosine < tau:
            everything = softmax(row, list(range(text, columns)))
            best = sorted(everything, key=lambda j: -everything[j])[:4]
            want, left, shifts = sorted({*kept, *best}), steps, shifts + 1
            assert glances[0].table.index.tolist() == sorted(set(want) - set(kept))
    assert 0 < shifts < 29 / steps


def test_a_threshold_that_is_met_is_not_passed() -> None:
    """In exact arithmetic the cosine is .6, which no last bit makes a shift; and nothing to compare is none."""
    likeness = torch.tensor([0.6 - 1e-12, 0.6, 0.6 + 1e-12, 0.59, 1 - 1e-15, 1.0], dtype=torch.float64)
    assert [bool(Dstp(tau=0.6).shifted(each, torch.float64)) for each in likeness] == [False] * 3 + [True] + [False] * 2
    assert [bool(Dstp(tau=1).shifted(each, torch.float64)) for each in likeness] == [True] * 4 + [False] * 2
    for kept in ([0], [0, 1, 2, 3]):  # nothing visual is left, or one
        toy = Toy(6, text=len(kept) - (len(kept) > 1))
        gaze = Dstp(tau=1)(toy.cache)
        toy.cache.layers[0].show(torch.tensor(kept))
        gaze.asked(toy.row(torch.arange(6.0)), 0, torch.tensor(kept))
        for _ in range(3):
            assert toy.step(gaze, -torch.arange(6.0)) == ([kept], [])


# -- fixation -------------------------------------------------------------------------------------------------------


def test_the_example_of_fixation() -> None:
    focal = logs(0.30, 0.02, 0.01, 0.25, 0.20, 0.05, 0.05, 0.04, 0.04, 0.04)
    before = logs(0.3, 0.01, 0.2, 0.3, 0.01, 0.02, 0.02, 0.04, 0.05, 0.05)
    for jump, again in ((0.55, []), (0.57, [4])):
        toy = Toy(10, layers=3)
        gaze = Fixation(keep=0.3, focal="1", least=1, jump=jump)(toy.cache)
        for i in range(3):
            gaze.asked(toy.row(before, i), 0, None)
        seen, glances = toy.step(gaze, focal, focal, focal)
        assert seen == [[0, 2, 3], list(range(10)), [0, 3, 4]]
        assert [n for glance in glances for n in glance.table.index.tolist()] == again
        for glance in glances:
            assert (glance.token, glance.first, glance.last, glance.layers) == (0, 0, 0, (1, 2))
        seen, _ = toy.step(gaze, before, before, before)
        assert seen == [[0, 3, 4], list(range(10)), [0, 2, 3]]


@pytest.mark.parametrize("seed", range(4))
def test_fixation_against_its_rule_written_out(seed: int) -> None:
    """Six layers, a third of them found to be focal; full steps at the start and every seventh; text is always seen."""
    generator = torch.Generator().manual_seed(seed)
    columns, text, layers, warm = 22, 2, 6, 3
    toy = Toy(columns, layers=layers, text=text)
    method = Fixation(keep=0.2, count=2, warm=warm, refresh=7, least=20)
    gaze = method(toy.cache)
    rows = 3 * torch.randn(30, layers, columns, generator=generator, dtype=torch.float64)
    for i in range(layers):
        gaze.asked(toy.row(rows[0, i], i), 0, None)

    def best(row: Tensor) -> list[int]:
        return sorted(range(text, columns), key=lambda j: -float(row[j]))[:4]

    shares = []
    for i in range(layers):
        each = [rows[t, i].softmax(0)[text:] for t in range(1 + warm)]
        shares.append(sum(float(w.sort().values[-4:].sum() / w.sum()) for w in each))
    order = sorted(range(layers), key=lambda i: -shares[i])
    other = next(i for i in order[1:] if abs(i - order[0]) >= layers / 4)
    focal, chosen = sorted((order[0], other)), None
    for t in range(29):
        seen, _ = toy.step(gaze, *rows[t + 1])
        if t < warm:
            assert seen == [list(range(columns))] * layers
            chosen = best(rows[t + 1, focal[-1]])
            continue
        assert gaze.focal == tuple(focal)
        for i in range(layers):
            if i in focal:
                chosen = best(rows[t + 1, i])
            full = i in focal or t % 7 == 6
            assert seen[i] == (list(range(columns)) if full else sorted([0, 1, *chosen])), (t, i)


def test_focal_layers_keep_their_distance() -> None:
    """Of 12 layers, two of them at least 3 apart; equals go shallow first; a share of 5 % is not rounded up."""
    found = Fixation(count=2).found(dict.fromkeys(range(12), 0.5) | {6: 0.9, 7: 0.8, 8: 0.7}, 12, torch.float64)
    assert found == (0, 6)
    assert Fixation(count=2).found({3: 0.1, 4: 0.9, 5: 0.8}, 12, torch.float64) == (4,)
    assert Fixation(count=3).found({i: i / 10 for i in range(12)}, 12, torch.float64) == (7, 9, 11)
    for columns, keep in ((100, 5), (101, 6), (120, 6), (64, 4)):
        gaze = Fixation(focal="0")((toy := Toy(columns)).cache)
        gaze.asked(toy.row(torch.zeros(columns)), 0, None)
        assert len(gaze._look.of(gaze._of[0])[0]) == keep


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (dict(decode="again"), "there is no decode 'again'; choose one of dstp, fixation"),
        (dict(decode="dstp"), "looks again at what the question hides, which is nothing"),
        (dict(decode="dstp", pyramid=pv.Pyramid(stages=1)), "looks again at what the question hides"),
        (dict(decode="dstp:tau=2", pyramid=HALF), "tau is 2"),
        (dict(decode="dstp:steps=0", pyramid=HALF), "steps is 0"),
        (dict(decode="dstp:reserve=2"), "reserve=2: this stream has no archive"),
        (dict(decode="fixation:keep=0"), "keep is 0"),
        (dict(decode="fixation:focal=1+6"), "layer 6 of 6 does not attend to all"),
        (dict(decode="fixation:focal=first"), "focal is 'first'; expected numbers of layers"),
        (dict(decode=3), "decode is 3; expected one of dstp, fixation"),
    ],
)
def test_what_can_look_at_nothing_is_refused(how: dict[str, Any], told: str) -> None:
    stream = build("qwen2_5_vl").stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    stream.push(video(4), range(4))
    with pytest.raises(pv.ConfigError, match=told.replace("+", r"\+")):
        stream.ask(QUESTION, 2, **how)


def test_every_method_is_listed_with_its_facts() -> None:
    assert set(DECODES) == {"dstp", "fixation"}
    for name, method in DECODES.items():
        assert decode_named(name) is method and method.facts.paper and method.facts.ours
    assert decode_named("dstp:tau=0.6,joint=false") == Dstp(tau=0.6, joint=False)
    assert decode_named("fixation:focal=3+1").layers == (1, 3)
