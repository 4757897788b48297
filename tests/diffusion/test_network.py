"""The network: relative cameras only, causal chunks, certain pixels exact."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from diffusion.retouch.attention import CameraAttention
from diffusion.retouch.network import DenoiserNetwork, Inputs, NetworkConfig, Past, detail, inside

TOY = NetworkConfig(widths=(8, 8, 16), dim=32, blocks=2, heads=2)


def _random_network(dtype: torch.dtype = torch.float64) -> DenoiserNetwork:
    rng = torch.Generator().manual_seed(0)
    network = DenoiserNetwork(TOY).to(dtype).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # large enough that every part shows in the output
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=rng, dtype=dtype))
    return network


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    x, y, z = angles.tolist()
    generator = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(generator)


def _inputs(frames: int, seed: int = 0, size: tuple[int, int] = (32, 48)) -> Inputs:
    rng = torch.Generator().manual_seed(seed)

    def rand(channels: int) -> torch.Tensor:
        return torch.rand(1, frames, channels, *size, generator=rng, dtype=torch.float64)

    pose = torch.eye(4, dtype=torch.float64).repeat(1, frames, 1, 1)
    for frame in range(frames):
        pose[0, frame, :3, :3] = _rotation(0.3 * torch.randn(3, generator=rng, dtype=torch.float64))
        pose[0, frame, :3, 3] = 0.5 * torch.randn(3, generator=rng, dtype=torch.float64)
    k = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]], dtype=torch.float64).repeat(1, frames, 1, 1)
    state, prior, smooth = rand(4), 2 * rand(4) - 1, 2 * rand(4) - 1
    return Inputs(state, prior, smooth, rand(1), rand(1), rand(1), rand(1), pose, k, torch.ones(1, dtype=torch.float64))


def _frames(inputs: Inputs, part: slice) -> Inputs:
    values = {f.name: getattr(inputs, f.name) for f in fields(Inputs)}
    return Inputs(**{name: value if name == "unit" else value[:, part] for name, value in values.items()})


@torch.no_grad()
def test_chunks_with_memory_equal_one_causal_pass() -> None:
    network, inputs = _random_network(), _inputs(6)
    whole, _, _ = network(inputs, chunk_of_frame=torch.tensor([0, 1, 1, 2, 2, 2]))
    past, made = None, []
    for part in (slice(0, 1), slice(1, 3), slice(3, 6)):
        chunk = _frames(inputs, part)
        clean, keys, values = network(chunk, past)
        made.append(clean)
        if past is not None:
            keys, values = torch.cat([past.keys, keys], 1), torch.cat([past.values, values], 1)
        seen = _frames(inputs, slice(0, part.stop))
        past = Past(keys, values, seen.world_from_camera, seen.intrinsics)
    torch.testing.assert_close(torch.cat(made, 1), whole, rtol=1e-9, atol=1e-9)
    alone, _, _ = network(_frames(inputs, slice(3, 6)))
    assert (alone - made[-1]).abs().max() > 1e-4  # memory has an effect


@torch.no_grad()
def test_later_chunks_do_not_change_earlier_ones() -> None:
    network, inputs = _random_network(), _inputs(4)
    chunks = torch.tensor([0, 0, 1, 1])
    before, _, _ = network(inputs, chunk_of_frame=chunks)
    state = inputs.state.clone()
    state[:, 2:] += 1.0
    after, _, _ = network(replace(inputs, state=state), chunk_of_frame=chunks)
    # The reference camera and thus rounding may differ, nothing else.
    torch.testing.assert_close(after[:, :2], before[:, :2], rtol=1e-10, atol=1e-10)
    assert (after[:, 2:] - before[:, 2:]).abs().max() > 1e-4


@torch.no_grad()
def test_output_is_invariant_to_rigid_motion_and_unit_but_not_to_relative_poses() -> None:
    network, inputs = _random_network(), _inputs(3)
    before, _, _ = network(inputs)
    move = torch.eye(4, dtype=torch.float64)
    move[:3, :3] = _rotation(torch.tensor([0.4, -1.2, 2.0]))
    move[:3, 3] = torch.tensor([5.0, -3.0, 11.0])
    after, _, _ = network(replace(inputs, world_from_camera=move @ inputs.world_from_camera))
    torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-8)
    scaled = inputs.world_from_camera.clone()
    scaled[..., :3, 3] *= 3.0
    after, _, _ = network(replace(inputs, world_from_camera=scaled, unit=3.0 * inputs.unit))
    torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-8)
    after, _, _ = network(replace(inputs, world_from_camera=scaled))
    assert (after - before).abs().max() > 1e-4


@torch.no_grad()
def test_certain_or_clean_pixels_are_the_prior() -> None:
    network, inputs = _random_network(), _inputs(2)
    one, none = torch.ones_like(inputs.sigma), torch.zeros_like(inputs.sigma)
    sure, _, _ = network(replace(inputs, coverage=one, confidence=one, copied=none))
    assert torch.equal(sure, inputs.prior)
    clean, _, _ = network(replace(inputs, sigma=none))
    assert torch.equal(clean, inputs.prior)
    free, _, _ = network(replace(inputs, sigma=one, copied=one))
    assert (free - inputs.prior).abs().mean() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (40, 56), (33, 47)])
def test_any_size_is_padded_to_tokens(size: tuple[int, int]) -> None:
    clean, keys, _ = _random_network()(_inputs(1, size=size))
    assert clean.shape == (1, 1, 4, *size)
    assert keys.shape[3] == -(-size[0] // 16) * -(-size[1] // 16)


@torch.no_grad()
def test_first_skips_context_frames() -> None:
    network, inputs = _random_network(), _inputs(4)
    chunks = torch.tensor([0, 0, 1, 1])
    whole, _, _ = network(inputs, chunk_of_frame=chunks)
    tail, _, _ = network(inputs, chunk_of_frame=chunks, first=2)
    torch.testing.assert_close(tail, whole[:, 2:])


def test_every_parameter_has_a_gradient() -> None:
    network = _random_network().train()
    clean, _, _ = network(_inputs(2))
    clean.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_bad_dim_and_past_with_chunks_are_rejected() -> None:
    with pytest.raises(ValueError, match="dim"):
        CameraAttention(36, 2)
    network, inputs = _random_network(), _inputs(2)
    _, keys, values = network(inputs)
    past = Past(keys, values, inputs.world_from_camera, inputs.intrinsics)
    with pytest.raises(ValueError, match="chunk_of_frame"):
        network(inputs, past, chunk_of_frame=torch.tensor([0, 1]))


def test_config_round_trips_through_metadata() -> None:
    assert NetworkConfig.from_text(TOY.to_text()) == TOY


@torch.no_grad()
def test_gains_weaken_or_strengthen_detail_where_uncertain() -> None:
    network, inputs = _random_network().eval(), _inputs(2)
    network.config = replace(network.config, draws=False)
    for parameter in network.head.parameters():
        parameter.zero_()
    sure = torch.zeros_like(inputs.copied)
    sure[..., :16] = 1.0
    inputs = replace(inputs, coverage=sure, confidence=sure, copied=1.0 - sure, sigma=torch.ones_like(sure))
    inputs = replace(inputs, smooth=inputs.prior)
    bias = network.head.bias
    assert bias is not None

    def fine(gain: float) -> torch.Tensor:
        bias[20:] = gain
        rgb = network(inputs)[0][:, :, :3]
        torch.testing.assert_close(rgb[..., :16], inputs.prior[:, :, :3, :, :16])
        return torch.cat(detail(rgb.flatten(0, 1)), 1)[..., 24:40].square().mean()

    # Deep inside copies a constant restores detail in evaluation; in training the network would learn to undo it.
    copy = torch.cat(detail(inputs.prior[0, :, :3]), 1)[..., 24:40].square().mean()
    assert 1.0 < fine(0.0) / copy < 1.1
    network.train()
    torch.testing.assert_close(fine(0.0), copy)
    network.eval()
    assert fine(-9.0) < 0.2 * fine(0.0)
    assert fine(9.0) > 2.5 * fine(0.0)


@torch.no_grad()
def test_nothing_is_synthesized_deep_inside_copies() -> None:
    network, inputs = _random_network(), _inputs(2)
    network.config = replace(network.config, draws=False)
    hole = torch.zeros_like(inputs.copied)
    hole[..., 16:] = 1.0
    even = torch.zeros_like(inputs.prior)
    inputs = replace(
        inputs, prior=even, smooth=even, coverage=1.0 - hole, confidence=1.0 - hole, copied=hole, sigma=hole
    )
    torch.nn.init.normal_(network.head.weight, std=1.0)
    rgb = network(inputs)[0][0, :, :3]
    deep = inside(hole[0] > 0.5).expand_as(rgb)
    assert not deep[..., : 16 + 7].any()
    assert deep[..., 16 + 7 :].all()
    fine = detail(rgb)[0]
    shallow = (hole[0] > 0.5).expand_as(rgb) & ~deep
    assert fine[..., 16 + 9 :].square().mean() < 0.05 * fine[shallow].square().mean()
    network.config = replace(network.config, draws=True)
    drawn = detail(network(inputs)[0][0, :, :3])[0]
    assert drawn[..., 16 + 9 :].square().mean() > 0.3 * fine[shallow].square().mean()
    older = {key: value for key, value in network.config.to_text().items() if key != "draws"}
    assert NetworkConfig.from_text(older) == network.config  # weights files without the key synthesize


@torch.no_grad()
def test_rendered_pixels_keep_their_detail_at_any_confidence() -> None:
    network, inputs = _random_network(), _inputs(2)
    for parameter in network.head.parameters():
        parameter.zero_()
    one = torch.ones_like(inputs.copied)
    seen = replace(inputs, coverage=one, confidence=0.0 * one, copied=0.0 * one, sigma=one)
    bias = network.head.bias
    assert bias is not None
    bias[16:] = 9.0  # the smooth fill, and stronger detail
    stronger = torch.cat(detail(network(seen)[0][0, :, :3]), 1).square().mean()
    assert stronger > 2.5 * torch.cat(detail(seen.prior[0, :, :3]), 1).square().mean()
    bias[20:] = -9.0  # weaker detail
    torch.testing.assert_close(network(seen)[0], seen.prior)
    assert not torch.allclose(network(replace(seen, coverage=0.0 * one, copied=one))[0], seen.prior, atol=0.1)
