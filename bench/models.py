"""The models, and the files that each engine reads. What is there is not made again."""

import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import child

HERE = Path(__file__).resolve().parent
# llama.cpp's numbers for kinds of files.
FILE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 7}


@dataclass
class Model:
    name: str
    title: str
    folder: Path
    source: Path  # a GGUF file that the others are made of

    def gguf(self, kind):
        """llama.cpp's file; f16 or quantised by its own quantiser."""
        path = self.folder / f"{kind}.gguf"
        if self.source == path or path.exists():
            return path
        say(f"making {path.name} of {self.name} with llama.cpp")
        arguments = [self.source, path.with_suffix(".tmp"), FILE_TYPES[kind]]
        child.run([sys.executable, "-B", HERE / "quantise.py", *arguments])
        path.with_suffix(".tmp").rename(path)
        return path

    def mlx(self, kiln, name, arguments, of=None):
        """A directory that `kiln convert` writes with these arguments."""
        path = self.folder / name
        if not path.exists():
            say(f"making {name} of {self.name} with kiln")
            source = of or self.source
            child.run([kiln, "convert", source, "--mlx-path", path, *arguments])
        return path

    def bf16(self, kiln):
        return self.mlx(kiln, "bf16", ["--dequantize", "--dtype", "bfloat16"])

    def four_bits(self, kiln, dtype="bfloat16"):
        return self.mlx(kiln, f"4bit-{dtype}", ["-q", "--dtype", dtype], of=self.bf16(kiln))


def smollm2(folder, gguf):
    folder = folder / "smollm2"
    folder.mkdir(parents=True, exist_ok=True)
    return Model("smollm2", "SmolLM2-135M", folder, gguf)


def random(folder, name, title):
    """A model of random weights, made once."""
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "f16.gguf"
    if not source.exists():
        say(f"making {source.name} of {name}: random weights")
        child.run([sys.executable, "-B", HERE / "random_gguf.py", name, source.with_suffix(".tmp")])
        source.with_suffix(".tmp").rename(source)
    return Model(name, title, folder, source)


def bytes_read(path):
    """Bytes of the weights that one token needs: all but an embedding that is not the head, too."""
    if path.is_dir():
        return safetensors_bytes(path)
    # In a process of its own: what this one has of memory its children seem to have, too.
    return int(child.run([sys.executable, "-B", HERE / "gguf_bytes.py", path]).text)


def safetensors_bytes(path):
    sizes = {}
    for file in path.glob("*.safetensors"):
        with file.open("rb") as opened:
            length = struct.unpack("<Q", opened.read(8))[0]
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        sizes |= {name: entry["data_offsets"] for name, entry in header.items()}
    untied = "lm_head.weight" in sizes
    needed = (span for name, span in sizes.items() if not (untied and name.startswith("model.embed_tokens.")))
    return sum(end - start for start, end in needed)


def say(text):
    print(text, file=sys.stderr, flush=True)
