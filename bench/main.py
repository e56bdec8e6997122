"""Measures Kiln and its peers side by side; scripts/bench prepares and starts it.

All engines take turns: a round runs each of them once, and medians are over the rounds, so that what
else the machine does meets all of them. What is measured goes into results.json as soon as a part is
done, so parts can be run one by one; the report is made of all that is there.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import child
import conversion
import curves
import formats
import models
import report
import speed

PARTS = {"speed": speed.run, "formats": formats.run, "conversion": conversion.run, "curves": curves.run}
MODELS = ["smollm2", "1.1b", "7b"]


@dataclass
class Bench:
    """What every part needs."""

    kiln: Path
    candle: Path | None
    folder: Path
    file: Path  # the results
    gguf: Path
    threads: int
    rounds: int
    models: list
    quick: bool
    trial: bool
    results: dict

    def save(self, part, found):
        """Adds to what was measured of a part."""
        self.results.setdefault("parts", {}).setdefault(part, {}).update(found)
        self.results.setdefault("rounds", {})[part] = self.rounds
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.results, indent=1))
        temporary.rename(self.file)

    def limits(self, threads=None):
        command = [self.kiln, "bench", "--limits", "--json", "--threads", threads or self.threads]
        return json.loads(child.run(command).text)

    def model(self, name):
        if name == "smollm2":
            return models.smollm2(self.folder / "models", self.gguf)
        return models.random(self.folder / "models", "1.1b", "random 1.1B (TinyLlama's shape)")


def machine(threads):
    """What the numbers are of."""
    names = [line.split(":", 1)[1].strip() for line in cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def cpuinfo():
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--kiln", required=True, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--candle", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--gguf", required=True, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", required=True, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", required=True, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="SmolLM2 with 4 bits only, Kiln and llama.cpp only, 3 rounds; writes no BENCHMARKS.md")
    parser.add_argument("--trial", action="store_true", help="few tokens and one round: whether everything works, not how fast; the report goes into .cache/bench/trial")
    parser.add_argument("--rounds", type=int, help="how often each engine is measured (5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every engine (all cores)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts to measure (%(default)s); none with ''")
    parser.add_argument("--models", default="smollm2,1.1b", help="which models (%(default)s); with 7b also Kiln alone on random weights of Mistral-7B's shape")
    asked = parser.parse_args()
    for given, known in ((asked.parts, PARTS), (asked.models, MODELS)):
        if unknown := [word for word in filter(None, given.split(",")) if word not in known]:
            parser.error(f"{unknown[0]}: expected some of {', '.join(known)}")
    if asked.quick:
        asked.parts, asked.models = "speed", "smollm2"
    if asked.trial:
        asked.output = asked.folder / "trial"
    return asked


def main():
    asked = arguments()
    name = "trial" if asked.trial else "quick" if asked.quick else "results"
    file = asked.folder / f"{name}.json"
    results = json.loads(file.read_text()) if file.exists() and not asked.quick else {}
    bench = Bench(
        kiln=asked.kiln,
        candle=asked.candle,
        folder=asked.folder,
        file=file,
        gguf=asked.gguf,
        threads=asked.threads,
        rounds=asked.rounds or (1 if asked.trial else 3 if asked.quick else 5),
        models=asked.models.split(","),
        quick=asked.quick,
        trial=asked.trial,
        results=results,
    )
    results["machine"] = machine(asked.threads)
    try:
        for part in filter(None, asked.parts.split(",")):
            models.say(f"== {part}")
            PARTS[part](bench)
    except child.Failed as failed:
        sys.exit(f"error: {failed}")
    print(report.tables(results))
    if not asked.quick:
        report.write(results, asked.output)
        models.say(f"written: {asked.output / 'BENCHMARKS.md'}")


main()
