"""What Kiln is to reach, and whether it does. A target is a number that must be at least another."""

FAST = "4 bit g64, bf16, fast"
FOUR = "4 bit g64, bf16"


class Numbers:
    """Looks measurements up; a missing one is None and makes no verdict."""

    def __init__(self, results):
        self.parts = results.get("parts", {})

    def row(self, model, engine, weights):
        rows = self.parts.get("speed", {}).get(model, {}).get("rows", [])
        return next((r for r in rows if r["engine"] == engine and r["weights"] == weights), None)

    def of(self, model, engine, weights, key):
        row = self.row(model, engine, weights)
        if row is None:
            return None
        return row["tg"].get(key[2:]) if key.startswith("tg") else row[key]

    def bandwidth(self):
        return self.parts.get("limits", {}).get("bandwidth")

    def share(self, model, engine, weights):
        """Share of the memory's bandwidth that generation reaches."""
        row, limit = self.row(model, engine, weights), self.bandwidth()
        return row and limit and row["bytes_per_token"] * row["tg"]["0"] / limit

    def format_share(self, model, name):
        rows = self.parts.get("formats", {}).get(model, [])
        row, limit = next((r for r in rows if r["format"] == name), None), self.bandwidth()
        return row and limit and row["bytes_per_token"] * row["tok_s"] / limit


def ratio(numbers, model, weights, peers, key, least, title, less=False):
    """Kiln against the best of some peers. With `less` a smaller number is better."""
    kiln = numbers.of(model, "kiln", weights, key)
    values = [numbers.of(model, engine, of, key) for engine, of in peers]
    values = [value for value in values if value is not None]
    reached = None
    if kiln and values:
        reached = kiln / (min(values) if less else max(values))
    names = " / ".join(f"{engine} {of}" for engine, of in peers)
    return (title, f"{'<=' if less else '>='} {least:g}x {names}", reached, least, less, "x")


def table(results):
    """Title, target, what was reached (or None), the bound, whether less is better, and the unit."""
    n = Numbers(results)
    llama = [("llama.cpp", "Q4_0")]
    rows = [
        ratio(n, "smollm2", FOUR, llama, "tg0", 1.5, "SmolLM2-135M 4 bit, decode"),
        ratio(n, "smollm2", FOUR, llama, "tg512", 1.6, "SmolLM2-135M 4 bit, decode at depth 512"),
        ratio(n, "smollm2", FOUR, llama, "pp", 1.5, "SmolLM2-135M 4 bit, prefill"),
        ratio(n, "1.1b", FOUR, llama, "tg0", 1.0, "1.1B 4 bit, decode"),
        ("1.1B 4 bit, decode", ">= 90 % of the bandwidth", n.share("1.1b", "kiln", FOUR), 0.9, False, "%"),
        ratio(n, "1.1b", FOUR, llama, "pp", 1.4, "1.1B 4 bit, prefill"),
        ratio(n, "1.1b", FAST, llama, "pp", 2.0, "1.1B 4 bit, prefill with --precision fast"),
        ratio(n, "1.1b", "bf16", [("llama.cpp", "f16"), ("transformers", "bf16")], "tg0", 1.0, "1.1B bf16, decode"),
        ratio(n, "1.1b", "bf16", [("llama.cpp", "f16")], "pp", 1.2, "1.1B bf16, prefill"),
        ratio(n, "1.1b", "bf16", [("transformers", "bf16")], "pp", 1.0, "1.1B bf16, prefill"),
    ]
    for name in ["q8", "q6", "q5", "q3", "q2", "mxfp4", "nvfp4", "mxfp8"]:
        reached = n.format_share("1.1b", name)
        rows.append((f"1.1B {name}, decode", ">= 80 % of the bandwidth", reached, 0.8, False, "%"))
    for model, title in (("smollm2", "SmolLM2-135M"), ("1.1b", "1.1B")):
        rows.append(ratio(n, model, FOUR, llama, "first_s", 0.5, f"{title}, load to first token", less=True))
        rows.append(ratio(n, model, FOUR, llama, "peak_bytes", 0.9, f"{title}, peak memory", less=True))
    return rows


def verdict(reached, bound, less):
    if (reached <= bound) if less else (reached >= bound):
        return "reached"
    missing = reached / bound - 1
    return f"missed by {abs(missing):.0%}"


def shown(value, unit):
    if value is None:
        return "-"
    return f"{value:.0%}" if unit == "%" else f"{value:.2f}x"
