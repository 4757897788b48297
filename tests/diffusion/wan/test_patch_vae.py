"""The small autoencoder: streams of any pieces, states that stay valid, what is refused, folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion.wan.fresh import read_vae, write_part
from diffusion.wan.lines import VAES
from diffusion.wan.load import streaming
from diffusion.wan.patch_vae import PatchVAE
from diffusion.wan.vae import StreamState

SMALL = {"width": 12, "blocks": 2, "fine_width": 8, "fine_blocks": 1}


def model() -> PatchVAE:
    torch.manual_seed(0)
    made = PatchVAE(**SMALL)
    for layer in made.leave.values():  # zero at first
        assert isinstance(layer, nn.Conv2d)
        nn.init.normal_(layer.weight, std=0.1)
    for layer in made.inverse.values():
        assert isinstance(layer, nn.Conv2d)
        nn.init.normal_(layer.weight, std=0.05)
    streaming(made)
    return made


def in_pieces(call: Callable[..., tuple[Tensor, StreamState]], rows: Tensor, lengths: list[int]) -> Tensor:
    state, made = None, []
    for piece in rows.split(lengths):
        result, state = call(piece, state)
        made.append(result)
    return torch.cat(made)


def test_pieces_of_any_length_give_the_whole_clip() -> None:
    vae, frames = model(), torch.rand(13, 3, 16, 24)
    with torch.no_grad():
        latents = vae.encoded(2.0 * frames[None] - 1.0, first=True)[0]
        clip = 0.5 * vae.decoded(latents[None], first=True)[0][0].clamp(-1.0, 1.0) + 0.5
    assert latents.shape == (4, 16, 2, 3)
    assert clip.shape == frames.shape
    assert clip.std() > 0.01
    for lengths in ([1, 12], [1, 4, 8]):
        torch.testing.assert_close(in_pieces(vae.encode, frames, lengths), latents, rtol=0.0, atol=1e-6)
    made = [in_pieces(vae.decode, latents, lengths) for lengths in ([1, 3], [1, 1, 2], [1, 1, 1, 1])]
    torch.testing.assert_close(made[0], clip, rtol=0.0, atol=1e-6)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_a_latent_is_decoded_with_the_ones_before_it_and_an_older_state_stays_valid() -> None:
    vae, latents = model(), torch.randn(3, 16, 2, 3)
    _, state = vae.decode(latents[:1])
    first, _ = vae.decode(latents[1:2], state)
    other, after = vae.decode(latents[2:3], state)
    again, _ = vae.decode(latents[1:2], state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.allclose(vae.decode(latents[1:2], after)[0], first, atol=1e-4)


def test_a_linear_map_alone_is_inverted_where_the_colors_lie_in_its_range() -> None:
    """Without a correction the decoder is the inverse of the encoder: flat squares come back."""
    vae = PatchVAE(**SMALL)
    with torch.no_grad():
        for kind, count in (("first", 1), ("later", 4)):
            encoder, inverse = vae.encoder[kind], vae.inverse[kind]
            assert isinstance(encoder, nn.Conv2d)
            assert isinstance(inverse, nn.Conv2d)
            basis = torch.zeros(16, 3 * count, 8, 8)
            for k in range(3):  # the mean of each color over the square and its frames
                basis[k, k::3] = (64.0 * count) ** -0.5
            encoder.weight.copy_(basis)
            inverse.weight.copy_(basis.flatten(1).T[:, :, None, None])
            for layer in (encoder, inverse):
                assert layer.bias is not None
                layer.bias.zero_()
    streaming(vae)
    still = torch.rand(1, 3, 2, 3).repeat_interleave(8, 2).repeat_interleave(8, 3).expand(5, -1, -1, -1)
    latents = in_pieces(vae.encode, still, [1, 4])
    torch.testing.assert_close(in_pieces(vae.decode, latents, [1, 1]), still, rtol=0.0, atol=1e-5)


def test_a_folder_holds_it_and_another_class_is_refused(tmp_path: Path) -> None:
    vae, latents = model(), torch.randn(2, 16, 2, 3)
    write_part(tmp_path / "vae", vae, vae.config, vae.state_dict())
    read = read_vae(tmp_path)
    assert isinstance(read, PatchVAE)
    assert torch.equal(in_pieces(read.decode, latents, [1, 1]), in_pieces(vae.decode, latents, [1, 1]))
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert config["_class_name"] == "PatchVAE"
    assert set(VAES["tiny"]) <= set(config)
    (tmp_path / "vae" / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderKLWan"}))
    with pytest.raises(ValueError, match="want a PatchVAE, as tiny has, got a AutoencoderKLWan"):
        read_vae(tmp_path)


@pytest.mark.parametrize(
    ("call", "rows", "message"),
    [
        ("encode", (2, 3, 16, 24), "want one frame first"),
        ("encode", (1, 3, 16, 20), "multiples of 8, got 20x16; take 16x16"),
        ("decode", (1, 48, 2, 3), "want latents of 16 channels, got 48"),
        ("decode", (2, 16, 2, 3), "want one latent first"),
    ],
)
def test_what_is_no_beginning_of_a_stream_is_refused(call: str, rows: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(model(), call)(torch.zeros(rows))


def test_what_cannot_follow_in_a_stream_is_refused() -> None:
    vae = model()
    _, encoder = vae.encode(torch.zeros(1, 3, 16, 24))
    _, decoder = vae.decode(torch.zeros(1, 16, 2, 3))
    with pytest.raises(ValueError, match="multiple of 4 frames, got 3"):
        vae.encode(torch.zeros(3, 3, 16, 24), encoder)
    with pytest.raises(ValueError, match="as before in this stream"):
        vae.encode(torch.zeros(4, 3, 16, 32), encoder)
    with pytest.raises(ValueError, match="as before in this stream"):
        vae.decode(torch.zeros(1, 16, 2, 4), decoder)
