"""The learning curve finds a law that is known, reads legs one after the other, and refuses what says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.quality.learning_curve import Law, fit, fit_law, main, read_legs


def write_leg(folder: Path, name: str, steps: list[int], error: dict[int, float], **more: object) -> Path:
    path = folder / f"{name}.jsonl"
    lines = [{"step": 20, "loss": 1.0}]
    for step in steps:
        figures = {"made_depth": error[step], "prior_depth": 0.3, "made_color": error[step] / 2, "prior_color": 0.2}
        lines.append({"step": step, "validation": figures, **more})
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path


@settings(max_examples=15, deadline=None)
@given(floor=st.floats(0.0, 0.2), scale=st.floats(0.5, 3.0), power=st.floats(0.1, 1.0))
def test_a_known_law_is_found(floor: float, scale: float, power: float) -> None:
    frames = np.geomspace(1e2, 1e5, 12)
    found = fit_law(frames, Law(floor, scale, power)(frames))
    assert found.power == pytest.approx(power, rel=0.02)
    assert float(found(np.array(1e6))) == pytest.approx(float(Law(floor, scale, power)(np.array(1e6))), rel=0.01)


def test_the_interval_holds_the_truth_and_grows_with_the_distance() -> None:
    frames = np.geomspace(1e3, 1e5, 20)
    law = Law(0.05, 1.0, 0.4)
    noise = 1.0 + 0.02 * np.random.default_rng(1).standard_normal(20)
    found = fit(frames, law(frames) * noise, draws=100)
    widths = []
    for times in (1, 10, 100):
        low, high = found.interval(times * 1e5)
        assert low < float(law(np.array(times * 1e5))) < high
        widths.append((high - low) / high)
    assert widths[0] < widths[1] < widths[2]
    with pytest.raises(ValueError, match="at least 5 to fit, got 4"):
        fit(frames[:4], law(frames[:4]), 10)


def test_legs_follow_each_other_and_redone_steps_count_once(tmp_path: Path) -> None:
    first = write_leg(tmp_path, "a", [100, 200, 150, 200], {100: 0.3, 150: 0.25, 200: 0.2})
    second = write_leg(tmp_path, "b", [50, 100], {50: 0.22, 100: 0.18})
    points = read_legs([first, second], 6)
    assert points.frames.tolist() == [600, 900, 1200, 1500, 1800]
    assert points.leg.tolist() == [0, 0, 0, 1, 1]
    assert points.share.tolist() == [0.5, 0.75, 1.0, 0.5, 1.0]
    assert points.error["made_depth"].tolist() == [0.3, 0.25, 0.2, 0.22, 0.18]
    counted = read_legs([write_leg(tmp_path, name, [10], {10: 0.1}, samples=40) for name in ("c", "d")], None)
    assert counted.frames.tolist() == [120, 240]  # three frames of target each
    assert counted.share.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="--frames-per-step"):
        read_legs([first], None)
    (tmp_path / "none.jsonl").write_text('{"step": 20, "loss": 1.0}\n')
    with pytest.raises(ValueError, match="made_depth"):
        read_legs([tmp_path / "none.jsonl"], 6)


def test_it_tells_a_table_a_picture_and_one_json_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = list(range(100, 2001, 100))
    error = {step: 0.05 + 2.0 * (6 * step) ** -0.4 for step in steps}
    log, picture = write_leg(tmp_path, "a", steps, error), tmp_path / "curve.png"
    monkeypatch.setattr("sys.argv", ["x", str(log), "--frames-per-step", "6", "--picture", str(picture)])
    monkeypatch.setattr("benchmarks.quality.learning_curve.DRAWS", 20)
    main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = told["fits"]["depth, all points"]
    assert found["power"] == pytest.approx(0.4, rel=0.02)
    assert told["fits"]["depth, ends of legs"]["points"] == 6
    with Image.open(picture) as image:
        assert image.size[0] > 800
