"""Depth: estimators, files, alignment, sharp edges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geometry.camera import Camera
from geometry.depth import (
    DepthEstimator,
    DepthMap,
    EmbeddedDepth,
    PlaneDepth,
    TransformersDepth,
    align_depth,
    clean_discontinuities,
    clear_far,
    lift_photo,
    snap_depth_edges,
)
from geometry.depth.edge_alignment import fit_to_picture
from geometry.depth.embedded import save_depth_network
from geometry.depth.mixed_pixels import without_gaps
from geometry.depth.network import DepthNetwork
from geometry.depth.policy import DiscontinuityPolicy, EdgeAlignPolicy
from geometry.frame import Frame
from tests.helpers import GivenDepth, cameras_along, random_rgb

SIZE = (32, 48)


def camera() -> Camera:
    return cameras_along(0.0, 1, SIZE)


def depth_map(depth: torch.Tensor, metric: bool = False) -> DepthMap:
    return DepthMap(depth, torch.ones_like(depth, dtype=torch.bool), torch.zeros_like(depth, dtype=torch.bool), metric)


def test_plane_is_one_depth() -> None:
    made = PlaneDepth(2.0).estimate(random_rgb(SIZE))
    assert isinstance(PlaneDepth(), DepthEstimator)
    assert torch.equal(made.depth, torch.full((1, 1, *SIZE), 2.0))
    with pytest.raises(ValueError, match="positive distance"):
        PlaneDepth(0.0)


def test_the_embedded_network_gives_median_one() -> None:
    made = EmbeddedDepth().estimate(random_rgb(SIZE))
    ground = ~made.sky
    assert made.depth.shape == (1, 1, *SIZE)
    assert (made.depth > 0).all()
    assert not made.metric
    if ground.any():
        assert made.depth[ground].median().item() == pytest.approx(1.0, abs=1e-4)


def test_embedded_depth_of_a_mirrored_photo_is_mirrored() -> None:
    depth, rgb = EmbeddedDepth(), random_rgb(SIZE)
    a, b = depth.estimate(rgb).depth.log(), depth.estimate(rgb.flip(-1)).depth.log()
    # DINOv2 sees the photo as it is, and not its mirror image, so that they agree but nearly.
    assert (a - b.flip(-1)).abs().mean() < 0.03
    assert (a - b.flip(-1)).abs().mean() < 0.5 * (a - b).abs().mean()


def test_soft_edges_move_onto_the_edges_of_the_picture() -> None:
    column = torch.arange(96.0).expand(64, -1)
    tower = (column >= 40) & (column < 60)
    rgb = torch.where(tower, 0.2, 0.8).expand(3, -1, -1).contiguous()
    sky = torch.sigmoid((50.0 - column).abs() - 14.0)  # four pixels too wide on either side
    log_depth = torch.full((64, 96), 0.7)
    fitted, fitted_sky = fit_to_picture(log_depth, sky, rgb)
    clear = ~((column - 39.5).abs() < 1.0) & ~((column - 59.5).abs() < 1.0)  # the picture's own edge is two pixels soft
    assert torch.equal((fitted_sky > 0.5)[clear], ~tower[clear])
    assert not torch.equal((sky > 0.5)[clear], ~tower[clear])
    assert torch.allclose(fitted, log_depth, atol=1e-3)


def test_pixels_unlike_the_surrounding_sky_are_not_sky() -> None:
    row, column = torch.arange(96.0)[:, None].expand(96, 128), torch.arange(128.0).expand(96, -1)
    pole = (column >= 62) & (column < 66) & (row >= 40)
    ground = row >= 70
    rgb = torch.where(pole | ground, 0.15, 0.85).expand(3, -1, -1).contiguous()
    network = torch.sigmoid(65.0 - row)  # the ground a little too high, and nothing of the pole
    _, fitted_sky = fit_to_picture(torch.zeros(96, 128), network, rgb)
    low = pole & (row >= 64)
    assert (fitted_sky[low] < 0.5).all()
    assert (fitted_sky[(row < 40)] > 0.5).all()


def test_sky_in_the_middle_of_the_ground_must_look_like_the_open_sky() -> None:
    row, column = torch.arange(96.0)[:, None].expand(96, 128), torch.arange(128.0).expand(96, -1)
    lake = (row - 70.0).square() + (column - 30.0).square() < 150.0
    gap = (row - 70.0).square() + (column - 95.0).square() < 150.0
    shade = torch.where((row < 40) | gap, 0.85, torch.where(lake, 0.5, 0.2))
    network = torch.where((row < 40) | gap | lake, 0.99, 0.05)
    _, sky = fit_to_picture(torch.zeros(96, 128), network, shade.expand(3, -1, -1).contiguous())
    assert not (sky[lake] > 0.5).any()
    assert (sky[gap] > 0.5).float().mean() > 0.9
    assert (sky[:38] > 0.5).all()
    indoors = torch.where(lake, 0.99, 0.05)  # no open sky to compare with
    assert (fit_to_picture(torch.zeros(96, 128), indoors, shade.expand(3, -1, -1).contiguous())[1][lake] > 0.5).any()


@pytest.mark.parametrize(("surest", "is_sky"), [(0.96, False), (0.99, True)])
def test_sky_that_the_network_is_nowhere_sure_of_is_a_wall(surest: float, is_sky: bool) -> None:
    row, column = torch.arange(96.0)[:, None].expand(96, 128), torch.arange(128.0).expand(96, -1)
    rgb = torch.where(row < 40, 0.95, 0.3).expand(3, -1, -1).contiguous()
    network = torch.where(row < 40, 0.9, 0.05)
    network[(row < 10) & (column < 10)] = surest
    _, sky = fit_to_picture(torch.zeros(96, 128), network, rgb)
    assert bool((sky[:38] > 0.5).all()) == bool((sky > 0.5).any()) == is_sky


def test_ground_connected_only_through_sky_is_ground() -> None:
    row, column = torch.arange(96.0)[:, None].expand(96, 128), torch.arange(128.0).expand(96, -1)
    haze = (row - 70.0).square() + (column - 60.0).square() < 200.0
    slope = (row >= 40) & ~haze
    bridge = (row < 60) & ((column - 60.0).abs() < 2)  # of doubtful sky, across ground of another color
    shade = torch.where(slope, 0.2, torch.where(haze, 0.5, 0.85))
    network = torch.where((row < 40) | haze, 0.99, torch.where(bridge, 0.6, 0.02))
    _, sky = fit_to_picture(torch.zeros(96, 128), network, shade.expand(3, -1, -1).contiguous())
    assert not (sky[haze] > 0.5).any()
    assert (sky[:38] > 0.5).all()


@pytest.mark.parametrize("far", ["sky", "ground"])
def test_background_has_no_foreground_colors(far: str) -> None:
    rgb = torch.full((1, 3, 64, 96), 0.8)
    behind = torch.ones(1, 1, 64, 96, dtype=torch.bool)
    behind[..., 40:, :] = False
    rgb[..., 40:, :] = 0.2
    rgb[..., 39, :] = 0.5  # mixed
    depth = torch.where(behind, 5.0, 1.0)
    sky = behind & (far == "sky")
    frame = Frame(rgb, depth, torch.ones_like(sky), sky, Camera.from_fov(60.0, (64, 96), torch.eye(4)[None]))
    cleared = clear_far(frame)
    assert torch.allclose(cleared.rgb[..., :40, :], torch.tensor(0.8), atol=0.5 / 255.0)
    assert torch.allclose(cleared.rgb[..., 40:, :], rgb[..., 40:, :], atol=0.5 / 255.0)
    flat = clear_far(replace(frame, depth=torch.ones_like(depth), sky=torch.zeros_like(sky)))
    assert torch.allclose(flat.rgb, rgb, atol=0.5 / 255.0)


@pytest.mark.parametrize("far", ["sky", "ground"])
@pytest.mark.parametrize(("gap_px", "every_px", "closed"), [(2, 16, True), (6, 8, False)])
def test_small_gaps_get_the_depth_of_their_surface(far: str, gap_px: int, every_px: int, *, closed: bool) -> None:
    row, column = torch.meshgrid(torch.arange(96), torch.arange(160), indexing="ij")
    crown = (row >= 32) & (column >= 64)
    gap = crown & (row % every_px < gap_px) & (column % every_px < gap_px)
    depth = torch.where(crown & ~gap, 1.0, 5.0)[None, None]
    all_ = torch.ones_like(depth, dtype=torch.bool)
    sky = (depth > 1.0) & (far == "sky")
    frame = Frame(torch.rand(1, 3, 96, 160), depth, all_, sky, Camera.from_fov(60.0, (96, 160), torch.eye(4)[None]))
    whole = without_gaps(frame)
    inside = gap & (row >= 44) & (column >= 76) & (row < 90) & (column < 154)
    assert (whole.depth[0, 0][inside] == (1.0 if closed else 5.0)).all()
    assert (whole.sky[0, 0][inside] == (far == "sky" and not closed)).all()
    outside = ~crown
    assert (whole.depth[0, 0][outside] == 5.0).all()
    assert torch.equal(whole.sky[0, 0][outside], sky[0, 0][outside])


def test_unknown_depth_occludes_nothing() -> None:
    depth = torch.full((1, 1, 64, 96), 2.0)
    known = torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(0)) > 0.7
    depth[~known] = 0.0
    none = torch.zeros_like(known)
    frame = Frame(torch.rand(1, 3, 64, 96), depth, known, none, Camera.from_fov(60.0, (64, 96), torch.eye(4)[None]))
    assert torch.equal(without_gaps(frame).depth[known], depth[known])
    cleared = clear_far(frame).rgb
    assert torch.allclose(cleared[known.expand(1, 3, -1, -1)], frame.rgb[known.expand(1, 3, -1, -1)], atol=0.5 / 255.0)


def test_background_keeps_its_texture_beside_an_outline() -> None:
    rgb = torch.zeros(1, 3, 64, 96)
    rgb[:, 1] = 0.4 + 0.2 * torch.rand(1, 64, 96, generator=torch.Generator().manual_seed(0))
    rgb[..., 40:, :] = torch.tensor([0.9, 0.5, 0.0])[:, None, None]  # as bright in green as what is behind
    depth = torch.ones(1, 1, 64, 96)
    depth[..., :40, :] = 5.0
    all_, none = torch.ones_like(depth, dtype=torch.bool), torch.zeros_like(depth, dtype=torch.bool)
    frame = Frame(rgb, depth, all_, none, Camera.from_fov(60.0, (64, 96), torch.eye(4)[None]))
    kept, given = (f.rgb[0, 1, 38:40].flatten() for f in (clear_far(frame), frame))
    assert torch.corrcoef(torch.stack([kept, given]))[0, 1] > 0.8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_clearing_a_mask_equals_clearing_all_pixels(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    blocks = torch.rand(1, 1, 8, 12, generator=rng).repeat_interleave(8, -2).repeat_interleave(8, -1)
    depth = torch.where(blocks < 0.4, 1.0, torch.where(blocks < 0.7, 3.0, 20.0))
    rgb = torch.rand(1, 3, 64, 96, generator=rng)
    valid = torch.rand(1, 1, 64, 96, generator=rng) > 0.1
    frame = Frame(rgb, depth, valid, depth > 10.0, Camera.from_fov(60.0, (64, 96), torch.eye(4)[None]))
    where = torch.rand(1, 1, 8, 12, generator=rng).repeat_interleave(8, -2).repeat_interleave(8, -1) > 0.8
    some, all_, given_ = (f.rgb.round(decimals=3) for f in (clear_far(frame, where), clear_far(frame), frame))
    expected = torch.where(where, all_, (given_ * 255.0).round() / 255.0)
    assert ((some - expected).abs() > 2.0 / 255.0).float().mean() < 0.001  # running sums round


def test_a_soft_step_of_depth_becomes_a_sharp_one_at_the_color_edge() -> None:
    column = torch.arange(96.0).expand(64, -1)
    rgb = torch.where(column >= 48, 0.2, 0.8).expand(3, -1, -1).contiguous()
    soft = 2.0 * torch.sigmoid((column - 51.0) / 1.5)
    fitted, _ = fit_to_picture(soft, torch.zeros(64, 96), rgb)
    assert (fitted[:, :47] < 0.1).all()
    assert (fitted[:, 49:] > 1.9).all()


def test_a_slope_of_one_color_stays_a_slope() -> None:
    slope = torch.linspace(0.0, 0.5, 96).expand(64, -1).contiguous()
    fitted, _ = fit_to_picture(slope, torch.zeros(64, 96), torch.full((3, 64, 96), 0.5))
    assert (fitted - slope).abs()[:, 8:-8].max() < 0.02


def test_textured_slope_has_no_terraces() -> None:
    rows = torch.arange(96.0)[:, None].expand(96, 128)
    ground = -torch.log(0.02 * (rows + 20.0))
    blades = 0.3 + 0.4 * torch.rand(96, 128, generator=torch.Generator().manual_seed(0))
    blades = torch.nn.functional.avg_pool2d(blades[None, None], (1, 9), 1, (0, 4))[0]
    fitted, _ = fit_to_picture(ground, torch.zeros(96, 128), torch.cat([0.4 * blades, blades, 0.3 * blades]))
    steps, wanted = (d[8:-8, 8:-8].diff(dim=0) for d in (fitted, ground))
    assert ((steps - wanted).abs() < 0.2 * wanted.abs()).float().mean() > 0.98


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        EmbeddedDepth(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="damaged"):
        EmbeddedDepth(tmp_path / "cut.safetensors")
    network = DepthNetwork(16)
    save_depth_network(network, tmp_path / "small.safetensors", {})
    assert EmbeddedDepth(tmp_path / "small.safetensors").network.channels == 16
    network.channels = 64
    save_depth_network(network, tmp_path / "lie.safetensors", {})
    with pytest.raises(ValueError, match="another architecture"):
        EmbeddedDepth(tmp_path / "lie.safetensors")


def test_wrong_numbers_of_depth_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bend: want a number above 0, got 0.0; leave it out for 0.02"):
        EdgeAlignPolicy(bend=0.0)
    with pytest.raises(ValueError, match=r"mixed_ratio: want a ratio above 1, got 1.0"):
        DiscontinuityPolicy(mixed_ratio=1.0)
    with pytest.raises(ValueError, match="short_side_px, detail_side_px: want 32 or more, got 16 and 384"):
        EmbeddedDepth(short_side_px=16)


@pytest.mark.parametrize("metric", [False, True])
def test_any_hugging_face_depth_model(metric: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 16], fusion_hidden_size=8, head_hidden_size=4, max_depth=20 if metric else 1,
        depth_estimation_type="metric" if metric else "relative",
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path)
    transformers.DPTImageProcessor(size={"height": 28, "width": 42}, ensure_multiple_of=14).save_pretrained(tmp_path)
    made = TransformersDepth(str(tmp_path)).estimate(random_rgb(SIZE))
    assert made.metric == metric
    assert made.depth.shape == (1, 1, *SIZE)
    assert (made.depth[made.valid] > 0).all()
    with pytest.raises(ValueError, match=r"depth\.checkpoint: .*none"):
        TransformersDepth(str(tmp_path / "none"))


def write_model(transformers: Any, model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    transformers.DPTImageProcessor(size={"height": 28, "width": 42}, ensure_multiple_of=14).save_pretrained(folder)


def test_checkpoints_that_are_no_depth_model_are_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    write_model(
        transformers, transformers.BertModel(transformers.BertConfig(**small, vocab_size=30)), tmp_path / "text"
    )
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/config.json").write_text('{"model_type": "glpn"}')
    (tmp_path / "torn/model.safetensors").write_bytes(b"cut")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "text": "is another kind of model",
        "torn": "cannot be loaded",
        "empty": "cannot be loaded",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            TransformersDepth(str(tmp_path / name))
        assert str(error.value).startswith("depth.checkpoint: ")
        assert "\n" not in str(error.value)

    def unreachable(*args: object, **kwargs: object) -> None:  # noqa: ARG001
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.\nCheck your connection.")

    monkeypatch.setattr(transformers.AutoModelForDepthEstimation, "from_pretrained", unreachable)
    with pytest.raises(ValueError, match=r"'someone/model' is no local folder, and huggingface\.co cannot be reached"):
        TransformersDepth("someone/model")


class Answers:
    """A model or a processor that gives what it was made with."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __call__(self, **_: Any) -> Answers:
        return self

    def to(self, _: torch.device) -> dict:
        return {}

    def post_process_depth_estimation(self, outputs: Any, target_sizes: list) -> list:  # noqa: ARG002
        return [{"predicted_depth": depth} for depth in outputs.predicted]


