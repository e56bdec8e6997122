"""Writes crates/sample/tests/golden/random.json: what MLX's random numbers are for some keys.

Needs mlx 0.32.4. Run from anywhere: python -P scripts/golden/threefry.py
"""

import json
import pathlib

import mlx.core as mx
import numpy as np

OUT = pathlib.Path(__file__).parents[2] / "crates/sample/tests/golden/random.json"
SEEDS = [0, 1, 42, 2**32 - 1, 2**32, 2**63 + 12345, 2**64 - 1]
LENGTHS = [1, 2, 3, 4, 5, 8, 33]


def key(seed):
    made = mx.array([seed >> 32, seed & 0xFFFFFFFF], dtype=mx.uint32)
    assert made.tolist() == mx.random.key(seed).tolist()
    return made


def main():
    cases = []
    for seed in SEEDS:
        for n in LENGTHS:
            uniform = np.array(mx.random.uniform(shape=(n,), key=key(seed)))
