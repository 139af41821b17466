"""An example of the page's endpoints: open a video on a running page, ask while it is watched, close.

    python -m demos.client demos/clips/clip.mp4 "What colour is shown first in the video?"

Knows gradio_client and no pdrop_video: it may run on a machine that has neither a model nor torch.
"""

from __future__ import annotations

import sys
import time

from gradio_client import Client, handle_file

ADDRESS = "http://127.0.0.1:7860/"


def ask(path: str, questions: list[str], address: str = ADDRESS) -> list[str]:
    """Let a page watch a video and answer questions about the whole of it.

    Parameters
    ----------
    path : str
        A video file on this machine.
    questions : list of str
    address : str
        Of the page.

    Returns
    -------
    list of str
        The answers.
    """
    client = Client(address, verbose=False)
    session = client.predict(handle_file(path), api_name="/open")
    try:
        while (now := client.predict(session, api_name="/status"))["state"] in ("queued", "opening", "watching"):
            print(f"{now['state']}: {now['frames']} frames, {now['cache_bytes'] / 1e6:.2f} MB", file=sys.stderr)
            time.sleep(0.5)
        if now["message"]:
            print(now["message"], file=sys.stderr)
        return [client.submit(session, question, api_name="/ask").result() for question in questions]
    finally:
        client.predict(session, api_name="/close")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("usage: python -m demos.client VIDEO QUESTION [QUESTION ...]")
    for answer in ask(sys.argv[1], sys.argv[2:]):
        print(answer)
