"""Writes tests/golden/mlx/cases.json and values.bin: what MLX's array functions give for some inputs.

usage: arrays.py          needs: mlx 0.32.4, numpy

A case is [function, arguments, inputs, outputs]. Functions have the names of Kiln's methods. An input
or output is [dtype, lengths, offset into values.bin] and, for a view of what lies there, a list of what
is done to it: ["t", a, b] exchanges two axes, ["s", axis, start, stop, step] cuts one, ["b", lengths]
stretches to lengths. "error" as outputs: the function has to refuse. An input ["q"] is a quantised
array, which nearly everything refuses: in MLX its codes are an array like others, so that is Kiln's own
rule, and MLX is not asked.
"""

import json
import math
import pathlib

import mlx.core as mx
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/mlx"
DTYPES = {
    "bool": mx.bool_, "u8": mx.uint8, "u32": mx.uint32, "i32": mx.int32,
    "f16": mx.float16, "bf16": mx.bfloat16, "f32": mx.float32,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOATS = ["f16", "bf16", "f32"]
NUMBERS = ["u8", "u32", "i32", *FLOATS]
SIGNED = ["i32", *FLOATS]
ALL = list(DTYPES)

random = np.random.default_rng(7)
values, places, cases = bytearray(), {}, []


def raw(array):
    wide = {2: mx.uint16}.get(array.itemsize)
    return np.array(array.view(wide) if wide else array).tobytes()


def stored(array):
    """[dtype, lengths, offset] of an MLX array; equal bytes lie once."""
    if array.dtype not in NAMES:
        return [str(array.dtype).split(".")[-1], list(array.shape), 0]
    data = raw(array)
    if data not in places:
        places[data] = len(values)
        values.extend(data)
    return [NAMES[array.dtype], list(array.shape), places[data]]


class In:
    """An input: an MLX array, and how it is described."""

    def __init__(self, array, view=()):
        self.entry = stored(array)
        for what, *how in view:
            if what == "t":
                array = mx.swapaxes(array, *how)
            elif what == "s":
                axis, start, stop, step = how
                at = [slice(None)] * array.ndim
                at[axis] = slice(start, stop, step)
                array = array[tuple(at)]
            else:
                array = mx.broadcast_to(array, how[0])
        if view:
            self.entry.append([list(step) for step in view])
        self.array = array


def numbers(dtype, shape, low=-4.0, high=4.0):
    size = int(np.prod(shape))
    if dtype == "bool":
        data = random.integers(0, 2, size) == 1
    elif dtype == "u8":
        data = random.integers(max(0, int(low)), 256 if high > 3 else int(high) + 1, size).astype(np.uint8)
    elif dtype == "u32":
        data = random.integers(max(0, int(low)), 40, size).astype(np.uint32)
    elif dtype == "i32":
        data = random.integers(math.floor(low) * 5, math.floor(high) * 5 + 1, size).astype(np.int32)
        data = np.where(data < low * 5, 1, data).astype(np.int32)
    else:
        data = random.uniform(low, high, size).astype(np.float32)
    return mx.array(data).reshape(shape).astype(DTYPES[dtype])


def special(dtype, low=None):
    data = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, math.inf, -math.inf, math.nan, 3e-5, 300.0]
    if dtype == "i32":
        data = [0, -1, 1, 2**31 - 1, -(2**31), 7]
    if dtype == "u32":
        data = [0, 1, 2**32 - 1, 2**31, 2**31 - 1, 7]
    if dtype == "u8":
        data = [0, 1, 255, 128, 127]
    if dtype == "bool":
        data = [True, False, False, True]
    kind = {"i32": mx.int32, "u32": mx.uint32, "u8": mx.uint8, "bool": mx.bool_}.get(dtype, mx.float32)
    return In(mx.array(data, dtype=kind).astype(DTYPES[dtype]))


def view(dtype, shape, **range_):
    """Random numbers of this shape as a view with gaps and exchanged axes."""
    rank = len(shape)
    base = [n + 2 for n in shape]
    steps = []
    if rank >= 2:
        base[-1], base[-2] = base[-2], base[-1]
        steps.append(["t", rank - 2, rank - 1])
    for axis, n in enumerate(shape):
        steps.append(["s", axis, 1, 1 + n, 1])
    return In(numbers(dtype, base, **range_), steps)


def plain(dtype, shape, **range_):
    return In(numbers(dtype, shape, **range_))


