"""How the cost grows: with depth, with the prompt's length, with threads."""

import json

import engines
import targets
from store import Turn

# Lengths of prompts, and depths. Long ones take a minute, so they are measured once, and with all threads.
SHORT = [64, 128, 256, 512, 1024, 2048], [0, 512, 1024, 2048]
LONG = [4096, 8192], [4096, 8064]
TRIAL = [64, 128, 512], [0, 512]


def prepare(bench):
    pair(bench)


def pair(bench):
    """SmolLM2 with 4 bits, Kiln and llama.cpp."""
    model = bench.model("smollm2")
    return [
        engines.Kiln(bench.kiln, model.four_bits(bench.kiln), targets.FOUR),
        engines.llama_cpp(model.gguf("q4_0"), "Q4_0"),
    ]


def run(bench):
    turns = [Turn("limits", 1, bench.limits)]
    for threads in sorted({1, bench.threads}, reverse=True):
        for engine in pair(bench):
            if bench.trial:
                turns.append(turn("short", engine, 1, threads, *TRIAL, 4))
                continue
            turns.append(turn("short", engine, min(2, bench.rounds), threads, *SHORT, 32))
            if threads == bench.threads:
                turns.append(turn("long", engine, 1, threads, *LONG, 32))
    bench.store.take("curves", turns)


def turn(kind, engine, rounds, *asked):
    threads = asked[0]
    name = f"{engine.name}, {threads} thread" + ("s" if threads > 1 else "")
    about = {"name": name, "engine": engine.name, "weights": engine.label, "threads": threads}
    if engine.name == "kiln":
        about["shape"] = shape(engine.weights)
    return Turn(f"{name}, {kind}", rounds, lambda: engine.curve(*asked), about)


def shape(weights):
    """What the cost of a token's place in a text depends on."""
    config = json.loads((weights / "config.json").read_text())
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    layers, pairs = config["num_hidden_layers"], config.get("num_key_value_heads") or heads
    return {
        # Keys and values, two bytes each.
        "cache_bytes": layers * 2 * pairs * head * 2,
        # Of a query with a key, and of what comes of it with a value.
        "attention_operations": layers * heads * head * 2 * 2,
    }
