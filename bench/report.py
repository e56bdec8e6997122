"""From measurements to BENCHMARKS.md and its plots."""

import json
from pathlib import Path

import growth
import plot
import targets
from store import samples

TRIED = Path(__file__).resolve().parent / "tried.json"
HEAD = """# Benchmarks

Written by `./scripts/bench`; what it measures, and how, is in `bench/`. Every engine runs with
{threads} threads on the same machine in the same run, each measurement in a process of its own, taking
turns; numbers are medians of n rounds. Ratios tell more than rates: other programs and other machines change
all rates together.
"""
NOTES = """
*prefill* and *decode* are tokens per second: a prompt of 512 tokens read for the second time, and 127 or 128
tokens (or as many as the last column says) behind 0, 512 and {deep} others. *of memory* is how much of the
measured bandwidth decoding at depth 0 reaches, counting each byte of weights once; more than all is the
processor's cache. *first token* is from nothing to the first token after a prompt of 8, files cached: of Kiln
the whole process, of the others without starting Python. *peak* is the most memory with room for the tokens
of prompt and decoding, mapped files included: of Kiln the whole process, of the others without what Python
had before.
"""


def tables(results):
    text = ["## Targets", "", *verdicts(results), ""]
    numbers = targets.Numbers(results)
    for title, rows in by_model(numbers).items():
        text += [f"## {title}", "", *speed(numbers, rows), ""]
    return "\n".join(text)


def write(results, output):
    numbers = targets.Numbers(results)
    text = [HEAD.format(threads=results["identity"]["threads"]), *noise(results), tables(results)]
    if numbers.rows:
        text.append(NOTES.format(deep=2048))
    text += [*formats(numbers), *conversion(numbers), *plots(numbers, output), *machine(results, numbers), *profiles(results)]
    (output / "BENCHMARKS.md").write_text("\n".join(text).rstrip() + "\n")