def case(function, call, inputs, **arguments):
    """One case, with what MLX gives."""
    try:
        outputs = call(*[i.array for i in inputs], **arguments)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        mx.eval(outputs)
        outputs = [stored(mx.contiguous(output)) for output in outputs]
    except (ValueError, RuntimeError, TypeError, IndexError):
        outputs = "error"
    cases.append([function, arguments, [i.entry for i in inputs], outputs])
    return outputs


def refused(function, call, inputs, **arguments):
    """A case that MLX refuses."""
    found = case(function, call, inputs, **arguments)
    assert found == "error", (function, arguments, found)


def own(function, inputs, **arguments):
    """What Kiln refuses though MLX is not asked."""
    entries = [i if i == ["q"] else i.entry for i in inputs]
    cases.append([function, arguments, entries, "error"])


Q = ["q"]
SHAPES = [[7], [2, 5], [3, 2, 4], [2, 1, 3, 2], [1], [], [4, 9]]


def shape_of(n):
    return SHAPES[n % len(SHAPES)]


def unary(function, call, dtypes=ALL, specials=True, **range_):
    for n, dtype in enumerate(dtypes):
        copies = 2 if len(dtypes) > 4 else 4
        for i in range(copies):
            case(function, call, [plain(dtype, shape_of(n + i), **range_)])
        case(function, call, [view(dtype, [3, 4], **range_)])
        if specials:
            case(function, call, [special(dtype)])
    own(function, [Q])


def elementwise():
    unary("abs", mx.abs)
    unary("negative", mx.negative, NUMBERS)
    refused("negative", mx.negative, [plain("bool", [2])])
    unary("sign", mx.sign)
    unary("square", mx.square, NUMBERS)
    unary("reciprocal", mx.reciprocal, NUMBERS)
    unary("exp", mx.exp)
    unary("log", mx.log, low=0.1)
    unary("sqrt", mx.sqrt, low=0.0)
    unary("rsqrt", mx.rsqrt, low=0.1)
    unary("sin", mx.sin)
    unary("cos", mx.cos)
    unary("tanh", mx.tanh)
    unary("sigmoid", mx.sigmoid)
    unary("silu", lambda x: x * mx.sigmoid(x), FLOATS, specials=False)
    unary("erf", mx.erf)
    unary("erfinv", mx.erfinv, FLOATS, specials=False, low=-0.99, high=0.99)
    unary("floor", mx.floor, NUMBERS)
    unary("ceil", mx.ceil, NUMBERS)
    unary("round", mx.round, NUMBERS)
    unary("is_nan", mx.isnan)
    unary("is_inf", mx.isinf)
    unary("is_finite", mx.isfinite)
    unary("logical_not", mx.logical_not)


PAIRS = [("bool", "i32"), ("u8", "i32"), ("u8", "f16"), ("u32", "bf16"), ("i32", "f32"), ("f16", "bf16"),
         ("bf16", "f32"), ("bool", "u8"), ("u8", "u32"), ("f16", "f32")]
NUMBER_PAIRS = [pair for pair in PAIRS if "bool" not in pair]


def binary(function, call, dtypes=NUMBERS, pairs=NUMBER_PAIRS, number=True, left=None, right=None):
    left, right = left or {}, right or {}
    for n, dtype in enumerate(dtypes):
        shape = shape_of(n)
        case(function, call, [plain(dtype, shape, **left), plain(dtype, shape, **right)])
        case(function, call, [plain(dtype, [3, 1], **left), view(dtype, [2, 1, 4], **right)])
        if number:
            for value in [2, 0.5] if dtype in FLOATS else [2]:
                case(function, lambda x, number: call(x, number), [plain(dtype, shape, **left)], number=value)
    for a, b in pairs:
        case(function, call, [plain(a, [2, 3], **left), plain(b, [3], **right)])
    refused(function, call, [plain("f32", [2, 3]), plain("f32", [4])])
    if dtypes != ["bool"]:
        case(function, call, [plain("u32", [3]), plain("i32", [3])])
    own(function, [plain("f32", [1, 32]), Q])


