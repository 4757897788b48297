"""Plans by stage: the peak, the change that is suggested, the refusal."""

from __future__ import annotations

import subprocess
import sys

import pytest

from diffusion.memory_plan import GIB, Change, MemoryPlan, Stage


def _plan(*sizes: float, changes: tuple[Change, ...] = ()) -> MemoryPlan:
    stages = (Stage(name, {"weights": int(size * GIB)}) for name, size in zip(("load", "decode"), sizes, strict=True))
    return MemoryPlan(tuple(stages), changes)


CHANGES = (
    Change("a=1", lambda: _plan(1.0, 7.0)),
    Change("b=1", lambda: _plan(1.0, 5.0)),
    Change("c=1", lambda: _plan(1.0, 2.0)),
)


def test_peak_is_that_of_the_largest_stage() -> None:
    plan = MemoryPlan((Stage("a", {"x": 3, "y": 4}), Stage("b", {"x": 5})))
    assert (plan.peak, plan.largest.name) == (7, "a")


def test_lines_name_stages_and_parts_largest_first() -> None:
    plan = MemoryPlan((Stage("load", {"text": GIB // 4, "weights": 3 * GIB, "none": 0}), Stage("decode", {"x": GIB})))
    assert list(plan.lines()) == ["load    3.2 GiB: weights 3.0 GiB, text 256 MiB", "decode  1.0 GiB: x 1.0 GiB"]


def test_the_first_change_that_fits_is_the_smallest() -> None:
    plan = _plan(1.0, 8.0, changes=CHANGES)
    for limit, setting in ((7.5, "a=1"), (5.0, "b=1"), (4.9, "c=1")):
        change = plan.smallest_change(int(limit * GIB))
        assert change is not None
        assert change.setting == setting
    assert plan.smallest_change(GIB) is None


def test_changes_are_computed_only_when_asked_for() -> None:
    def never() -> MemoryPlan:
        raise AssertionError

    _plan(1.0, 8.0, changes=(Change("a=1", never),)).check(9 * GIB)


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    plan = _plan(1.0, 8.0, changes=CHANGES)
    plan.check(8 * GIB)
    with pytest.raises(
        ValueError, match=r"^GPU memory: want about 8\.0 GiB \(decode\), got 6\.0 GiB; set b=1, which takes 5"
    ):
        plan.check(6 * GIB, "GPU memory")
    with pytest.raises(ValueError, match="no single setting is enough"):
        plan.check(GIB)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, diffusion.memory_plan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
