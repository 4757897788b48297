"""Counting what somebody preferred without knowing which generator made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.quality.blind_pairs import count


def test_letters_are_counted_for_the_generator_that_stood_there(tmp_path: Path) -> None:
    flipped = [False, True, False, True, False, True, False, True]
    (tmp_path / "key.json").write_text(json.dumps({"generators": ["retouch", "tiny"], "flipped": flipped}))
    assert count(tmp_path, "ABABAB--") == {
        "preferred": {"retouch": 6, "tiny": 0},
        "undecided": 2,
        "chance": pytest.approx(2.0 / 64.0),
    }
    assert count(tmp_path, "AAAAAAAA")["preferred"] == {"retouch": 4, "tiny": 4}
    assert count(tmp_path, "AAAAAAAA")["chance"] == 1.0
    with pytest.raises(ValueError, match="want 8 of A, B and -, got AB"):
        count(tmp_path, "AB")