def pairs_of_numbers():
    binary("add", mx.add)
    binary("subtract", mx.subtract)
    binary("multiply", mx.multiply)
    binary("divide", mx.divide, right={"low": 1.0})
    binary("maximum", mx.maximum)
    binary("minimum", mx.minimum)
    binary("power", mx.power, left={"low": 0.5, "high": 3.0}, right={"low": 0.0, "high": 3.0})
    case("power", mx.power, [special("f32"), plain("f32", [1], low=2.0, high=2.0)])
    binary("remainder", mx.remainder, right={"low": 1.0})
    case("remainder", mx.remainder, [plain("i32", [3, 4]), plain("i32", [4], low=-4.0, high=-1.0)])
    case("remainder", mx.remainder, [plain("f32", [3, 4]), plain("f32", [4], low=-4.0, high=-1.0)])
    binary("floor_divide", mx.floor_divide, right={"low": 1.0})
    case("floor_divide", mx.floor_divide, [plain("i32", [3, 4]), plain("i32", [4], low=-4.0, high=-1.0)])
    for name in ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]:
        binary(name, getattr(mx, name), pairs=NUMBER_PAIRS)
        case(name, getattr(mx, name), [special("f32"), In(special("f32").array[::-1])])
    for name in ["logical_and", "logical_or"]:
        binary(name, getattr(mx, name), ALL, PAIRS, number=False)
    for n, dtype in enumerate(ALL):
        shape = shape_of(n)
        case("select", mx.where, [plain("bool", shape), plain(dtype, shape), plain(dtype, shape)])
        case("select", mx.where, [view("bool", [3, 4]), plain(dtype, [4]), view(dtype, [3, 1])])
    for a, b in PAIRS:
        case("select", mx.where, [plain("bool", [2, 3]), plain(a, [2, 3]), plain(b, [3])])
    refused("select", mx.where, [plain("bool", [2]), plain("f32", [3]), plain("f32", [2])])
    for n, dtype in enumerate(NUMBERS):
        bounds = [(1, 3), (0, 2)]
        for low, high in bounds:
            case("clip", lambda x, low, high: mx.clip(x, low, high), [plain(dtype, shape_of(n))], low=low, high=high)
        case("clip", lambda x, low, high: mx.clip(x, low, high), [view(dtype, [2, 3])], low=1, high=2)
    own("clip", [Q], low=0, high=1)
    for n, source in enumerate(ALL):
        for target in ALL:
            if source in FLOATS and target in ("u8", "u32"):
                inputs = [plain(source, shape_of(n), low=0.0)]
            else:
                inputs = [plain(source, shape_of(n))]
            case("cast", lambda x, dtype: x.astype(DTYPES[dtype]), inputs, dtype=target)
        case("cast", lambda x, dtype: x.astype(DTYPES[dtype]), [view(source, [2, 3])], dtype="f32")
    own("cast", [plain("f32", [2, 32])], dtype="mxfp4")


def keep(call):
    return lambda x, axes, **rest: call(x, axis=axes, keepdims=True, **rest)


AXES = [([7], [0]), ([2, 5], [1]), ([2, 5], [0]), ([3, 2, 4], [0, 2]), ([3, 2, 4], None), ([2, 3, 2, 2], [-2]),
        ([2, 3, 2, 2], [1, 2, 3])]


def reduction(function, call, dtypes=ALL, **arguments):
    for n, dtype in enumerate(dtypes):
        for i in range(2 if len(dtypes) > 4 else 4):
            shape, axes = AXES[(2 * n + i) % len(AXES)]
            case(function, keep(call), [plain(dtype, shape)], axes=axes, **arguments)
        case(function, keep(call), [view(dtype, [3, 4])], axes=[n % 2], **arguments)
    case(function, keep(call), [plain(dtypes[-1], [40, 33])], axes=[0], **arguments)
    case(function, keep(call), [plain(dtypes[-1], [5, 700])], axes=[1], **arguments)
    refused(function, keep(call), [plain(dtypes[-1], [2, 3])], axes=[2], **arguments)
    own(function, [Q], axes=[0], **arguments)


def along(function, call, dtypes=ALL, shapes=AXES):
    for n, dtype in enumerate(dtypes):
        for i in range(2 if len(dtypes) > 4 else 5):
            shape, axes = shapes[(2 * n + i) % len(shapes)]
            case(function, call, [plain(dtype, shape)], axis=(axes or [1])[0])
        case(function, call, [view(dtype, [3, 4])], axis=n % 2)
    case(function, call, [plain(dtypes[-1], [5, 37])], axis=1)
    refused(function, call, [plain(dtypes[-1], [2, 3])], axis=2)
    own(function, [Q], axis=0)


