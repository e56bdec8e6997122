"""What Kiln is to reach, and whether it does. A target is a number that must be at least another."""

import statistics
from dataclasses import dataclass

FAST = "4 bit g64, bf16, fast"
FOUR = "4 bit g64, bf16"


@dataclass
class Target:
    """`reached` is None where something was not measured. With `less` a smaller number is better. `why` is
    what a profile is to be of if the target is missed."""

    title: str
    target: str
    reached: float | None
    bound: float
    why: tuple
    less: bool = False
    unit: str = "x"

    def met(self):
        return self.reached <= self.bound if self.less else self.reached >= self.bound

    def verdict(self):
        return "reached" if self.met() else f"**missed** by {abs(self.reached / self.bound - 1):.0%}"

    def shown(self):
        return shown(self.reached, self.unit)


def shown(value, unit):
    if value is None:
        return "-"
    return f"{value:.0%}" if unit == "%" else f"{value:.2f}x"


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


class Numbers:
    """Medians of what was measured; what is missing is None and makes no verdict."""

    def __init__(self, results):
        self.parts = results.get("parts", {})
        self.rows = {}
        for group in self.groups("table"):
            key = group["model"], group["engine"], group["weights"]
            merge(self.rows.setdefault(key, {"about": group, "samples": {}}), group)

    def groups(self, part):
        return [group for key, group in self.parts.get(part, {}).items() if key != "limits"]

    def limits(self, part):
        return self.parts.get(part, {}).get("limits", {"samples": []})["samples"]

    def bandwidth(self, part):
        return median(sample["bandwidth"] for sample in self.limits(part))

    def of(self, model, engine, weights, key):
        row = self.rows.get((model, engine, weights))
        return row and median(row["samples"].get(key, []))

    def count(self, model, engine, weights, key="pp"):
        row = self.rows.get((model, engine, weights))
        return len(row["samples"].get(key, [])) if row else 0

    def share(self, model, engine, weights):
        """Share of the memory's bandwidth that generation reaches."""
        rate, limit = self.of(model, engine, weights, "tg0"), self.bandwidth("table")
        return rate and limit and rate * self.rows[model, engine, weights]["about"]["bytes_per_token"] / limit

    def formats(self):
        """By model and format: tokens per second, bytes of a token, share of the bandwidth, rounds."""
        limit, found = self.bandwidth("formats"), {}
        for group in self.groups("formats"):
            if samples := group["samples"]:
                rate, read = median(s["tok_s"] for s in samples), samples[0]["bytes_per_token"]
                found[group["model"], group["format"]] = rate, read, limit and rate * read / limit, len(samples)
        return found

    def conversion(self, model, engine, key):
        for group in self.groups("conversion"):
            if (group["model"], group["engine"]) == (model, engine):
                return median(sample[key] for sample in group["samples"])
        return None


def merge(row, group):
    """All numbers of a group's samples, by name; of generating by depth, tg0, tg512, …"""
    for sample in group["samples"]:
        flat = {**sample, **{f"tg{depth}": rate for depth, rate in sample.get("tg", {}).items()}}
        for name, value in flat.items():
            if isinstance(value, (int, float)):
                row["samples"].setdefault(name, []).append(value)
        row["version"] = sample.get("version", row.get("version", ""))
    if "failed" in group:
        row["failed"] = group["failed"]


def ratio(numbers, model, weights, peers, key, bound, title, less=False):
    """Kiln against the best of some peers, all of which must have been measured."""
    kiln = numbers.of(model, "kiln", weights, key)
    values = [numbers.of(model, engine, of, key) for engine, of in peers]
    reached = None
    if kiln and all(values):
        reached = kiln / (min(values) if less else max(values))
    names = " / ".join(f"{engine} {of}" for engine, of in peers)
    return Target(title, f"{'<=' if less else '>='} {bound:g}x {names}", reached, bound, (model, weights, key), less)


def table(results):
    n = Numbers(results)
    llama = [("llama.cpp", "Q4_0")]
    rows = [
        ratio(n, "smollm2", FOUR, llama, "tg0", 1.5, "SmolLM2-135M 4 bit, decode 128"),
        ratio(n, "smollm2", FOUR, llama, "tg512", 1.6, "SmolLM2-135M 4 bit, decode at depth 512"),
        ratio(n, "smollm2", FOUR, llama, "pp", 1.5, "SmolLM2-135M 4 bit, prefill 512"),
        ratio(n, "1.1b", FOUR, llama, "tg0", 1.0, "1.1B 4 bit, decode 128"),
        share("1.1B 4 bit, decode 128", n.share("1.1b", "kiln", FOUR), 0.9, ("1.1b", FOUR, "tg0")),
        ratio(n, "1.1b", FOUR, llama, "pp", 1.4, "1.1B 4 bit, prefill 512"),
        ratio(n, "1.1b", FAST, llama, "pp", 2.0, "1.1B 4 bit, prefill 512 with --precision fast"),
        ratio(n, "1.1b", "bf16", [("llama.cpp", "f16"), ("transformers", "bf16")], "tg0", 1.0, "1.1B bf16, decode"),
        ratio(n, "1.1b", "bf16", [("llama.cpp", "f16")], "pp", 1.2, "1.1B bf16, prefill 512"),
        ratio(n, "1.1b", "bf16", [("transformers", "bf16")], "pp", 1.0, "1.1B bf16, prefill 512"),
    ]
    formats = n.formats()
    for name in ["q8", "q6", "q5", "q3", "q2", "mxfp4", "nvfp4", "mxfp8"]:
        reached = formats.get(("1.1b", name), (None,) * 3)[2]
        rows.append(share(f"1.1B {name}, decode", reached, 0.8, ("formats", "1.1b", name)))
    models = (("smollm2", "SmolLM2-135M"), ("1.1b", "1.1B"))
    for model, title in models:
        rows.append(ratio(n, model, FOUR, llama, "first_s", 0.5, f"{title} 4 bit, load to first token", less=True))
        rows.append(ratio(n, model, FOUR, llama, "peak_bytes", 0.9, f"{title} 4 bit, peak memory", less=True))
    for model, title in models:
        ours, theirs = (n.conversion(model, engine, "seconds_taken") for engine in ("kiln", "mlx-lm"))
        reached = ours and theirs and theirs / ours
        said = ">= 3x as fast as mlx_lm.convert"
        rows.append(Target(f"{title} bf16 to 4 bit, conversion", said, reached, 3.0, ("conversion", model)))
    return rows


def share(title, reached, bound, why):
    return Target(title, f">= {bound:.0%} of the bandwidth", reached, bound, why, unit="%")
