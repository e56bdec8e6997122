"""Speed, first token and memory of every engine on every model."""

from dataclasses import dataclass

import child
import engines
import targets
from engines import Work
from store import Turn

TITLES = {"smollm2": "SmolLM2-135M", "1.1b": "random 1.1B (TinyLlama's shape)"}
DEEP = 2048


@dataclass
class Contender:
    """An engine with weights, what is measured of it, and how often."""

    engine: object
    rounds: int
    work: Work = Work()
    deep: int = 0  # how often behind 2048 tokens
    note: str = ""


def prepare(bench):
    for name in bench.models:
        if name in TITLES:
            contenders(bench, name)


def run(bench):
    for name in bench.models:
        if name in TITLES:
            turns = [Turn("limits", bench.rounds, bench.limits)]
            for contender in contenders(bench, name):
                turns += turns_of(bench, name, contender)
            bench.store.take("table", turns)


def turns_of(bench, name, contender):
    engine, work, threads = contender.engine, contender.work, bench.threads
    about = {
        "model": name,
        "title": TITLES[name],
        "engine": engine.name,
        "weights": engine.label,
        "note": contender.note,
        "bytes_per_token": engine.read_bytes,
        "file": str(engine.weights),
    }

    def turn(kind, wanted, measure):
        return Turn(f"{name}, {engine.name} {engine.label}, {kind}", wanted, measure, {**about, "kind": kind})

    yield turn("speed", contender.rounds, lambda: engine.speed(work, threads))
    if engine.name == "kiln":
        yield turn("first", contender.rounds, lambda: engine.first(threads))
        yield turn("memory", min(contender.rounds, 3), lambda: engine.memory(work, threads))
    if contender.deep:
        yield turn("deep", contender.deep, lambda: {"tg": engine.depths(work, threads, [DEEP])})


def has_fast(kiln):
    """Whether this processor has --precision fast."""
    try:
        child.run([kiln, "bench", "--synthetic", "135m", "-p", 16, "-n", 0, "-r", 1, "--precision", "fast"])
    except child.Failed:
        return False
    return True


def contenders(bench, name):
    """Those that targets are of are measured in every round, others less often. Makes their files."""
    model, kiln, all_rounds = bench.model(name), bench.kiln, bench.rounds
    large = name == "1.1b"
    some, deep = (1 if large else min(2, all_rounds)), (0 if bench.trial else min(2 if large else 3, all_rounds))
    main = Work(32, 4, (0, 64)) if bench.trial else Work()
    # A token of these takes a tenth of a second and more.
    slow = Work(main.prompt, main.generate // 2, (0,)) if large else main
    note = f"decoding {slow.generate} tokens" if large else ""
    four = model.four_bits(kiln)

    def ours(path, label, rounds, work=slow, options=(), note=note, **more):
        return Contender(engines.Kiln(kiln, path, label, options), rounds, work, note=note, **more)

    def llama(kind, rounds, work=slow, note=note, **more):
        return Contender(engines.llama_cpp(model.gguf(kind), kind.upper() if kind[0] == "q" else kind), rounds, work, note=note, **more)

    found = [
        ours(four, targets.FOUR, all_rounds, main, note="", deep=deep),
        llama("q4_0", all_rounds, main, note="", deep=deep),
    ]
    if bench.quick:
        return found
    if has_fast(kiln):
        found.append(ours(four, targets.FAST, all_rounds if large else some, options=["--precision", "fast"]))
    often = all_rounds if large else some
    found += [ours(model.bf16(kiln), "bf16", often), llama("f16", often)]
    if bench.has("torch"):
        found.append(Contender(engines.transformers(model.bf16(kiln), "bf16"), often, slow, note=note))
    found += [ours(model.four_bits(kiln, dtype), f"4 bit g64, {dtype}", some) for dtype in ("float16", "float32")]
    found.append(llama("q8_0", some))
    if bench.candle:
        kinds = ["q4_0"] if large else ["q4_0", "f16"]
        for kind in kinds:
            label = kind.upper() if kind[0] == "q" else kind
            found.append(Contender(engines.candle(bench.candle, model.gguf(kind), label), some, slow, note=note))
    if not large and bench.has("mlx_lm"):
        path = model.four_bits(kiln, "float32")
        tokens = Work(32, 8, (0,))
        found.append(Contender(engines.mlx(path, "4 bit g64, float32"), 1, tokens, note="prompt of 32, decoding 8 tokens"))
    return found
