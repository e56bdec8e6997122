//! The names that a checkpoint's pickle may ask for, and what stands for them.

use super::pickle::{Machine, Storage, Value};
use crate::view::View;
use crate::{Result, Type};

/// A name that is known.
#[derive(PartialEq, Debug)]
pub(super) struct Global {
    pub(super) module: &'static str,
    pub(super) name: &'static str,
    meaning: Meaning,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Meaning {
    /// "Called" with nothing, it is an empty dictionary.
    OrderedDict,
    /// "Called" with a storage, an offset, sizes and strides, it is a tensor. The number says which
    /// argument is its dtype.
    Tensor(Option<usize>),
    /// "Called" with a tensor, it is that tensor.
    Parameter,
    /// The kind of a storage, and the type of its elements; bytes have none.
    Storage(Option<Type>),
    /// The type of a tensor whose storage does not say.
    Dtype(Type),
}

const fn known(module: &'static str, name: &'static str, meaning: Meaning) -> Global {
    Global {
        module,
        name,
        meaning,
    }
}

const fn elements(name: &'static str, dtype: Type) -> Global {
    known("torch", name, Meaning::Storage(Some(dtype)))
}

const fn dtype(name: &'static str, dtype: Type) -> Global {
    known("torch", name, Meaning::Dtype(dtype))
}

/// Every name that a pickle may ask for.
static GLOBALS: [Global; 25] = [
    known("collections", "OrderedDict", Meaning::OrderedDict),
    known("torch._utils", "_rebuild_tensor", Meaning::Tensor(None)),
    known("torch._utils", "_rebuild_tensor_v2", Meaning::Tensor(None)),
    known(
        "torch._utils",
        "_rebuild_tensor_v3",
        Meaning::Tensor(Some(6)),
    ),
    known("torch._utils", "_rebuild_parameter", Meaning::Parameter),
    known(
        "torch._utils",
        "_rebuild_parameter_with_state",
        Meaning::Parameter,
    ),
    known("torch.storage", "UntypedStorage", Meaning::Storage(None)),
    elements("BoolStorage", Type::Bool),
    elements("ByteStorage", Type::U8),
    elements("CharStorage", Type::I8),
    elements("ShortStorage", Type::I16),
    elements("IntStorage", Type::I32),
    elements("LongStorage", Type::I64),
    elements("HalfStorage", Type::F16),
    elements("BFloat16Storage", Type::BF16),
    elements("FloatStorage", Type::F32),
    elements("DoubleStorage", Type::F64),
    elements("ComplexFloatStorage", Type::C64),
    dtype("uint16", Type::U16),
    dtype("uint32", Type::U32),
    dtype("uint64", Type::U64),
    dtype("float8_e4m3fn", Type::F8E4M3),
    dtype("float8_e5m2", Type::F8E5M2),
    dtype("float8_e8m0fnu", Type::F8E8M0),
    // The class of a parameter; what is made of it is refused where that happens.
    known("torch.nn.parameter", "Parameter", Meaning::Parameter),
];

/// The most dimensions that a tensor has: what a pickle repeats by number is copied for each tensor.
const RANK: usize = 8;

pub(super) fn find(module: &str, name: &str) -> Option<&'static Global> {
    GLOBALS
        .iter()
        .find(|global| global.module == module && global.name == name)
}

/// The storage that `id` names: a tuple of "storage", its kind, its key, a device and its length.
pub(super) fn storage<'a>(machine: &mut Machine<'a>, id: Value<'a>) -> Result<Value<'a>> {
    let items = match id {
        Value::Items(items) => &machine.heap.items[items][..],
        _ => &[],
    };
    let [
        Value::Text("storage"),
        Value::Global(Global {
            meaning: Meaning::Storage(dtype),
            ..
        }),
        Value::Text(key),
        Value::Text(_),
        Value::Int(length),
        view @ ..,
    ] = items
    else {
        let asked = match items.get(1) {
            Some(Value::Global(global)) => global.name,
            _ => "an object that is not a storage",
        };
        return Err(machine.refused(asked));
    };
    if !matches!(view, [] | [Value::None]) {
        return Err(machine.invalid("a storage of its own", "a view of another storage"));
    }
    let Ok(length) = usize::try_from(*length) else {
        return Err(machine.invalid("the length of a storage", &length.to_string()));
    };
    let (key, dtype) = (*key, *dtype);
    machine.heap.storages.push(Storage { key, dtype, length });
    Ok(Value::Storage(machine.heap.storages.len() - 1))
}

/// What stands for a call of `called`.
pub(super) fn call<'a>(
    machine: &mut Machine<'a>,
    called: Value<'a>,
    arguments: Value<'a>,
) -> Result<Value<'a>> {
    let Value::Global(global) = called else {
        return Err(machine.refused(called.kind()));
    };
    let arguments = match arguments {
        Value::Items(items) => &machine.heap.items[items][..],
        _ => &[],
    };
    let wrong = format!("others for {}.{}", global.module, global.name);
    let wrong =
        |machine: &Machine<'a>| machine.invalid("the arguments that PyTorch writes", &wrong);
    match global.meaning {
        Meaning::OrderedDict if arguments.is_empty() => Ok(machine.new_dict()),
        Meaning::Parameter => match arguments {
            [tensor @ Value::Tensor(_), ..] => Ok(*tensor),
            _ => Err(wrong(machine)),
        },
        Meaning::Tensor(dtype_at) => {
            let tensor = tensor(machine, arguments, dtype_at).ok_or_else(|| wrong(machine))?;
            machine.heap.tensors.push(tensor);
            Ok(Value::Tensor(machine.heap.tensors.len() - 1))
        }
        Meaning::OrderedDict => Err(wrong(machine)),
        Meaning::Storage(_) | Meaning::Dtype(_) => {
            let asked = format!("{}.{}", global.module, global.name);
            Err(machine.refused(&asked))
        }
    }
}

fn tensor<'a>(
    machine: &Machine<'a>,
    arguments: &[Value<'a>],
    dtype_at: Option<usize>,
) -> Option<(usize, View)> {
    let &[
        Value::Storage(storage),
        Value::Int(offset),
        shape,
        strides,
        ..,
    ] = arguments
    else {
        return None;
    };
    let own = machine.heap.storages.get(storage)?.dtype;
    let dtype = match dtype_at.map(|at| arguments.get(at)) {
        None => own?,
        Some(Some(Value::Global(Global {
            meaning: Meaning::Dtype(dtype) | Meaning::Storage(Some(dtype)),
            ..
        }))) if own.is_none() => *dtype,
        Some(_) => return None,
    };
    // Marks such as "conjugated": the elements would mean something else.
    let marks = arguments.get(dtype_at.unwrap_or(5) + 1);
    match marks {
        None | Some(Value::None) => {}
        Some(Value::Dict(dict)) if machine.heap.dicts.get(*dict)?.is_empty() => {}
        Some(_) => return None,
    }
    let sizes = |value| match value {
        Value::Items(items) => {
            let items = machine.heap.items.get(items)?;
            let size = |value: &Value<'a>| match value {
                Value::Int(size) => usize::try_from(*size).ok(),
                _ => None,
            };
            let items = Some(items).filter(|items| items.len() <= RANK)?;
            items.iter().map(size).collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    let (shape, strides) = (sizes(shape)?, sizes(strides)?);
    let view = View {
        name: String::new(),
        dtype,
        offset: usize::try_from(offset).ok()?,
        strides: Some(strides).filter(|strides| strides.len() == shape.len())?,
        shape,
    };
    Some((storage, view))
}
