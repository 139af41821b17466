"""Where each benchmark's files come from: data set of the hub, licence and size as its public pages state them.

Pages change: `eval.fetch` asks the hub again before it begins. Refuses to know how files travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

import pdrop_video as pv

from .unpack import Unpack, by_name

Given = TypeVar("Given")

NOT_STATED = "not stated"
_RAW = "https://raw.githubusercontent.com"
_STREAMING = f"{_RAW}/THUNLP-MT/StreamingBench/main/src/data"


@dataclass(frozen=True, slots=True)
class Source:
    """What to download.

    Attributes
    ----------
    repo : str
        A data set of the hub.
    licence, size : str
        As stated, or "not stated".
    files : tuple of str
        Patterns of those of its files that are needed.
    more : tuple of (str, str)
        Addresses of small files that stand elsewhere, and where they go.
    unpack : tuple of Unpack
    folder : str
        The part of the download that `--data` is given.
    terms : bool
        Whether its page asks to accept terms first, which takes an account.
    """

    repo: str
    licence: str = NOT_STATED
    size: str = NOT_STATED
    files: tuple[str, ...] = ("*",)
    more: tuple[tuple[str, str], ...] = ()
    unpack: tuple[Unpack, ...] = (Unpack("**/*.zip", "videos", by_name),)
    folder: str = "."
    terms: bool = False


def _sample(stem: str, path: PurePosixPath) -> PurePosixPath | None:
    """StreamingBench's "sample_1/video.mp4" as its question files name it: "sample_1_real.mp4"."""
    short = {"Real-Time": "real", "Sequential": "sqa", "Proactive": "proactive"}
    kind = next((name for begin, name in short.items() if stem.startswith(begin)), stem.replace(" ", "_"))
    return PurePosixPath(f"{path.parent.name}_{kind}.mp4") if path.suffix == ".mp4" else None


def _in_its_folder(stem: str, path: PurePosixPath) -> PurePosixPath | None:
    """In a folder of the archive's name, whether or not the archive has it."""
    return path if path.parts[0] == stem else PurePosixPath(stem) / path


def _streaming(questions: str, *archives: str) -> Source:
    return Source(
        "mjuicem/StreamingBench",
        files=archives,
        more=((f"{_STREAMING}/{questions}", questions),),
        unpack=tuple(Unpack(pattern, "videos", _sample) for pattern in archives),
    )


