"""Benchmarks: `python -m benchmarks.NAME` runs one and ends with a JSON line."""

import worldwarp  # noqa: F401  # before torch: says how threads wait, which beside other work is a factor of ten
