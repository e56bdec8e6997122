"""What the workers have in common: their command line, their clock, and what they print.

A worker is a process that measures one engine on one model, once: it prints one JSON object.

    load_s      from nothing to the model being ready
    first_s     from nothing to the first token after a prompt of 8
    pp          tokens per second of reading the prompt, from an empty cache, for the second time
    tg          by depth: tokens per second of generating
    peak_bytes  the most memory of the process, less what it had before the engine read anything

With --lengths it prints, instead, two curves of tokens per second: `length` of prompts, `depth` of
generating. Both are of one long prompt, read in pieces: at each depth tokens are generated, then
dropped; a prompt as long as some pieces takes what these took.
"""

import argparse
import json
import resource
import time

FIRST, PIECE = 8, 512


def numbers(text):
    return [int(number) for number in text.split(",") if number]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--depths", type=numbers, default=[])
    parser.add_argument("--lengths", type=numbers, default=[])
    return parser.parse_args()


def context(asked):
    """How many tokens the cache must hold."""
    depth = max([asked.prompt, FIRST, *asked.depths]) + asked.generate
    return max([depth, *asked.lengths])


def ids(count, vocabulary):
    return [at * 7919 % vocabulary for at in range(count)]


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(asked, engine, version):
    """`engine` is made by a function and has reset(), read(ids) and next(id), which wait for logits;
    for curves truncate(length), too."""
    before = memory()
    start = time.perf_counter()
    model = engine()
    load = time.perf_counter() - start
    model.read(ids(FIRST, model.vocabulary))
    first = time.perf_counter() - start
    if asked.lengths:
        print(json.dumps(curve(asked, model)))
        return
    found = {"version": version, "load_s": load, "first_s": first, "tg": {}}
    if asked.prompt:
        prompt = ids(asked.prompt, model.vocabulary)
        for _ in range(2):
            model.reset()
            found["pp"] = rate(asked.prompt, lambda: model.read(prompt))
    for depth in asked.depths if asked.generate else []:
        model.reset()
        if depth:
            model.read(ids(depth, model.vocabulary))
        found["tg"][depth] = decode(asked, model, depth)
    found["peak_bytes"] = memory() - before
    print(json.dumps(found))


def decode(asked, model, depth):
    tokens = ids(depth + asked.generate, model.vocabulary)[depth:]
    model.next(tokens[0])
    return rate(len(tokens) - 1, lambda: [model.next(token) for token in tokens[1:]])


def rate(tokens, work):
    start = time.perf_counter()
    work()
    return tokens / (time.perf_counter() - start)


def curve(asked, model):
    tokens = ids(max(asked.lengths + asked.depths), model.vocabulary)
    found = {"length": {}, "depth": {}}
    for length in asked.lengths:
        if length < PIECE:
            for _ in range(2):
                model.reset()
                found["length"][length] = rate(length, lambda: model.read(tokens[:length]))
    model.reset()
    done, seconds = 0, 0.0
    stops = {*asked.lengths, *asked.depths, *range(0, len(tokens), PIECE)}
    for stop in sorted(stop for stop in stops if stop % PIECE == 0 or stop in asked.depths):
        if stop > done:
            seconds += (stop - done) / rate(stop - done, lambda: model.read(tokens[done:stop]))
        done = stop
        if stop in asked.lengths:
            found["length"][stop] = stop / seconds
        if stop in asked.depths:
            found["depth"][stop] = decode(asked, model, stop)
            model.truncate(stop)
    return found
