"""From measurements to BENCHMARKS.md and its plots."""

import plot
import targets

HEAD = """# Benchmarks

Written by `./scripts/bench`; what it measures, and how, is in `bench/`. Every engine runs with
{threads} threads on the same machine in the same run, taking turns; numbers are medians of {rounds}
rounds. Ratios tell more than rates: other programs and other machines change all rates together.

"""
NOTES = """
*prefill* and *decode* are tokens per second: a prompt of 512 tokens, and 127 or 128 tokens behind 0,
512 and 2048 others. *of memory* is how much of the measured bandwidth decoding at depth 0 reaches,
counting each byte of weights once. *first token* is from nothing to the first token after a prompt of
8, files cached: of Kiln the whole process, of the others without starting Python. *peak* is the most
memory with room for 640 tokens, mapped files included: of Kiln the whole process, of the others
without what Python had before.
"""


def tables(results):
    parts = results.get("parts", {})
    text = []
    for model in parts.get("speed", {}).values():
        text += [f"## {model['title']}", "", *speed(model["rows"], parts.get("limits")), ""]
    text += ["## Targets", "", *verdicts(results), ""]
    return "\n".join(text)


def grid(head, rows):
    """A Markdown table; the first column is text."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(map(str, cells)) + " |" for cells in [head, rule, *rows]]


def speed(rows, limits):
    depths = sorted({int(depth) for row in rows for depth in row["tg"]})
    head = ["engine, weights", "prefill", *[f"decode @ {depth}" for depth in depths], "of memory", "first token s", "peak MB"]
    cells = []
    for row in rows:
        decode = [f"{row['tg'][str(depth)]:.1f}" if str(depth) in row["tg"] else "-" for depth in depths]
        share = row["bytes_per_token"] * row["tg"]["0"] / limits["bandwidth"] if limits else None
        name = f"{row['engine']} {row['weights']}"
        rest = [targets.shown(share, "%"), f"{row['first_s']:.3f}", f"{row['peak_bytes'] / 1e6:.0f}"]
        cells.append([name, f"{row['pp']:.1f}", *decode, *rest])
    return grid(head, cells)


def verdicts(results):
    cells, missing = [], []
    for title, target, reached, bound, less, unit in targets.table(results):
        if reached is None:
            missing.append(f"{title} ({target})")
        else:
            cells.append([title, target, targets.shown(reached, unit), targets.verdict(reached, bound, less)])
    text = grid(["work", "target", "reached", "verdict"], cells)
    return text + (["", f"Not measured: {'; '.join(missing)}."] if missing else [])


def write(results, output):
    parts, machine = results.get("parts", {}), results["machine"]
    text = [HEAD.format(threads=machine["threads"], rounds=results["rounds"].get("speed", "no"))]
    text += about(machine, parts) + [tables(results), NOTES]
    if "formats" in parts:
        text += formats(parts)
    if "conversion" in parts:
        text += conversion(parts["conversion"])
    text += plots(parts, output)
    (output / "BENCHMARKS.md").write_text("\n".join(text).rstrip() + "\n")


def about(machine, parts):
    rows = [
        ["processor", f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads used"],
        ["memory", f"{machine['memory_bytes'] / 2**30:.0f} GiB"],
        ["system", machine["system"]],
    ]
    if limits := parts.get("limits"):
        rows.append(["memory bandwidth", f"{limits['bandwidth'] / 1e9:.1f} GB/s"])
        for name, rate in limits["operations"].items():
            rows.append([f"{name} products", f"{rate / 1e9:.0f} Gop/s"])
    versions = {row["engine"]: row["version"] for model in parts.get("speed", {}).values() for row in model["rows"]}
    rows += [[engine, version] for engine, version in versions.items()]
    return ["## The machine, and what it can do at most", "", *grid(["", ""], rows), ""]


def formats(parts):
    text = []
    for model, rows in parts["formats"].items():
        limit = parts.get("limits", {}).get("bandwidth")
        cells = []
        for row in rows:
            speed = row["bytes_per_token"] * row["tok_s"]
            share = targets.shown(limit and speed / limit, "%")
            cells.append([row["format"], f"{row['tok_s']:.1f}", f"{row['bytes_per_token'] / 1e6:.0f}", f"{speed / 1e9:.1f}", share])
        head = ["format", "decode", "MB per token", "GB/s", "of memory"]
        text += [f"## Formats: Kiln, synthetic {model}", "", *grid(head, cells), ""]
    return text


def conversion(models):
    cells = []
    for model in models.values():
        for row in model["rows"]:
            cells.append([f"{model['title']}, {row['engine']}", f"{row['seconds']:.2f}", f"{row['peak_bytes'] / 1e6:.0f}"])
    return ["## Conversion: bf16 to 4 bits in groups of 64", "", *grid(["", "s", "peak MB"], cells), ""]


def plots(parts, output):
    """Writes the plots that there are measurements for; the text that shows them."""
    folder = output / "bench" / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    text = []

    def add(name, title, said, *axes_and_curves, **more):
        (folder / f"{name}.svg").write_text(plot.lines(title, *axes_and_curves, **more))
        text.extend([f"### {title}", "", f"![{title}](bench/plots/{name}.svg)", "", said, ""])

    if curves := parts.get("curves"):
        rates = curves["rates"]
        depth = {name: [(int(x), 1000 / rate) for x, rate in curve["depth"].items()] for name, curve in rates.items()}
        add("depth", "SmolLM2-135M: time of a token against depth", slopes(depth), "tokens before", "ms per token", list(depth.items()))
        length = {name: [(int(x), int(x) / rate) for x, rate in curve["length"].items()] for name, curve in rates.items()}
        add("length", "SmolLM2-135M: time of a prompt against its length", growth(length), "tokens", "s", list(length.items()), logarithmic=True)
        add("threads", "SmolLM2-135M: tokens per second against threads", gains(rates), "threads", "tokens/s", threads(rates))
    if sizes := by_size(parts):
        said = "A token costs what its weights cost to read: the line's slope is the bandwidth that decoding reaches, and where it meets the axis is what a token costs apart from weights."
        add("size", "Time of a token against what it reads", said, "MB of weights per token", "ms per token", sizes)
    return ["## How the cost grows", "", *text] if text else []


def slopes(curves):
    """The straight line through the first and the last point, in words."""
    said = []
    for name, points in curves.items():
        (x0, y0), (x1, y1) = points[0], points[-1]
        said.append(f"{name}: {y0:.2f} ms, and {(y1 - y0) / (x1 - x0) * 1000:.2f} ms more for every 1000 tokens before.")
    # Two tables of 3 heads of 64 numbers of two bytes, in 30 layers.
    said.append("A token reads the keys and values of all tokens before it: 23 kB for each of these.")
    return " ".join(said)


def growth(curves):
    said = []
    for name, points in curves.items():
        (x0, y0), (x1, y1) = points[-2], points[-1]
        said.append(f"{name}: from {x0} to {x1} tokens the time grows {y1 / y0:.2f}fold.")
    said.append("Weights cost the same for every token of a prompt, attention what the token's place in it is: twice is linear, four times is attention alone.")
    return " ".join(said)


def engine_threads(name):
    engine, threads = name.rsplit(", ", 1)
    return engine, int(threads.split()[0])


def threads(rates):
    curves = {}
    for name, curve in rates.items():
        engine, count = engine_threads(name)
        curves.setdefault(f"{engine}, decode", []).append((count, curve["depth"]["0"]))
        curves.setdefault(f"{engine}, prefill 512", []).append((count, curve["length"]["512"]))
    return list(curves.items())


def gains(rates):
    said = []
    for name, points in threads(rates):
        (one, slow), (many, fast) = points[0], points[-1]
        said.append(f"{name}: {fast / slow:.2f} times as fast with {many} threads as with {one}.")
    return " ".join(said)


def by_size(parts):
    """Kiln and llama.cpp with 4 bits; of Mistral's shape there is only Kiln."""
    curves = {}
    for row in parts.get("formats", {}).get("7b", []):
        name = f"kiln {targets.FOUR}"
        curves[name] = [(row["bytes_per_token"] / 1e6, 1000 / row["tok_s"])]
    for model in parts.get("speed", {}).values():
        for row in model["rows"]:
            if (row["engine"], row["weights"]) in (("kiln", targets.FOUR), ("llama.cpp", "Q4_0")):
                name = f"{row['engine']} {row['weights']}"
                curves.setdefault(name, []).append((row["bytes_per_token"] / 1e6, 1000 / row["tg"]["0"]))
    return [(name, sorted(points)) for name, points in curves.items() if len(points) > 1]
