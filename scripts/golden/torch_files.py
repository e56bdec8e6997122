"""Writes crates/formats/tests/golden/torch/: PyTorch and npz files, and the tensors in them.

usage: torch_files.py          needs: torch numpy mlx (bfloat16.npz is kept as it is without mlx)

views.pth and views_legacy.pth hold the same dictionary in both of PyTorch's formats: every dtype,
views with offsets and strides, storages that are shared. module.bin is a state_dict with metadata.
values.json says of every tensor its type, its shape, and its elements' bytes in row-major order.
"""

import collections
import json
import pathlib
import pickle

import numpy
import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/formats/tests/golden/torch"
NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}


def described(tensor):
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data": data.hex()}


def views():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8 - 1
    tensors = collections.OrderedDict()
    for dtype, name in NAMES.items():
        tensors[f"dtype.{name}"] = (base[1] * 8).abs().to(dtype)
    tensors["view.rows"] = base[1:3]
    tensors["view.columns"] = base[:, 2:5]
    tensors["view.steps"] = base[::2, 1::2]
    tensors["view.transposed"] = base.t()
    tensors["view.cube"] = base.reshape(2, 2, 6).permute(2, 0, 1)
    tensors["view.row"] = base[3]
    tensors["view.column"] = base[:, 4]
    tensors["view.scalar"] = base[2, 3]
    tensors["view.empty"] = base[4:]
    tensors["parameter"] = torch.nn.Parameter(base.to(torch.bfloat16).t())
    return tensors


def arrays():
    base = (numpy.arange(24).reshape(4, 6) / 8 - 1).astype(numpy.float32)
    return {
        "layers.0.w": base,
        "half": base.astype(numpy.float16),
        "codes": numpy.arange(6, dtype=numpy.uint32).reshape(2, 3) * 1_000_003,
        "column_major": numpy.asfortranarray(base),
        "vector": base[0],
        "scalar": base[1, 2],
        "bytes": numpy.arange(5, dtype=numpy.uint8),
        "empty": base[:0],
    }


class Calls:
    """A pickle that would run a command."""

    def __reduce__(self):
        import os

        return os.system, ("true",)


def main():
    torch.manual_seed(11)
    OUT.mkdir(parents=True, exist_ok=True)
    values = {"views": {name: described(tensor) for name, tensor in views().items()}}
    torch.save(views(), OUT / "views.pth")
    torch.save(views(), OUT / "views_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(dict(views()), OUT / "protocol4.pth", pickle_protocol=4)
    module = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.LayerNorm(3)).half()
    torch.save(module.state_dict(), OUT / "module.bin")
    values["module"] = {name: described(tensor) for name, tensor in module.state_dict().items()}
    torch.save({"w": torch.zeros(2), "x": Calls()}, OUT / "calls.pth")
    torch.save(module, OUT / "whole_module.pth")
    torch.save({"epoch": 3, "w": torch.zeros(2)}, OUT / "training.pth")
    torch.save(torch.zeros(2), OUT / "bare.pth")
    (OUT / "plain.pkl").write_bytes(pickle.dumps({"w": [1.0, 2.0]}, protocol=2))

    numpy.savez(OUT / "numpy.npz", **arrays())
    numpy.savez_compressed(OUT / "packed.npz", **arrays())
    torched = {name: torch.from_numpy(numpy.array(array)) for name, array in arrays().items()}
    values["arrays"] = {name: described(tensor) for name, tensor in torched.items()}
    try:
        import mlx.core as mx
    except ImportError:
        print("without mlx, mlx.npz stays as it is")
    else:
        made = {name: mx.array(array) for name, array in arrays().items() if array.size}
        made["brain"] = made["layers.0.w"].astype(mx.bfloat16)
        made["transposed"] = made["layers.0.w"].T
        mx.savez(OUT / "mlx.npz", **made)
    base = torched["layers.0.w"]
    values["mlx"] = {name: value for name, value in values["arrays"].items() if name != "empty"}
    values["mlx"]["brain"] = described(base.to(torch.bfloat16))
    values["mlx"]["transposed"] = described(base.t())
    (OUT / "values.json").write_text(json.dumps(values, indent=1) + "\n")


main()
