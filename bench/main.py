"""Measures Kiln and its peers side by side; scripts/bench prepares and starts it.

All engines take turns: a round runs each of them once, in a process of its own, and medians are over the
rounds, so that what else the machine does meets all of them. Every measurement goes into a file at once;
the report is made of all that is there. Parts that are asked for are measured anew, unless with --resume;
other parts stay, as long as they are of the same program and machine.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import child
import conversion
import curves
import formats
import models
import profiles
import report
import store
import table

PARTS = {"table": table, "formats": formats, "conversion": conversion, "curves": curves}
MODELS = ["smollm2", "1.1b", "7b"]
# Share of the processor above which other programs make a measurement worthless.
BUSY = 0.1


@dataclass
class Bench:
    """What every part needs."""

    kiln: Path
    candle: Path | None
    folder: Path
    gguf: Path
    threads: int
    rounds: int
    models: list
    quick: bool
    trial: bool
    store: store.Store

    def limits(self):
        command = [self.kiln, "bench", "--limits", "--json", "--threads", self.threads]
        return json.loads(child.run(command).text)

    def model(self, name):
        if name == "smollm2":
            return models.smollm2(self.folder / "models", self.gguf)
        return models.random(self.folder / "models", "1.1b", table.TITLES["1.1b"])

    def has(self, module):
        """Whether a peer is there: --quick does without most, and one that cannot be had is left out."""
        return importlib.util.find_spec(module) is not None


def machine():
    """What the numbers are of."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit(folder):
    """The commit that Kiln was built from, or nothing outside a repository."""
    describe = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    for hidden in ("--kiln", "--gguf", "--folder", "--output"):
        parser.add_argument(hidden, required=True, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--candle", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--about-llama", default="", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="SmolLM2 with 4 bits only, Kiln and llama.cpp only, 3 rounds; writes no BENCHMARKS.md")
    parser.add_argument("--trial", action="store_true", help="few tokens and one round: whether everything works, not how fast; the report goes into .cache/bench/trial")
    parser.add_argument("--prepare", action="store_true", help="makes programs and models, and measures nothing")
    parser.add_argument("--resume", action="store_true", help="goes on with a run that was cut, instead of measuring the parts anew")
    parser.add_argument("--seconds", type=float, help="begins no measurement after so many seconds; --resume goes on")
    parser.add_argument("--busy", action="store_true", help="measures even if other programs run")
    parser.add_argument("--rounds", type=int, help="how often each engine of a target is measured (5); others less often")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every engine (all cores)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts to measure (%(default)s); none with ''")
    parser.add_argument("--models", default=",".join(MODELS), help="which models (%(default)s); of 7b only Kiln's formats")
    asked = parser.parse_args()
    for given, known in ((asked.parts, PARTS), (asked.models, MODELS)):
        if unknown := [word for word in filter(None, given.split(",")) if word not in known]:
            parser.error(f"{unknown[0]}: expected some of {', '.join(known)}")
    if asked.quick:
        asked.parts, asked.models = "table", "smollm2"
    if asked.trial:
        asked.output = asked.folder / "trial"
        # Threads that wait for others by turning round and round take minutes where others run, too.
        os.environ["OMP_WAIT_POLICY"] = "passive"
    return asked


def opened(asked):
    """The bench, with the results that are kept."""
    about = {
        "kiln": hashlib.sha256(asked.kiln.read_bytes()).hexdigest()[:16],
        "machine": machine(),
        "threads": asked.threads,
        "llama.cpp": asked.about_llama,
    }
    name = "trial" if asked.trial else "quick" if asked.quick else "results"
    most = None if asked.busy or asked.trial else BUSY
    found = store.Store(asked.folder / f"{name}.json", about, asked.seconds, most)
    return Bench(
        kiln=asked.kiln,
        candle=asked.candle,
        folder=asked.folder,
        gguf=asked.gguf,
        threads=asked.threads,
        rounds=asked.rounds or (1 if asked.trial else 3 if asked.quick else 5),
        models=asked.models.split(","),
        quick=asked.quick,
        trial=asked.trial,
        store=found,
    )


def quiet():
    """Waits half a minute for other programs to end; fails if they do not."""
    for _ in range(6):
        others = child.Others()
        time.sleep(3)
        share = others.share()
        if share is None or share <= BUSY:
            return
        models.say(f"other programs take {share:.0%} of the processor: waiting")
        time.sleep(2)
    raise child.Failed("other programs are running, so times would tell of them: end them, or say --busy")


def measure(bench, asked):
    parts = list(filter(None, asked.parts.split(",")))
    for part in parts:
        PARTS[part].prepare(bench)
    if asked.prepare or not parts:
        return
    if not (asked.busy or asked.trial):
        quiet()
    for part in parts:
        (bench.store.resume if asked.resume else bench.store.forget)(part)
    if not asked.resume:
        bench.store.forget("profiles")
    bench.store.note("commit", commit(Path(__file__).parent))
    before = bench.store.results.get("loads", []) if asked.resume else []
    bench.store.note("loads", [*before, [round(load, 2) for load in os.getloadavg()]])
    for part in parts:
        models.say(f"== {part}")
        PARTS[part].run(bench)
    models.say("== profiles of what is missed")
    profiles.run(bench)


def main():
    asked = arguments()
    late = False
    try:
        bench = opened(asked)
        measure(bench, asked)
    except store.Late:
        late = True
    except child.Failed as failed:
        sys.exit(f"error: {failed}")
    if asked.prepare:
        return
    print(report.tables(bench.store.results))
    if not asked.quick:
        report.write(bench.store.results, asked.output)
        models.say(f"written: {asked.output / 'BENCHMARKS.md'}")
    if late:
        models.say("the time is over: go on with --resume")
        sys.exit(3)
    if wrong := report.failures(bench.store.results):
        sys.exit(f"error: {len(wrong)} could not be measured: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
