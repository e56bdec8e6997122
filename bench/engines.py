"""The engines: how each of them measures one model once."""

import json
import sys
from pathlib import Path

import child
import models

WORKERS = Path(__file__).resolve().parent / "workers"
FIRST = 8


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
        command = [self.program, "bench", "--json", "-m", self.weights, "--threads", threads]
        return json.loads(child.run([*command, *self.options, *arguments]).text)

    def speed(self, work, threads):
        """Prompt and generation from an empty cache, the first token, and memory."""
        base = [self.program, "run", "--quiet", "--ignore-eos", "--threads", threads, "--model", self.weights]
        base += self.options
        first = child.run([*base, "--prompt-ids", ids(FIRST), "--max-tokens", 1])
        whole = child.run([*base, "--prompt-ids", ids(work.prompt), "--max-tokens", work.generate])
        found = self.bench(threads, "-r", 1, "-p", work.prompt, "-n", work.generate)
        rates = {row["test"]: row["tok_s"] for row in found["results"]}
        return {
            "version": child.run([self.program, "--version"]).text.split()[-1],
            "first_s": first.seconds,
            "pp": rates[f"pp{work.prompt}"],
            "tg": {0: rates[f"tg{work.generate}"]},
            "peak_bytes": whole.peak,
        }

    def depths(self, work, threads, depths):
        """Generation behind so many tokens."""
        text = ",".join(map(str, depths))
        found = self.bench(threads, "-r", 1, "-p", 0, "-n", work.generate, "-d", text)
        return {depth: row["tok_s"] for depth, row in zip(depths, found["results"])}

    def prompts(self, lengths, threads):
        """Reading prompts of these lengths."""
        found = self.bench(threads, "-r", 1, "-n", 0, "-p", ",".join(map(str, lengths)))
        return {length: row["tok_s"] for length, row in zip(lengths, found["results"])}


class Worker:
    """An engine that a program of `workers` or of `candle` measures."""

    def __init__(self, name, command, weights, label):
        self.name, self.command, self.weights, self.label = name, command, weights, label
        self.read_bytes = models.bytes_read(weights)

    def measure(self, threads, prompt, generate, depths):
        numbers = ["--prompt", prompt, "--generate", generate, "--depths", ",".join(map(str, depths))]
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
        command = [*self.command, self.weights, "--threads", threads, *numbers]
        found = json.loads(child.run(command, **limits).text.splitlines()[-1])
        found["tg"] = {int(depth): rate for depth, rate in found["tg"].items()}
        return found

    def speed(self, work, threads):
        return self.measure(threads, work.prompt, work.generate, [0])

    def depths(self, work, threads, depths):
        return self.measure(threads, 0, work.generate, depths)["tg"]

    def prompts(self, lengths, threads):
        return {length: self.measure(threads, length, 0, [])["pp"] for length in lengths}


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
