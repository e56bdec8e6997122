"""Writes crates/sample/tests/golden/sample.json: what mlx-lm's filters and penalties do, and which
tokens Kiln's own draw gives, stated once more in numpy.

Needs mlx 0.32.4 and mlx-lm 0.32.2. Run from anywhere: python -P scripts/golden/sample.py

Numbers are f32, eight hex digits each. Cases in which a sum comes so close to its threshold that the
order of additions decides are left out, as they say nothing about the filter.
"""

import json
import pathlib

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_logits_processors

OUT = pathlib.Path(__file__).parents[2] / "crates/sample/tests/golden/sample.json"
rng = np.random.default_rng(20)


def hexed(values):
    return "".join(f"{word:08x}" for word in np.asarray(values, np.float32).view(np.uint32))


def kept(values):
    return np.nonzero(np.array(values)[0] > -np.inf)[0].tolist()


def logits_of(kind, size):
    if kind == "ties":
        return (np.round(rng.standard_normal(size) * 3) / 2).astype(np.float32)
    if kind == "equal":
        return np.full(size, 1.25, np.float32)
    scale = {"flat": 0.3, "plain": 2.0, "sharp": 8.0}[kind]
    return (rng.standard_normal(size) * scale).astype(np.float32)


def logprobs_of(logits):
    logits = mx.array(logits)[None]
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def top_p_is_clear(logprobs, p):
    values, counts = np.unique(np.array(logprobs, np.float64)[0], return_counts=True)
    mass = (np.exp(values) * counts)[::-1].cumsum()
    return np.abs(mass - p * mass[-1])[:-1].min(initial=1) > 1e-5


def min_p_is_clear(logprobs, p):
    values = np.array(logprobs, np.float64)[0]
    return np.abs(values - values.max() - np.log(p)).min() > 1e-5


def filters():
    for kind in ["flat", "plain", "sharp", "ties", "equal"]:
        for size in [2, 7, 300, 1500]:
            logprobs = logprobs_of(logits_of(kind, size))
            case = {"kind": kind, "logprobs": hexed(logprobs[0]), "top_p": [], "min_p": [], "top_k": []}
            for p in [0.05, 0.3, 0.5, 0.8, 0.9, 0.95, 0.999]:
                if top_p_is_clear(logprobs, p):
                    case["top_p"].append([p, kept(apply_top_p(logprobs, p))])
            for p in [0.01, 0.05, 0.2, 0.7, 1.0]:
                if p == 1.0 or min_p_is_clear(logprobs, p):
                    case["min_p"].append([p, kept(apply_min_p(logprobs, p))])
            for k in [1, 2, 5, 40, 299]:
                if k < size:
                    case["top_k"].append([k, kept(apply_top_k(logprobs, k))])
            yield case


def chains():
    for kind in ["flat", "plain", "ties"]:
        logprobs = logprobs_of(logits_of(kind, 400))
        for p, least, k in [(0.9, 0.05, 40), (0.5, 0.2, 3), (0.95, 0.01, 399)]:
            if top_p_is_clear(logprobs, p) and min_p_is_clear(logprobs, least):
                left = apply_top_k(apply_min_p(apply_top_p(logprobs, p), least), k)
                case = {"logprobs": hexed(logprobs[0]), "top_p": p, "min_p": least, "top_k": k}
                yield {**case, "kept": kept(left)}


def penalties():
    options = [
        {"repetition_penalty": 1.3},
        {"presence_penalty": 0.7},
        {"frequency_penalty": 0.3},
        {"logit_bias": {3: 2.5, 17: -100.0}},
        {"logit_bias": {5: 1.1}, "repetition_penalty": 0.8, "presence_penalty": -0.4, "frequency_penalty": 0.1},
    ]
    for chosen in options:
        for length in [1, 12, 60]:
            logits = logits_of("plain", 64)
            history = rng.integers(0, 24, length).tolist()
            processed = mx.array(logits)[None]
            for processor in make_logits_processors(**chosen):
                processed = processor(mx.array(history), processed)
            case = {**chosen, "logit_bias": list(chosen.get("logit_bias", {}).items())}
            case |= {"history": history, "logits": hexed(logits), "processed": hexed(processed[0])}
            yield case


f32 = np.float32


def exp(x):
    """Kiln's exponential: n·ln 2 is split off, the rest is a series; every step rounds to f32."""
    magic = f32(12582912)
    rounded = x * f32(np.log2(np.e)) + magic
    n = rounded - magic
    r = (x - n * f32(355 / 512)) - n * f32(-2.1219444e-4)
    p = np.full_like(x, f32(1 / 5040))
    for term in [1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1, 1]:
        p = p * r + f32(term)
    return np.where(x >= -87, np.ldexp(p, n.astype(np.int32)), f32(0)).astype(f32)


def threefry(key, counter):
    mask = 0xFFFFFFFF
    schedule = [key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA]
    a, b = (counter[0] + key[0]) & mask, (counter[1] + key[1]) & mask
    for block in range(5):
        for turn in [[13, 15, 26, 6], [17, 29, 16, 24]][block % 2]:
            a = (a + b) & mask
            b = ((b << turn | b >> (32 - turn)) & mask) ^ a
        a = (a + schedule[(block + 1) % 3]) & mask
        b = (b + schedule[(block + 2) % 3] + block + 1) & mask
    return a, b


def draw(logits, temperature, seed, sequence, step):
    top = logits.max()
    first = block_sums(exp(logits - top))
    total = f32(0)
    for part in first:
        total += part
    log_sum = top + f32(np.log(np.float64(total)))
    scale = f32(1) / f32(temperature)
    weights = exp(((logits - log_sum) - (top - log_sum)) * scale)
    sums = block_sums(weights)
    word = threefry((seed >> 32, seed & 0xFFFFFFFF), (sequence, step))[0]
    u = min(f32(word) / f32(2**32), np.nextafter(f32(1), f32(0)))
    total = f32(0)
    for part in sums:
        total += part
    target, before = u * total, f32(0)
    for number, part in enumerate(sums):
        if before + part > target:
            break
        before += part
    chosen = None
    for inside, weight in enumerate(weights[256 * number :][:256]):
        before += weight
        if weight > 0:
            chosen = 256 * number + inside
            if before > target:
                break
    return chosen


def block_sums(weights):
    blocks = np.concatenate([weights, np.zeros(-len(weights) % 256, f32)]).reshape(-1, 256)
    while blocks.shape[1] > 1:
        half = blocks.shape[1] // 2
        blocks = blocks[:, :half] + blocks[:, half:]
    return blocks[:, 0]


def draws():
    for kind, size, temperature in [("flat", 700, 1.0), ("plain", 2000, 0.7), ("ties", 256, 1.9)]:
        logits = logits_of(kind, size)
        case = {"logits": hexed(logits), "temperature": temperature, "draws": []}
        for seed in [0, 1, 2**40 + 5]:
            for sequence in [0, 1, 77]:
                for step in range(12):
                    chosen = draw(logits, temperature, seed, sequence, step)
                    case["draws"].append([seed, sequence, step, chosen])
        yield case


def main():
    golden = {"mlx": mx.__version__, "filters": list(filters())}
    golden |= {"chains": list(chains()), "penalties": list(penalties()), "draws": list(draws())}
    OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