def grid(head, rows, left=1):
    """A Markdown table; the first columns are text."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return ["| " + " | ".join(map(str, cells)) + " |" for cells in [head, rule, *rows]]


def verdicts(results):
    rows = targets.table(results)
    cells = [[row.title, row.target, row.shown(), row.verdict()] for row in rows if row.reached is not None]
    missing = [f"{row.title} ({row.target})" for row in rows if row.reached is None]
    text = grid(["work", "target", "reached", "verdict"], cells, left=4) if cells else []
    return text + (["", f"Not measured: {'; '.join(missing)}."] if missing else [])


def by_model(numbers):
    found = {}
    for row in numbers.rows.values():
        if row["samples"]:
            found.setdefault(row["about"]["title"], []).append(row)
    return found


def speed(numbers, rows):
    limit = numbers.bandwidth("table")
    keys = {key for row in rows for key in row["samples"] if key.startswith("tg")}
    depths = sorted(int(key[2:]) for key in keys)
    head = ["engine, weights", "prefill", *[f"decode @ {depth}" for depth in depths], "of memory", "first token s", "peak MB", "n", ""]
    cells = []
    for row in rows:
        about, medians = row["about"], {key: targets.median(values) for key, values in row["samples"].items()}
        decode = [one(medians.get(f"tg{depth}"), 1) for depth in depths]
        rate = medians.get("tg0")
        share = rate and limit and about["bytes_per_token"] * rate / limit
        peak = medians.get("peak_bytes")
        rest = [targets.shown(share, "%"), one(medians.get("first_s"), 3), one(peak and peak / 1e6, 0)]
        counts = "/".join(str(len(row["samples"].get(key, []))) for key in ("pp", "tg2048") if key in row["samples"])
        cells.append([f"{about['engine']} {about['weights']}", one(medians.get("pp"), 1), *decode, *rest, counts, about["note"]])
    return [*grid(head, cells), "", "n: rounds; behind a stroke those of depth 2048."]


def one(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def noise(results):
    taken = [sample for part in results.get("parts", {}) for sample in samples(results, part) if "others" in sample]
    shares = sorted(sample["others"] for sample in taken if sample["others"] is not None)
    said = [f"{len(taken)} measurements of {sum(sample['seconds'] for sample in taken) / 60:.0f} minutes in all"]
    if commit := results.get("commit"):
        said.append(f"Kiln built from {commit}")
    if shares:
        said.append(f"meanwhile other programs had {targets.median(shares):.0%} of the cores in the median and {shares[-1]:.0%} at most")
    if loads := results.get("loads"):
        starts = [", ".join(map(str, load)) for load in loads]
        said.append(f"load averages at the start {'; of what went on with it '.join(starts)}")
    return ["; ".join(said)[0].upper() + "; ".join(said)[1:] + ".", ""]


def machine(results, numbers):
    about = results["identity"]["machine"]
    rows = [
        ["processor", f"{about['processor']}, {about['cores']} cores, {results['identity']['threads']} threads used"],
        ["memory", f"{about['memory_bytes'] / 2**30:.0f} GiB"],
        ["system", about["system"]],
    ]
    limits = [sample for part in ("table", "formats", "curves") for sample in numbers.limits(part)]
    if limits:
        rates = [sample["bandwidth"] / 1e9 for sample in limits]
        rows.append(["memory bandwidth", f"{targets.median(rates):.1f} GB/s, {min(rates):.1f} to {max(rates):.1f} in {len(rates)} measurements"])
        for name in limits[0]["operations"]:
            rates = [sample["operations"][name] / 1e9 for sample in limits]
            rows.append([f"{name} products", f"{targets.median(rates):.0f} Gop/s, {min(rates):.0f} to {max(rates):.0f}"])
    versions = {row["about"]["engine"]: row["version"] for row in numbers.rows.values() if row.get("version")}
    if llama := results["identity"].get("llama.cpp"):
        versions["llama.cpp"] = f"{versions.get('llama.cpp', '')} {llama}".strip()
    rows += [[engine, version] for engine, version in versions.items()]
    return ["## The machine, and what it can do at most", "", *grid(["", ""], rows, left=2), ""]


def formats(numbers):
    cells = []
    for (model, name), (rate, read, share, count) in numbers.formats().items():
        cells.append([f"{model}, {name}", one(rate, 1), one(read / 1e6, 0), one(rate * read / 1e9, 1), targets.shown(share, "%"), count])
    head = ["shape, format", "decode", "MB per token", "GB/s", "of memory", "n"]
    text = ["## Formats: Kiln on random weights of TinyLlama's and Mistral-7B's shape", "", *grid(head, cells)]
    limit = numbers.bandwidth("formats")
    return [*text, "", f"Memory bandwidth between them: {one(limit and limit / 1e9, 1)} GB/s.", ""] if cells else []


def conversion(numbers):
    cells = []
    for group in numbers.groups("conversion"):
        if found := group["samples"]:
            seconds, peak = (targets.median(sample[key] for sample in found) for key in ("seconds_taken", "peak_bytes"))
            cells.append([f"{group['title']}, {group['engine']}", one(seconds, 2), one(peak / 1e6, 0), len(found)])
    text = ["## Conversion: bf16 to 4 bits in groups of 64, files cached", ""]
    return [*text, *grid(["", "s", "peak MB", "n"], cells), ""] if cells else []


def plots(numbers, output):
    """Writes the plots that there are measurements for; the text that shows them."""
    folder, text = output / "bench" / "plots", []
    for name, title, said, drawn in growth.all_of(numbers):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.svg").write_text(plot.lines(title, **drawn))
        text += [f"### {title}", "", f"![{title}](bench/plots/{name}.svg)", "", said, ""]
    return ["## How the cost grows", "", *text] if text else []


def profiles(results):
    """Of each target that is missed the profile, and what was tried, which a person writes into tried.json."""
    groups, tried = results.get("parts", {}).get("profiles", {}), json.loads(TRIED.read_text())
    text, shown = [], set()
    for row in targets.table(results):
        if row.reached is None or row.met():
            continue
        text += [f"### {row.title}: {row.target}, reached {row.shown()}", ""]
        key = ", ".join(row.why)
        if key in shown:
            text += ["As above.", ""]
            continue
        shown.add(key)
        if key in tried:
            text += [tried[key], ""]
        for sample in groups.get(key, {"samples": []})["samples"]:
            text += ["```text", sample["text"], "```", ""]
    return ["## What is missed, and where its time goes", "", *text] if text else []


def failures(results):
    parts = results.get("parts", {}).values()
    return [f"{key}: {group['failed']}" for groups in parts for key, group in groups.items() if "failed" in group]
