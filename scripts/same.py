"""Both programs' conversions of one checkpoint, compared byte for byte; scripts/interop starts it."""

import contextlib
import json
import shutil
import sys

import mlx.core as mx
import mlx_lm

# Name, arguments of kiln convert, arguments of mlx_lm.convert; after a name with an arrow the
# conversion of what the row above it made.
QUANTISE = {"quantize": True}
SAME = [
    ("4 bits", ["-q"], QUANTISE),
    ("-> as it is", [], {}),
    ("mixed_2_6", ["-q", "--quant-predicate", "mixed_2_6"], QUANTISE | {"quant_predicate": "mixed_2_6"}),
    (
        "mixed_4_6 in 32s",
        ["-q", "--q-group-size", "32", "--quant-predicate", "mixed_4_6"],
        QUANTISE | {"q_group_size": 32, "quant_predicate": "mixed_4_6"},
    ),
    ("-> bfloat16", ["--dtype", "bfloat16"], {"dtype": "bfloat16"}),
    ("-> dequantised", ["-d"], {"dequantize": True}),
    ("mxfp4", ["-q", "--q-mode", "mxfp4"], QUANTISE | {"q_mode": "mxfp4"}),
    ("-> dequantised", ["-d"], {"dequantize": True}),
    ("mxfp8", ["-q", "--q-mode", "mxfp8"], QUANTISE | {"q_mode": "mxfp8"}),
    ("-> dequantised", ["-d"], {"dequantize": True}),
    ("nvfp4", ["-q", "--q-mode", "nvfp4"], QUANTISE | {"q_mode": "nvfp4"}),
    ("-> dequantised", ["-d"], {"dequantize": True}),
]


def tensors(directory):
    """Dtype, shape and bytes of every tensor."""
    found = {}
    for file in sorted(directory.glob("model*.safetensors")):
        for name, array in mx.load(str(file)).items():
            found[name] = (array.dtype, array.shape, bytes(memoryview(array.view(mx.uint8))))
    return found


def differences(ours, theirs):
    """What differs, in a few words each."""
    left, right = tensors(ours), tensors(theirs)
    names = sorted(left.keys() | right.keys())
    found = [name for name in names if left.get(name) != right.get(name)]
    configs = [json.loads((directory / "config.json").read_text()) for directory in (ours, theirs)]
    for key in ("quantization", "quantization_config"):
        if configs[0].get(key) != configs[1].get(key):
            found.append(f"{key} in config.json")
    return len(names), found


def compare(kiln, base, work, only):
    """Prints a line for each conversion; gives what is wrong."""
    wrong, above = [], None
    made, kept, ours = work / "theirs", work / "kept", work / "ours"
    for name, arguments, theirs in SAME:
        again = name.startswith("->")
        if not again:
            above = name if only in name else None
        if above is None:
            continue
        source = kept if again else base
        shutil.rmtree(made, ignore_errors=True)
        with contextlib.redirect_stdout(sys.stderr):
            mlx_lm.convert(str(source), str(made), **theirs)
        kiln.convert(source, ours, arguments)
        count, found = differences(ours, made)
        print(f"{name:<20}  {count:>4} tensors  {'same bytes' if not found else 'DIFFERENT'}", flush=True)
        if found:
            wrong.append(f"{above} {name if again else ''}: {len(found)} differ, the first {found[0]}")
        if not again:
            shutil.rmtree(kept, ignore_errors=True)
            made.rename(kept)
    for directory in (made, kept, ours):
        shutil.rmtree(directory, ignore_errors=True)
    return wrong
