"""Ask a running server about a video with OpenAI's own client: pip install openai.

pdrop-video serve --port 8000
python examples/server_client.py clip.mp4 "What is shown first?" "And then?"
"""

import argparse
import base64
from pathlib import Path
from typing import Any

from openai import OpenAI

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video", type=Path)
parser.add_argument("questions", nargs="+")
parser.add_argument("--url", default="http://localhost:8000/v1")
parser.add_argument("--key", default="none", help="what --api-key of the server says, if it has one")
arguments = parser.parse_args()

client = OpenAI(base_url=arguments.url, api_key=arguments.key)
model = client.models.list().data[0].id
video = "data:video/mp4;base64," + base64.b64encode(arguments.video.read_bytes()).decode()
conversation: list[Any] = []
for question in arguments.questions:
    content: list[Any] = [{"type": "text", "text": question}]
    if not conversation:  # shown once; the server remembers what it watched
        content.insert(0, {"type": "video_url", "video_url": {"url": video, "fps": 2}})
    conversation.append({"role": "user", "content": content})
    print(f"Q: {question}\nA: ", end="")
    answer = ""
    for part in client.chat.completions.create(model=model, messages=conversation, stream=True, max_tokens=64):
        piece = part.choices[0].delta.content or "" if part.choices else ""
        print(piece, end="", flush=True)
        answer += piece
    print()
    conversation.append({"role": "assistant", "content": answer})
