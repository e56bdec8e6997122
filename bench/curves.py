"""How the cost grows: with depth, with the prompt's length, with threads."""

import statistics

import engines
import models
from speed import Work

DEPTHS = [0, 512, 1024, 2048, 4096, 8064]
LENGTHS = [64, 128, 256, 512, 1024, 2048, 4096, 8192]


def run(bench):
    """SmolLM2 with 4 bits, Kiln and llama.cpp."""
    model = bench.model("smollm2")
    pair = [
        engines.Kiln(bench.kiln, model.four_bits(bench.kiln), "4 bit g64, bf16"),
        engines.llama_cpp(model.gguf("q4_0"), "Q4_0"),
    ]
    rounds = min(bench.rounds, 3)
    depths, lengths, work = (DEPTHS[:2], LENGTHS[:4], Work(0, 4)) if bench.trial else (DEPTHS, LENGTHS, Work(0, 32))
    taken = {}
    for number in range(rounds):
        for threads in sorted({1, bench.threads}):
            for engine in pair:
                models.say(f"curves, round {number + 1} of {rounds}: {engine.name}, {threads} threads")
                key = f"{engine.name}, {threads} thread" + ("s" if threads > 1 else "")
                curve = taken.setdefault(key, {"depth": {}, "length": {}})
                add(curve["depth"], engine.depths(work, threads, depths))
                add(curve["length"], engine.prompts(lengths, threads))
    medians = {
        key: {kind: {str(x): statistics.median(rates) for x, rates in points.items()} for kind, points in curve.items()}
        for key, curve in taken.items()
    }
    bench.save("curves", {"rounds": rounds, "rates": medians})


def add(points, rates):
    for x, rate in rates.items():
        points.setdefault(x, []).append(rate)
