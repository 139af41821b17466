"""The slider of the pictures without a browser: which moments it offers, and values that lie outside of its bounds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

import pdrop_video as pv
from demos.actions import Actions
from demos.moments import moments
from demos.page import build
from demos.sessions import Sessions
from demos.uploads import Uploads
from pdrop_video.guard import Guard

built_in = cache(pv.load)


@pytest.mark.parametrize(
    "times",
    [
        (0.0,), (0.0, 1.0, 2.0, 3.0), (0.5, 2.5, 4.5), (0.0, 0.5, 0.9, 2.0, 2.4), (1.0, 1.04, 7.0),
        tuple(number / 30 for number in range(100)),
    ],
)  # fmt: skip
def test_every_picture_can_be_chosen_and_those_evenly_spaced_have_a_place_of_their_own(
    times: tuple[float, ...],
) -> None:
    told = moments(times, times[0])
    assert "value" not in told, "it is not written back"
    places = round((told["maximum"] - told["minimum"]) / told["step"]) + 1
    offered = [told["minimum"] + number * told["step"] for number in range(places)]
    nearest = {min(times, key=lambda time, at=at: abs(time - at)) for at in offered}
    assert nearest == {*times}
    if times[1:] in ((1.0, 2.0, 3.0), (2.5, 4.5)):
        assert offered == pytest.approx(times)


def test_a_moment_is_moved_only_where_the_pictures_end_before_it() -> None:
    times = (0.0, 1.0, 2.0)
    assert "value" not in moments(times, 1.4)
    assert moments(times, 11.0)["value"] == 2.0
    assert moments((), 11.0)["interactive"] is False


def test_a_number_out_of_its_bounds_is_one_sentence_and_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a slider it is the nearest bound: those move while one drags it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    page = build(Actions(Sessions({"built-in": built_in}), Guard((tmp_path,)), Uploads(tmp_path)))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, run_history=False, ssr_mode=False)
    try:
        config = page.get_config_file()
        labels = {part["id"]: part["props"].get("label") for part in config["components"]}

        def act(label: str, event: str, *values: Any) -> dict[str, Any]:
            (number,) = (
                each["id"]
                for each in config["dependencies"]
                if each["backend_fn"]
                and [(labels.get(place), kind) for place, kind in each["targets"]] == [(label, event)]
            )
            sent = {"data": values, "fn_index": number, "session_hash": f"tab{number}{event}"}
            httpx.post(f"{address}gradio_api/queue/join", json=sent, trust_env=False).raise_for_status()
            query = f"session_hash={sent['session_hash']}"
            told = httpx.get(f"{address}gradio_api/queue/data?{query}", trust_env=False, timeout=60)
            lines = [json.loads(line.removeprefix("data: ")) for line in told.text.splitlines() if line]
            return next(dict(line) for line in lines if line["msg"] == "process_completed")

        for seconds in (-5, 0.5, 11):
            assert act("Moment, in seconds", "release", "", seconds)["success"]
        settings = ["built-in", 99, 8, "none", 6144, "pyramid", "", "", "none", "none"]
        refused = act("A file in the server's folder, or a video on the web", "submit", "", "a.mp4", *settings)
        assert not refused["success"] and "maximum value 60" in refused["output"]["error"]
    finally:
        page.close()
    assert "Traceback" not in capfd.readouterr().err