def reductions():
    reduction("sum", mx.sum)
    reduction("mean", mx.mean)
    reduction("max", mx.max)
    reduction("min", mx.min)
    case("max", keep(mx.max), [special("f32")], axes=[0])
    case("min", keep(mx.min), [special("f32")], axes=[0])
    reduction("any", mx.any)
    reduction("all", mx.all)
    reduction("logsumexp", mx.logsumexp, FLOATS)
    for ddof in (0, 1):
        reduction("var", mx.var, FLOATS, ddof=ddof)
        reduction("std", mx.std, FLOATS, ddof=ddof)
    for name in ["argmax", "argmin", "cumsum", "softmax"]:
        along(name, lambda x, axis, f=getattr(mx, name): f(x, axis=axis), FLOATS if name == "softmax" else ALL)
    case("argmax", lambda x, axis: mx.argmax(x, axis=axis), [special("f32")], axis=0)
    for name in ["sort", "argsort"]:
        along(name, lambda x, axis, f=getattr(mx, name): f(x, axis=axis))
        case(name, lambda x, axis, f=getattr(mx, name): f(x, axis=axis), [special("i32")], axis=0)
    case("sort", lambda x, axis: mx.sort(x, axis=axis), [special("f32")], axis=0)
    # MLX leaves the order of the largest open.
    topk = lambda x, axis, count: mx.take(mx.sort(x, axis=axis), mx.arange(x.shape[axis] - 1, x.shape[axis] - 1 - count, -1), axis=axis)
    for n, dtype in enumerate(ALL):
        case("topk", topk, [plain(dtype, [9])], axis=0, count=3)
        case("topk", topk, [view(dtype, [4, 3])], axis=n % 2, count=2)
    case("topk", topk, [plain("f32", [2, 100])], axis=1, count=40)
    refused("topk", lambda x, axis, count: mx.topk(x, count, axis=axis), [plain("f32", [3])], axis=0, count=4)


