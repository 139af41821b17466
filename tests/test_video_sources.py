"""Sources as they are met: photos with EXIF data, recordings begun anywhere, ends that nobody announced, forks."""

from __future__ import annotations

import datetime
import io
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media import number_of, numbered, steady, write_video
from PIL import Image
from test_video import read

import pdrop_video as pv
from pdrop_video.errors import ConfigError, FrameError, PDropError, StreamError, VideoError
from pdrop_video.video import Connection, FrameChunk, VideoReader, frame_times, open_video
from pdrop_video.video.clock import Clock

HASTY = Connection(connect_timeout=5, read_timeout=5, retries=2, wait=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


# --- photos, and cameras that write EXIF data --------------------------------------------------------------------

# What each EXIF orientation makes of a stored picture [[A, B], [C, D]], from the standard's table.
SHOWN = {1: "AB/CD", 2: "BA/DC", 3: "DC/BA", 4: "CD/AB", 5: "AC/BD", 6: "CA/DB", 7: "DB/CA", 8: "BD/AC"}
GREY = {"A": 20, "B": 90, "C": 160, "D": 230}


def photo(orientation: int, kind: str = "JPEG") -> bytes:
    """A picture of four grey quarters, 96 wide and 64 high, with an EXIF orientation."""
    stored = np.kron(np.array([[20, 90], [160, 230]], np.uint8), np.ones((32, 48), np.uint8))
    exif, out = Image.Exif(), io.BytesIO()
    if orientation:
        exif[0x0112] = orientation
    else:
        exif[0x010F] = "a maker"
    Image.fromarray(np.repeat(stored[..., None], 3, 2)).save(out, kind, exif=exif)
    return out.getvalue()


def corners(picture: torch.Tensor) -> list[int]:
    height, width = picture.shape[:2]
    return [picture[y, x, 0].item() for y in (10, height - 10) for x in (10, width - 10)]


def greys(orientation: int) -> list[int]:
    return [GREY[letter] for letter in SHOWN[orientation].replace("/", "")]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_a_photo_stands_as_its_exif_data_say(folder: Path, orientation: int, kind: str) -> None:
    path = folder / f"photo{orientation}.{kind.lower()}"
    path.write_bytes(photo(orientation, kind))
    with open_video(path) as video:
        (chunk,) = video
        assert video.warnings == []
    assert chunk.frames.shape[1:3] == ((64, 96) if orientation < 5 else (96, 64))
    assert (video.info.height, video.info.width) == tuple(chunk.frames.shape[1:3])
    assert corners(chunk.frames[0]) == pytest.approx(greys(orientation), abs=4)


def test_each_picture_of_a_camera_stands_as_its_own_exif_data_say(folder: Path) -> None:
    path = folder / "dashcam.mjpeg"
    path.write_bytes(b"".join(map(photo, (6, 6, 8, 0, 3, 5))))
    with open_video(path, fps=None) as video:
        (chunk,) = video
        assert video.warnings == ["the resolution changes on the way; frames are scaled to 64 x 96"]
    assert chunk.frames.shape == (6, 96, 64, 3)
    for picture, orientation in zip(chunk.frames, (6, 6, 8, 1, 3, 5), strict=True):
        assert corners(picture) == pytest.approx(greys(orientation), abs=4)


@pytest.mark.parametrize("orientation", SHOWN)
def test_a_pushed_jpeg_stands_as_its_exif_data_say(orientation: int) -> None:
    api = pytest.importorskip("demos.api")
    chunk = api._chunk([api.base64.b64encode(photo(orientation)).decode()], [0.0])
    assert chunk.frames.shape[1:3] == ((64, 96) if orientation < 5 else (96, 64))
    assert corners(chunk.frames[0]) == pytest.approx(greys(orientation), abs=4)


# --- recordings that start between keyframes ---------------------------------------------------------------------


def beheaded(source: Path, target: Path, packets: int) -> Path:
    """Copy a video without its first packets."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as rest:
        stream = whole.streams.video[0]
        copy = rest.add_stream_from_template(stream)
        for packet in itertools.islice((packet for packet in whole.demux(stream) if packet.size), packets, None):
            packet.stream = copy
            rest.mux(packet)
    return target


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("h264.ts", "libx264", {"g": "15", "bf": "2", "sc_threshold": "0"}),
        ("open.ts", "libx264", {"g": "15", "bf": "2", "sc_threshold": "0", "x264-params": "open-gop=1"}),
        ("h264.mkv", "libx264", {"g": "15", "bf": "2", "sc_threshold": "0"}),
        ("refreshed.ts", "libx264", {"g": "15", "x264-params": "intra-refresh=1"}),
        ("hevc.mkv", "libx265", {"x265-params": "keyint=15:scenecut=0:open-gop=1:log-level=none"}),
        ("mpeg4.ts", "mpeg4", {"g": "15", "sc_threshold": "1000000000"}),
        ("mpeg2.ts", "mpeg2video", {"g": "15", "bf": "2", "sc_threshold": "1000000000"}),
        ("vp8.mkv", "libvpx", {"g": "15"}),
    ],
)
def test_what_comes_before_the_first_keyframe_is_no_frame(
    folder: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    whole = write_video(
        folder / f"whole-{name}", steady(60, 10), codec=codec, options=options, time_base=Fraction(1, 10), rate=10
    )
    path = beheaded(whole, folder / name, 7)
    with open_video(path, fps=None) as video:
        numbers, seconds = read(video)
        (line,) = video.warnings
        count = int(line.split(": ")[1].split()[0])
        assert line.startswith("stored before the first keyframe, so that nothing can be shown of them: ")
        assert video.lost == count
    assert numbers == list(range(60 - len(numbers), 60)), "pictures are whole, and those that follow are all there"
    assert len(numbers) == 45 or name == "refreshed.ts"
    assert frame_times(path) == tuple(seconds)
    picked, times = read(open_video(path, frames=5))
    exact = [index * (len(numbers) - 1) // 4 for index in range(5)]
    assert picked == [numbers[index] for index in exact]
    assert times == [seconds[index] for index in exact]


# --- frames without a time ---------------------------------------------------------------------------------------


def unstamped(source: Path, target: Path, places: list[int]) -> Path:
    """Copy a transport stream without B-frames, with no time on the packets at some places."""
    data, at = bytearray(source.read_bytes()), -1
    for place in range(max(places) + 1):
        at = data.index(b"\x00\x00\x01\xe0", at + 1)
        if place in places:
            data[at + 7] &= 0x3F  # the flags of a packet's header that say which times follow
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("places", [[0], [0, 1], [0, 1, 2, 7], [3, 4], [5, 9, 10]])
def test_frames_without_a_time_push_out_none_that_has_one(folder: Path, places: list[int]) -> None:
    path = folder / "timed.ts"
    if not path.exists():
        write_video(path, steady(30, 10), options={"g": "10", "bf": "0"}, rate=10)
    with open_video(unstamped(path, folder / "some.ts", places), fps=None) as video:
        numbers, seconds = read(video)
        assert f"without a presentation time: {len(places)} frame" in "\n".join(video.warnings)
    leading = next(number for number in range(30) if number not in places)
    assert numbers == list(range(leading, 30)), "only what precedes the first time has none to go by"
    assert seconds == pytest.approx([(number - leading) / 10 for number in numbers])


def test_frames_without_a_time_get_what_room_there_is() -> None:
    tenth = Fraction(1, 10)
    clock = Clock(Fraction(0), tenth)
    assert clock.before(Fraction(3, 10), [None] * 5) == [None, None, 0, tenth, 2 * tenth], "counted back from the next"
    assert clock.read(Fraction(3, 10)) == Fraction(3, 10)
    assert clock.before(Fraction(4, 10), [None]) == [Fraction(7, 20)], "no step fits: the middle"
    assert clock.read(Fraction(4, 10)) == Fraction(4, 10)
    assert clock.before(Fraction(1), [Fraction(6, 10), None]) == [Fraction(6, 10), Fraction(7, 10)]
    assert (clock.untimed, clock.backward) == (8, 2)
    lost = Clock(None, tenth)
    assert lost.before(Fraction(5), [None, None]) == [0, tenth], "without a start of its own, it is the first frame's"
    assert lost.read(Fraction(5)) == 2 * tenth


def test_a_unit_of_time_is_no_rate(folder: Path) -> None:
    path = write_video(folder / "rate.ts", steady(30, 10), options={"g": "10", "bf": "0"}, rate=10)
    _, seconds = read(open_video(unstamped(path, folder / "none.ts", list(range(30))), fps=None))
    assert seconds == pytest.approx([number / 25 for number in range(30)])


# --- ends that nobody announced ----------------------------------------------------------------------------------


@contextmanager
def unmeasured(answers: Callable[[int], bytes], way: str) -> Iterator[str]:
    """Serve, by HTTP and without a length, what `answers` gives for the number of the request."""
    count = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            data = answers(next(count))
            self.send_response(200)
            if way == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
                data = b"%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n"
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/clip"
    finally:
        server.shutdown()
        server.server_close()


def watch(video: VideoReader, most: int = 200) -> tuple[list[int], list[float]]:
    """Numbers and seconds, of a bounded number of frames."""
    pairs = [
        (number_of(picture), second)
        for chunk in itertools.islice(video, most)
        for picture, second in zip(chunk.frames.numpy(), chunk.seconds, strict=True)
    ]
    return [number for number, _ in pairs], [second for _, second in pairs]


@pytest.mark.parametrize("way", ["chunked", "closed"])
@pytest.mark.parametrize("name", ["clip.ts", "clip.h264", "clip.webm", "clip.mp4", "clip.mjpeg", "one.jpg", "grey.ts"])
def test_a_download_without_a_length_ends_where_it_ends(folder: Path, name: str, way: str) -> None:
    path = folder / name
    if name == "one.jpg":
        Image.fromarray(numbered(5)).save(path)
    elif not path.exists():
        codec = {"webm": "libvpx", "mjpeg": "mjpeg"}.get(name.split(".")[1], "libx264")
        pictures = [numbered(3)] * 40 if name == "grey.ts" else None
        write_video(
            path,
            steady(40),
            codec=codec,
            pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
            options={} if codec == "mjpeg" else {"g": "10"},
            pictures=pictures,
            time_base=Fraction(1, 30),
        )
    expected = read(open_video(path, fps=None))
    data = path.read_bytes()
    with (
        unmeasured(lambda _: data, way) as address,
        open_video(address, fps=None, chunk=1, policy="block", connection=HASTY) as video,
    ):
        assert watch(video) == expected
        assert (video.reconnects, video.lost, video.connected) == (0, 0, True)
        assert not [line for line in video.warnings if "presentation time" not in line]


def test_a_download_without_a_length_that_broke_off_goes_on(folder: Path) -> None:
    data = write_video(folder / "long.ts", steady(60), options={"g": "10", "bf": "0"}).read_bytes()
    with (
        unmeasured(lambda number: data[: len(data) // 2] if number == 0 else data, "closed") as address,
        open_video(address, fps=None, chunk=1, policy="block", connection=HASTY) as video,
    ):
        numbers, seconds = watch(video)
        assert video.reconnects == 1
    assert numbers[-25:] == list(range(35, 60))
    assert numbers == sorted(set(numbers)), "nothing is seen twice"
    assert seconds == pytest.approx([number / 30 for number in numbers]), "and every time is the recording's own"


def test_a_camera_that_was_lost_is_watched_again(folder: Path) -> None:
    """The same kind of answer, from a source that goes on meanwhile: other pictures, then the same with other times."""
    pictures = [numbered(number) for number in range(100, 160)]
    one = write_video(folder / "now.ts", steady(30), options={"g": "10", "bf": "0"})
    two = write_video(folder / "then.ts", steady(30), pictures=pictures, options={"g": "10", "bf": "0"})
    three = write_video(folder / "later.ts", steady(30), start=5, options={"g": "10", "bf": "0"})
    answers = [path.read_bytes() for path in (one, two, three, three)]
    with (
        unmeasured(lambda number: answers[min(number, 3)], "chunked") as address,
        open_video(address, fps=None, chunk=1, policy="block", connection=HASTY) as video,
    ):
        numbers, seconds = watch(video, 100)
        assert video.reconnects >= 3
    assert numbers == [*range(30), *range(100, 130), *range(30), *range(10)]
    assert all(earlier < later for earlier, later in itertools.pairwise(seconds))


def test_a_numbered_series_of_pictures_ends(folder: Path) -> None:
    for number in range(5):
        Image.fromarray(numbered(number + 1)).save(folder / f"shot_{number:03d}.png")
    with open_video(folder / "shot_%03d.png", fps=None, format="image2") as video:
        assert read(video)[0] == [1, 2, 3, 4, 5]
        assert video.reconnects == 0
    picks = open_video(str(folder / "shot_%03d.png"), frames=3, format="image2")
    assert read(picks)[0] == [1, 3, 5]
    Image.fromarray(numbered(77)).save(folder / "shot_%03d.png")
    assert read(open_video(folder / "shot_%03d.png"))[0] == [77], "a file of that name is that file"


def test_a_made_source_with_an_end_ends() -> None:
    name = "testsrc2=size=64x48:rate=10:duration=1"
    with open_video(name, None, 4, format="lavfi", policy="block", connection=HASTY) as video:
        assert sum(len(chunk) for chunk in itertools.islice(video, 20)) == 10


# --- what must not be opened -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to", ["file://{part}", "tcp://127.0.0.1:{port}", "data:video/mp4;base64,AAAA", "concat:{part}"]
)
@pytest.mark.parametrize("by", ["redirect", "playlist", "variant", "key"])
def test_neither_a_redirect_nor_a_playlist_leaves_the_protocols_of_its_address(folder: Path, by: str, to: str) -> None:
    part = write_video(folder / "part.ts", steady(10))
    reached = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/part.ts":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(part.read_bytes())
                return
            self.send_response(302 if by == "redirect" else 200)
            if by == "redirect":
                self.send_header("Location", target)
            self.end_headers()
            head, segment = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n", "#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
            self.wfile.write(
                {
                    "redirect": "",
                    "playlist": head + segment.format(target),
                    "variant": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{target}\n",
                    "key": head + f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n' + segment.format("part.ts"),
                }[by].encode()
            )

    trap = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Trap", (BaseHTTPRequestHandler,), {"do_GET": lambda _: reached.set()})
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    target = to.format(part=part, port=trap.server_port)
    for each in (trap, server):
        threading.Thread(target=partial(each.serve_forever, 0.05), daemon=True).start()
    try:
        with pytest.raises(VideoError):
            list(open_video(f"http://127.0.0.1:{server.server_port}/list.m3u8", connection=HASTY))
        assert not reached.is_set()
    finally:
        for each in (trap, server):
            each.shutdown()
            each.server_close()


@pytest.mark.parametrize("format", [None, "png_pipe", "lavfi"])
@pytest.mark.parametrize("scheme", ["data:", "pipe:", "blob:http://", "file:", "concat:", "javascript:", "ftp://"])
def test_other_addresses_end_at_the_door_in_few_words(scheme: str, format: str | None) -> None:
    with pytest.raises(VideoError) as caught:
        open_video(f"{scheme}{'A' * 100_000}", format=format)
    assert len(str(caught.value)) < 400
    if format != "lavfi":  # which takes any name for the description of a picture
        assert "is an address of a kind that is not opened" in str(caught.value)


@pytest.mark.parametrize("source", ["A" * 100_000, "/root\udcff.mp4", "http://127.0.0.1/\r\nHost: other"])
def test_a_name_that_no_file_can_have_is_one_clear_error(source: str) -> None:
    with pytest.raises(VideoError) as caught:
        open_video(source)
    str(caught.value).encode()
    assert len(str(caught.value)) < 400


def test_a_file_whose_name_is_no_text_is_read(folder: Path) -> None:
    path = write_video(folder / "plain.mp4", steady(10))
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.mp4"))
    odd.write_bytes(path.read_bytes())
    with open_video(odd, fps=None) as video:
        assert read(video)[0] == list(range(10))
        video.source.encode()


# --- arguments ---------------------------------------------------------------------------------------------------

FRAMES = np.zeros((2, 4, 5, 3), np.uint8)
ODD = [
    np.array([0, 1], "timedelta64[ns]"),
    np.array([0, 1], "timedelta64[s]"),
    np.array([0, 1], "datetime64[s]"),
    [np.timedelta64(0, "s"), np.timedelta64(1, "m")],
    [datetime.timedelta(0), datetime.timedelta(seconds=1)],
    ["0", "1"],
    [False, True],
    torch.tensor([False, True]),
    torch.tensor([0, 1j]),
    torch.empty(2, device="meta"),
    torch.eye(2).to_sparse(),
    np.ma.masked_array([0, 1], [False, True]),
    {0: "a", 1: "b"},
    itertools.count(),
    [0, 10**400],
    None,
]


@pytest.mark.parametrize("seconds", ODD, ids=lambda seconds: repr(seconds)[:30])
def test_only_numbers_of_seconds_are_taken_for_times(seconds: object) -> None:
    with pytest.raises(FrameError):
        FrameChunk.of(FRAMES, seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "seconds", [[Decimal(0), Decimal("0.5")], [torch.tensor(0), torch.tensor(0.5)], np.array([0, 0.5], np.float16)]
)
def test_numbers_of_any_sort_are(seconds: object) -> None:
    assert FrameChunk.of(FRAMES, seconds).seconds == (0.0, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("sort", ["sparse", "meta", "nested"])
def test_a_tensor_without_pixels_is_refused(sort: str) -> None:
    dense = torch.from_numpy(FRAMES)
    frames = {
        "sparse": dense.to_sparse(),
        "meta": dense.to("meta"),
        "nested": torch.nested.nested_tensor([dense[0].float(), dense[1].float()]),
    }[sort]
    with pytest.raises(FrameError, match=f"frames are a {sort} tensor"):
        FrameChunk.of(frames, [0, 1])


WRONG = [True, -1, "a\ud800", b"a", float("nan"), np.timedelta64(3, "s"), np.array([True]), object(), 1 + 1j]


@pytest.mark.parametrize(
    "name",
    ["fps", "chunk", "start", "end", "frames", "at", "decoder", "ahead", "policy", "format", "protocols", "connection"],
)
def test_every_argument_of_a_wrong_kind_is_refused_at_the_door(folder: Path, name: str) -> None:
    path = write_video(folder / "door.mp4", steady(3))
    for value in WRONG:
        with pytest.raises(ConfigError, match=f"^(a time of )?{name} "):
            open_video(path, **{name: value})


@pytest.mark.parametrize("name", list(Connection.__dataclass_fields__))
def test_every_wait_of_a_wrong_kind_is_refused(name: str) -> None:
    for value in (*WRONG, None, [1], {1: 2}, 10**400):
        with pytest.raises(PDropError, match=f"^{name} is "):
            Connection(**{name: value})


def test_waits_of_a_patient_connection_stay_at_the_longest() -> None:
    assert Connection(retries=3000, wait=1, longest_wait=9).waits()[-2:] == [9, 9]


# --- forks -------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], None]) -> int:
    """Do some work in a fork, which is ended if it hangs; its exit status, 0 if the work raised nothing."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are for systems that have them")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
