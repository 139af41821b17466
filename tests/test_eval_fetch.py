"""Downloads of benchmarks from a hub of this machine: what is said, what comes, and that the task then reads it."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest
import typer
from benchmarks import longvideobench, ovobench, streamingbench
from hub import hub
from typer.testing import CliRunner, Result
from videomme import make_videomme

import eval.fetch
from eval.fetch import main
from eval.tasks import TASKS, task_named
from eval.tasks.sources import BY_HAND, MADE, SOURCES, source_of
from eval.tasks.unpack import Unpack, by_name, unpack
from pdrop_video import ConfigError

app = typer.Typer()
app.command()(main)


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token and no cache but the test's."""
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send everything that goes to the hub, or to where small files stand, to this address."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    form = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", form)
    whole = eval.fetch._plain
    monkeypatch.setattr(eval.fetch, "_plain", lambda url, path: whole(f"{address}/raw/{url.rsplit('/', 1)[1]}", path))


def run(*told: str) -> Result:
    return CliRunner().invoke(app, list(told))


def words(result: Result) -> str:
    return " ".join(result.output.split())


def test_videomme_from_the_hub_to_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with size and licence, downloaded, unpacked flat, read by the task; the same again downloads nothing."""
    made = make_videomme(tmp_path / "made", 4)
    for path in (made / "data").iterdir():
        path.write_bytes(path.name.encode() * 50)
    parquet = "videomme/test-00000-of-00001.parquet"
    files = {
        parquet: (made / parquet).read_bytes(),
        "subtitle.zip": zipped({f"subtitle/{p.name}": p.read_bytes() for p in (made / "subtitle").iterdir()}),
        "videos_chunked_01.zip": zipped({f"data/{p.name}": p.read_bytes() for p in (made / "data").iterdir()}),
        "README.md": b"not needed",
    }
    needed = sum(len(data) for name, data in files.items() if name != "README.md")
    data = tmp_path / "data"
    with hub("lmms-lab/Video-MME", files, "some-licence") as server:
        to(server.address, monkeypatch)
        done = run("videomme", "--data", str(data), "--yes")
        assert done.exit_code == 0, done.output
        assert "Licence: academic research only" in words(done) and "Size: about 100 GB" in words(done)
        assert f"Now: 3 files, {needed / 1000:,.1f} kB, of which 0 bytes" in words(done)
        assert "Licence by its page: some-licence" in words(done)
        assert "12 questions on 4 videos, all there: python -m eval.run videomme" in words(done)
        assert sorted(server.asked) == sorted(name for name in files if name != "README.md")
        assert not (data / "README.md").exists()
        for folder in ("data", "subtitle"):
            assert below(data / folder) == below(made / folder)
        assert [item.id for item in task_named("videomme", data).items()] == [
            item.id for item in task_named("videomme", made).items()
        ]
        (data / "data" / "video0002.mp4").write_bytes(b"cut short")  # as a disk that was full would leave it
        (data / "subtitle.zip").unlink()
        again = run("videomme", "--data", str(data), "--yes")
        assert server.asked[3:] == ["subtitle.zip"]
        assert "unpacked 1 file of videos_chunked_*.zip" in words(again)
        assert below(data / "data") == below(made / "data")


def test_parts_of_an_archive_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = longvideobench(tmp_path / "made")
    whole = tarred({"videos/va.mp4": b"a" * 30_000, "videos/vb.mp4": b"b" * 700})
    files = {
        "lvb_val.json": (made / "lvb_val.json").read_bytes(),
        "subtitles.tar": tarred({f"subtitles/{p.name}": p.read_bytes() for p in (made / "subtitles").iterdir()}),
        **{f"videos.tar.part.a{'abc'[i]}": whole[i * 12_000 : (i + 1) * 12_000] for i in range(2)},
        "videos.tar.part.ac": whole[24_000:],
    }
    with hub("longvideobench/LongVideoBench", files) as server:
        to(server.address, monkeypatch)
        done = run("longvideobench-subtitles", "--data", str(tmp_path / "data"), "--yes")
        assert "3 questions on 2 videos, all there" in words(done), done.output
        assert "Licence by its page: not stated" in words(done)
    assert below(tmp_path / "data" / "videos") == {"va.mp4": b"a" * 30_000, "vb.mp4": b"b" * 700}


def test_small_files_that_stand_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ovobench(tmp_path / "made")
    name = "ovo_bench_new.json"
    tar = tarred({"src_videos/Ego4D/clips/one.mp4": b"x", "src_videos/MovieNet/tt01.mp4": b"y"})
    files = {"src_videos.tar.partaa": tar[:600], "src_videos.tar.partab": tar[600:], name: (made / name).read_bytes()}
    with hub("JoeLeelyf/OVO-Bench", files) as server:
        to(server.address, monkeypatch)
        done = run("ovobench", "--data", str(tmp_path / "data"), "--yes")
        assert "on 2 videos, all there" in words(done), done.output
    assert (tmp_path / "data" / name).read_bytes() == files[name]


def test_streamingbench_s_samples_get_the_names_of_its_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = streamingbench(tmp_path / "made")
    archive = zipped(
        {"sample_1/video.mp4": b"one", "__MACOSX/sample_1/._video.mp4": b"no", "sample_1/notes.txt": b"no"}
    )
    name = "questions_real.json"
    files = {"Real-Time Visual Understanding_1-50.zip": archive, name: (made / name).read_bytes()}
    data = tmp_path / "data"
    with hub("mjuicem/StreamingBench", files) as server:
        to(server.address, monkeypatch)
        done = run("streamingbench-real-full", "--data", str(data), "--yes")
    assert below(data / "videos") == {"sample_1_real.mp4": b"one"}
    assert "1 of the videos are not where the task reads them, for example" in words(done)
    assert "sample_2_real.mp4" in words(done)
    place = SOURCES["streamingbench-omni"].unpack[0].place
    assert place("Scene Understanding_1-25", PurePosixPath("sample_3/video.mp4")) == PurePosixPath(
        "sample_3_Scene_Understanding_1-25.mp4"
    )


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to("http://127.0.0.1:9", monkeypatch)
    done = run("videomme", "--data", str(tmp_path / "data"), "--yes")
    assert done.exit_code == 1
    assert "lmms-lab/Video-MME can't be downloaded now" in words(done) and "is there a network?" in words(done)
    assert "Size: about 100 GB" in words(done)  # what it would have been
    assert "Traceback" not in done.output
    assert not (tmp_path / "data").exists()


def test_what_a_hub_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(tmp_path / "data")
    with hub("MLVU/MVLU", {"MLVU/json/1_plotQA.json": b"[]"}) as server:
        to(server.address, monkeypatch)
        server.gated = True
        done = run("mlvu", "--data", data, "--yes")
        assert done.exit_code == 1 and "asks for its terms to be accepted" in words(done), done.output
        server.gated = False
        done = run("egoschema", "--data", data, "--yes")
        assert done.exit_code == 1 and "the hub has no data set lmms-lab/egoschema" in words(done)
        done = run("mlvu", "--data", data)
        assert done.exit_code == 1 and "give --yes where nobody can be asked" in words(done)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
        done = run("mlvu", "--data", data, "--yes")
        assert done.exit_code == 1 and "2 bytes are needed" in words(done) and "1 bytes are free" in words(done)
    with hub("MLVU/MVLU", {}) as server:
        to(server.address, monkeypatch)
        assert "has no * on the hub any more" in words(run("mlvu", "--data", data, "--yes"))
    assert not server.asked and not Path(data).exists()


def test_archives_that_are_wrong(tmp_path: Path) -> None:
    for name, member in (("up.zip", "../out.mp4"), ("root.zip", "/tmp/out.mp4"), ("back.zip", "a\\..\\out.mp4")):
        (tmp_path / name).write_bytes(zipped({member: b"x"}))
        with pytest.raises(ConfigError, match="outside of its folder"):
            unpack(tmp_path, Unpack(name, "videos"))
    (tmp_path / "bad.zip").write_bytes(zipped({"a.mp4": b"x" * 900})[:-200])
    (tmp_path / "bad.tar").write_bytes(tarred({"a.mp4": b"x" * 900})[:700])
    for name in ("bad.zip", "bad.tar"):
        with pytest.raises(ConfigError, match="is damaged"):
            unpack(tmp_path, Unpack(name, "videos", by_name))
    assert not [path for path in tmp_path.rglob("*.mp4")]
    assert unpack(tmp_path, Unpack("none*.zip")) == 0


def test_every_task_has_a_source() -> None:
    for name in TASKS:
        if name in MADE:
            with pytest.raises(ConfigError, match=r"its data are made by python -m eval\.synthetic\.make --steps"):
                source_of(name)
        elif name.startswith(tuple(BY_HAND)):
            with pytest.raises(ConfigError, match=f"{name} is on no hub: "):
                source_of(name)
        else:
            assert "/" in source_of(name).repo
    place = SOURCES["odvbench"].unpack[0].place
    for inside in ("TS_Retrieval/a/1.mp4", "a/1.mp4"):
        assert place("TS_Retrieval", PurePosixPath(inside)) == PurePosixPath("TS_Retrieval/a/1.mp4")
    assert source_of("videomme-subtitles") is SOURCES["videomme"]
    assert source_of("streamingbench-sqa-full") is SOURCES["streamingbench-sqa"]
    assert source_of("mlvu-test") is not source_of("mlvu")
    done = run()
    assert done.exit_code == 0 and all(name in done.output for name in (*SOURCES, *BY_HAND))
    assert "there is no download for 'nothing'" in words(run("nothing"))