@pytest.mark.parametrize("metric", [False, True])
def test_relative_models_give_inverse_depth_and_metric_ones_depth(metric: bool) -> None:
    values = torch.full(SIZE, 0.5)
    values[:, :24] = 4.0
    values[:4] = 0.0
    model = TransformersDepth.__new__(TransformersDepth)
    model.metric, model.sky_m, model.device = metric, 1000.0, torch.device("cpu")
    model.model, model.processor = Answers(predicted=[values]), Answers()
    made = model.estimate(random_rgb(SIZE))
    assert made.metric == metric
    right, left = (made.depth[0, 0, 10, x].item() for x in (40, 4))
    assert (right, left) == ((0.5, 4.0) if metric else (2.0, 0.25))
    assert made.sky[..., :4, :].all() != metric
    assert made.valid[..., :4, :].all() != metric
    assert not made.sky[..., 4:, :].any()


class PaddingProcessor:
    """Like ZoeDepth's: cuts off what it had padded, if it is told the picture's size."""

    def __call__(self, **_: Any) -> Answers:
        return Answers()

    def post_process_depth_estimation(self, outputs: Any, source_sizes: list, target_sizes: list) -> list:
        assert source_sizes == target_sizes == [SIZE]
        return [{"predicted_depth": outputs.predicted_depth[0, 4:-4, 4:-4]}]


