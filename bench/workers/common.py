"""What the workers have in common: their command line, their clock, and what they print.

A worker is a process that measures one engine on one model, once: it prints one JSON object.

    load_s      from nothing to the model being ready
    first_s     from nothing to the first token after a prompt of 8
    pp          tokens per second of reading the prompt, from an empty cache
    tg          by depth: tokens per second of generating
    peak_bytes  the most memory of the process, less what it had before the engine read anything
"""

import argparse
import json
import resource
import time

FIRST = 8


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--depths", type=lambda text: [int(n) for n in text.split(",") if n], default=[])
    return parser.parse_args()


def context(asked):
    """How many tokens the cache must hold."""
    return max([asked.prompt, FIRST, *asked.depths]) + asked.generate


def ids(count, vocabulary):
    return [at * 7919 % vocabulary for at in range(count)]


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(asked, engine, version):
    """`engine` is made by a function and has reset(), read(ids) and next(id), which wait for logits."""
    before = memory()
    start = time.perf_counter()
    model = engine()
    load = time.perf_counter() - start
    model.read(ids(FIRST, model.vocabulary))
    first = time.perf_counter() - start
    found = {"version": version, "load_s": load, "first_s": first, "tg": {}}
    if asked.prompt:
        model.reset()
        found["pp"] = rate(asked.prompt, lambda: model.read(ids(asked.prompt, model.vocabulary)))
    for depth in asked.depths if asked.generate else []:
        model.reset()
        if depth:
            model.read(ids(depth, model.vocabulary))
        tokens = ids(depth + asked.generate, model.vocabulary)[depth:]
        model.next(tokens[0])
        found["tg"][depth] = rate(len(tokens) - 1, lambda: [model.next(token) for token in tokens[1:]])
    found["peak_bytes"] = memory() - before
    print(json.dumps(found))


def rate(tokens, work):
    start = time.perf_counter()
    work()
    return tokens / (time.perf_counter() - start)
