"""Conversion to 4 bits: time and memory of kiln convert and of mlx_lm.convert."""

import shutil
import sys

import child
from store import Turn
from table import TITLES


def prepare(bench):
    for name in names(bench):
        bench.model(name).bf16(bench.kiln)


def run(bench):
    for name in names(bench):
        source, target = bench.model(name).bf16(bench.kiln), bench.folder / "converted"
        said = ["--mlx-path", target, "-q", "--dtype", "bfloat16"]
        commands = {"kiln": [bench.kiln, "convert", source, *said]}
        if bench.has("mlx_lm"):
            commands["mlx-lm"] = [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", source, *said]
        turns = []
        for engine, command in commands.items():
            about = {"model": name, "title": TITLES[name], "engine": engine}
            measure = lambda command=command: converted(command, target)
            turns.append(Turn(f"{name}, {engine} converts", bench.rounds, measure, about))
        bench.store.take("conversion", turns)
        shutil.rmtree(target, ignore_errors=True)


def names(bench):
    return [name for name in bench.models if name in TITLES]


def converted(command, target):
    shutil.rmtree(target, ignore_errors=True)
    done = child.run(command, HF_HUB_OFFLINE="1")
    return {"seconds_taken": done.seconds, "peak_bytes": done.peak}