def test_padding_of_the_processor_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 1.0 + torch.rand(SIZE, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(depth[None], (4, 4, 4, 4), value=9.0)
    model = TransformersDepth.__new__(TransformersDepth)
    model.metric, model.sky_m, model.device = True, 1000.0, torch.device("cpu")
    model.model, model.processor = Answers(predicted_depth=padded), PaddingProcessor()
    monkeypatch.setattr("geometry.depth.transformers.find_spec", lambda name: name)
    assert torch.equal(model.estimate(random_rgb(SIZE)).depth[0, 0], depth)
    monkeypatch.setattr("geometry.depth.transformers.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install torchvision"):
        model.estimate(random_rgb(SIZE))


def test_lifting_sets_the_median_to_one_and_the_sky_far() -> None:
    depth = 5.0 + torch.linspace(0, 1, SIZE[1]).expand(1, 1, *SIZE)
    made = depth_map(depth)
    sky = torch.zeros_like(made.sky)
    sky[..., :8, :] = True
    frame = lift_photo(random_rgb(SIZE), GivenDepth(DepthMap(depth, made.valid, sky, False)), camera())
    assert frame.depth[~frame.sky].median().item() == pytest.approx(1.0, abs=1e-3)
    assert torch.equal(frame.sky, sky)
    assert (frame.depth[sky] > 50).all()
    metric = lift_photo(random_rgb(SIZE), GivenDepth(depth_map(depth, metric=True)), camera())
    assert metric.metric
    assert torch.allclose(metric.depth, depth, rtol=1e-4)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (torch.ones(1, 1, 8, 8), "photo's size"),
        (torch.full((1, 1, *SIZE), -1.0), "finite positive"),
        (torch.full((1, 1, *SIZE), torch.nan), "finite positive"),
    ],
)
def test_lifting_refuses_bad_depth(depth: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lift_photo(random_rgb(SIZE), GivenDepth(depth_map(depth)), camera())


def test_flying_pixels_are_dropped_and_surfaces_stay() -> None:
    depth = torch.ones(1, 1, *SIZE)
    depth[..., 24:] = 3.0
    valid = torch.ones_like(depth, dtype=torch.bool)
    assert clean_discontinuities(depth, valid).all()
    depth[..., 24] = 1.8  # between the two surfaces
    kept = clean_discontinuities(depth, valid)
    assert not kept[..., 24].any()
    assert kept[..., :23].all()
    assert kept[..., 26:].all()


def test_a_slope_is_not_an_edge() -> None:
    depth = torch.linspace(1.0, 2.0, SIZE[0])[None, None, :, None].expand(1, 1, *SIZE).contiguous()
    valid = torch.ones_like(depth, dtype=torch.bool)
    assert clean_discontinuities(depth, valid).all()


def test_soft_edges_snap_to_color_edges() -> None:
    rgb = torch.zeros(1, 3, *SIZE)
    rgb[..., 24:] = 1.0
    soft = 1.0 / (1.0 - 0.6 * torch.sigmoid((torch.arange(SIZE[1]) - 25.0) / 1.0))
    depth = soft.expand(1, 1, *SIZE).contiguous()
    none = torch.zeros_like(depth, dtype=torch.bool)
    sharp = snap_depth_edges(depth, rgb, none)
    between = lambda d: ((d > 1.15) & (d < 2.1)).float().mean()  # noqa: E731
    assert between(sharp) < 0.5 * between(depth)
    step = sharp[0, 0, 16].diff().abs().argmax().item()
    assert abs(step - 23) <= 1


def test_nothing_is_left_between_two_surfaces_far_apart() -> None:
    rgb = torch.zeros(1, 3, *SIZE)
    rgb[..., 24:] = 1.0
    soft = 1.0 / (1.0 - 0.9 * torch.sigmoid((torch.arange(SIZE[1]) - 24.0) / 2.0))
    depth = soft.expand(1, 1, *SIZE).contiguous()
    sharp = snap_depth_edges(depth, rgb, torch.zeros_like(depth, dtype=torch.bool))
    assert ((depth > 1.3) & (depth < 7.0)).any()
    assert not ((sharp > 1.3) & (sharp < 7.0)).any()


def test_ground_that_rises_to_its_horizon_keeps_its_slope() -> None:
    depth = (3.0 / torch.arange(1.0, SIZE[0] + 1.0).flip(0))[None, None, :, None].expand(1, 1, *SIZE).contiguous()
    rgb = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(snap_depth_edges(depth, rgb, torch.zeros_like(depth, dtype=torch.bool)), depth)


def test_ground_never_takes_the_depth_of_the_sky() -> None:
    rgb, depth = torch.full((1, 3, *SIZE), 0.5), torch.full((1, 1, *SIZE), 2.0)
    rgb[..., :12, :], depth[..., :12, :] = 0.9, 100.0
    rgb[..., 12, :], depth[..., 12, :] = 0.9, 30.0  # a soft edge, and the outline of the sky one row too high
    sky = depth > 50.0
    assert (snap_depth_edges(depth, rgb, sky)[..., 12:, :] <= 30.0).all()
    assert (snap_depth_edges(depth, rgb, torch.zeros_like(sky))[..., 12, :] > 50.0).all()


def test_leaves_and_the_gaps_between_them_are_one_surface() -> None:
    rng = torch.Generator().manual_seed(0)
    soft = 1.0 / (1.0 - 0.6 * torch.sigmoid((torch.arange(SIZE[1]) - 24.0) / 2.0))
    depth = soft.expand(1, 1, *SIZE).contiguous()
    rgb = torch.where(torch.arange(SIZE[1]) < 24, 0.2, 0.8).expand(1, 3, *SIZE).clone()
    gaps = torch.rand(1, 1, *SIZE, generator=rng) < 0.12
    rgb = torch.where(gaps & (torch.arange(SIZE[1]) < 24), 0.8, rgb)
    near = snap_depth_edges(depth, rgb, torch.zeros_like(gaps)) < 1.5
    assert near[..., 19:22].float().mean() > 0.95
    assert not near[..., 27:].any()


@settings(max_examples=15, deadline=None)
@given(st.floats(0.5, 2.0), st.floats(-0.1, 0.3), st.integers(0, 100))
def test_alignment_recovers_scale_and_shift_through_outliers(scale: float, shift: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    true = 1.0 + 3.0 * torch.rand(2, 1, 16, 16, generator=rng)
    new = scale / (1.0 / true - shift)
    valid = new > 0
    spoiled = torch.where(torch.rand(true.shape, generator=rng) < 0.1, 5.0 * true, true)
    made = align_depth(new.clamp_min(1e-3), valid, spoiled, torch.ones_like(true))
    assert made.count == int(valid.sum())
    assert torch.allclose(made.depth[valid], true[valid], rtol=0.02)
    assert made.residual < 0.01


def test_alignment_without_enough_shared_pixels_changes_nothing() -> None:
    depth = 1.0 + torch.rand(1, 1, 16, 16)
    made = align_depth(depth, torch.ones_like(depth, dtype=torch.bool), depth, torch.zeros_like(depth))
    assert made.count == 0
    assert torch.equal(made.depth, depth)
    assert (made.scale, made.shift) == (1.0, 0.0)
