"""Drop visual tokens inside plain transformers: your own code around it stays as it is.

python examples/one_shot.py clip.mp4 "What happens?" --model llava-hf/llava-interleave-qwen-0.5b-hf
"""

import argparse

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import pdrop_video as pv

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video")
parser.add_argument("question")
parser.add_argument("--model", required=True, help="folder or name on the hub")
parser.add_argument("--frames", type=int, default=8)
arguments = parser.parse_args()

processor = AutoProcessor.from_pretrained(arguments.model)
model = AutoModelForImageTextToText.from_pretrained(arguments.model).eval()

with pv.open_video(arguments.video, frames=arguments.frames) as video:  # or frames of your own
    frames = [Image.fromarray(frame.numpy()) for chunk in video for frame in chunk.frames]
content = [{"type": "image", "image": frame} for frame in frames] + [{"type": "text", "text": arguments.question}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)

with torch.no_grad(), pv.pyramid_drop(model, pv.Pyramid(ratios=(0.5, 0.25, 0.125))) as trace:
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)

print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
print("visual tokens that are left, stage by stage:", [len(kept[0]) for kept in trace.kept])
