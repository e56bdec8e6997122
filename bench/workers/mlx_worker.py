"""mlx-lm on MLX's CPU backend, which takes as many threads as it likes."""

from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import mlx_lm.models.cache
import mlx_lm.utils

import common


class Engine:
    def __init__(self, asked):
        mx.set_default_device(mx.cpu)
        self.model, config = mlx_lm.utils.load_model(Path(asked.model))
        self.vocabulary = config["vocab_size"]
        self.reset()

    def reset(self):
        self.cache = mlx_lm.models.cache.make_prompt_cache(self.model)

    def read(self, ids):
        for start in range(0, len(ids), 512):
            self.decode(ids[start : start + 512])

    def next(self, token):
        self.decode([token])

    def decode(self, ids):
        mx.eval(self.model(mx.array([ids]), cache=self.cache)[0, -1])


asked = common.arguments()
common.measure(asked, lambda: Engine(asked), f"{version('mlx-lm')}, mlx {version('mlx')}")
