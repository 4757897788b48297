"""Figures of filled holes, on pictures whose figures are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.data.hole_figures import TEXTURE_PX, Tally, figures, repetition, spectrum, sums, total
from benchmarks.data.patch_features import kernel_distance, kernel_distances
from benchmarks.quality.blind_choice import choices
from benchmarks.quality.generator_goals import GOALS, METHODS, resampled, spread, table
from benchmarks.quality.generator_quality import pair_sheet
from geometry.camera import Camera
from geometry.frame import Frame

SIZE = (64, 96)
SEEDS = st.integers(0, 2**31 - 1)


def _noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _picture(seed: int = 0) -> Frame:
    depth = torch.full((1, 1, *SIZE), 2.0)
    valid = torch.ones_like(depth, dtype=torch.bool)
    return Frame(_noise(seed, 1, 3, *SIZE), depth, valid, ~valid, Camera.from_fov(60.0, SIZE, torch.eye(4)[None]))


def _hole() -> torch.Tensor:
    """A wide hole on the right, a thin one on the left."""
    hole = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    hole[..., 40:] = True
    hole[..., 10:14] = True
    return hole


def _figures(made: Frame, truth: Frame) -> dict[str, float]:
    tally = Tally()
    tally.add(truth, _hole(), made.rgb, made.depth)
    return tally.figures()


def test_the_truth_is_like_the_truth() -> None:
    truth = _picture()
    found = _figures(truth, truth)
    for name in ("hole_delta1", "seam", "contrast", "repetition", *(f"octave{band}" for band in range(4))):
        assert found[name] == pytest.approx(1.0)
    assert found["spectrum"] == 0.0
    assert found["hole_absrel"] == 0.0


def test_each_figure_sees_its_own_fault() -> None:
    truth, hole = _picture(), _hole()
    wrong = replace(truth, depth=torch.where(hole, 3.0, truth.depth))
    assert _figures(wrong, truth)["hole_delta1"] == 0.0
    fog = _figures(replace(truth, rgb=torch.where(hole, 0.5, truth.rgb)), truth)
    assert fog["contrast"] < 0.1
    assert fog["spectrum"] > 3.0
    assert fog["octave3"] < 0.01
    step = torch.where(hole, truth.rgb + 1.0, truth.rgb)
    assert _figures(replace(truth, rgb=step), truth)["seam"] > 2.0
    thin_only = torch.where(hole & (torch.arange(SIZE[1]) < 20), truth.rgb + 0.1, truth.rgb)
    assert _figures(replace(truth, rgb=thin_only), truth)["thin_psnr"] == pytest.approx(20.0, abs=0.01)
    assert _figures(replace(truth, rgb=thin_only), truth)["seam"] == pytest.approx(1.0)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, period=st.integers(7, 12))
def test_what_repeats_has_a_higher_peak_than_noise(seed: int, period: int) -> None:
    tile = _noise(seed, 1, period, period)
    count = -(-TEXTURE_PX // period)
    tiled = tile.repeat(1, count, count)[:, :TEXTURE_PX, :TEXTURE_PX]
    noise = _noise(seed + 1, 1, TEXTURE_PX, TEXTURE_PX)
    assert float(repetition(tiled)) > 0.8
    assert float(repetition(noise)) < 0.4
    assert float(repetition(0.5 + 1e-5 * tiled)) < 0.01  # too faint to be seen


def test_a_checkerboard_is_power_in_the_last_octave() -> None:
    rows = torch.arange(TEXTURE_PX)
    power = spectrum(((rows[:, None] + rows) % 2).float()[None])[0]
    assert power[3] > 100.0 * power[:3].max()
    assert spectrum(torch.zeros(0, TEXTURE_PX, TEXTURE_PX)).shape == (0, 4)
    assert repetition(torch.zeros(0, TEXTURE_PX, TEXTURE_PX)).shape == (0,)


def test_sums_of_two_clips_weigh_by_size() -> None:
    truth, hole = _picture(), _hole()
    wrong = replace(truth, depth=3.0 * truth.depth)
    small = hole & (torch.arange(SIZE[0])[:, None] < 16)
    rows = [sums(truth, hole, truth.rgb, truth.depth), sums(truth, small, wrong.rgb, wrong.depth)]
    both, twice = figures(total(rows, np.array([[1.0, 1.0], [1.0, 2.0]])))["hole_delta1"]
    assert both == pytest.approx(1.0 / 1.25)
    assert twice == pytest.approx(1.0 / 1.5)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, sizes=st.lists(st.integers(0, 9), min_size=3, max_size=6))
def test_kernel_distance_by_clip_is_that_of_all(seed: int, sizes: list[int]) -> None:
    sizes = [*sizes, 5]
    made = [_noise(seed + i, n, 6) for i, n in enumerate(sizes)]
    real = [_noise(seed + 99 + i, n, 6) for i, n in enumerate(sizes)]
    found = kernel_distances(made, real, torch.ones(1, len(sizes)))
    assert float(found) == pytest.approx(kernel_distance(torch.cat(made), torch.cat(real)), rel=1e-4, abs=1e-4)


def test_kernel_distance_of_the_same_distribution_is_nothing() -> None:
    made, real = ([torch.randn(40, 8, generator=g) for _ in range(12)] for g in map(_generator, (1, 2)))
    draws = kernel_distances(made, real, torch.from_numpy(resampled(12, 100)).float())
    assert abs(float(draws[0])) < 0.02
    # Clips that are drawn twice are not compared with their own copies, so draws are as near to 0 as the whole.
    assert abs(float(draws.mean())) < 0.02
    other = kernel_distances([part + 1.0 for part in made], real, torch.ones(1, 12))
    assert float(other) > 1.0


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_intervals_shrink_with_the_number_of_clips() -> None:
    values = np.random.default_rng(0).normal(size=400)
    few, many = (spread(resampled(n) @ values[:n] / n) for n in (25, 400))
    assert many == pytest.approx(1.96 / 400**0.5, rel=0.15)
    assert few > 3.0 * many


def test_the_judge_prefers_what_is_like_the_truth_elsewhere() -> None:
    rng, scenes = _generator(0), [f"scene {i // 2}" for i in range(20)]
    real, same, fog, rival = ([shift + torch.randn(30, 6, generator=rng) for _ in scenes] for shift in (0, 0, 2, 1))
    chosen = choices({"same": same, "fog": fog, "rival": rival}, real, scenes, "rival")
    assert {name: value.mean() for name, value in chosen.items()} == pytest.approx(
        {"same": 1.0, "fog": 0.0, "rival": 0.5, "truth": 1.0}
    )


def test_the_judge_has_no_favourite_among_equals() -> None:
    rng, scenes = _generator(0), [f"scene {i}" for i in range(200)]
    real, one, other = ([torch.randn(10, 4, generator=rng) for _ in scenes] for _ in range(3))
    assert choices({"one": one, "rival": other}, real, scenes, "rival")["one"].mean() == pytest.approx(0.5, abs=0.1)


def test_the_judge_has_not_seen_the_scene_nor_judges_without_patches() -> None:
    rng = _generator(0)
    real, made = ([torch.randn(n, 4, generator=rng) for n in (9, 9, 0)] for _ in range(2))
    alone = choices({"rival": made}, real, ["a", "a", "a"], "rival")
    assert np.isnan(alone["rival"]).all()
    two = choices({"rival": made}, real, ["a", "b", "b"], "rival")["rival"]
    assert two[:2].tolist() == [0.5, 0.5]
    assert np.isnan(two[2])


def test_the_table_takes_the_best_classical_method_per_row() -> None:
    found = {method: {row.figure: np.full(3, 1.0) for row in GOALS} for method in METHODS}
    found["Telea"]["kernel_distance"] = np.array([0.5, 0.4, 0.6])
    found["generator"]["kernel_distance"] = np.array([0.3, 0.3, 0.3])
    found["prior"]["thin_psnr"], found["generator"]["thin_psnr"] = np.full(3, 17.0), np.full(3, 17.2)
    found["generator"]["seam"] = np.full(3, 0.85)
    lines = {line.split(" | ")[0][2:]: [cell.strip() for cell in line.strip("| ").split("|")] for line in table(found)}
    assert lines["wide: kernel distance"][5:7] == ["Telea", "0.600 ± 0.245"]
    assert lines["wide: kernel distance"][-1] == "yes, no"
    assert lines["thin: PSNR, dB"][5] == "prior"
    assert lines["thin: PSNR, dB"][-1] == "no, no"
    assert lines["wide: seam / truth's"][-1] == "yes, no"


def test_pairs_are_in_the_order_that_the_key_tells(tmp_path: Path) -> None:
    def gray(value: int) -> torch.Tensor:
        return torch.full((3, 10, 200), value, dtype=torch.uint8)

    pair_sheet([(gray(0), gray(100), gray(200))] * 5, tmp_path / "pairs.png")
    picture = np.array(Image.open(tmp_path / "pairs.png"))
    key = json.loads((tmp_path / "pairs.json").read_text())["generator"]
    assert set(key.values()) == {"left", "right"}
    height, width = picture.shape[0] // 3, picture.shape[1] // 2
    for number, side in key.items():
        row, column = divmod(int(number) - 1, 2)
        left, right = (picture[row * height + 18, column * width + 2 + at, 0] for at in (300, 500))
        assert (left, right) == ((200, 100) if side == "left" else (100, 200))