def shapes():
    for n, dtype in enumerate(ALL):
        x = lambda: plain(dtype, [3, 4, 5])
        call = lambda a, at: a[tuple(slice(*s) if isinstance(s, list) else s for s in at)]
        case("index", call, [x()], at=[[1, 3, 1], [0, 4, 1], 2])
        case("index", call, [x()], at=[-1, [0, 4, 2]])
        case("index", call, [view(dtype, [4, 6])], at=[[1, 4, 2], [0, 6, 3]])
        case("reshape", lambda a, shape: a.reshape(shape), [x()], shape=[15, 4])
        case("reshape", lambda a, shape: a.reshape(shape), [view(dtype, [4, 3])], shape=[2, 6])
        case("reshape", lambda a, shape: a.reshape(shape), [plain(dtype, [4, 3])], shape=[2, 2, 3, 1])
        case("flatten", mx.flatten, [x()])
        case("flatten", mx.flatten, [view(dtype, [4, 3])])
        case("flatten", mx.flatten, [plain(dtype, [])])
        case("transpose", lambda a, x, y: mx.swapaxes(a, x, y), [x()], x=0, y=2)
        case("transpose", lambda a, x, y: mx.swapaxes(a, x, y), [view(dtype, [4, 3])], x=-1, y=0)
        case("permute", lambda a, axes: mx.transpose(a, axes), [x()], axes=[2, 0, 1])
        case("permute", lambda a, axes: mx.transpose(a, axes), [view(dtype, [4, 3])], axes=[1, 0])
        case("permute", lambda a, axes: mx.transpose(a, axes), [plain(dtype, [2, 3, 2, 2])], axes=[3, 1, 0, 2])
        case("move_axis", lambda a, x, y: mx.moveaxis(a, x, y), [x()], x=0, y=2)
        case("move_axis", lambda a, x, y: mx.moveaxis(a, x, y), [plain(dtype, [2, 3, 2, 2])], x=-1, y=1)
        case("move_axis", lambda a, x, y: mx.moveaxis(a, x, y), [view(dtype, [4, 3])], x=1, y=0)
        case("expand", lambda a, axis: mx.expand_dims(a, axis), [x()], axis=-1)
        case("expand", lambda a, axis: mx.expand_dims(a, axis), [view(dtype, [4, 3])], axis=1)
        case("squeeze", lambda a, axis: mx.squeeze(a, axis), [plain(dtype, [3, 1, 2])], axis=1)
        case("squeeze", lambda a, axis: mx.squeeze(a, axis), [view(dtype, [4, 1])], axis=-1)
        case("broadcast", lambda a, shape: mx.broadcast_to(a, shape), [plain(dtype, [3, 1])], shape=[2, 3, 4])
        case("broadcast", lambda a, shape: mx.broadcast_to(a, shape), [view(dtype, [1, 3])], shape=[4, 3])
        case("chunks", lambda a, axis, count: mx.split(a, count, axis), [plain(dtype, [4, 6])], axis=1, count=3)
        case("chunks", lambda a, axis, count: mx.split(a, count, axis), [view(dtype, [4, 6])], axis=0, count=2)
        case("split_at", lambda a, axis, at: mx.split(a, at, axis), [plain(dtype, [4, 6])], axis=1, at=[1, 4])
        case("split_at", lambda a, axis, at: mx.split(a, at, axis), [view(dtype, [4, 6])], axis=-2, at=[3])
        case("repeat", lambda a, axis, count: mx.repeat(a, count, axis), [x()], axis=1, count=2)
        case("repeat", lambda a, axis, count: mx.repeat(a, count, axis), [view(dtype, [2, 3])], axis=0, count=3)
        case("repeat", lambda a, axis, count: mx.repeat(a, count, axis), [plain(dtype, [2, 2, 2, 2])], axis=-1, count=2)
        other = ALL[(n + 1) % len(ALL)]
        other = dtype if {dtype, other} == {"u32", "i32"} else other
        case("concat", lambda *a, axis: mx.concatenate(a, axis), [x(), plain(dtype, [3, 2, 5])], axis=1)
        case("concat", lambda *a, axis: mx.concatenate(a, axis), [view(dtype, [3, 2]), plain(other, [3, 3])], axis=-1)
        case("stack", lambda *a, axis: mx.stack(a, axis), [plain(dtype, [3, 2]), view(dtype, [3, 2])], axis=1)
        case("stack", lambda *a, axis: mx.stack(a, axis), [plain(dtype, [3]), plain(dtype, [3]), plain(dtype, [3])], axis=-1)
        ids = lambda low, high, shape, kind=np.uint32: In(mx.array(random.integers(low, high, shape).astype(kind)))
        case("take", lambda a, i: mx.take(a, i, 0), [x(), ids(0, 3, [2])])
        case("take", lambda a, i: mx.take(a, i, 0), [view(dtype, [4, 3]), ids(0, 4, [2, 2])])
        case("take_axis", lambda a, i, axis: mx.take(a, i, axis), [x(), ids(-4, 4, [3], np.int32)], axis=1)
        case("take_axis", lambda a, i, axis: mx.take(a, i, axis), [view(dtype, [4, 3]), ids(0, 3, [2, 2])], axis=-1)
        case("take_along_axis", lambda a, i, axis: mx.take_along_axis(a, i, axis), [plain(dtype, [3, 4]), ids(0, 4, [3, 2])], axis=1)
        case("take_along_axis", lambda a, i, axis: mx.take_along_axis(a, i, axis), [view(dtype, [4, 3]), ids(-4, 4, [5, 3], np.int32)], axis=0)
        for name, value in [("zeros", 0), ("ones", 1)]:
            for shape in ([2, 3], [], [4]):
                case(name, lambda shape, dtype, f=getattr(mx, name): f(shape, DTYPES[dtype]), [], shape=shape, dtype=dtype)
        case("full", lambda value, shape, dtype: mx.full(shape, value, dtype=DTYPES[dtype]), [], value=3, shape=[2, 2], dtype=dtype)
        case("full", lambda value, shape, dtype: mx.full(shape, value, dtype=DTYPES[dtype]), [], value=1.5, shape=[3], dtype=dtype)
        if dtype != "bool":
            for start, stop, step in [(0, 5, 1), (1, 9, 3), (7, 1, -2)]:
                case("arange", lambda start, stop, step, dtype: mx.arange(start, stop, step, DTYPES[dtype]), [], start=start, stop=stop, step=step, dtype=dtype)
    for i in range(2):
        case("squeeze", lambda a, axis: mx.squeeze(a, axis), [plain("f32", [1, 3 + i])], axis=0)
        case("expand", lambda a, axis: mx.expand_dims(a, axis), [plain("f32", [3 + i])], axis=0)
        case("broadcast", lambda a, shape: mx.broadcast_to(a, shape), [plain("f32", [1])], shape=[2 + i])
        for name in ("chunks", "split_at"):
            how = {"count": 2} if name == "chunks" else {"at": [2]}
            call = lambda a, axis, count=None, at=None: mx.split(a, at or count, axis)
            case(name, call, [plain("f32", [4 + 2 * i])], axis=0, **how)
        case("transpose", lambda a, x, y: mx.swapaxes(a, x, y), [plain("f32", [2, 3])], x=i, y=1)
        case("take", lambda a, i: mx.take(a, i, 0), [plain("f32", [5]), In(mx.array([4, 0, i], dtype=mx.uint32))])
        case("take_axis", lambda a, i, axis: mx.take(a, i, axis), [plain("f32", [5]), In(mx.array([4, i], dtype=mx.uint8))], axis=0)
        case("take_along_axis", lambda a, i, axis: mx.take_along_axis(a, i, axis), [plain("f32", [5]), In(mx.array([4, i], dtype=mx.uint32))], axis=0)
        case("concat", lambda *a, axis: mx.concatenate(a, axis), [plain("f32", [2]), plain("f32", [1 + i])], axis=0)
        case("stack", lambda *a, axis: mx.stack(a, axis), [plain("f32", [])] * (2 + i), axis=0)
        case("full", lambda value, shape, dtype: mx.full(shape, value, dtype=DTYPES[dtype]), [], value=-2, shape=[i], dtype="i32")
    x = lambda: plain("f32", [2, 3])
    refused("index", lambda a, at: a[tuple(slice(*s) if isinstance(s, list) else s for s in at)], [x()], at=[0, 0, 0])
    refused("reshape", lambda a, shape: a.reshape(shape), [x()], shape=[4])
    own("flatten", [Q])
    refused("transpose", lambda a, x, y: mx.swapaxes(a, x, y), [x()], x=0, y=2)
    refused("permute", lambda a, axes: mx.transpose(a, axes), [x()], axes=[0, 0])
    refused("move_axis", lambda a, x, y: mx.moveaxis(a, x, y), [x()], x=3, y=0)
    refused("expand", lambda a, axis: mx.expand_dims(a, axis), [x()], axis=4)
    refused("squeeze", lambda a, axis: mx.squeeze(a, axis), [x()], axis=0)
    refused("broadcast", lambda a, shape: mx.broadcast_to(a, shape), [x()], shape=[2, 4])
    refused("chunks", lambda a, axis, count: mx.split(a, count, axis), [x()], axis=1, count=2)
    refused("split_at", lambda a, axis, at: mx.split(a, at, axis), [x()], axis=2, at=[1])
    refused("repeat", lambda a, axis, count: mx.repeat(a, count, axis), [x()], axis=2, count=2)
    refused("concat", lambda *a, axis: mx.concatenate(a, axis), [x(), plain("f32", [3, 2])], axis=0)
    case("concat", lambda *a, axis: mx.concatenate(a, axis), [plain("u32", [2]), plain("i32", [2])], axis=0)
    refused("stack", lambda *a, axis: mx.stack(a, axis), [x(), plain("f32", [3])], axis=0)
    refused("take", lambda a, i: mx.take(a, i, 0), [x(), plain("f32", [2])])
    refused("take_axis", lambda a, i, axis: mx.take(a, i, axis), [x(), plain("u32", [2])], axis=2)
    refused("take_along_axis", lambda a, i, axis: mx.take_along_axis(a, i, axis), [x(), plain("u32", [2])], axis=0)
    own("zeros", [], shape=[1, 1, 1, 1, 1], dtype="f32")
    own("ones", [], shape=[1, 1, 1, 1, 1], dtype="f32")
    own("full", [], value=1, shape=[1, 1, 1, 1, 1], dtype="f32")
    own("arange", [], start=0, stop=1e30, step=1, dtype="f32")


