"""How the cost grows: with depth, with the prompt's length, with threads."""

import json

import engines
import targets
from store import Turn

# By threads. All prompts of llama.cpp's are parts of one, of whole pieces of 512.
DEPTHS = {"one": [0, 512, 2048], "all": [0, 512, 1024, 2048, 4096, 8064]}
LENGTHS = {"one": [64, 256, 512, 2048], "all": [64, 128, 256, 512, 1024, 2048, 4096, 8192]}


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
        which = "one" if threads == 1 and bench.threads > 1 else "all"
        lengths, depths, tokens = LENGTHS[which], DEPTHS[which], 32
        if bench.trial:
            lengths, depths, tokens = lengths[:3], depths[:2], 4
        for engine in pair(bench):
            about = {"engine": engine.name, "weights": engine.label, "threads": threads}
            if engine.name == "kiln":
                about["shape"] = shape(engine.weights)
            measure = lambda engine=engine, said=(threads, lengths, depths, tokens): engine.curve(*said)
            name = f"{engine.name}, {threads} thread" + ("s" if threads > 1 else "")
            turns.append(Turn(name, min(2, bench.rounds), measure, about))
    bench.store.take("curves", turns)


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
