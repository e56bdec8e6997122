"""The engines: how each of them measures one model once."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import child
import models

WORKERS = Path(__file__).resolve().parent / "workers"
FIRST = 8


@dataclass(frozen=True)
class Work:
    """What a measurement of speed is of: tokens of the prompt, tokens generated, and behind how many."""

    prompt: int = 512
    generate: int = 128
    depths: tuple = (0, 512)


def ids(count):
    """Token ids that every model of the benchmark has."""
    return ",".join(str(3 + at * 79 % 30000) for at in range(count))


class Kiln:
    """`weights` is a directory in the MLX layout. What needs a whole process is `kiln run`."""

    name = "kiln"

    def __init__(self, program, weights, label, options=()):
        self.program, self.weights, self.label, self.options = program, weights, label, list(options)
        self.read_bytes = models.bytes_read(weights)

    def bench(self, threads, *arguments):
        command = [self.program, "bench", "--json", "-r", 1, "-m", self.weights, "--threads", threads]
        return json.loads(child.run([*command, *self.options, *arguments]).text)["results"]

    def runs(self, threads, prompt, tokens):
        command = [self.program, "run", "--quiet", "--ignore-eos", "--threads", threads, "--model", self.weights]
        return child.run([*command, *self.options, "--prompt-ids", ids(prompt), "--max-tokens", tokens])

    def first(self, threads):
        return {"first_s": self.runs(threads, FIRST, 1).seconds}

    def memory(self, work, threads):
        return {"peak_bytes": self.runs(threads, work.prompt, work.generate).peak}

    def speed(self, work, threads):
        prompt, *empty = self.bench(threads, "-p", work.prompt, "-n", work.generate if 0 in work.depths else 0)
        found = {"version": child.run([self.program, "--version"]).text.split()[-1], "pp": prompt["tok_s"]}
        deep = [depth for depth in work.depths if depth > 0]
        return {**found, "tg": {**{"0": row["tok_s"] for row in empty}, **self.depths(work, threads, deep)}}

    def depths(self, work, threads, depths):
        """Generation behind so many tokens."""
        if not depths:
            return {}
        rows = self.bench(threads, "-p", 0, "-n", work.generate, "-d", ",".join(map(str, depths)))
        return {str(depth): row["tok_s"] for depth, row in zip(depths, rows)}

    def curve(self, threads, lengths, depths, generate):
        prompts = self.bench(threads, "-n", 0, "-p", ",".join(map(str, lengths)))
        return {
            "length": {str(length): row["tok_s"] for length, row in zip(lengths, prompts)},
            "depth": self.depths(Work(0, generate), threads, depths),
        }


class Worker:
    """An engine that a program of `workers` or of `candle` measures."""

    def __init__(self, name, command, weights, label):
        self.name, self.command, self.weights, self.label = name, command, weights, label
        self.read_bytes = models.bytes_read(weights)

    def measure(self, threads, prompt, generate, depths, *more):
        numbers = ["--prompt", prompt, "--generate", generate, "--depths", ",".join(map(str, depths))]
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
        command = [*self.command, self.weights, "--threads", threads, *numbers, *more]
        return json.loads(child.run(command, **limits).text.splitlines()[-1])

    def speed(self, work, threads):
        return self.measure(threads, work.prompt, work.generate, work.depths)

    def depths(self, work, threads, depths):
        return self.measure(threads, 0, work.generate, depths)["tg"]

    def curve(self, threads, lengths, depths, generate):
        return self.measure(threads, 0, generate, depths, "--lengths", ",".join(map(str, lengths)))


def python_worker(name, file, weights, label):
    return Worker(name, [sys.executable, "-B", WORKERS / file], weights, label)


def llama_cpp(weights, label):
    return python_worker("llama.cpp", "llama_cpp_worker.py", weights, label)


def transformers(weights, label):
    return python_worker("transformers", "transformers_worker.py", weights, label)


def mlx(weights, label):
    return python_worker("mlx-lm", "mlx_worker.py", weights, label)


def candle(program, weights, label):
    return Worker("candle", [program], weights, label)
