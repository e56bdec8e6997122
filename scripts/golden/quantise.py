"""Writes crates/convert/tests/golden/quantise.{json,bin}: what MLX quantises some rows to, and the
SHA-256 of what it makes of that again, widened to f32.

Needs mlx 0.32.4 (its CPU backend). Run from anywhere: python -P scripts/golden/quantise.py

The rows are the difficult ones: constants, zeros of both signs, one sign only, ties of every kind,
neighbours of powers of two, numbers close to the ends of the dtype. Each comes in f32, f16 and bf16,
in every mode, number of bits and group size. The manifest names ranges of bytes: [start, length].
"""

import hashlib
import json
import pathlib

import mlx.core as mx
import numpy as np

OUT = pathlib.Path(__file__).parents[2] / "crates/convert/tests/golden"
K = 256
DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}


def rows(dtype):
    rng = np.random.default_rng(6)
    normal = rng.standard_normal((8, K))
    large = {"f32": 1e30, "f16": 6e4, "bf16": 3e6}[dtype]
    small = 6e-8 if dtype == "f16" else 1e-30
    step = {"f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}[dtype]
    i = np.arange(K)
    zeros = np.where(i % 3 == np.where(i < K // 2, 0, 1), -0.0, 0.0)
    positive = np.abs(normal[2])
    positive[[9, 16]] = [-0.0, 0.0]
    halves = np.zeros(K)
    halves[::16] = 8.5
    halves[1::16] = -6.5
    far = normal[0] * 2.0 ** (12 + i // 16 * (0 if dtype == "f16" else 2))
    powers = np.zeros(K)
    powers[::16] = 2.0 ** (np.arange(16) % 7 - 3) * (1 + step * (np.arange(16) % 5 - 2))
    powers *= np.where(i < K // 2, 6, 448)
    single = np.zeros(K)
    single[[5, 40, 100, 200]] = [1, -1, 3e-3, -448]
    every = [
        normal[0] * 0.02,
        normal[1] * 0.3,
        positive,
        -np.abs(normal[3]),
        zeros,
        np.where(i < 64, 0.5, np.where(i < 128, -0.5, 1e-8)),
        np.round(normal[4] * 20) / 20,
        np.linspace(-1, -0.25, K),
        (i % 13 - 6) * 0.5,
        (i % 25 - 12) * 0.25,
        single,
        powers,
        normal[5] * 3e-6,
        np.exp(normal[6] * 3) * np.sign(normal[7]),
        np.clip(normal[6], -1, 1) * large,
        np.round(normal[7] * 40) * small,
        halves,
        far,
    ]
    return mx.array(np.stack(every).astype(np.float32)).astype(DTYPES[dtype])


def main():
    blob = bytearray()

    def put(array):
        data = bytes(memoryview(array.view(mx.uint8)))
        start = len(blob)
        blob.extend(data)
        return [start, len(data)]

    golden = {"mlx": mx.__version__, "k": K, "inputs": {}, "cases": []}
    for name in DTYPES:
        weights = rows(name)
        golden["inputs"][name] = put(weights)
        formats = [("affine", bits, group) for bits in (1, 2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]
        formats += [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
        for mode, bits, group in formats:
            made = mx.quantize(weights, group_size=group, bits=bits, mode=mode)
            case = {"dtype": name, "mode": mode, "bits": bits, "group": group}
            again = mx.dequantize(*made, group_size=group, bits=bits, mode=mode).astype(mx.float32)
            # All NaN are one: a scale that overflowed makes them, and their bits depend on the machine.
            again = mx.where(mx.isnan(again), mx.array(mx.nan), again)
            case["dequantised"] = hashlib.sha256(memoryview(again.view(mx.uint8))).hexdigest()
            planes = ["codes", "scales", "biases"][: len(made)]
            golden["cases"].append(case | {plane: put(part) for plane, part in zip(planes, made)})
    (OUT / "quantise.bin").write_bytes(blob)
    (OUT / "quantise.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
