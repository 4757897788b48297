"""The check of tuned numbers that every policy makes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def check_numbers(policy: Any, positive: tuple[str, ...]) -> None:
    """Check the numbers of a policy, a frozen dataclass.

    Args:
        policy: its fields are numbers, or policies of their own, which are left out.
        positive: names of the fields that may not be 0.

    Raises:
        ValueError: a field that is negative, or no number, or no whole number where its default is one.
    """
    for field in fields(policy):
        value, whole = getattr(policy, field.name), isinstance(field.default, int)
        if not isinstance(field.default, int | float):
            continue
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not right or value < 0 or (value == 0 and field.name in positive):
            sign = "above 0" if field.name in positive else "of 0 or more"
            kind = "whole number" if whole else "number"
            raise ValueError(f"{field.name}: want a {kind} {sign}, got {value!r}; leave it out for {field.default}")
