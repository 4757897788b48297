"""Depth models of other packages: the classes of transformers at toy size, and stand-ins for MoGe-2 and DA3."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geometry.camera import Camera
from geometry.depth import Da3Depth, DepthEstimator, DepthMap, MogeDepth, TransformersDepth, lift_depth, lift_photo
from tests.helpers import GivenDepth

SIZE = (96, 160)
VIT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
FOUR = {"fusion_hidden_size": 8, "neck_hidden_sizes": [8] * 4}

transformers = pytest.importorskip("transformers")


def depth_anything(kind: str = "relative", max_depth: int = 1) -> tuple[Any, Any, nn.Module]:
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, head_hidden_size=4, max_depth=max_depth,
        depth_estimation_type=kind, **FOUR,
    )  # fmt: skip
    model = transformers.DepthAnythingForDepthEstimation(config)
    return (
        model,
        transformers.DPTImageProcessor(size={"height": 56, "width": 84}, ensure_multiple_of=14),
        model.head.conv3,
    )


def prompt_depth_anything() -> tuple[Any, Any, nn.Module]:
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.PromptDepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, head_hidden_size=4, **FOUR
    )
    model = transformers.PromptDepthAnythingForDepthEstimation(config)
    processor = transformers.PromptDepthAnythingImageProcessor(size={"height": 56, "width": 84}, ensure_multiple_of=14)
    return model, processor, model.head.conv3


def dpt() -> tuple[Any, Any, nn.Module]:
    config = transformers.DPTConfig(
        **VIT,
        num_hidden_layers=4,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=False,
        **FOUR,
    )
    model = transformers.DPTForDepthEstimation(config)
    return model, transformers.DPTImageProcessor(size={"height": 64, "width": 64}), model.head.head[4]


def glpn() -> tuple[Any, Any, nn.Module]:
    config = transformers.GLPNConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, max_depth=10
    )
    model = transformers.GLPNForDepthEstimation(config)
    return model, transformers.GLPNImageProcessor(size_divisor=32), model.head.head[2]


def zoedepth() -> tuple[Any, Any, nn.Module]:
    backbone = transformers.BeitConfig(
        **VIT, num_hidden_layers=4, image_size=64, patch_size=16, out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False, use_relative_position_bias=True,
    )  # fmt: skip
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone, backbone_hidden_size=16, bottleneck_features=8, bin_embedding_dim=8,
        num_attractors=[2] * 4, num_relative_features=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}], **FOUR,
    )  # fmt: skip
    model = transformers.ZoeDepthForDepthEstimation(config)
    last = [part.conv2 for part in (model.metric_head.seed_bin_regressor, *model.metric_head.attractors)]
    return model, transformers.ZoeDepthImageProcessor(), nn.ModuleList(last)  # all bins at one distance


def depth_pro() -> tuple[Any, Any, nn.Module]:
    vit = {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8, "use_mask_token": False,
    }  # fmt: skip
    config = transformers.DepthProConfig(
        fusion_hidden_size=8, patch_size=32, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[8] * 3, use_fov_model=True, num_fov_head_layers=2,
        image_model_config=vit, patch_model_config=vit, fov_model_config=vit,
    )  # fmt: skip
    model = transformers.DepthProForDepthEstimation(config)
    processor = transformers.DepthProImageProcessor(size={"height": 128, "width": 128})
    return model, processor, model.head.layers[4]


def tipsv2() -> tuple[Any, Any, nn.Module]:
    backbone = {
        "model_type": "tipsv2_vision_model", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
        "image_size": 56, "out_indices": [1, 2, 3, 4], "reshape_hidden_states": False,
    }  # fmt: skip
    config = transformers.Tipsv2DptConfig(backbone_config=backbone, num_depth_bins=8, **FOUR)
    model = transformers.Tipsv2DptForDepthEstimation(config)
    return model, transformers.Tipsv2DptImageProcessor(size={"height": 56, "width": 56}), model.decoder.head


TORCHVISION = (zoedepth, depth_pro, tipsv2)  # their processors need it
CLASSES = (depth_anything, prompt_depth_anything, dpt, glpn, *TORCHVISION)


def stored(make: Any, folder: Path, value: float, *args: Any) -> Path:
    """A folder of the class whose last layer gives ``value`` at every pixel."""
    if make in TORCHVISION:
        pytest.importorskip("torchvision")
    model, processor, last = make(*args)
    with torch.no_grad():
        for name, parameter in last.named_parameters():
            parameter.fill_(value if name.endswith("bias") else 0.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make", "value", "depth", "metric"),
    [
        (depth_anything, 0.25, 4.0, False),
        (prompt_depth_anything, 0.25, 4.0, False),
        (dpt, 0.5, 2.0, False),
        (glpn, math.log(3.0), 7.5, True),  # sigmoid(log 3) = 3/4 of 10 m
        (zoedepth, math.log(math.exp(3.0) - 1.0), 3.0, True),  # inverse of softplus
        (tipsv2, 1.0, 5.0005, True),  # all bins from 0.001 to 10 m alike
    ],
)
def test_a_plane_is_at_its_distance(make: Any, value: float, depth: float, metric: bool, tmp_path: Path) -> None:
    made = TransformersDepth(str(stored(make, tmp_path, value))).estimate(picture())
    assert made.metric == metric
    assert torch.allclose(made.depth, torch.full((1, 1, *SIZE), depth), rtol=1e-3)
    assert made.valid.all()
    assert not made.sky.any()
    assert made.focal_px is None


def test_metric_can_be_stated_where_the_configuration_does_not(tmp_path: Path) -> None:
    folder = str(stored(dpt, tmp_path, 0.5))
    made = TransformersDepth(folder, metric=True).estimate(picture())
    assert made.metric
    assert torch.allclose(made.depth, torch.full((1, 1, *SIZE), 0.5), rtol=1e-3)


@pytest.mark.parametrize(
    ("range_m", "value", "sky_m", "is_sky"),
    [
        (80, 9.0, None, True),  # at the end of a range for outdoors
        (80, 2.0, None, False),  # 70 m
        (20, 9.0, None, False),  # the end of a room is a wall
        (20, 9.0, 15.0, True),
        (80, 9.0, math.inf, False),
    ],
)
def test_sky_of_a_metric_model_is_what_is_far(
    range_m: int, value: float, sky_m: float | None, is_sky: bool, tmp_path: Path
) -> None:
    folder = stored(depth_anything, tmp_path, value, "metric", range_m)
    made = TransformersDepth(str(folder), sky_m=sky_m).estimate(picture())
    assert made.metric
    assert made.valid.all()
    assert bool(made.sky.all()) == bool(made.sky.any()) == is_sky
    if not is_sky:
        assert torch.allclose(made.depth, torch.tensor(range_m / (1.0 + math.exp(-value))), rtol=1e-3)


def test_a_sky_distance_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth\.sky_m: want a positive distance"):
        TransformersDepth("any", sky_m=0.0)


def test_depth_pro_is_metric_with_its_own_focal_length_or_a_given_one(tmp_path: Path) -> None:
    folder = stored(depth_pro, tmp_path, 0.5)
    estimator = TransformersDepth(str(folder))
    last = estimator.model.fov_model.head.layers[-1]
    fov = 2.0 * math.degrees(math.atan(0.5))  # the focal length is the width
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(fov)
    made = estimator.estimate(picture())
    assert made.metric
    assert made.focal_px is not None
    assert made.focal_px.tolist() == pytest.approx([160.0], rel=1e-4)
    assert torch.allclose(made.depth, torch.full((1, 1, *SIZE), 2.0), rtol=1e-3)
    longer = estimator.estimate(picture(), torch.full((1, 2), 320.0))
    assert longer.focal_px is None
    assert torch.allclose(longer.depth, torch.full((1, 1, *SIZE), 4.0), rtol=1e-3)
    with torch.no_grad():
        estimator.model.head.layers[4].bias.fill_(1e-4)  # 10 km
    assert estimator.estimate(picture()).sky.all()


@pytest.mark.parametrize("make", CLASSES)
@pytest.mark.parametrize("size", [(480, 832), (300, 200)])
def test_a_square_lands_where_it_was_painted(
    make: Any, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = TransformersDepth(str(stored(make, tmp_path, 0.5)))
    rgb = torch.zeros(1, 3, *size)
    rgb[..., 40:60, 100:150] = 1.0
    seen: list[torch.Size] = []

    def brightness(pixel_values: Tensor, **_: Any) -> Any:  # in place of the network, at the size that it would see
        seen.append(pixel_values.shape[-2:])
        bright = pixel_values.mean(1)
        depth = 1.0 + (bright - bright.min())
        if make is depth_pro:
            return transformers.models.depth_pro.modeling_depth_pro.DepthProDepthEstimatorOutput(predicted_depth=depth)
        return transformers.modeling_outputs.DepthEstimatorOutput(predicted_depth=depth)

    monkeypatch.setattr(estimator.model, "forward", brightness)
    depth = estimator.estimate(rgb).depth[0, 0]
    inside = (depth - depth.median()).abs() > 0.5 * (depth - depth.median()).abs().max()
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    found = [rows[0].item(), rows[-1].item(), columns[0].item(), columns[-1].item()]
    slack = [math.ceil(side / input_side) for side, input_side in zip(size, seen[0], strict=True)]  # one of its pixels
    for got, painted, by in zip(found, (40, 59, 100, 149), (slack[0], slack[0], slack[1], slack[1]), strict=True):
        assert abs(got - painted) <= by, found


def test_models_of_other_quantities_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stored(dpt, tmp_path, 0.5)
    monkeypatch.setattr(transformers.DPTConfig, "model_type", "chmv2")
    other = SimpleNamespace(eval=lambda: SimpleNamespace(to=lambda _: SimpleNamespace(config=transformers.DPTConfig())))
    monkeypatch.setattr(transformers.AutoModelForDepthEstimation, "from_pretrained", lambda _: other)
    with pytest.raises(ValueError, match="predicts the height of trees; want one for depth estimation"):
        TransformersDepth(str(folder))


def test_a_missing_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def needs(*_: Any) -> None:
        raise ImportError("DepthProImageProcessor requires the Torchvision library\nbut it was not found")

    monkeypatch.setattr(transformers.AutoModelForDepthEstimation, "from_pretrained", needs)
    monkeypatch.setattr("geometry.depth.transformers.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"needs torchvision.* pip install torchvision") as error:
        TransformersDepth("apple/DepthPro-hf")
    assert "\n" not in str(error.value)


class Moge:
    """Has the interface of ``moge.model.v2.MoGeModel`` (637e23e): a sloping ground below a sky."""

    asked: dict[str, Any]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str) -> Moge:
        if "none" in pretrained_model_name_or_path:
            raise FileNotFoundError("no such file\nat all")
        made = cls()
        made.asked = {"file": pretrained_model_name_or_path}
        return made

    def to(self, _: str) -> Moge:
        return self

    eval = lambda self: self  # noqa: E731

    def infer(self, image: Tensor, fov_x: Tensor | None = None, use_fp16: bool = True) -> dict[str, Tensor]:
        batch, _, height, width = image.shape
        self.asked |= {"fov_x": fov_x, "use_fp16": use_fp16}
        mask = (torch.arange(height) >= height // 4)[:, None].expand(batch, height, width)
        depth = torch.where(mask, 3.0, torch.inf)
        depth[:, -1, 0] = -1.0
        fov = torch.full((batch,), 90.0) if fov_x is None else fov_x
        intrinsics = torch.eye(3).repeat(batch, 1, 1)
        intrinsics[:, 0, 0] = 0.5 / torch.tan(torch.deg2rad(fov) / 2.0)
        return {"depth": depth, "mask": mask, "intrinsics": intrinsics}


@pytest.fixture
def moge(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("moge", "moge.model", "moge.model.v2"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["moge.model.v2"], "MoGeModel", Moge, raising=False)


@pytest.mark.usefixtures("moge")
def test_moge_gives_metric_depth_sky_and_focal_length(tmp_path: Path) -> None:
    estimator = MogeDepth(str(tmp_path))
    assert isinstance(estimator, DepthEstimator)
    made = estimator.estimate(picture().expand(2, -1, -1, -1))
    assert estimator.model.asked["file"] == str(tmp_path / "model.pt")
    assert estimator.model.asked["use_fp16"] is False
    assert made.metric
    assert made.sky[..., :24, :].all()
    assert not made.sky[..., 24:, :].any()
    assert torch.isfinite(made.depth).all()
    assert (made.depth[made.sky] >= 300.0).all()
    assert not made.valid[:, 0, -1, 0].any()
    assert (~made.valid).sum() == 2
    assert made.focal_px is not None
    assert made.focal_px.tolist() == pytest.approx([80.0, 80.0])
    frame = lift_photo(picture(), estimator, Camera.from_fov(60.0, SIZE, torch.eye(4)[None]))
    assert frame.metric
    assert estimator.model.asked["fov_x"].item() == pytest.approx(60.0, abs=1e-3)
    assert estimator.estimate(picture(), torch.full((1, 2), 80.0)).focal_px is None


@pytest.mark.usefixtures("moge")
def test_a_moge_checkpoint_that_does_not_load_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth\.checkpoint: 'none' cannot be loaded as MoGe-2: no such file$"):
        MogeDepth("none")


class Da3:
    """Has the interface of ``depth_anything_3.api.DepthAnything3`` (11a70dd): 504 pixels wide, in multiples of 14."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    @classmethod
    def from_pretrained(cls, name: str) -> Da3:
        if name == "none":
            raise OSError("not there")
        return cls(name)

    def to(self, _: str) -> Da3:
        return self

    eval = lambda self: self  # noqa: E731

    def inference(self, image: list[np.ndarray]) -> SimpleNamespace:
        assert image[0].dtype == np.uint8
        assert image[0].shape == (*SIZE, 3)
        depth = np.full((len(image), 294, 504), 4.0, dtype=np.float32)
        sky = np.zeros(depth.shape, dtype=bool)
        sky[:, :147] = True
        cameras = np.broadcast_to(np.diag([630.0, 600.0, 1.0]).astype(np.float32), (len(image), 3, 3))
        nested, mono = "nested" in self.model_name, "metric" in self.model_name
        return SimpleNamespace(
            depth=depth,
            is_metric=int(nested),
            sky=sky if nested or mono else None,
            intrinsics=None if mono else cameras,
        )


