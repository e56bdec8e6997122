"""Writes crates/sample/tests/golden/sample.json: what mlx-lm's filters and penalties do.

Needs mlx 0.32.4 and mlx-lm 0.32.2. Run from anywhere: python scripts/golden/sample.py

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


def main():
    golden = {"mlx": mx.__version__, "filters": list(filters())}
    golden |= {"chains": list(chains()), "penalties": list(penalties())}
    OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
