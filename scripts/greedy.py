"""Greedy generation with mlx-lm, and how two generations are compared."""

import mlx.core as mx
from mlx_lm.generate import generate_step

# Where the best two logits are closer than this, the order of additions may decide between them.
CLOSE = 0.02


def generate(model, prompt, count):
    """The ids that follow `prompt`, and by how much the logit of each exceeds the second best."""
    ids, margins = [], []
    for token, logprobs in generate_step(mx.array(prompt), model, max_tokens=count):
        second, first = sorted(mx.topk(logprobs.astype(mx.float32), 2).tolist())
        ids.append(int(token))
        margins.append(round(first - second, 5))
    return ids, margins


def equal_steps(one, other):
    """How many steps from the start two generations share."""
    different = (i for i, (a, b) in enumerate(zip(one, other)) if a != b)
    return next(different, min(len(one), len(other)))


def certain_steps(margins):
    """How many steps from the start are decided by more than `CLOSE`."""
    return next((i for i, margin in enumerate(margins) if margin < CLOSE), len(margins))