def products():
    sizes = [([2, 3], [3, 4]), ([3], [3, 2]), ([2, 3], [3]), ([3], [3]), ([2, 2, 3], [3, 2]), ([2, 3], [2, 3, 4]),
             ([2, 1, 2, 3], [3, 3, 2]), ([1, 130], [130, 5])]
    for n, dtype in enumerate(FLOATS):
        for a, b in sizes:
            case("dot", mx.matmul, [plain(dtype, a), plain(dtype, b)])
        case("dot", mx.matmul, [view(dtype, [2, 3]), view(dtype, [3, 4])])
        case("dot", mx.matmul, [plain(dtype, [2, 3]), plain(FLOATS[(n + 1) % 3], [3, 4])])
        for shape in ([3, 8], [2, 3, 16], [1, 5]):
            last = [shape[-1]]
            case("rms_norm", lambda x, w, eps: mx.fast.rms_norm(x, w, eps), [plain(dtype, shape), plain(dtype, last)], eps=1e-5)
            case("rms_norm", lambda x, w, eps: mx.fast.rms_norm(x, w, eps), [view(dtype, shape), plain("f32", last)], eps=1e-3)
            norm = lambda x, w, b, eps: mx.fast.layer_norm(x, w, b, eps)
            case("layer_norm", norm, [plain(dtype, shape), plain(dtype, last), plain(dtype, last)], eps=1e-5)
            case("layer_norm", norm, [view(dtype, shape), plain("f32", last), plain("f32", last)], eps=1e-3)
    refused("dot", mx.matmul, [plain("f32", [2, 3]), plain("f32", [2, 3])])
    refused("dot", mx.matmul, [plain("i32", [2, 3]), plain("i32", [3, 2])])
    refused("rms_norm", lambda x, w, eps: mx.fast.rms_norm(x, w, eps), [plain("f32", [2, 3]), plain("f32", [2])], eps=1e-5)
    refused("layer_norm", lambda x, w, b, eps: mx.fast.layer_norm(x, w, b, eps), [plain("f32", [2, 3]), plain("f32", [3]), plain("f32", [2])], eps=1e-5)
    # x is [tokens, heads, size] in Kiln, with positions of its own.
    rope = lambda x, first, dims, base, scale, traditional: mx.swapaxes(
        mx.fast.rope(mx.swapaxes(x, 0, 1)[None], dims, traditional=traditional, base=base, scale=scale, offset=first)[0], 0, 1)
    for dtype in FLOATS:
        for first, traditional in [(0, False), (5, False), (3, True), (1000, True)]:
            case("rope", rope, [plain(dtype, [3, 2, 8])], first=first, dims=8, base=10000.0, scale=1.0, traditional=traditional)
        case("rope", rope, [view(dtype, [2, 1, 10])], first=2, dims=6, base=500.0, scale=0.5, traditional=False)
    refused("rope", lambda x, first, dims, base, scale, traditional: mx.fast.rope(x, dims, traditional=traditional, base=base, scale=scale, offset=first),
            [plain("f32", [4])], first=0, dims=4, base=10000.0, scale=1.0, traditional=False)
    attention()
    quantised()


