"""Conversion to 4 bits: time and memory of kiln convert and of mlx_lm.convert."""

import shutil
import statistics
import sys

import child
import models


def run(bench):
    for name in bench.models:
        if name == "7b":
            continue
        model = bench.model(name)
        source = model.bf16(bench.kiln)
        target = bench.folder / "converted"
        commands = {
            "kiln": [bench.kiln, "convert", source, "--mlx-path", target, "-q", "--dtype", "bfloat16"],
            "mlx-lm": [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", source, "--mlx-path", target, "-q", "--dtype", "bfloat16"],
        }
        taken = {engine: [] for engine in commands}
        for number in range(bench.rounds):
            for engine, command in commands.items():
                models.say(f"{name}, round {number + 1} of {bench.rounds}: {engine} converts")
                shutil.rmtree(target, ignore_errors=True)
                done = child.run(command, HF_HUB_OFFLINE="1")
                taken[engine].append({"seconds": done.seconds, "peak_bytes": done.peak})
        shutil.rmtree(target, ignore_errors=True)
        median = lambda engine, key: statistics.median(sample[key] for sample in taken[engine])
        rows = [{"engine": engine, "seconds": median(engine, "seconds"), "peak_bytes": median(engine, "peak_bytes"), "samples": taken[engine]} for engine in commands]
        bench.save("conversion", {name: {"title": model.title, "rows": rows}})
