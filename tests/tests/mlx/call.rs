//! How the functions of the golden cases are called.

use crate::file::{Case, Golden, dtype, lengths};
use kiln_array::{
    Array, Axes, DType, Device, Format, Mask, Other, Pairing, Rope, Slice, Slices, concat, random,
    stack,
};
use serde_json::Value;

type Called = Result<Vec<Array>, String>;

/// The slices of an `index` case.
struct List(Vec<Slice>);

impl Slices for List {
    fn list(self) -> Vec<Slice> {
        self.0
    }
}

struct Arguments<'a>(&'a Value);

impl Arguments<'_> {
    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or(0.0)
    }

    fn integer(&self, name: &str) -> i32 {
        self.0[name].as_i64().unwrap_or(0) as i32
    }

    fn lengths(&self, name: &str) -> Vec<usize> {
        lengths(&self.0[name])
    }

    fn integers(&self, name: &str) -> Vec<i32> {
        let list = self.0[name].as_array().into_iter().flatten();
        list.map(|n| n.as_i64().unwrap_or(0) as i32).collect()
    }

    fn axes(&self) -> Axes {
        match self.0["axes"].is_null() {
            true => Axes::from(..),
            false => Axes::from(&self.integers("axes")[..]),
        }
    }

    fn dtype(&self) -> DType {
        let name = self.0["dtype"].as_str().unwrap_or_default();
        dtype(name).unwrap_or(DType::F32)
    }

    fn format(&self, scales: DType) -> kiln_array::Result<Format> {
        match self.0["mode"].as_str() {
            Some("mxfp4") => Ok(Format::MXFP4),
            Some("mxfp8") => Ok(Format::MXFP8),
            Some("nvfp4") => Ok(Format::NVFP4),
            _ => Format::affine(
                self.number("bits") as usize,
                self.number("group") as usize,
                scales,
            ),
        }
    }

    fn slices(&self) -> List {
        let list = self.0["at"].as_array().into_iter().flatten();
        let slice = |value: &Value| match value.as_i64() {
            Some(at) => Slice::from(at as i32),
            None => {
                let at = |i: usize| value[i].as_i64().unwrap_or(0) as i32;
                Slice::every(at(2) as usize, at(0)..at(1))
            }
        };
        List(list.map(slice).collect())
    }
}

/// What Kiln gives for a case.
pub(crate) fn call(case: &Case, golden: &Golden, device: &Device) -> Called {
    let inputs: kiln_array::Result<Vec<Array>> = case
        .inputs
        .iter()
        .map(|input| golden.on(input, device))
        .collect();
    let inputs = inputs.map_err(|error| error.to_string())?;
    let arguments = Arguments(&case.arguments);
    let name = &*case.function;
    let result = match &inputs[..] {
        [] => made(name, &arguments, device),
        [x] => one(name, &arguments, x),
        [a, b] if case.arguments.get("mask").is_none() => two(name, &arguments, a, b),
        all => several(name, &arguments, all),
    };
    result.map_err(|error| error.to_string())
}

type Made = kiln_array::Result<Vec<Array>>;

fn unknown(name: &str) -> Made {
    Err(kiln_array::Error::Format(format!("no function {name}")))
}

fn made(name: &str, a: &Arguments<'_>, device: &Device) -> Made {
    let shape = a.lengths("shape");
    Ok(vec![match name {
        "zeros" => Array::zeros(a.dtype(), &shape, device)?,
        "ones" => Array::ones(a.dtype(), &shape, device)?,
        "full" => Array::full(a.number("value") as f32, a.dtype(), &shape, device)?,
        "arange" => Array::arange(
            a.number("start"),
            a.number("stop"),
            a.number("step"),
            a.dtype(),
            device,
        )?,
        "key" => match a.0["seed"].as_str().and_then(|seed| seed.parse().ok()) {
            Some(seed) => random::key(seed, device)?,
            None => return unknown("key of no number"),
        },
        _ => return unknown(name),
    }])
}