def attention():
    def call(q, k, v, *rest, scale, mask, sinks):
        rest = list(rest)
        mask = rest.pop(0) if mask == "array" else mask
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask, sinks=rest.pop(0) if sinks else None)

    for dtype in FLOATS:
        for b, h, g, t, s, d in [(1, 2, 2, 3, 3, 4), (1, 4, 2, 2, 5, 8), (2, 2, 1, 3, 4, 4), (1, 1, 1, 1, 9, 16)]:
            qkv = lambda: [plain(dtype, [b, h, t, d]), plain(dtype, [b, g, s, d]), plain(dtype, [b, g, s, d])]
            case("attend", call, qkv(), scale=0.5, mask=None, sinks=False)
            case("attend", call, qkv(), scale=0.5, mask="causal", sinks=False)
            case("attend", call, qkv() + [plain("bool", [t, s])], scale=0.25, mask="array", sinks=False)
            case("attend", call, qkv() + [plain(dtype, [h, t, s])], scale=0.25, mask="array", sinks=False)
            case("attend", call, qkv() + [plain(dtype, [h])], scale=1.0, mask="causal", sinks=True)
            case("attend", call, qkv() + [plain("bool", [b, 1, t, s]), plain(dtype, [h])], scale=1.0, mask="array", sinks=True)
        views = [view(dtype, [1, 2, 3, 4]), view(dtype, [1, 2, 5, 4]), view(dtype, [1, 2, 5, 6])]
        case("attend", call, views, scale=0.5, mask="causal", sinks=False)
    refused("attend", call, [plain("f32", [1, 2, 3, 4]), plain("f32", [1, 2, 3, 5]), plain("f32", [1, 2, 3, 4])], scale=1.0, mask=None, sinks=False)
    refused("attend", call, [plain("f32", [1, 3, 3, 4]), plain("f32", [1, 2, 3, 4]), plain("f32", [1, 2, 3, 4])], scale=1.0, mask=None, sinks=False)


def quantised():
    """What quantised rows stand for, and products with them. The bytes are `quantise.py`'s part."""
    formats = [(bits, group, "affine") for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64)]
    formats += [(4, 128, "affine"), (4, 32, "mxfp4"), (8, 32, "mxfp8"), (4, 16, "nvfp4")]
    for n, (bits, group, mode) in enumerate(formats):
        dtype = FLOATS[n % 3]
        restore = lambda w, bits, group, mode: mx.dequantize(*mx.quantize(w, bits=bits, group_size=group, mode=mode), bits=bits, group_size=group, mode=mode)
        product = lambda x, w, bits, group, mode: mx.quantized_matmul(x, *mx.quantize(w, bits=bits, group_size=group, mode=mode), bits=bits, group_size=group, mode=mode)
        rows = lambda w, i, bits, group, mode: mx.take(restore(w, bits, group, mode), i, 0)
        how = dict(bits=bits, group=group, mode=mode)
        w = plain(dtype, [3, 128])
        case("quantise", restore, [w if n % 4 else view(dtype, [2, 128])], **how)
        case("matmul_quantised", product, [plain(dtype, [2, 128]) if n % 4 else view(dtype, [2, 128]), w], **how)
        case("take_quantised", rows, [w if n % 4 else view(dtype, [3, 128]), In(mx.array([2, 0], dtype=mx.uint32))], **how)
    bad = dict(bits=4, group=32, mode="affine")
    refused("quantise", restore, [plain("f32", [2, 33])], **bad)
    refused("matmul_quantised", product, [plain("f32", [2, 64]), plain("f32", [2, 32])], **bad)
    refused("take_quantised", rows, [plain("f32", [2, 33]), In(mx.array([0], dtype=mx.uint32))], **bad)


