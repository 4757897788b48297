"""A world as one HTML file: what is packed, and what the file refers to."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geometry.primitives import Gaussians
from scenes.formats.html import MIB, PhotoLayer, pack, read_html, unpack, write_html
from tests.helpers import cameras_at, random_rgb

SIZE = (24, 32)


def gaussians(count: int, seed: int = 0) -> Gaussians:
    rng = torch.Generator().manual_seed(seed)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=rng), dim=1)
    flags = torch.arange(count) % 3 == 0
    return Gaussians(
        means=torch.randn(count, 3, generator=rng) * torch.tensor([1.0, 3.0, 40.0]),
        quats=quats,
        scales=torch.rand(count, 3, generator=rng) * 0.2 + 1e-3,
        opacities=torch.rand(count, generator=rng),
        colors=torch.rand(count, 3, generator=rng),
        chunk=torch.zeros(count, dtype=torch.int32),
        observed=~flags,
        confidence=torch.ones(count),
        sky=flags,
        n_updates=torch.zeros(count),
    )


def layer() -> PhotoLayer:
    inverse = torch.linspace(0.0, 2.0, SIZE[0] * SIZE[1]).reshape(SIZE)
    return PhotoLayer(random_rgb((48, 64))[0], inverse, inverse > 1.0, inverse < 0.2, 0.03, 0.98)


def written(path: Path, given: Gaussians, **more: object) -> Gaussians:
    cameras = cameras_at((0.0, 0.0, 0.0), (0.1, 0.0, 0.0), size=SIZE)
    return write_html(path, given, cameras, photo=layer(), title="a", fps=16.0, pivot=1.0, **more)  # type: ignore[arg-type]  # arguments by name


def test_packed_gaussians_are_those_that_went_in_surfaces_first() -> None:
    given = gaussians(500)
    packed, about = pack(given, layer())
    read = unpack(packed, about)
    order = torch.cat([torch.nonzero(~given.sky)[:, 0], torch.nonzero(given.sky)[:, 0]])
    given = given[order]
    assert read.sky.equal(given.sky)
    assert ((read.means - given.means).norm(dim=1) / (1.0 + given.means.norm(dim=1))).max() < 3e-4
    assert (read.scales / given.scales).log().abs().max() < 0.02
    assert (read.quats * given.quats).sum(1).abs().min() > 0.9999
    for name in ("colors", "opacities"):
        assert (getattr(read, name) - getattr(given, name)).abs().max() < 0.5 / 255.0 + 1e-6


def test_a_few_or_no_gaussians_can_be_packed() -> None:
    for count in (0, 1, 2):
        assert len(unpack(*pack(gaussians(count)))) == count


def test_the_file_refers_to_nothing_outside_and_can_be_read_again(tmp_path: Path) -> None:
    given = gaussians(300)
    kept = written(tmp_path / "world.html", given)
    assert kept is given
    text = (tmp_path / "world.html").read_text("utf-8")
    assert not re.search(r"https?:|//[a-z]|@[A-Z]+@|import |fetch\(", re.sub(r"//.*|base64,\S+", "", text))
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert len(read_html(tmp_path / "world.html")) == 300


def test_a_title_is_text_and_not_markup(tmp_path: Path) -> None:
    cameras = cameras_at((0.0, 0.0, 0.0), size=SIZE)
    title = "</title><script>alert(1)</script>"
    write_html(tmp_path / "a.html", gaussians(3), cameras, photo=layer(), title=title, fps=1.0, pivot=1.0)
    assert "alert(1)</script>" not in (tmp_path / "a.html").read_text("utf-8")


def test_a_page_that_is_too_large_is_thinned_until_it_fits(tmp_path: Path) -> None:
    given, asked = gaussians(20_000), []

    def thinned(count: int) -> Gaussians:
        asked.append(count)
        return given[:count]

    kept = written(tmp_path / "a.html", given, largest_bytes=0.2 * MIB, thinned=thinned)
    assert len(kept) == asked[-1]
    size = (tmp_path / "a.html").stat().st_size
    assert 0.17 * MIB < size <= 0.2 * MIB
    assert asked == sorted(asked, reverse=True)
    with pytest.raises(ValueError, match=r"html_mib: want more than 0.05 MiB .* set e.g. html_mib="):
        written(tmp_path / "b.html", given, largest_bytes=0.05 * MIB, thinned=thinned)
    with pytest.raises(ValueError, match=r"html_mib: want more than 0.20 MiB"):
        written(tmp_path / "b.html", given, largest_bytes=0.2 * MIB)
    assert not (tmp_path / "b.html").exists()


def test_another_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>hello</p>")
    with pytest.raises(ValueError, match=r"a.html: want a page that"):
        read_html(tmp_path / "a.html")


def test_zero_scales_and_far_places_stay_finite() -> None:
    given = gaussians(4)
    given = replace(given, scales=torch.zeros(4, 3), means=torch.tensor([[1e6, 0.0, 0.0]]).expand(4, 3).clone())
    read = unpack(*pack(given))
    assert read.means.isfinite().all()
    assert read.means[:, 0] == pytest.approx(torch.full((4,), 1e6), rel=1e-3)
    assert (read.scales > 0.0).all()
