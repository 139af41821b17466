"""Fine-tuning as users do it: LoRA by peft, the HF `Trainer`, padded batches, accumulation, gradient checkpointing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from conversations import Inputs, batch, conversation, visual_rows
from families import FAMILIES, build, cases, video
from reference import masked_forward
from test_one_shot import PYRAMID, masks_of
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

import pdrop_video as pv
from pdrop_video import pyramid_drop

RATE, STEPS, ANSWER = 0.05, 3, "red blue seven"
WAYS: dict[str, dict[str, Any]] = {
    "one padded batch": dict(per_device_train_batch_size=2),
    "two batches, accumulated and checkpointed": dict(
        per_device_train_batch_size=1, gradient_accumulation_steps=2, gradient_checkpointing=True
    ),
}


def lora(lm: pv.VideoLM) -> Any:
    """The model with random adapters on the queries, keys and values of its decoder, which rank as well."""
    (prefix,) = (name for name, module in lm.model.named_modules() if module is lm.model.get_decoder())
    config = peft.LoraConfig(
        r=2, target_modules=rf"{prefix}\..*\.(q|k|v)_proj", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    torch.manual_seed(1)
    return peft.get_peft_model(lm.model, config)


def examples(lm: pv.VideoLM) -> list[Inputs]:
    """Two conversations of different lengths with answers; the second has two turns, each answered."""
    answer = len(lm.adapter.ids(ANSWER))
    made = []
    for parts, answers in (
        (("user", video(4), "what is shown ? assistant", ANSWER), 1),
        ((video(4, seed=1, height=80, width=40), "first ?", ANSWER, "user how many ? assistant", ANSWER), 2),
    ):
        inputs = conversation(lm, *parts)
        ids = inputs["input_ids"]
        inputs["labels"] = torch.full_like(ids, -100)
        inputs["labels"][:, -answer:] = ids[:, -answer:]
        if answers == 2:
            second = -answer - len(lm.adapter.ids(parts[-2]))
            inputs["labels"][:, second - 1 : second] = ids[:, second - 1 : second]
            inputs["labels"][:, -1] = -100  # as many labels as the other, so that all ways to average agree
        made.append(inputs)
    return made


def collate(lm: pv.VideoLM, samples: list[Inputs]) -> Inputs:
    made = batch(lm, [{name: v for name, v in sample.items() if name != "labels"} for sample in samples], side="right")
    longest = made["input_ids"].shape[1]
    rows = [torch.nn.functional.pad(s["labels"], (0, longest - s["labels"].shape[1]), value=-100) for s in samples]
    return made | {"labels": torch.cat(rows)}


def adapters(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("family", "way"), cases(FAMILIES, WAYS, fast=lambda f, w: f % 2 == w))
def test_lora_by_the_trainer_equals_masks(family: str, way: str, tmp_path: Path) -> None:
    """Real steps of the HF Trainer inside `pyramid_drop` end with the adapters that plain descent under masks gives."""
    lm = build(family)
    model = lora(lm)
    start = copy.deepcopy(model.state_dict())
    untouched = adapters(model)
    arguments = tf.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        **WAYS[way],
    )
    data: Any = examples(lm)
    trainer = tf.Trainer(model, arguments, data_collator=lambda samples: collate(lm, samples), train_dataset=data)
    with pyramid_drop(model, PYRAMID) as trace:
        trainer.train()
    assert len(trace.kept) == 2 and "forward" not in vars(lm.model.get_decoder())
    got, losses = adapters(model), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    model.load_state_dict(start)
    model.gradient_checkpointing_disable()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    for step in range(STEPS):
        total = torch.zeros(())
        for sample in data:
            with pyramid_drop(model, PYRAMID) as trace, torch.no_grad():
                model(**sample)
            visual = visual_rows(lm, sample["input_ids"])[0]
            assert [len(kept[0]) for kept in trace.kept] == [int(visual.sum()) // 2, int(visual.sum()) // 4]
            inputs = {name: values for name, values in sample.items() if name != "labels"}
            logits = masked_forward.__wrapped__(lm, inputs, masks_of(trace, visual, lm.num_layers))
            total = total + torch.nn.functional.cross_entropy(logits[:-1].float(), sample["labels"][0, 1:]) / 2
        assert abs(float(total.detach()) - losses[step]) < 1e-4  # the log is rounded
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    want = adapters(model)
    assert got.keys() == want.keys() == untouched.keys()
    for name, parameter in want.items():
        torch.testing.assert_close(got[name], parameter, atol=1e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert max((want[name] - untouched[name]).abs().max() for name in want) > 1e-3


@pytest.mark.parametrize("wrapper", ["base", "peft", "tuner"])
def test_whichever_layer_of_peft_is_given_or_called(wrapper: str) -> None:
    """A PeftModel calls the base model's forward, not its hooks; the block may be opened on either."""
    lm = build("llava_onevision")
    model = lora(lm)
    inputs = examples(lm)[0]
    want = None
    for given in ({"base": lm.model, "peft": model, "tuner": model.base_model}[wrapper], model):
        for called in (lm.model, model):
            with pyramid_drop(given, PYRAMID) as trace:
                loss = called(**inputs).loss
                tokens = called.generate(
                    **{n: v for n, v in inputs.items() if n != "labels"}, max_new_tokens=3, do_sample=False
                )
            assert len(trace.kept) == 2
            want = want or (loss, tokens)
            assert torch.equal(loss, want[0]) and torch.equal(tokens, want[1])
    with pytest.raises(pv.ConfigError, match="already"), pyramid_drop(model), pyramid_drop(lm.model):
        pass


