"""Cards that are none: tensors that say they are on another device, and compute on the CPU.

Whatever is given tensors of two devices fails, as on real cards, but for what torch allows there: single numbers of
the CPU, and the CPU's indices of a card's tensors. No NumPy array is made of a card's. So a machine without a card
finds what would not run on one, or on several. torch's device "lazy" is borrowed for it: builds for the CPU can copy to
no other.

python tests/pretended_card.py proofs prefill    # parts of the device check in small shapes, as JSON
python tests/pretended_card.py short             # three proofs
python tests/pretended_card.py methods           # every listed method once
python tests/pretended_card.py spread            # the same on a model whose layers are on two cards, against one
python tests/pretended_card.py spread:qwen2_vl   # and other families

Torch is changed for the whole process: never import this among other tests.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CARD = torch.device("lazy", 0)
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class OnCard(Tensor):
    """A tensor of a pretended card; `kept` is the CPU's."""

    kept: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, kept: Tensor, device: torch.device = CARD) -> OnCard:
        where = dict(strides=kept.stride(), storage_offset=kept.storage_offset(), dtype=kept.dtype, device=device)
        made = Tensor._make_wrapper_subclass(cls, kept.size(), **where)
        made.kept = kept
        return made

    def __repr__(self) -> str:
        return f"OnCard({self.kept})"

    def tolist(self) -> Any:
        return self.kept.tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> Tensor:
        """On the same card: torch asks its guard for the card in use, and this device's knows one alone."""
        return torch.tensor(data, dtype=dtype or self.dtype, device=self.device)

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert a card's tensor to numpy; copy it to host memory first.")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """Tensors may be made on the card."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


def kept(tensor: Tensor) -> Tensor:
    return tensor.kept if isinstance(tensor, OnCard) else tensor


def dispatched(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operator gives, on the device on which it would be."""
    name = func.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    cards = [tensor for tensor in tensors if isinstance(tensor, OnCard)]
    wanted = kwargs.get("device")
    place = (cards[0].device if cards else torch.device("cpu")) if wanted is None else torch.device(wanted)
    place = CARD if place == torch.device(CARD.type) else place
    to_card = place.type == CARD.type
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if name == "copy_":
        func(kept(args[0]), kept(args[1]), *args[2:])
        return args[0]
    if name == "_to_copy":
        made = func(kept(args[0]), **kwargs)
        return OnCard(made, place) if to_card else made
    indexing = name in INDEXING and isinstance(args[0], OnCard)
    cpus = {torch.device("cpu")} if any(each.ndim > 0 and not isinstance(each, OnCard) for each in tensors) else set()
    if len({card.device for card in cards} | (set() if indexing else cpus)) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} got {[str(each.device) for each in tensors]}"
        )
    given, named = tree_map_only(OnCard, kept, (args, kwargs))
    made = func(*given, **named)
    whose = {id(card.kept): card for card in cards} if func._schema.is_mutable else {}

    def handed(tensor: Tensor) -> Tensor:
        if id(tensor) in whose:  # it was written to
            return whose[id(tensor)]
        return OnCard(tensor, place) if to_card else tensor

    return tree_map_only(Tensor, handed, made)


def pretend() -> None:
    """Let there be a card, in all threads and until the process ends."""
    run = threading.Thread.run

    def running(thread: threading.Thread) -> None:
        torch._C._set_only_lift_cpu_tensors(True)  # data become a tensor of the CPU first
        with Pretending():
            run(thread)

    threading.Thread.run = running  # type: ignore[method-assign]
    torch._C._set_only_lift_cpu_tensors(True)
    torch.autocast = lambda *args, **kwargs: nullcontext()  # type: ignore[assignment,misc]  # it knows no such device
    torch.is_autocast_enabled = lambda *args: False  # type: ignore[assignment]


def ways(lm: Any) -> dict[str, dict[str, Any]]:
    """Every listed method, as arguments of a stream."""
    from any_reducer import BY_THEMSELVES
    from families import budget

    import pdrop_video as pv
    from pdrop_video.gate import GATES
    from pdrop_video.memory import EVICTORS, STORAGES
    from pdrop_video.pyramid import ALLOCATORS, INSIDES, SCORERS

    held, slots = budget(lm, 2.6), dict(scorer=SCORERS, allocator=ALLOCATORS, inside=INSIDES)
    ways: dict[str, dict[str, Any]] = {
        f"{slot} {name}": dict(pyramid=pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25), **{slot: name}))
        for slot, listed in slots.items()
        for name in listed
    }
    for slot, listed in dict(evictor=EVICTORS, storage=STORAGES).items():
        ways |= {f"{slot} {name}": dict(memory=pv.Memory(tokens=held, **{slot: name})) for name in listed}
    ways |= {f"gate {name}": dict(gate=name) for name in GATES}
    ways |= {f"reducer {name}": dict(reducer=name, standing_question="what is red ?") for name in BY_THEMSELVES}
    return {way: {"memory": pv.Memory(tokens=held), **how} for way, how in ways.items()}


def watched(lm: Any, how: dict[str, Any]) -> Any:
    """A stream that has seen three pushes."""
    from families import video

    stream = lm.stream(**how)
    for turn in range(3):
        stream.push(video(4, seed=turn), [4.0 * turn + i for i in range(4)])
    return stream


def methods() -> list[dict[str, Any]]:
    """Every listed method watches and answers once; what it raised, if it did."""
    from families import build

    lm, rows = build("qwen2_5_vl", dtype=torch.float32, device=CARD.type), list[dict[str, Any]]()
    for way, how in ways(lm).items():
        try:
            stream = watched(lm, how)
            rows.append({"way": way, "tokens": len(stream.ask("what is shown ?", 3).token_ids), "error": None})
        except Exception as error:
            rows.append({"way": way, "tokens": 0, "error": f"{type(error).__name__}: {error}"})
    return rows


def main(parts: list[str]) -> list[dict[str, Any]]:
    """Rows of what is named."""
    pretend()
    root = Path(__file__).parent.parent
    sys.path[:0] = [str(root), str(root / "tests")]
    rows: list[dict[str, Any]] = []
    with Pretending():
        from eval.gpu.machine import Machine
        from eval.gpu.parts import Setting
        from eval.gpu.proofs import Proofs

        assert torch.zeros(1, device=CARD).device == CARD
        try:
            torch.zeros(2, device=CARD) + torch.zeros(2)
        except RuntimeError as error:
            rows.append({"mixing": str(error)})
        for part in parts:
            setting = Setting(CARD.type, small=True, ends=float("inf"))
            if part == "short":
                proofs = Proofs(Machine.of(setting), "qwen2_5_vl", torch.float32)
                assert proofs.lm.device == CARD
                rows += [proofs.nothing_dropped([3, 1, 4, 1]), proofs.masked("3", 2.6, "pyramid"), *proofs.resumed()]
                continue
            if part == "methods":
                rows += methods()
                continue
            if part.startswith("spread"):
                from spread import families, listed

                rows += listed() if part == "spread" else families(part.removeprefix("spread:").split(","))
                continue
            for _, run in importlib.import_module(f"eval.gpu.{part}").cases(setting):
                rows += run()
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(sys.argv[1:])))