def randoms():
    # Python has no `bits`, but a split's keys are as many words. Odd counts show in `uniform`.
    words = lambda shape, key: mx.random.split(key, math.prod(shape) // 2).reshape(shape)
    seeds = [0, 1, 42, 2**32 - 1, 2**32 + 7, 2**63 + 12345, 2**64 - 1]
    for n, seed in enumerate(seeds):
        key = In(mx.random.key(seed))
        case("key", lambda seed: mx.random.key(int(seed)), [], seed=str(seed))
        case("key", lambda seed: mx.random.key(int(seed)), [], seed=str(seed // 3))
        for count in (2, 3 + n, 1):
            case("split", lambda key, count: mx.random.split(key, count), [key], count=count)
        for shape in ([2], [4 + 2 * n], [3, 6]):
            case("bits", lambda key, shape: words(shape, key), [key], shape=shape)
        for dtype in FLOATS:
            case("uniform", lambda key, low, high, shape, dtype: mx.random.uniform(low, high, shape, DTYPES[dtype], key),
                 [key], low=0.0, high=1.0, shape=[5 + n], dtype=dtype)
            case("normal", lambda key, shape, dtype: mx.random.normal(shape, DTYPES[dtype], key=key), [key], shape=[3, 4], dtype=dtype)
        case("uniform", lambda key, low, high, shape, dtype: mx.random.uniform(low, high, shape, DTYPES[dtype], key),
             [key], low=-2.0, high=3.0, shape=[4], dtype="f32")
        case("categorical", lambda logits, key: mx.random.categorical(logits, key=key), [plain("f32", [1, 20]), key])
        case("categorical", lambda logits, key: mx.random.categorical(logits, key=key), [plain("f32", [20]), key])
        case("categorical", lambda logits, key: mx.random.categorical(logits, key=key), [view("f16", [3, 9]), key])
    wide = In(mx.array([9, 1, 2, 3], dtype=mx.uint32), [["s", 0, 1, 3, 1]])
    for function, call, how in [
        ("bits", lambda key, shape: words(shape, key), dict(shape=[6])),
        ("split", lambda key, count: mx.random.split(key, count), dict(count=2)),
        ("uniform", lambda key, low, high, shape, dtype: mx.random.uniform(low, high, shape, DTYPES[dtype], key), dict(low=0.0, high=1.0, shape=[3], dtype="f32")),
        ("normal", lambda key, shape, dtype: mx.random.normal(shape, DTYPES[dtype], key=key), dict(shape=[3], dtype="f32")),
    ]:
        case(function, call, [wide], **how)
        refused(function, call, [In(mx.array([1, 2, 3], dtype=mx.uint32))], **how)
    refused("categorical", lambda logits, key: mx.random.categorical(logits, key=key), [plain("f32", [2, 3]), In(mx.array([1], dtype=mx.uint32))])
    own("key", [], seed="not a number")


def main():
    elementwise()
    pairs_of_numbers()
    reductions()
    shapes()
    products()
    randoms()
    OUT.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    (OUT / "cases.json").write_text("[\n" + lines + "\n]\n")
    (OUT / "values.bin").write_bytes(values)
    count = {}
    for name, _, inputs, outputs in cases:
        entry = count.setdefault(name, [0, 0, 0])
        entry[0] += 1
        entry[1] += outputs == "error"
        entry[2] += any(len(i) > 3 for i in inputs)
    for name, (n, errors, views) in count.items():
        note = "" if n >= 15 and errors and (views or name in ("zeros", "ones", "full", "arange", "key")) else "  <- not enough"
        print(f"{name:20} {n:4} cases, {errors} errors, {views} views{note}")
    print(len(cases), "cases of", len(count), "functions,", len(values), "bytes")


main()
