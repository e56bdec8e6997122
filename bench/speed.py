"""Speed, first token and memory of every engine on every model."""

import statistics
from dataclasses import dataclass

import child
import engines
import models



@dataclass
class Work:
    prompt: int = 512
    generate: int = 128
    depths: tuple = (512, 2048)


# Whether everything works, not how fast.
TRIAL = Work(32, 4, (64,))


def contenders(bench, model):
    """The engines with the weights that they are given."""
    four = model.four_bits(bench.kiln)
    found = [engines.Kiln(bench.kiln, four, "4 bit g64, bf16")]
    llama = [("q4_0", "Q4_0")]
    if not bench.quick:
        bf16 = model.bf16(bench.kiln)
        found.append(engines.Kiln(bench.kiln, bf16, "bf16"))
        for dtype in ("float16", "float32"):
            path = model.four_bits(bench.kiln, dtype)
            found.append(engines.Kiln(bench.kiln, path, f"4 bit g64, {dtype}"))
        if "--precision" in child.run([bench.kiln, "bench", "--help"]).text:
            options = ["--precision", "fast"]
            found.append(engines.Kiln(bench.kiln, four, "4 bit g64, bf16, fast", options))
        llama += [("q8_0", "Q8_0"), ("f16", "f16")]
        found.append(engines.transformers(bf16, "bf16"))
    for kind, label in llama:
        path = model.gguf(kind)
        found.append(engines.llama_cpp(path, label))
        if bench.candle:
            found.append(engines.candle(bench.candle, path, label))
    return found


def run(bench):
    limits = [bench.limits()]
    work = TRIAL if bench.trial else Work()
    for name in bench.models:
        if name == "7b":
            continue
        model = bench.model(name)
        engine_list = contenders(bench, model)
        taken = {at: [] for at in range(len(engine_list))}
        for number in range(bench.rounds):
            for at, engine in enumerate(engine_list):
                models.say(f"{name}, round {number + 1} of {bench.rounds}: {engine.name} {engine.label}")
                sample = engine.speed(work, bench.threads)
                sample["tg"] |= engine.depths(work, bench.threads, work.depths)
                taken[at].append(sample)
            limits.append(bench.limits())
        rows = [row(engine, taken[at]) for at, engine in enumerate(engine_list)]
        if name == "smollm2" and not bench.quick:
            rows.append(mlx(bench, model))
        bench.save("speed", {name: {"title": model.title, "rows": rows}})
    bench.save("limits", best(limits))


def mlx(bench, model):
    """mlx-lm, with f32 activations, which it is fastest with, and few tokens: it takes seconds for one."""
    path = model.four_bits(bench.kiln, "float32")
    engine = engines.mlx(path, "4 bit g64, f32; 32 tokens")
    models.say("smollm2: mlx-lm")
    return row(engine, [engine.speed(Work(32, 8), bench.threads)])


def best(limits):
    """The most that was measured: other programs can only make it less."""
    names = limits[0]["operations"]
    return {
        "threads": limits[0]["threads"],
        "bandwidth": max(found["bandwidth"] for found in limits),
        "operations": {name: max(found["operations"][name] for found in limits) for name in names},
    }


def row(engine, samples):
    """Medians, and all that they are of."""
    depths = samples[0]["tg"]
    return {
        "engine": engine.name,
        "weights": engine.label,
        "version": samples[0]["version"],
        "pp": statistics.median(sample["pp"] for sample in samples),
        "tg": {str(depth): statistics.median(sample["tg"][depth] for sample in samples) for depth in depths},
        "first_s": statistics.median(sample["first_s"] for sample in samples),
        "peak_bytes": statistics.median(sample["peak_bytes"] for sample in samples),
        "bytes_per_token": engine.read_bytes,
        "samples": samples,
    }
