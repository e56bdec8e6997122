"""What the curves say: straight lines and parabolas through measurements, and what their slopes mean."""

import targets


def fit(points, powers):
    """Coefficients of the powers of x whose sum is nearest to y, in shares of y. By normal equations."""
    rows = [([x**power / y for power in powers], 1.0) for x, y in points]
    size = len(powers)
    matrix = [[sum(row[i] * row[j] for row, _ in rows) for j in range(size)] + [sum(row[i] * one for row, one in rows)] for i in range(size)]
    for i in range(size):
        best = max(range(i, size), key=lambda j: abs(matrix[j][i]))
        matrix[i], matrix[best] = matrix[best], matrix[i]
        for j in range(size):
            if j != i:
                factor = matrix[j][i] / matrix[i][i]
                matrix[j] = [a - factor * b for a, b in zip(matrix[j], matrix[i])]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]


def curves(numbers, kind):
    """By name: (tokens, seconds of one at that depth, or of a prompt of that length), in medians; and what
    is known of it."""
    rates, about = {}, {}
    for group in numbers.groups("curves"):
        for sample in group["samples"]:
            about[group["name"]] = group
            for x, rate in sample[kind].items():
                rates.setdefault(group["name"], {}).setdefault(int(x), []).append(rate)
    found = {}
    for name, taken in rates.items():
        medians = {x: targets.median(values) for x, values in sorted(taken.items())}
        found[name] = [(x, (x if kind == "length" else 1) / rate) for x, rate in medians.items()], about[name]
    return found


def all_of(numbers):
    """Of each plot: name, title, what it says, and what is drawn."""
    depth, length = curves(numbers, "depth"), curves(numbers, "length")
    if depth:
        drawn = [(name, [(x, 1000 * y) for x, y in points]) for name, (points, _) in depth.items()]
        said = by_depth(depth, numbers.bandwidth("curves"))
        yield "depth", "SmolLM2-135M: time of a token against depth", said, axes("tokens before", "ms per token", drawn)
    if length:
        drawn = [(name, points) for name, (points, _) in length.items()]
        yield "length", "SmolLM2-135M: time of a prompt against its length", by_length(length), axes("tokens", "s", drawn, logarithmic=True)
    if gains := by_threads(depth, length):
        yield "threads", "SmolLM2-135M: tokens per second against threads", gained(gains), axes("threads", "tokens/s", gains)
    if sizes := by_size(numbers):
        yield "size", "Time of a token against what it reads", sized(sizes, numbers.bandwidth("table")), axes("MB of weights per token", "ms per token", sizes)


def axes(x_label, y_label, curves, logarithmic=False):
    return {"x_label": x_label, "y_label": y_label, "curves": curves, "logarithmic": logarithmic}


def by_depth(found, limit):
    said = []
    for name, (points, group) in found.items():
        if len(points) < 2:
            continue
        base, slope = fit(points, [0, 1])
        line = f"{name}: {1000 * base:.2f} ms, and {1e6 * slope:.2f} µs more for each token before"
        if shape := group.get("shape"):
            rate = shape["cache_bytes"] / slope
            share = f", {rate / limit:.0%} of the memory's bandwidth" if limit else ""
            line += f", which is {shape['cache_bytes']} bytes of cache read at {rate / 1e9:.1f} GB/s{share}"
        said.append(line + ".")
    return " ".join(said)


def by_length(found):
    said = []
    for name, (points, group) in found.items():
        if len(points) < 3:
            continue
        base, each, pair = fit(points, [0, 1, 2])
        line = f"{name}: {1000 * base:.1f} ms, {1e6 * each:.0f} µs for each token, and {2e9 * pair:.1f} ns for each token before it"
        if (shape := group.get("shape")) and pair > 0:
            line += f", which is attention's {shape['attention_operations']} operations at {shape['attention_operations'] / (2 * pair) / 1e9:.0f} Gop/s"
        if pair > 0:
            line += f"; from {each / pair:.0f} tokens on, attention takes more than all else"
        said.append(line + ".")
    said.append("(Of the parabola through the points: a prompt of n tokens has n²/2 pairs of a token and one before it.)")
    return " ".join(said)


def by_threads(depth, length):
    found = {}
    for what, curve, at in (("decode", depth, 0), ("prefill 512", length, 512)):
        for points, group in curve.values():
            seconds = dict(points).get(at)
            if seconds:
                name = f"{group['engine']}, {what}"
                found.setdefault(name, []).append((group["threads"], (at or 1) / seconds))
    return [(name, sorted(points)) for name, points in found.items() if len(points) > 1]


def gained(curves):
    said = []
    for name, points in curves:
        (one, slow), (many, fast) = points[0], points[-1]
        said.append(f"{name}: {fast / slow:.2f} times as fast with {many} threads as with {one}.")
    return " ".join(said)


def by_size(numbers):
    """Kiln and llama.cpp with 4 bits; of Mistral's shape there is only Kiln."""
    curves = {}
    for (model, engine, weights), row in numbers.rows.items():
        rate = numbers.of(model, engine, weights, "tg0")
        if rate and (engine, weights) in (("kiln", targets.FOUR), ("llama.cpp", "Q4_0")):
            point = row["about"]["bytes_per_token"] / 1e6, 1000 / rate
            curves.setdefault(f"{engine} {weights}", []).append(point)
    if found := numbers.formats().get(("7b", "q4")):
        curves.setdefault(f"kiln {targets.FOUR}", []).append((found[1] / 1e6, 1000 / found[0]))
    return [(name, sorted(points)) for name, points in curves.items() if len(points) > 1]


def sized(curves, limit):
    said = ["A token costs what its weights cost to read."]
    for name, points in curves:
        base, slope = fit(points, [0, 1])
        rate = 1e9 / slope
        share = f", {rate / limit:.0%} of the memory's bandwidth" if limit else ""
        said.append(f"{name}: {base:.1f} ms, and 1 ms for each {rate / 1e9:.1f} MB: {rate / 1e9:.1f} GB/s{share}.")
    return " ".join(said)
