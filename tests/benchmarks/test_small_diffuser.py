"""The tables of the small video diffuser, on random models and one toy clip."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.data.patch_features import PatchFeatures
from benchmarks.data.small_figures import Judge, Rows, bootstrapped, carried, regions
from benchmarks.data.small_walks import NOISE_MAPS, Take, Walker, noise_levels, timed
from benchmarks.quality import small_diffuser
from cache3d.point_cache import PointCache
from diffusion.condition import Condition
from diffusion.wan.generator import WanGenerator
from diffusion.wan.lines import LINES
from diffusion.wan.tokens import FRAMES_PER_LATENT
from diffusion.wan.toy import make_toy
from geometry.depth.network import DepthNetwork
from geometry.frame import Chunk
from scenes.dataset.clips import read_clip
from scenes.io.png import to_bytes
from tests.helpers import cameras_along, guide_of, pillar_before_wall, prior_of, write_clip
from worldwarp.training.wan_latents import encoded, record_clips, record_latents

LINE = LINES["tiny"]
SIZE, FRAMES, CHUNK = (32, 48), 17, 8


@pytest.fixture(autouse=True)
def random_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Random weights for perceptual distances: the published ones are an extra that tests do without."""
    torch.manual_seed(0)
    torch.save(DepthNetwork().encoder.state_dict(), tmp_path / "features.pth")
    monkeypatch.setattr("benchmarks.data.patch_features.imagenet_weights", lambda: tmp_path / "features.pth")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one held-out clip of two chunks."""
    cameras = cameras_along(0.05, FRAMES, SIZE)
    frames = [pillar_before_wall(cameras[k : k + 1])[0] for k in range(FRAMES)]
    rgb = torch.cat([to_bytes(frame.rgb) for frame in frames]).numpy()
    depth = torch.cat([frame.depth for frame in frames]).numpy()
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder, rgb, 1.0 / depth, cameras)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of the line."""
    folder = tmp_path_factory.mktemp("model")
    make_toy(folder, LINE)
    return folder


