"""Memory and disk: estimated from settings, and refused before any slow step if not available."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image

from diffusion.kv_memory import MemoryPolicy
from diffusion.memory_plan import Change, MemoryPlan, Stage
from diffusion.retouch.generator import RetouchGenerator
from worldwarp import needs as needs_module
from worldwarp.cli import main
from worldwarp.config import ConfigError
from worldwarp.needs import Needs, _cgroup_available, available_memory_mib, free_disk_mib

REMEMBERING = RetouchGenerator(policy=MemoryPolicy(bank=24))
BASE = Needs(size=(480, 720), frames=49, chunk=8, scale=1.0, generator=REMEMBERING.plan)


@pytest.mark.parametrize(
    "more",
    [{"size": (496, 720)}, {"size": (480, 736)}, {"chunk": 16}, {"scale": 2.0}],
)
def test_larger_settings_need_more_memory(more: dict[str, object]) -> None:
    assert replace(BASE, **more).memory_mib > BASE.memory_mib  # type: ignore[arg-type]  # fields by name


def test_more_frames_need_more_memory_up_to_the_bound_of_the_kv_memory() -> None:
    needed = [replace(BASE, frames=frames).memory_mib for frames in (9, 17, 33, 49, 400)]
    assert needed[0] < needed[1] < needed[2] < needed[3] == needed[4]
    assert replace(BASE, generator=RetouchGenerator().plan).memory_mib < BASE.memory_mib
    assert replace(BASE, frames=1).memory_mib == needed[4]  # by keys: the number of frames is unknown


@pytest.mark.parametrize("more", [{"size": (496, 720)}, {"frames": 50}, {"scale": 2.0}, {"recorded": True}])
def test_larger_settings_need_more_disk(more: dict[str, object]) -> None:
    base = replace(BASE, recorded=False)
    assert replace(base, **more).disk_mib > base.disk_mib  # type: ignore[arg-type]  # fields by name
    assert replace(base, done=20).disk_mib < base.disk_mib


@pytest.mark.parametrize(
    ("size", "frames", "scale", "measured_mib"),
    [
        ((192, 304), 17, 2.0, 1418),
        ((480, 720), 17, 1.0, 4112),
        ((480, 720), 49, 1.0, 4710),
        ((720, 1280), 17, 1.0, 9107),
    ],
)
def test_the_memory_estimate_is_within_10_percent_of_measurements(
    size: tuple[int, int], frames: int, scale: float, measured_mib: float
) -> None:
    estimate = Needs(size, frames, 8, scale, REMEMBERING.plan).memory_mib
    assert 0.9 * measured_mib < estimate < 1.1 * measured_mib


@pytest.mark.parametrize(
    ("size", "frames", "memory_mib", "disk_mib"),
    [((480, 720), 17, 2097, 76), ((480, 720), 49, 2064, 110), ((720, 1280), 17, 4223, 190)],
)
def test_estimates_of_rendered_frames_are_within_15_percent_of_measurements(
    size: tuple[int, int], frames: int, memory_mib: float, disk_mib: float
) -> None:
    needs = Needs(size, frames, 8, 1.0, RetouchGenerator().plan, per_view=True)
    assert 0.97 * memory_mib < needs.memory_mib < 1.15 * memory_mib  # rather too much: what does not fit is refused
    assert 0.97 * disk_mib < needs.disk_mib < 1.15 * disk_mib


def set_available(monkeypatch: pytest.MonkeyPatch, memory_mib: float = 1e6, disk_mib: float = 1e6) -> None:
    monkeypatch.setattr(needs_module, "available_memory_mib", lambda: memory_mib)
    monkeypatch.setattr(needs_module, "free_disk_mib", lambda _: disk_mib)


def test_too_little_memory_is_refused_with_a_size_that_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_available(monkeypatch, memory_mib=3000.0)
    wanted = (
        r"memory: want about 4\.\d GiB free for 49 frames of 720x480, got 2\.9 GiB; set size=\[\d+,\d+\], which fits"
    )
    with pytest.raises(ConfigError, match=wanted) as refusal:
        BASE.lines(tmp_path)
    height, width = (int(side) for side in str(refusal.value).partition("[")[2].partition("]")[0].split(","))
    assert height % 16 == width % 16 == 0
    assert 0.6 * 3000 < replace(BASE, size=(height, width)).memory_mib < 0.8 * 3000


def test_a_generator_that_no_single_setting_makes_fit_is_refused_without_a_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[int, int]] = []

    def plan(size: tuple[int, int], _: int) -> MemoryPlan:
        asked.append(size)
        stage = Stage("denoise", {"transformer": 20 * 2**30})
        return MemoryPlan((stage,), (Change("size=[240,368]", lambda: MemoryPlan((stage,))),))

    set_available(monkeypatch, memory_mib=9000.0)
    with pytest.raises(ConfigError, match="no single setting is enough; take a smaller model or a machine with more"):
        replace(BASE, generator=plan).lines(tmp_path)
    assert set(asked) == {BASE.size}  # other sizes may be none that the model takes


def test_too_little_disk_is_refused_with_frames_that_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_available(monkeypatch, disk_mib=150.0)
    with pytest.raises(ConfigError, match=r"disk in .*, got 150 MiB; set frames=\d+, which fits") as refusal:
        BASE.lines(tmp_path)
    fewer = int(str(refusal.value).rpartition("frames=")[2].partition(",")[0])
    assert 0.6 * 150 < replace(BASE, frames=fewer).disk_mib < 0.8 * 150
    assert len(BASE.lines(None)) == 1  # nothing is stored


def test_little_spare_memory_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_available(monkeypatch, memory_mib=1.1 * BASE.memory_mib)
    lines = BASE.lines(tmp_path)
    assert "49 frames of 720x480: memory about 4." in lines[0]
    assert lines[1].startswith("warning  that is close")
    set_available(monkeypatch, memory_mib=2.0 * BASE.memory_mib)
    assert len(BASE.lines(tmp_path)) == 1


def test_a_huge_size_is_refused_before_the_photo_is_resized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (200, 200), (90, 120, 150)).save(tmp_path / "photo.png")
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    words = ["explore", f"image={tmp_path}/photo.png", f"out={tmp_path}/w", "viewer=none"]
    assert main([*words, "size=[10000,10000]"]) == 2
    assert "GiB free for 49 frames of 10000x10000, got" in capsys.readouterr().err
    assert time.perf_counter() - start < 20.0
    assert psutil.Process().memory_info().rss - before < 500 * 2**20
    assert not (tmp_path / "w").exists()


def test_the_memory_limit_of_a_container_counts(tmp_path: Path) -> None:
    def group(folder: Path, limit: str, used: int, cached: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")

    group(tmp_path / "pod", "1000", 700, 50)
    group(tmp_path / "pod" / "box", "max", 500, 0)
    assert list(_cgroup_available(tmp_path, "/pod/box")) == [350]
    assert list(_cgroup_available(tmp_path, "/elsewhere")) == []


def test_this_machine_has_memory_and_disk(tmp_path: Path) -> None:
    assert available_memory_mib() > 100
    assert free_disk_mib(tmp_path / "not" / "yet") == pytest.approx(free_disk_mib(tmp_path), abs=1000)