def test_distributed_training_gives_the_same_gradients() -> None:
    """One process of DistributedDataParallel; DataParallel, which would leave the drops out, is refused."""
    lm = build("qwen2_5_vl")
    inputs = examples(lm)[0]
    with pyramid_drop(lm.model, PYRAMID):
        lm.model(**inputs).loss.backward()
    want = {name: p.grad.clone() for name, p in lm.model.named_parameters() if p.grad is not None}
    lm.model.zero_grad()
    with pytest.raises(pv.ModelError, match="torchrun"), pyramid_drop(torch.nn.DataParallel(lm.model)):
        pass
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(lm.model)
        with pyramid_drop(parallel, PYRAMID) as trace:
            parallel(**inputs).loss.backward()
    finally:
        torch.distributed.destroy_process_group()
    assert len(trace.kept) == 2
    for name, gradient in want.items():
        torch.testing.assert_close(lm.model.get_parameter(name).grad, gradient, atol=1e-9, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")
def test_sharded_training_gives_the_same_gradients() -> None:
    """FSDP2, whose layers have their weights only while they run, but rank before; the older FSDP is refused."""
    lm = build("qwen2_5_vl")
    inputs = examples(lm)[0]
    with pyramid_drop(lm.model, PYRAMID) as trace:
        lm.model(**inputs).loss.backward()
    want = {name: p.grad.clone() for name, p in lm.model.named_parameters() if p.grad is not None}
    kept = [of[0] for of in trace.kept]
    lm.model.zero_grad()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        older = FullyShardedDataParallel(torch.nn.Linear(2, 2), device_id=torch.device("cpu"))
        with pytest.raises(pv.ModelError, match="fully_shard"), pyramid_drop(torch.nn.ModuleList([older, lm.model])):
            pass
        for layer in lm.model.get_decoder().layers:
            fully_shard(layer)
        fully_shard(lm.model)
        with pyramid_drop(lm.model, PYRAMID) as trace:
            lm.model(**inputs).loss.backward()
        got = {name: p.grad.full_tensor() for name, p in lm.model.named_parameters() if p.grad is not None}
    finally:
        torch.distributed.destroy_process_group()
    assert all(torch.equal(of[0], before) for of, before in zip(trace.kept, kept, strict=True))
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-9, rtol=1e-9)