fn one(name: &str, a: &Arguments<'_>, x: &Array) -> Made {
    let axis = a.integer("axis");
    if !a.0["number"].is_null() {
        let number = a.number("number");
        return Ok(vec![with(name, x, number.into())?]);
    }
    Ok(vec![match name {
        "abs" => x.abs()?,
        "negative" => x.negative()?,
        "sign" => x.sign()?,
        "square" => x.square()?,
        "reciprocal" => x.reciprocal()?,
        "exp" => x.exp()?,
        "log" => x.log()?,
        "sqrt" => x.sqrt()?,
        "rsqrt" => x.rsqrt()?,
        "sin" => x.sin()?,
        "cos" => x.cos()?,
        "tanh" => x.tanh()?,
        "sigmoid" => x.sigmoid()?,
        "silu" => x.silu()?,
        "erf" => x.erf()?,
        "erfinv" => x.erfinv()?,
        "floor" => x.floor()?,
        "ceil" => x.ceil()?,
        "round" => x.round()?,
        "is_nan" => x.is_nan()?,
        "is_inf" => x.is_inf()?,
        "is_finite" => x.is_finite()?,
        "logical_not" => x.logical_not()?,
        "clip" => x.clip(a.number("low"), a.number("high"))?,
        "cast" if a.0["dtype"] == "mxfp4" => x.cast(DType::Quantised(Format::MXFP4))?,
        "cast" => x.cast(a.dtype())?,
        "sum" => x.sum(a.axes())?,
        "mean" => x.mean(a.axes())?,
        "max" => x.max(a.axes())?,
        "min" => x.min(a.axes())?,
        "any" => x.any(a.axes())?,
        "all" => x.all(a.axes())?,
        "logsumexp" => x.logsumexp(a.axes())?,
        "var" => x.var(a.axes(), a.integer("ddof") as usize)?,
        "std" => x.std(a.axes(), a.integer("ddof") as usize)?,
        "argmax" => x.argmax(axis)?,
        "argmin" => x.argmin(axis)?,
        "cumsum" => x.cumsum(axis)?,
        "softmax" => x.softmax(axis)?,
        "sort" => x.sort(axis)?,
        "argsort" => x.argsort(axis)?,
        "topk" => x.topk(a.integer("count") as usize, axis)?.0,
        "index" => x.index(a.slices())?,
        "reshape" => x.reshape(&a.lengths("shape"))?,
        "flatten" => x.flatten()?,
        "transpose" => x.transpose(a.integer("x"), a.integer("y"))?,
        "permute" => x.permute(&a.integers("axes"))?,
        "move_axis" => x.move_axis(a.integer("x"), a.integer("y"))?,
        "expand" => x.expand(axis)?,
        "squeeze" => x.squeeze(axis)?,
        "broadcast" => x.broadcast(&a.lengths("shape"))?,
        "chunks" => return x.chunks(axis, a.integer("count") as usize),
        "split_at" => return x.split_at(axis, &a.lengths("at")),
        "repeat" => x.repeat(axis, a.integer("count") as usize)?,
        "rope" => rope(a, x)?,
        "quantise" => {
            let format = a.format(x.dtype())?;
            kiln::quantise(x, format)?.cast(format.dequantised())?
        }
        "split" => random::split(x, a.integer("count") as usize)?,
        "bits" => random::bits(&a.lengths("shape"), x)?,
        "uniform" => {
            let (low, high) = (a.number("low") as f32, a.number("high") as f32);
            random::uniform(low, high, &a.lengths("shape"), a.dtype(), x)?
        }
        "normal" => random::normal(&a.lengths("shape"), a.dtype(), x)?,
        "concat" => concat(&[x], axis)?,
        _ => return unknown(name),
    }])
}

