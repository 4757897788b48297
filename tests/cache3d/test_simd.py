"""Lanes do what the same arithmetic on arrays does."""

from __future__ import annotations

import numpy as np

from cache3d.rasterizer.simd import exp2, iota, load, minimum, reduce_add, select, splat, store
from geometry.jit import compiled


@compiled
def _arithmetic(a, b, out):
    x, y = load(a, 0), load(b, 0)
    store(out, 0, (x + y) * x - y / np.float32(2.0))
    store(out, 8, select((x > y) & (x >= np.float32(0.5)), x, splat(np.float32(-1.0))))
    store(out, 16, minimum(x, y))
    store(out, 24, np.float32(2.0) * iota())
    store(out, 32, select(x <= y, x, y))
    return reduce_add(x)


@compiled
def _powers(a, out):
    for k in range(0, len(a), 8):
        store(out, k, exp2(load(a, k)))


def test_arithmetic_comparisons_and_choice() -> None:
    rng = np.random.default_rng(0)
    a, b, out = rng.random(8, np.float32), rng.random(8, np.float32), np.empty(40, np.float32)
    assert np.isclose(_arithmetic(a, b, out), a.sum(), rtol=1e-6)
    expected = [(a + b) * a - b / 2, np.where((a > b) & (a >= 0.5), a, -1), np.minimum(a, b), 2 * np.arange(8)]
    for k, wanted in enumerate([*expected, np.minimum(a, b)]):
        np.testing.assert_allclose(out[8 * k : 8 * k + 8], wanted, rtol=1e-6, atol=1e-7)


def test_powers_of_two() -> None:
    powers = np.linspace(-32, 0, 80_000, dtype=np.float32)
    out = np.empty_like(powers)
    _powers(powers, out)
    np.testing.assert_allclose(out, np.exp2(powers.astype(np.float64)), rtol=3e-7)
    far = np.full(8, -1e30, np.float32)
    _powers(far, out[:8])
    np.testing.assert_allclose(out[:8], 2.0**-32, rtol=3e-7)
