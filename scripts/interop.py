"""Compares Kiln with mlx-lm on SmolLM2; scripts/interop prepares and starts it.

First both convert the same checkpoint in several ways, and must write the same bytes (same.py). Then
every row of the table is a checkpoint that one of the two wrote and both run. In float32 they must
give the same tokens up to the first step at which the best two logits are closer than 0.02. In half
precision they round differently on the way; how far they agree is told, not judged. Every form that a
model has (PyTorch's files, Meta's shards, npz, GGUF) must mean the same, too (forms.py).
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlx_lm

import forms
import greedy
import same

GOLDEN = Path(__file__).resolve().parents[1] / "tests/golden/smollm2_tokens.json"

# Name, arguments of kiln convert after the float16 checkpoint.
KILN = [
    ("float32", ["--dtype", "float32"]),
    ("4 bits", ["-q", "--dtype", "float32"]),
    ("4 bits in 32s", ["-q", "--q-group-size", "32", "--dtype", "float32"]),
    ("2 bits", ["-q", "--q-bits", "2", "--q-group-size", "32", "--dtype", "float32"]),
    ("3 bits", ["-q", "--q-bits", "3", "--dtype", "float32"]),
    ("5 bits", ["-q", "--q-bits", "5", "--dtype", "float32"]),
    ("6 bits", ["-q", "--q-bits", "6", "--dtype", "float32"]),
    ("8 bits", ["-q", "--q-bits", "8", "--dtype", "float32"]),
    ("mxfp4", ["-q", "--q-mode", "mxfp4", "--dtype", "float32"]),
    ("mxfp8", ["-q", "--q-mode", "mxfp8", "--dtype", "float32"]),
    ("nvfp4", ["-q", "--q-mode", "nvfp4", "--dtype", "float32"]),
    ("mixed_3_6", ["-q", "--quant-predicate", "mixed_3_6", "--dtype", "float32"]),
    ("modes by rules", ["-q", "--rule", "*.v_proj=mxfp8", "--rule", "layers.{0,-1}.*=6g32", "--rule", "*.o_proj=float", "--dtype", "float32"]),
    ("4.8 bits", ["--target-bpw", "4.8", "--dtype", "float32"]),
]
KILN_HALF = [
    ("float16", ["--dtype", "float16"]),
    ("bfloat16", ["--dtype", "bfloat16"]),
    ("exact Q4_1, float16", None),
    ("4 bits, float16", ["-q", "--dtype", "float16"]),
    ("4 bits, bfloat16", ["-q", "--dtype", "bfloat16"]),
]
# Name, arguments of mlx_lm.convert after the float16 checkpoint.
MLX = [
    ("float32", {"dtype": "float32"}),
    ("4 bits", {"quantize": True, "dtype": "float32"}),
    ("mxfp4", {"quantize": True, "q_mode": "mxfp4", "dtype": "float32"}),
    ("mixed_3_6", {"quantize": True, "quant_predicate": "mixed_3_6", "dtype": "float32"}),
]


class Kiln:
    """The program."""

    def __init__(self, path):
        self.path = path

    def convert(self, source, into, arguments):
        self.call("convert", str(source), "--mlx-path", str(into), "--force", *arguments)

    def generate(self, directory, prompt, count):
        ids = ",".join(map(str, prompt))
        asked = ["--model", str(directory), "--prompt-ids", ids, "--max-tokens", str(count)]
        return json.loads(self.call("run", *asked, "--ignore-eos", "--json"))["token_ids"]

    def call(self, *arguments):
        done = subprocess.run([self.path, *arguments], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: kiln {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout


class Table:
    """One line per checkpoint, printed when it is known."""

    def __init__(self):
        self.wrong = []
        self.line("written by", "checkpoint", "prompts", "steps", "certain", "equal", "seconds", "")

    def line(self, *cells):
        widths = [10, 20, 7, 6, 7, 6, 7, 0]
        aligned = [f"{c:<{w}}" if i in (0, 1, 7) else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths))]
        print("  ".join(aligned).rstrip(), flush=True)

    def row(self, writer, name, results, judged, seconds):
        steps = sum(len(ids) for ids, _, _ in results)
        certain = sum(greedy.certain_steps(margins) for _, margins, _ in results)
        equal = sum(greedy.equal_steps(ids, kilns) for ids, _, kilns in results)
        right = all(greedy.equal_steps(ids, kilns) >= greedy.certain_steps(margins) for ids, margins, kilns in results)
        verdict = ("same" if right else "DIFFERENT") if judged else "reported"
        self.line(writer, name, len(results), steps, certain, equal, f"{seconds:.0f}", verdict)
        if judged and not right:
            self.fault(f"{writer}'s {name}: other tokens before the first close decision")

    def fault(self, text):
        self.wrong.append(text)


def prompt_ids(tokenizer, prompt):
    if prompt["kind"] == "raw":
        return tokenizer.encode(prompt["text"])
    messages = [{"role": "user", "content": prompt["text"]}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def compare(kiln, table, writer, name, directory, prompts, count, judged):
    start = time.monotonic()
    model, tokenizer = mlx_lm.load(str(directory))
    results = []
    for prompt in prompts:
        ids = prompt["prompt_ids"]
        if list(prompt_ids(tokenizer, prompt)) != ids:
            table.fault(f"{writer}'s {name}: mlx-lm has other ids for the prompt {prompt['id']}")
        results.append((*greedy.generate(model, ids, count), kiln.generate(directory, ids, count)))
    table.row(writer, name, results, judged, time.monotonic() - start)


def main():
    parser = argparse.ArgumentParser(prog="scripts/interop")
    parser.add_argument("--kiln", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--tokens", type=int, default=16, help="tokens per prompt in float32 (16)")
    parser.add_argument("--half-tokens", type=int, default=4, help="tokens in half precision (4)")
    parser.add_argument("--prompts", type=int, default=6, help="how many of the prompts (6)")
    parser.add_argument("--half-prompts", type=int, default=1, help="how many in half precision (1: the shortest)")
    parser.add_argument("--only", default="", help="only checkpoints whose writer and name contain this")
    asked = parser.parse_args()
    kiln, table = Kiln(asked.kiln), Table()
    prompts = json.loads(GOLDEN.read_text())[: asked.prompts]
    by_length = sorted(prompts, key=lambda prompt: len(prompt["prompt_ids"]))
    float16, converted = asked.work / "float16", asked.work / "converted"
    kiln.convert(asked.model, float16, ["--dtype", "float16"])
    table.wrong += same.compare(kiln, float16, asked.work, asked.only)
    tokens = lambda name, made: compare(kiln, table, "form", name, made, prompts[:2], asked.tokens, True)
    table.wrong += forms.compare(kiln, float16, asked.work, asked.only, by_length[0]["prompt_ids"], tokens)
    judged = [("kiln", *row, True) for row in KILN] + [("mlx-lm", *row, True) for row in MLX]
    rows = judged + [("kiln", *row, False) for row in KILN_HALF]
    for writer, name, arguments, exact in rows:
        if asked.only not in f"{writer} {name}":
            continue
        shutil.rmtree(converted, ignore_errors=True)
        if writer == "mlx-lm":
            with contextlib.redirect_stdout(sys.stderr):
                mlx_lm.convert(str(float16), str(converted), **arguments)
        else:
            source = asked.model if arguments is None else float16
            kiln.convert(source, converted, arguments or [])
        few = (prompts, asked.tokens) if exact else (by_length[: asked.half_prompts], asked.half_tokens)
        compare(kiln, table, writer, name, converted, *few, exact)
    shutil.rmtree(converted, ignore_errors=True)
    for text in table.wrong:
        print(f"error: {text}", file=sys.stderr)
    sys.exit(1 if table.wrong else 0)


main()
