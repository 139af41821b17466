"""Look at a camera for as long as you like, and tell when something begins and ends. Ctrl-C stops it.

python examples/camera.py /dev/video0 "Is there a person?"
python examples/camera.py rtsp://camera/stream "Is the door open?"

A video file in place of the camera is watched to its end.
"""

import argparse

import pdrop_video as pv

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("source", help="a camera, an address, or a file")
parser.add_argument("question", help="one that yes or no answers")
parser.add_argument("--model", help="folder or name on the hub; left out: the built-in model")
arguments = parser.parse_args()

lm = pv.load(arguments.model)
# frames in which nothing changes are not looked at, and memory stays within its limit, for hours and days
stream = lm.stream(pv.Pyramid(), pv.Memory(tokens=6144), gate="static")
watch = stream.watch_for(arguments.question, every=1.0, sure=0.7, clear=0.4)


def tell() -> None:
    """Print what began or ended since the last look."""
    for event in watch.poll():
        if event.end is None:
            print(f"{event.begin:.1f} s: it began", flush=True)
        else:
            print(f"{event.end:.1f} s: it ended; it had begun at {event.begin:.1f} s", flush=True)


with pv.open_video(arguments.source, fps=2, chunk=2) as video:
    try:
        for chunk in video:
            stream.push(chunk)
            tell()
    except KeyboardInterrupt:
        pass
watch.cancel()  # what still lasts ends here
tell()
status = stream.status
print(f"{status.frames} frames; {status.skipped} of them were left out by the gate")