@pytest.fixture(scope="module")
def latents(clips: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as its guide in Gaussians shows it."""
    folder = tmp_path_factory.mktemp("latents")
    record_latents(clips, model, folder)
    return folder


@pytest.fixture(scope="module")
def take(latents: Path, clips: Path) -> Take:
    """Its recorded take."""
    return Take.read(latents, clips / "clip.safetensors")


@pytest.fixture(scope="module")
def walker(model: Path) -> Walker:
    """The model in two steps."""
    return Walker(model, steps=2)


def test_noise_maps_differ_in_what_they_average(take: Take) -> None:
    maps = {kind: noise_levels(take, LINE, kind, 2) for kind in NOISE_MAPS}
    hole = take.hole.repeat_interleave(2, -2).repeat_interleave(2, -1)
    assert hole[1:].any()
    assert not hole[1:].all()
    for level in maps.values():
        assert level.shape == hole.shape
        torch.testing.assert_close(level[0], torch.full_like(level[0], LINE.seen))  # the photo, which is not walked
    assert torch.equal(maps["binary"], torch.where(hole, 1.0, LINE.seen))
    assert (maps["regions"][hole] == (LINE.copied if take.copied else LINE.unknown)).all()
    assert (maps["confidence"][~hole] <= maps["binary"][~hole] + 1e-6).all()
    assert (maps["confidence"] >= LINE.seen - 1e-6).all()
    for first in (1, 3):
        part = slice(first, first + 2)
        mean = maps["binary"][part].mean((1, 2, 3), keepdim=True)
        torch.testing.assert_close(maps["temporal"][part], mean.expand_as(hole[part]))
        torch.testing.assert_close(maps["uniform"][part], mean.mean(0, keepdim=True).expand_as(hole[part]))
        over_time = maps["binary"][part].mean(0, keepdim=True).expand_as(hole[part])
        torch.testing.assert_close(maps["spatial"][part], over_time)


def test_a_token_is_as_noisy_as_its_unknown_share(take: Take) -> None:
    known = torch.zeros_like(take.known)
    known[:, :, :2, :2] = 255
    known[:, :2, :2, 2:4] = 255
    level = noise_levels(replace(take, known=known), LINE, "confidence", 2)
    assert level[1, 0, 0, 0] == pytest.approx(LINE.seen)
    assert level[1, 0, 0, 2] == pytest.approx(0.5 * LINE.seen + 0.5)
    assert level[1, 0, 2, 0] == 1.0


@pytest.mark.parametrize("line", ["tiny", "tiny-student"])
def test_a_walk_is_what_the_generator_makes(
    line: str, take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    make_toy(model, LINES[line])
    walker, generator = Walker(model, steps=2), WanGenerator(model, steps=2)
    draws = [torch.Generator().manual_seed(k) for k in range(3)]
    monkeypatch.setattr("benchmarks.data.small_walks._draws", lambda _name, _seed, chunk: draws[chunk])
    rgb = (255.0 * torch.rand(FRAMES, 3, *SIZE, generator=torch.Generator().manual_seed(0))).round() / 255.0
    rgb[0] = take.clip.rgb[0]
    clip, camera = replace(take.clip, rgb=rgb), take.clip.camera
    guide = encoded(walker.parts.vae, rgb)
    hole = torch.arange(SIZE[1]) >= 32
    known = torch.where(torch.arange(6) < 4, 255, 0).to(torch.uint8).expand_as(take.known).clone()
    known[0] = 255
    tokens = (torch.arange(3) >= 2).expand_as(take.hole).clone()
    given = replace(take, clip=clip, clean=guide, guide=guide, known=known, hole=tokens, copied=False)
    level = noise_levels(given, LINE, "regions", 2)
    made = [*walker.chunks(given, level, given.extra, 0)]
    memory = generator.start(Chunk(clip[:1], 0, observed=True, confidence=torch.ones(1, 1, *SIZE)))
    for number, latents in enumerate(made):
        draws[number + 1].manual_seed(number + 1)
        part = slice(1 + CHUNK * number, 1 + CHUNK * (number + 1))
        depth = clip.depth[part]
        shown = guide_of(camera[part], depth, rgb[part], hole.expand_as(depth[0]))
        condition = Condition(shown, prior_of(rgb[part], depth, torch.zeros_like(depth)))
        sigma = torch.where(hole, 1.0, LINE.seen).expand_as(depth)
        chunk = generator.make(condition, sigma, memory, draws[number + 1])
        torch.testing.assert_close(latents, chunk.carried["latents"].float(), rtol=0.02, atol=0.02)
        memory = generator.remember(
            Chunk(clip[part], number + 1, observed=False, confidence=torch.ones_like(depth)), chunk, memory
        )
    assert (made[0] - guide[1:3]).abs().max() > 0.1


def test_the_past_counts_from_the_second_chunk_on_and_noise_from_the_first(walker: Walker, take: Take) -> None:
    level = noise_levels(take, LINE, "regions", 2)

    def walk(seed: int = 0, past: str = "whole", begun: tuple[Tensor, ...] = ()) -> list[Tensor]:
        return [*walker.chunks(take, level, take.extra, seed, past, begun)]

    whole = walk()
    assert all(torch.equal(a, b) for a, b in zip(whole, walk(), strict=True))
    assert not torch.equal(walk(1)[0], whole[0])
    for past in ("photo", "reversed"):
        other = walk(past=past)
        assert torch.equal(other[0], whole[0])
        assert not torch.equal(other[1], whole[1])
        again = walk(past=past, begun=(whole[0],))
        assert torch.equal(again[1], other[1])
    sure = [*walker.chunks(take, torch.zeros_like(level), take.extra, 0)]
    torch.testing.assert_close(torch.cat(sure), take.guide[1:], rtol=0.01, atol=0.01)  # bfloat16
    assert walker.clip(take, level, take.extra, 0).shape == take.clean[1:].shape


def test_seconds_to_the_first_chunk_are_some_of_all(walker: Walker, take: Take) -> None:
    run, at_once = (timed(walker, take, 0, causal=causal) for causal in (True, False))
    assert 0.0 < run.first_s < run.whole_s
    assert 0.0 < at_once.first_s < at_once.whole_s
    level = noise_levels(take, LINE, "regions", 2)
    latents = torch.cat([*walker.chunks(take, level, take.extra, 0)])
    assert torch.equal(run.frames, walker.frames(take, latents))


def test_figures_of_known_errors(take: Take) -> None:
    known, hole = torch.full_like(take.known, 255), torch.zeros_like(take.hole)
    known[1:, :, :, 4:], hole[1:, :, :, 2:] = 0, True
    take = replace(take, known=known, hole=hole)
    judge, truth = Judge(take, PatchFeatures(), 2), take.clip.rgb
    perfect = judge.figures(truth)
    assert perfect["perceptual_hole"] == perfect["perceptual_covered"] == 0.0
    off = truth.clone()
    off[1 + CHUNK :] += 0.1
    found = judge.figures(off)
    assert found["psnr_covered@2"] == pytest.approx(20.0, abs=1e-3)
    assert found["psnr_hole@2"] == pytest.approx(20.0, abs=1e-3)
    assert found["perceptual_covered@1"] == 0.0
    assert found["perceptual_covered@2"] > 0.0
    assert found["border"] == pytest.approx(np.hypot(perfect["border"], 0.1), abs=0.02)
    assert found["inside"] == pytest.approx(perfect["inside"], abs=1e-6)
    still = truth[:1].expand_as(truth)
    assert judge.figures(still)["warp"] > 2.0 * perfect["warp"]
    apart = judge.apart(truth, off)
    assert apart["rms"] == pytest.approx(0.1 * 0.5**0.5, abs=1e-3)
    unknown, covered = regions(take)
    right = (torch.arange(SIZE[1]) >= 32).expand_as(unknown)
    assert torch.equal(unknown, right)
    assert torch.equal(covered, ~right)
    short = judge.figures(off[: 1 + CHUNK])
    assert short["psnr_hole@1"] == found["psnr_hole@1"]
    assert "psnr_hole@2" not in short


def test_pixels_are_followed_to_where_they_were(take: Take) -> None:
    grid, same = carried(take.clip)
    before = torch.nn.functional.grid_sample(take.clip.rgb[:-1], grid, align_corners=False)
    off = (take.clip.rgb[1:] - before).abs().mean(1, keepdim=True)
    assert off[same].mean() < 0.03
    assert off[~same].mean() > 3.0 * off[same].mean()
    assert 0.8 < same.float().mean() < 1.0


def test_rows_are_means_over_seeds_then_clips() -> None:
    rows = Rows()
    for clip, base in (("a", 1.0), ("b", 3.0)):
        for seed in (0, 1):
            rows.add("one", clip, {"x": base + seed, "y": 2.0})
            rows.add("two", clip, {"x": base + seed + 0.5, "y": float("nan")})
    assert rows.summary()["one"]["x"][0] == pytest.approx(2.5)
    assert rows.summary()["one"]["x"][2] == 2
    assert rows.differences("one")["two"]["x"][:2] == pytest.approx([0.5, 0.0])
    assert rows.summary()["two"]["y"][2] == 0
    mean, low, high = rows.ratio("one", "x", "y")
    assert (mean, low, high) == pytest.approx((1.25, 0.75, 1.75))
    assert bootstrapped(3, lambda weights: weights.sum(1)) == [3.0, 3.0, 3.0]
    drawn = torch.Generator().manual_seed(0)
    for row, shift in (("truth", 0.0), ("near", 0.2), ("far", 2.0)):
        rows.features[row] = [torch.randn(4, 5, generator=drawn) + shift for _ in range(6)]
    assert rows.kernel("near")[0] < rows.kernel("far")[0]
    assert rows.kernel("far", "far") == pytest.approx([1.0, 1.0, 1.0])


def test_points_show_the_same_draws_of_another_cache(model: Path, clips: Path, take: Take, tmp_path: Path) -> None:
    path = clips / "clip.safetensors"
    assert record_clips([path], model, tmp_path, make_cache=PointCache) == 1
    points = Take.read(tmp_path, path)
    assert points.copied == take.copied
    assert torch.equal(points.clean, take.clean)
    assert not torch.equal(points.guide, take.guide)
    assert len(read_clip(path)) == 1 + FRAMES_PER_LATENT * (len(points.clean) - 1)


def test_the_tables_of_a_random_model(
    model: Path,
    latents: Path,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_toy(tmp_path / "student", LINES["tiny-student"])
    words = [str(tmp_path / "student"), str(latents), str(clips), "--seeds", "2", "--steps", "2"]
    torch_threads = torch.get_num_threads()
    everything = [*words, "--teacher", str(model), "--out", str(tmp_path / "kept")]
    small_diffuser.main([*everything, "--sheet", str(tmp_path / "sheet.png")])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len([*(tmp_path / "kept").iterdir()]) == len(small_diffuser.TABLES)
    monkeypatch.setattr(small_diffuser, "TABLES", dict.fromkeys(small_diffuser.TABLES))  # nothing is made again
    small_diffuser.main(everything)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == line
    torch.set_num_threads(torch_threads)
    tables = line["tables"]
    assert (line["clips"], line["seeds"]) == (1, 2)
    assert set(tables) == set(small_diffuser.TABLES)
    assert tables["diffuses"]["rows"]["seeds"]["rms"][0] > 0.0
    assert tables["diffuses"]["rows"]["state alone"]["psnr"][0] > tables["diffuses"]["rows"]["full noise"]["psnr"][0]
    assert set(tables["memory"]["rows"]) == {"whole", "photo", "reversed", "decoded truth"}
    assert tables["memory"]["differences"]["photo"]["warp@1"][0] == 0.0
    assert tables["unguided"]["rows"]["whole"] == tables["cache"]["rows"]["none"]
    assert set(tables["noise"]["rows"]) == {*NOISE_MAPS, "decoded truth"}
    assert tables["cache"]["rows"]["points"] != tables["cache"]["rows"]["gaussians"]
    assert tables["steps"]["sooner"]["teacher"] > 1.0
    assert tables["steps"]["throughput"]["causal teacher"] > 1.0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * SIZE[1], SIZE[0])
    with pytest.raises(SystemExit):
        small_diffuser.main([*words, "--tables", "noise,nothing"])
    with pytest.raises(SystemExit):
        small_diffuser.main([*words, "--tables", "steps"])
    with pytest.raises(SystemExit):
        small_diffuser.main([*words, "--tables", "noise", "--seeds", "1"])
    assert "want at least 2, got 1" in capsys.readouterr().err


def test_a_model_of_another_kind_and_other_latents_are_refused(take: Take, latents: Path, tmp_path: Path) -> None:
    make_toy(tmp_path / "other", LINES["causal-forcing-frame"])
    with pytest.raises(ValueError, match="levels by token, got causal-forcing-frame"):
        Walker(tmp_path / "other")
    short = take.clip[:9]
    path = write_clip(tmp_path, to_bytes(short.rgb).numpy(), (1.0 / short.depth).numpy(), short.camera)
    with pytest.raises(ValueError, match="want the latents of 9 frames, got 5 latents; record them again"):
        Take.read(latents, path)
