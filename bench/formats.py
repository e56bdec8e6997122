"""How fast Kiln generates with each format of weights, against what the memory gives."""

import json
import statistics

import child
import models

FORMATS = {
    "1.1b": ["bf16", "q8", "q6", "q5", "q4", "q3", "q2", "mxfp8", "mxfp4", "nvfp4"],
    "7b": ["q4"],
}


def bench_of(bench, *arguments):
    command = [bench.kiln, "bench", "--json", "--threads", bench.threads, "-p", 0, *arguments]
    return json.loads(child.run(command).text)["results"][0]


def run(bench):
    for size in bench.models:
        names = FORMATS.get(size, [])
        rates = {name: [] for name in names}
        tokens = 2 if bench.trial else 32
        for number in range(bench.rounds):
            for name in names:
                models.say(f"{size}, round {number + 1} of {bench.rounds}: {name}")
                found = bench_of(bench, "--synthetic", size, "--format", name, "-n", tokens, "-r", 1)
                rates[name].append(found["tok_s"])
        rows = []
        for name in names:
            found = bench_of(bench, "--synthetic", size, "--format", name, "-n", 4, "-r", 1, "--profile")
            steps = found["profile"]["operations"]
            weights = sum(step["bytes"] for step in steps if step["operation"] == "matmul")
            median = statistics.median(rates[name])
            rows.append({"format": name, "tok_s": median, "samples": rates[name], "bytes_per_token": weights})
        if rows:
            bench.save("formats", {size: rows})
