"""Sources that are no files: the network, cameras, what is lost on the way, and what must not be opened."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from media import number_of, numbered, steady, write_video
from PIL import Image
from servers import send, serving, web
from test_video import read

from pdrop_video.errors import ConfigError, VideoError
from pdrop_video.video import Connection, VideoReader, open_video
from pdrop_video.video.address import Address

PATIENT = Connection(connect_timeout=5, read_timeout=5, retries=4, wait=0.05)
HASTY = Connection(connect_timeout=2, read_timeout=0.4, retries=4, wait=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def stream(folder: Path) -> bytes:
    """Two seconds of MPEG-TS, 30 frames a second, a keyframe every 10."""
    return write_video(folder / "stream.ts", steady(60), options={"g": "10", "bf": "0"}).read_bytes()


def watch(video: VideoReader, delay: float = 0.0) -> tuple[list[int], list[float]]:
    numbers: list[int] = []
    seconds: list[float] = []
    for chunk in video:
        numbers += [number_of(picture) for picture in chunk.frames.numpy()]
        seconds += chunk.seconds
        time.sleep(delay)
    return numbers, seconds


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "pdrop-video-ahead"]


# --- a download -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"fps": 5}, {"frames": 4}, {"fps": None, "start": 1}, {"at": [0.5, 1.5]}])
def test_a_file_on_a_web_server_gives_the_frames_of_the_file(folder: Path, settings: dict[str, object]) -> None:
    path = write_video(folder / "web.mp4", steady(60), options={"g": "10"})
    with web(folder) as server, open_video(f"{server}/web.mp4", **settings) as video:  # type: ignore[arg-type]
        assert video.info.duration == 2.0
        numbers, seconds = watch(video, delay=0.02)
        assert (video.warnings, video.dropped, video.reconnects) == ([], 0, 0)
    assert (numbers, seconds) == read(open_video(path, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["web.ts", "web.h264"])
def test_a_file_of_unknown_length_on_a_web_server_ends_all_the_same(folder: Path, name: str) -> None:
    write_video(folder / name, steady(60), options={"g": "10"})
    with web(folder) as server, open_video(f"{server}/{name}", None, connection=PATIENT) as video:
        assert video.info.duration is None
        numbers, _ = watch(video)
        assert (numbers, video.reconnects) == (list(range(60)), 0)
        assert not [line for line in video.warnings if "connection" in line]


def test_what_a_web_server_does_not_have_is_one_clear_error(folder: Path) -> None:
    with web(folder) as server, pytest.raises(VideoError, match=r"missing\.mp4 cannot be opened as a video \(.*404"):
        open_video(f"{server}/missing.mp4")


# --- a stream: the frames, the times, the gaps ------------------------------------------------------------------


def test_a_stream_is_read_to_its_end_and_the_end_is_told(stream: bytes) -> None:
    with serving(send(stream)) as server, open_video(server.address, None, connection=PATIENT, policy="block") as video:
        assert video.info.duration is None
        numbers, seconds = watch(video)
        warnings = video.warnings
    assert numbers == list(range(60))
    assert seconds == pytest.approx([number / 30 for number in numbers])
    (line,) = warnings
    assert line.startswith("the connection was lost for good: 4 attempts to make it again failed (tcp://127.0.0.1:")
    assert "refused" in line


@pytest.mark.parametrize("end", ["close", "stall"])
def test_a_source_that_stalls_or_dies_is_connected_to_again(stream: bytes, end: str) -> None:
    torn = stream[: len(stream) // 2 + 77]  # within a packet of 188 bytes, within a frame
    with (
        serving(send(torn, end, seconds=1.0), send(stream)) as server,
        open_video(server.address, None, connection=HASTY, policy="block") as video,
    ):
        numbers, seconds = watch(video)
        assert video.reconnects == 1
        assert "the connection was lost and made again 1 time" in video.warnings
    assert server.connections == 2
    first = numbers.index(0, 1)
    assert 20 < first < 40
    assert numbers[first:] == list(range(60))
    assert numbers[: first - 1] == list(range(first - 1)), "the frame that was torn may be missing or patched up"
    assert all(earlier < later for earlier, later in pairwise(seconds))
    assert np.diff(seconds[first:]) == pytest.approx(1 / 30)
    assert (seconds[first] - seconds[first - 1] >= 0.4) == (end == "stall"), "a gap takes as long as it took"


def test_a_reader_tells_a_silent_source_from_a_lost_one(stream: bytes) -> None:
    waiting = Connection(connect_timeout=5, read_timeout=1, retries=2, wait=0.5)
    torn = stream[: len(stream) // 2]

    def until(true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not true():
            assert time.monotonic() < deadline, (video.silence, video.connected, video.reconnects)
            time.sleep(0.01)

    with (
        serving(send(torn, "stall"), send(stream, "stall")) as server,
        open_video(server.address, None, connection=waiting) as video,
    ):
        until(lambda: video.silence > 0.3)
        assert video.connected
        until(lambda: not video.connected)
        until(lambda: video.connected)
        assert video.reconnects == 1
        until(lambda: video.silence < 0.3)
    with serving(send(stream)) as server, open_video(server.address, None, connection=Connection(retries=0)) as video:
        list(video)
        assert (video.silence, video.connected) == (0, False)


def test_waits_between_attempts_double_up_to_a_limit() -> None:
    assert Connection(wait=0.5, retries=6, longest_wait=6).waits() == [0.5, 1, 2, 4, 6, 6]
    assert Connection(retries=0).waits() == []


def test_a_source_that_is_away_for_a_while_comes_back(stream: bytes) -> None:
    waiting = Connection(connect_timeout=2, read_timeout=2, retries=3, wait=0.2)
    with (
        serving(send(stream), send(stream), send(stream), pause=0.3) as server,
        open_video(server.address, 10, connection=waiting, policy="block") as video,
    ):
        numbers, seconds = watch(video)
        assert video.reconnects == 2
    assert sum(later < earlier for earlier, later in pairwise(numbers)) == 2
    ticks = [math.floor((second + 0.001) * 10) for second in seconds]
    assert all(earlier < later for earlier, later in pairwise(ticks)), "one frame a tick, over gaps too"


def test_a_source_that_refuses_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        VideoError, match=rf"tcp://127\.0\.0\.1:{port} cannot be opened as a video \(Connection refused\)"
    ):
        open_video(f"tcp://127.0.0.1:{port}", connection=PATIENT)


def test_a_source_that_says_nothing_is_given_up_in_time() -> None:
    with serving(send(b"", "stall")) as server:
        begun = time.monotonic()
        with pytest.raises(VideoError, match=r"no answer within 0\.5 s"):
            open_video(server.address, connection=Connection(connect_timeout=0.5))
        assert time.monotonic() - begun < 5


def test_noise_is_no_video() -> None:
    noise = np.random.default_rng(0).integers(0, 255, 200_000, np.uint8).tobytes()
    with serving(send(noise)) as server, pytest.raises(VideoError, match=r"cannot be opened as a video|no moving pict"):
        open_video(server.address, connection=PATIENT)


def test_the_latest_frames_are_kept_when_the_reader_is_slow(stream: bytes) -> None:
    with (
        serving(send(stream, seconds=1.0)) as server,
        open_video(server.address, None, 4, connection=Connection(retries=0), ahead=1) as video,
    ):
        first = next(video)
        time.sleep(1.5)  # the stream is over by now
        rest = list(video)
        dropped, warnings = video.dropped, video.warnings
    numbers = [number_of(picture) for chunk in rest for picture in chunk.frames.numpy()]
    assert numbers == [56, 57, 58, 59], "one chunk's worth, the newest"
    assert dropped == 60 - len(first) - 4
    assert f"dropped because they came faster than they were read: {dropped} frames" in warnings


def test_end_ends_a_stream(stream: bytes) -> None:
    with (
        serving(send(stream, "stall")) as server,
        open_video(server.address, 10, end=1, connection=PATIENT, policy="block") as video,
    ):
        _, seconds = watch(video)
        assert video.warnings == []
    assert seconds[-1] == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("moment", ["waiting", "idle", "connecting"])
def test_closing_from_another_thread_is_prompt(stream: bytes, moment: str) -> None:
    slow = Connection(connect_timeout=3, read_timeout=3, retries=50, wait=30 if moment == "connecting" else 0.05)
    with serving(send(stream, "close" if moment == "connecting" else "stall")) as server:
        video = open_video(server.address, None, 8, connection=slow, policy="block", ahead=100)
        for _ in range(6):
            next(video)
        caught: list[BaseException] = []

        def consume() -> None:
            try:
                list(video)
            except VideoError as error:
                caught.append(error)

        consumer = threading.Thread(target=consume)
        if moment != "idle":
            consumer.start()
            time.sleep(0.3)
        begun = time.monotonic()
        video.close()
        if moment != "idle":
            consumer.join(2)
            assert not consumer.is_alive()
            assert "is closed" in str(caught[0])
        assert time.monotonic() - begun < 2, "not the 3 s of a read or the 30 s of a wait"
        with pytest.raises(VideoError, match="is closed"):
            next(video)
    deadline = time.monotonic() + 8
    while threads() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not threads()


def test_frames_cannot_be_chosen_from_what_has_no_end(stream: bytes) -> None:
    for settings in ({"frames": 4}, {"at": [1.0]}):
        with serving(send(stream)) as server, pytest.raises(ConfigError, match="is live"):
            open_video(server.address, connection=PATIENT, **settings)  # type: ignore[arg-type]


# --- RTSP, from a server of its own ------------------------------------------------------------------------------


def test_an_rtsp_server_that_goes_away_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rtsp = pytest.importorskip("rtsp.source")
    real = rtsp._RTSPServer
    monkeypatch.setattr(rtsp, "_RTSPServer", lambda host, port, describe: real("127.0.0.1", port, describe))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pictures = [Image.fromarray(numbered(number)) for number in range(16)]
    address = f"rtsp://127.0.0.1:{port}/live"

    def serve() -> object:
        source = rtsp.Source(address, fps=20, size=(96, 64))
        feeding = threading.Event()

        def feed() -> None:
            while not feeding.wait(0.05):
                source.put(pictures[int(time.monotonic() * 20) % 16])

        threading.Thread(target=feed, daemon=True).start()
        assert source.wait_ready()
        assert source.wait_encoding_started()
        return source, feeding

    source, feeding = serve()
    patient = Connection(connect_timeout=5, read_timeout=2, retries=20, wait=0.1, longest_wait=0.5)
    with open_video(address, None, 4, connection=patient) as video:
        assert (video.info.width, video.info.height, video.info.codec) == (96, 64, "h264")
        seconds = list(next(video).seconds)
        feeding.set()
        source.close()
        source, feeding = serve()
        while video.reconnects == 0 or seconds[-1] < 1:
            seconds += next(video).seconds
        seconds += next(video).seconds
    feeding.set()
    source.close()
    assert all(earlier < later for earlier, later in pairwise(seconds))
    assert video.reconnects >= 1


# --- devices -----------------------------------------------------------------------------------------------------


def test_a_device_is_live_and_goes_by_its_format() -> None:
    name = "testsrc2=size=64x48:rate=30"
    with open_video(name, None, 4, format="lavfi", end=0.5, policy="block") as video:
        assert video.info.duration is None
        chunks = list(video)
    assert sum(len(chunk) for chunk in chunks) == 15
    assert chunks[0].frames.shape == (4, 48, 64, 3)


def test_a_camera_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(VideoError, match="there is no file /dev/video99"):
        open_video("/dev/video99")
    with pytest.raises(VideoError, match=r"99 cannot be opened as a video.*Expected the device of a camera"):
        open_video("/dev/video99", format="v4l2")
    assert Address.of("/dev/null").kind == "device"
    assert Address.of("/dev/null").format == "v4l2"


# --- what must not be opened ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["file://{}", "concat:{}", "subfile,,start,0,end,0,,:{}", "FILE://{}", "data://x", "ftp://h/x"]
)
def test_ffmpegs_other_protocols_are_never_understood(folder: Path, source: str) -> None:
    path = write_video(folder / "plain.mp4", steady(10))
    with pytest.raises(VideoError, match=r"there is no file|is an address of a kind that is not opened"):
        open_video(source.format(path))


@pytest.mark.parametrize(
    "part", ["{folder}/part.ts", "file://{folder}/part.ts", "concat:{folder}/part.ts", "{server}/part.ts"]
)
@pytest.mark.parametrize("by", ["file", "web", "tcp"])
def test_a_hostile_playlist_opens_nothing_but_its_own_kind(folder: Path, by: str, part: str) -> None:
    write_video(folder / "part.ts", steady(30))
    with web(folder) as server:
        part = part.format(folder=folder, server=server)
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{part}\n#EXT-X-ENDLIST\n"
        (folder / "list.m3u8").write_text(text)
        if by == "web" and part.startswith("http"):
            with open_video(f"{server}/list.m3u8", fps=None) as video:
                assert watch(video)[0] == list(range(30))
            return
        with serving(send(text.encode())) as tcp:
            source = {"file": str(folder / "list.m3u8"), "web": f"{server}/list.m3u8", "tcp": tcp.address}[by]
            with pytest.raises(VideoError):
                open_video(source, connection=PATIENT)


def test_a_playlist_that_is_trusted_is_read(folder: Path) -> None:
    write_video(folder / "own.ts", steady(30))
    path = folder / "own.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nown.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match=r"is a list of other files to open \(hls\)"):
        open_video(path)
    assert read(open_video(path, None, protocols="file"))[0] == list(range(30))


def test_options_cannot_widen_the_list_of_protocols(folder: Path) -> None:
    write_video(folder / "part.ts", steady(30))
    (folder / "wide.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{folder}/part.ts\n#EXT-X-ENDLIST\n"
    )
    wide = Connection(options={"protocol_whitelist": "file,http,tcp"})
    with web(folder) as server, pytest.raises(VideoError):
        open_video(f"{server}/wide.m3u8", connection=wide)
    with web(folder) as server:
        trusted = open_video(f"{server}/wide.m3u8", protocols="file,http,tcp")
        assert len(read(trusted)[0]) == 2


def test_a_password_is_kept_out_of_messages() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(VideoError) as caught:
        open_video(f"rtsp://anna:s3cret@127.0.0.1:{port}/live", connection=PATIENT)
    assert "s3cret" not in str(caught.value)
    assert f"rtsp://anna:***@127.0.0.1:{port}/live" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"connect_timeout": 0}, {"read_timeout": -1}, {"wait": float("nan")}, {"retries": -1}, {"retries": 1.5}],
)
def test_a_connection_out_of_range_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is "):
        Connection(**settings)  # type: ignore[arg-type]
