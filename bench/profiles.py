"""Why targets are missed: where the time goes in what Kiln was too slow at."""

import json

import child
import engines
import formats
import targets
from store import Turn


def run(bench):
    missed = [row for row in targets.table(bench.store.results) if row.reached is not None and not row.met()]
    turns = {}
    for row in missed:
        if measure := profile(bench, *row.why):
            turns[name(row.why)] = Turn(name(row.why), 1, measure, {})
    bench.store.take("profiles", list(turns.values()))


def name(why):
    return ", ".join(why)


def profile(bench, *why):
    """What gives the text of a profile; nothing where there is none to make."""
    if why[0] == "formats":
        return lambda: text(formats.command(bench, why[1], why[2], 16) + ["--profile"])
    if why[0] == "conversion" or why[2] == "peak_bytes":
        return None
    model, weights, key = why
    path = bench.model(model).four_bits(bench.kiln) if weights != "bf16" else bench.model(model).bf16(bench.kiln)
    options = ["--precision", "fast"] if weights == targets.FAST else []
    if key == "first_s":
        return lambda: start(bench, path)
    tests = ["-p", 512, "-n", 0] if key == "pp" else ["-p", 0, "-n", 32, "-d", key[2:]]
    command = [bench.kiln, "bench", "-m", path, "--threads", bench.threads, "-r", 1, "--profile"]
    return lambda: text([*command, *options, *tests])


def text(command):
    """Without the table of the test above it, and without trailing blanks, which nobody sees and Git
    complains of."""
    profile = child.run(command).text.strip().split("\n\n", 1)[-1]
    return {"text": "\n".join(line.rstrip() for line in profile.splitlines())}


def start(bench, path):
    """From nothing to the first token, in pieces that are measured singly."""
    kiln = engines.Kiln(bench.kiln, path, "")
    command = [bench.kiln, "bench", "--json", "-m", path, "--threads", bench.threads]
    found = json.loads(child.run([*command, "-r", 1, "-n", 0, "-p", engines.FIRST]).text)
    whole = min(kiln.first(bench.threads)["first_s"] for _ in range(3))
    process = min(child.run([bench.kiln, "--version"]).seconds for _ in range(3))
    prompt = engines.FIRST / found["results"][0]["tok_s"]
    pieces = {
        "a process that does nothing": process,
        "mapping the weights": found["load_s"],
        "a prompt of 8, for the second time": prompt,
    }
    rest = whole - sum(pieces.values())
    lines = [f"{1000 * seconds:7.1f} ms  {what}" for what, seconds in pieces.items()]
    lines.append(f"{1000 * rest:7.1f} ms  the rest: tokenizer, first use of weights and memory, output")
    return {"text": "\n".join([*lines, f"{1000 * whole:7.1f} ms  all, the best of 3"])}