@pytest.mark.parametrize("settings", [{"ahead": 0}, {"ahead": 3}, {"decoder": "decord"}])
def test_a_reader_is_of_no_use_in_a_fork_and_of_full_use_outside(folder: Path, settings: dict[str, object]) -> None:
    if "decoder" in settings:
        pytest.importorskip("decord")
    path = write_video(folder / "forked.mp4", steady(60), options={"g": "10"})
    readers = [open_video(path, None, 4, **settings)]  # type: ignore[arg-type]
    next(readers[0])

    def work() -> None:
        with pytest.raises(VideoError, match="opened before this process was forked"):
            next(readers[0])
        readers.pop().close()  # and freed

    assert forked(work) == 0
    assert read(readers[0])[0] == list(range(4, 60))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are for systems that have them")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_a_feed_is_of_no_use_in_a_fork_and_of_full_use_outside() -> None:
    stream = pv.load().stream()
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    with stream.feed() as feed:
        feed.put(frames, [0, 1])

        def work() -> None:
            for use in (lambda: feed.put(frames, [2, 3]), feed.flush, feed.close):
                with pytest.raises(StreamError, match="opened before this process was forked"):
                    use()

        assert forked(work) == 0
        feed.put(frames, [2, 3])
        feed.flush()
        assert feed.stats.watched == 4
