"""The process in which decord runs: opens one file, then decodes the frames that it is asked for.

Run as a script, never imported: it needs decord and nothing of this package. Each line on standard input is a JSON list
of frame numbers. Each answer on standard output is a line of JSON, followed by the frames' bytes where it announces a
shape.
"""

import json
import os
import sys

if __name__ == "__main__":
    # The script's own folder comes first on the path; its modules must not be taken for others of the same name.
    sys.path[:] = [folder for folder in sys.path if folder != os.path.dirname(os.path.abspath(__file__))]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever decord prints must not end up among the answers
    try:
        import decord

        reader = decord.VideoReader(sys.argv[1])
        answers.write(json.dumps({"frames": len(reader)}).encode() + b"\n")
        answers.flush()
        for line in sys.stdin:
            frames = reader.get_batch(json.loads(line)).asnumpy()
            answers.write(json.dumps({"shape": frames.shape}).encode() + b"\n")
            answers.write(memoryview(frames).cast("B"))
            answers.flush()
    except Exception as error:  # decord raises many kinds; the other side makes one of them
        answers.write(json.dumps({"error": str(error)[:500] or type(error).__name__}).encode() + b"\n")
        answers.flush()
