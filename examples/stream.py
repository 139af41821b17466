"""Watch a video as a stream: ask while it runs, ask at the end, save the stream and go on later.

python examples/stream.py demos/clips/clip.mp4
"""

import argparse
import tempfile
from pathlib import Path

import pdrop_video as pv

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video")
parser.add_argument("--model", help="folder or name on the hub; left out: the built-in model")
parser.add_argument("--first", default="What colour is shown first in the video?")
parser.add_argument("--last", default="How many things are shown in the clip?")
arguments = parser.parse_args()

lm = pv.load(arguments.model)
# a half, a quarter and an eighth of the visual tokens reach the deeper layers; no layer remembers more than 6144
stream = lm.stream(pv.Pyramid(ratios=(0.5, 0.25, 0.125)), pv.Memory(tokens=6144))

with pv.open_video(arguments.video, fps=2, chunk=8) as video:
    for chunk in video:
        stream.push(chunk)
        answer = stream.ask(arguments.first)  # asking changes nothing: the stream can be pushed on
        print(f"after {answer.seconds[1]:.1f} s, {answer.visual_tokens} visual tokens: {answer.text}")

print("in the end: ", end="")
for piece in stream.ask(arguments.last, stream=True):  # token by token
    print(piece, end="", flush=True)
print()

with tempfile.TemporaryDirectory() as folder:
    saved = Path(folder) / "seen.pdrop"
    stream.save(saved)
    print(f"saved in {saved.stat().st_size / 1e6:.1f} MB; asked again: {lm.resume(saved).ask(arguments.last)}")