fn rope(a: &Arguments<'_>, x: &Array) -> kiln_array::Result<Array> {
    let pairing = match a.0["traditional"] == true {
        true => Pairing::Neighbours,
        false => Pairing::Halves,
    };
    let size = a.integer("dims") as usize;
    let mut rope = Rope::plain(size, a.number("base") as f32, pairing, x.device())?;
    // MLX's scale is a factor on positions.
    rope.frequencies = (rope.frequencies * a.number("scale") as f32)?;
    let (tokens, heads) = match *x.shape() {
        [tokens, heads, _] => (tokens as i32, heads),
        _ => (1, 1),
    };
    let first = a.integer("first");
    let positions = Array::arange(first, first + tokens, 1, DType::U32, x.device())?;
    x.rope(&positions, heads, &rope)
}

/// A function of an array and another one or a number.
fn with(name: &str, x: &Array, y: Other<'_>) -> kiln_array::Result<Array> {
    match (name, y) {
        ("add", Other::Array(y)) => x + y,
        ("subtract", Other::Array(y)) => x - y,
        ("multiply", Other::Array(y)) => x * y,
        ("divide", Other::Array(y)) => x / y,
        ("add", Other::Number(y)) => x + y as f32,
        ("subtract", Other::Number(y)) => x - y as f32,
        ("multiply", Other::Number(y)) => y as f32 * x,
        ("divide", Other::Number(y)) => x / y as f32,
        ("maximum", y) => x.maximum(y),
        ("minimum", y) => x.minimum(y),
        ("power", y) => x.power(y),
        ("remainder", y) => x.remainder(y),
        ("floor_divide", y) => x.floor_divide(y),
        ("equal", y) => x.equal(y),
        ("not_equal", y) => x.not_equal(y),
        ("less", y) => x.less(y),
        ("less_equal", y) => x.less_equal(y),
        ("greater", y) => x.greater(y),
        ("greater_equal", y) => x.greater_equal(y),
        ("logical_and", Other::Array(y)) => x.logical_and(y),
        ("logical_or", Other::Array(y)) => x.logical_or(y),
        _ => Err(kiln_array::Error::Format(format!("no function {name}"))),
    }
}

fn two(name: &str, a: &Arguments<'_>, x: &Array, y: &Array) -> Made {
    let axis = a.integer("axis");
    Ok(vec![match name {
        "take" => x.take(y)?,
        "take_axis" => x.take_axis(y, axis)?,
        "take_along_axis" => x.take_along_axis(y, axis)?,
        "concat" => concat(&[x, y], axis)?,
        "stack" => stack(&[x, y], axis)?,
        "dot" => x.dot(y)?,
        "rms_norm" => x.rms_norm(y, a.number("eps") as f32)?,
        "matmul_quantised" => x.matmul(&kiln::quantise(y, a.format(y.dtype())?)?)?,
        "take_quantised" => kiln::quantise(x, a.format(x.dtype())?)?.take(y)?,
        "categorical" => random::categorical(x, y)?,
        _ => with(name, x, y.into())?,
    }])
}

fn several(name: &str, a: &Arguments<'_>, inputs: &[Array]) -> Made {
    Ok(vec![match (name, inputs) {
        ("select", [condition, yes, no]) => condition.select(yes, no)?,
        ("layer_norm", [x, weight, bias]) => x.layer_norm(weight, bias, a.number("eps") as f32)?,
        ("stack", parts) => stack(&parts.iter().collect::<Vec<_>>(), a.integer("axis"))?,
        ("attend", [q, keys, values, rest @ ..]) => {
            let mask = match (a.0["mask"].as_str(), rest) {
                (Some("array"), [mask, ..]) => Mask::from(mask),
                (Some("causal"), _) => Mask::Causal,
                _ => Mask::None,
            };
            let sinks = rest.last().filter(|_| a.0["sinks"] == true);
            q.attend(keys, values, a.number("scale") as f32, mask, sinks)?
        }
        _ => return unknown(name),
    }])
}