@pytest.fixture
def da3(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("depth_anything_3", "depth_anything_3.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["depth_anything_3.api"], "DepthAnything3", Da3, raising=False)


@pytest.mark.usefixtures("da3")
def test_da3_is_metric_where_the_model_is_and_the_focal_length_is_known() -> None:
    focal_px = torch.full((2, 2), 200.0)
    rgb = picture().expand(2, -1, -1, -1)
    estimator = Da3Depth("da3metric-large")
    assert isinstance(estimator, DepthEstimator)
    made = estimator.estimate(rgb, focal_px)
    ground = ~made.sky
    assert made.metric
    assert made.depth.shape == (2, 1, *SIZE)
    assert torch.allclose(made.depth[ground], torch.tensor(4.0 * 200.0 * (504.0 / 160.0) / 300.0), rtol=1e-5)
    assert made.sky[..., :48, :].all()
    assert not made.sky[..., 48:, :].any()
    unknown = estimator.estimate(rgb)
    assert not unknown.metric
    assert unknown.focal_px is None
    nested, plain = Da3Depth("da3nested-giant-large").estimate(rgb), Da3Depth("da3-base").estimate(rgb)
    assert nested.metric
    assert torch.allclose(nested.depth[~nested.sky], torch.tensor(4.0))
    assert not plain.metric
    assert not plain.sky.any()
    assert plain.focal_px is not None
    assert plain.focal_px.tolist() == pytest.approx([200.0, 200.0])
    assert Da3Depth("da3-base").estimate(rgb, focal_px).focal_px is None


@pytest.mark.usefixtures("da3")
def test_a_da3_checkpoint_that_does_not_load_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth\.checkpoint: 'none' cannot be loaded as DA3: not there"):
        Da3Depth("none")


@pytest.mark.parametrize(
    ("make", "module", "line"),
    [
        (MogeDepth, "moge.model.v2", r"depth=moge needs MoGe: pip install git\+https"),
        (Da3Depth, "depth_anything_3.api", "depth=da3 needs Depth Anything 3: pip install --no-deps depth-anything-3"),
    ],
)
def test_a_missing_package_has_an_install_line(
    make: Any, module: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    with pytest.raises(ImportError, match=line):
        make("any")


def test_lifting_a_depth_that_was_made_before_is_lifting_the_photo() -> None:
    ones = torch.ones(1, 1, *SIZE)
    made = DepthMap(3.0 * ones, ones.bool(), ~ones.bool(), False, torch.tensor([100.0]))
    camera = Camera.from_fov(60.0, SIZE, torch.eye(4)[None])
    whole = lift_photo(picture(), GivenDepth(made), camera)
    frame = lift_depth(picture(), made, camera)
    assert torch.equal(frame.depth, whole.depth)
    assert torch.equal(frame.valid, whole.valid)