_VIDEOMME = "academic research only, no commercial use, no redistribution"
SOURCES: dict[str, Source] = {
    "videomme": Source(
        "lmms-lab/Video-MME",
        _VIDEOMME,
        "about 100 GB",
        ("videomme/*", "subtitle.zip", "videos_chunked_*.zip"),
        unpack=(Unpack("videos_chunked_*.zip", "data", by_name), Unpack("subtitle.zip", "subtitle", by_name)),
    ),
    "videomme-v2": Source(
        "MME-Benchmarks/Video-MME-v2",
        _VIDEOMME,
        unpack=(Unpack("videos/*.zip", "video", by_name), Unpack("subtitle*.zip", "subtitle", by_name)),
    ),
    "mlvu": Source("MLVU/MVLU", "CC BY-NC-SA 4.0, research only", unpack=(), folder="MLVU", terms=True),
    "mlvu-test": Source("MLVU/MLVU_Test", "CC BY-NC-SA 4.0, research only"),
    "longvideobench": Source(
        "longvideobench/LongVideoBench",
        "CC BY-NC-SA 4.0, non-commercial",
        "162 GB",
        ("lvb_*.json", "subtitles.tar", "videos.tar.part.*"),
        unpack=(Unpack("subtitles.tar"), Unpack("videos.tar.part.*", joined=True)),
        terms=True,
    ),
    "egoschema": Source(
        "lmms-lab/egoschema",
        "MIT (videos: Ego4D's licence)",
        "106 GB",
        ("videos_chunked_*.zip",),
        tuple((f"{_RAW}/egoschema/EgoSchema/main/{name}", name) for name in ("questions.json", "subset_answers.json")),
        (Unpack("videos_chunked_*.zip", "videos", by_name),),
    ),
    "worldsense": Source("honglyhly/WorldSense"),
    "streamingbench-real": _streaming("questions_real.json", "Real-Time*.zip"),
    "streamingbench-omni": _streaming(
        "questions_omni.json",
        "Emotion*.zip",
        "Scene*.zip",
        "Source*.zip",
        "Multimodal*.zip",
        "Anomaly*.zip",
        "Misleading*.zip",
    ),
    "streamingbench-sqa": _streaming("questions_sqa.json", "Sequential*.zip"),
    "streamingbench-proactive": _streaming("questions_proactive.json", "Proactive*.zip"),
    "ovobench": Source(
        "JoeLeelyf/OVO-Bench",
        "CC BY-SA 4.0 on its page, CC BY-NC-SA 4.0 in its repository",
        "44 GB",
        ("src_videos.tar.part*",),
        ((f"{_RAW}/JoeLeelyf/OVO-Bench/main/data/ovo_bench_new.json", "ovo_bench_new.json"),),
        (Unpack("src_videos.tar.part*", joined=True),),
    ),
    "rvs": Source("Becomebright/RVS", "CC BY-NC 4.0", files=("ego/*", "movie/*"), unpack=()),
    "lvbench": Source("zai-org/LVBench", unpack=(Unpack("**/*.zip", "all_videos", by_name),)),
    "mvbench": Source("OpenGVLab/MVBench", "MIT", unpack=(Unpack("video/*.zip", "video"),), terms=True),
    "tvbench": Source("FunAILab/TVBench", unpack=(Unpack("video/*.zip", "video"),)),
    "videommmu": Source("lmms-lab/VideoMMMU", unpack=(Unpack("*.zip"),)),
    "timelens": Source("TencentARC/TimeLens-Bench", unpack=(Unpack("video_shards/**/*.tar.gz", "videos"),)),
    "rtvbench": Source(
        "RTVBench/RTV-Bench",
        more=((f"{_RAW}/LJungang/RTV-Bench/main/QA.json", "QA.json"),),
        unpack=(Unpack("**/*.zip", "videos"),),
    ),
    "odvbench": Source("MCG-NJU/ODV-Bench", size="about 14 GB", unpack=(Unpack("*.zip", ".", _in_its_folder),)),
    "omnipro": Source("RuixiangZhao/OmniPro", "MIT", unpack=()),
}
"""By the benchmark's name: its variants, `videomme-subtitles` and the like, share it."""
MADE = {"videomme-steps": "python -m eval.synthetic.make --steps"}
"""Tasks whose data this project makes itself."""

BY_HAND = {
    "proactivevideoqa": "its repository yellow-binary-tree/ProactiveVideoQA says how to get EGO, TV, VAD and WEB",
    "charades-sta": (
        "take charades_sta_test.txt from the repository jiyanggao/TALL and Charades_v1_480.zip from the page of "
        "Charades; size and licence stand there"
    ),
    "ovosbench": (
        "the data set JoeLeelyf/OVO-S-Bench of ModelScope has ovo_s_bench.parquet and videos/; annotations are CC BY "
        "4.0, videos keep the licences of their sources"
    ),
    "ipibench": (
        "its repository lijinzhao30/IPIBench has the scripts, and does not say where Benchmark/ and Image/ are; ask "
        "its authors"
    ),
}
"""What is on no hub, and how to get it."""


def _of(task: str, table: Mapping[str, Given]) -> Given | None:
    """What a table has of a task, or of the benchmark whose variant it is."""
    parts = task.split("-")
    names = ["-".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((table[name] for name in names if name in table), None)


def source_of(task: str) -> Source:
    """Where a task's files come from: by its own name, or by the benchmark whose variant it is.

    Raises
    ------
    ConfigError
        If they are made here or got by hand, or nothing is known of them; the message says which.
    """
    if task in MADE:
        raise pv.ConfigError(f"there is nothing to download for {task}: its data are made by {MADE[task]}.")
    if (how := _of(task, BY_HAND)) is not None:
        raise pv.ConfigError(f"{task} is on no hub: {how}.")
    if (found := _of(task, SOURCES)) is not None:
        return found
    raise pv.ConfigError(f"there is no download for {task!r}; there are those for {', '.join(SOURCES)}.")
