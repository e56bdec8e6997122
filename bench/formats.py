"""How fast Kiln generates with each format of weights, against what the memory gives."""

import json

import child
from store import Turn

FORMATS = {
    "1.1b": ["q8", "q6", "q5", "q4", "q3", "q2", "mxfp8", "mxfp4", "nvfp4", "bf16"],
    "7b": ["q4"],
}


def prepare(_):
    """Random weights are made anew each time, in memory."""


def run(bench):
    turns = [Turn("limits", bench.rounds, bench.limits)]
    for size in bench.models:
        for name in FORMATS.get(size, []):
            # Of 7B and bf16 no target depends, and a token takes a tenth of a second and more.
            rounds = min(2, bench.rounds) if size == "7b" or name == "bf16" else bench.rounds
            tokens = 2 if bench.trial else 16 if size == "7b" else 32
            measure = lambda size=size, name=name, tokens=tokens: measured(bench, size, name, tokens)
            turns.append(Turn(f"{size}, {name}", rounds, measure, {"model": size, "format": name}))
    bench.store.take("formats", turns)


def command(bench, size, name, tokens):
    return [
        *(bench.kiln, "bench", "--threads", bench.threads, "--synthetic", size, "--format", name),
        *("-p", 0, "-n", tokens, "-r", 1),
    ]


def measured(bench, size, name, tokens):
    """Bytes are those of the weights that products read: the model's, less a table of embeddings that is
    not the head."""
    found = json.loads(child.run([*command(bench, size, name, tokens), "--json"]).text)
    model, row = found["model"], found["results"][0]
    hidden, vocabulary = {"1.1b": (2048, 32000), "7b": (4096, 32000)}[size]
    table = hidden * vocabulary * model["bytes"] / model["parameters"]
    return {"tok_s": row["tok_s"], "bytes_per_token": round(model["bytes"] - table)}
