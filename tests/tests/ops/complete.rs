//! Whether the list is complete: what its cases were seen to run, against what the operations
//! accept.

use kiln_array::{
    Custom, DType, Device, Expr, Format, Instr, Kind, Observer, Op, Options, Pairing, Plan, Reduce,
    Scalar, Shape, Spec,
};
use kiln_plan::Foreign;
use kiln_tests::devices;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// One operation at dtypes, or one instruction of a map at a kind, as text.
type Seen = BTreeSet<String>;

fn step(op: &Op, inputs: &[DType]) -> String {
    let dtypes: Vec<String> = inputs.iter().map(DType::to_string).collect();
    let pairing = match op {
        Op::Rope { pairing, .. } => format!(" {pairing:?}"),
        _ => String::new(),
    };
    format!("{}{pairing} {}", op.name(), dtypes.join(" "))
}

/// What the instructions of a map do to which dtypes.
fn instructions(expr: &Expr, inputs: &[DType]) -> Vec<String> {
    let kinds = expr.kinds(inputs).unwrap_or_default();
    let code = expr.code().iter();
    let named = code.filter_map(|instr| match instr {
        Instr::Input(n) => Some(format!("load {}", inputs[*n as usize])),
        Instr::Const(_) => None,
        Instr::Apply(f, r) => Some(function(*f, kinds[r[f.arity() - 1] as usize])),
        Instr::Cast(dtype, r) => Some(cast(kinds[*r as usize], *dtype)),
    });
    named.collect()
}

fn function(f: Scalar, kind: Kind) -> String {
    format!("{f:?} of {kind:?}")
}

fn cast(kind: Kind, dtype: DType) -> String {
    format!("{kind:?} to {dtype}")
}

/// Everything that the cases run on a device made with these options.
fn seen(device: impl FnOnce(Options, Observer) -> Device) -> Seen {
    let seen = Arc::new(Mutex::new(Seen::new()));
    let record = seen.clone();
    let observer = move |plan: &Plan| {
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        for Step { op, inputs } in plan.steps.iter().map(Step::new) {
            if let Op::Map(expr) = op {
                record.extend(instructions(expr, &inputs));
            }
            record.insert(step(op, &inputs));
        }
    };
    let options = Options {
        fuse: false,
        reuse: false,
        cache: false,
    };
    crate::sample_all(&device(options, Box::new(observer)));
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.clone()
}

struct Step<'a> {
    op: &'a Op,
    inputs: Vec<DType>,
}

impl Step<'_> {
    fn new(step: &kiln_array::Step) -> Step<'_> {
        Step {
            op: &step.op,
            inputs: step.inputs.iter().map(|input| input.dtype).collect(),
        }
    }
}

#[derive(Debug)]
struct Nothing;

impl Foreign for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }
    fn parameters(&self) -> Vec<u32> {
        vec![]
    }
    fn infer(&self, _: &[Spec]) -> Result<Spec, String> {
        Err("nothing".into())
    }
}

/// One of each operation with the shapes of operands that it takes. A new operation has to be
/// added here, because the match below must name it.
fn operations() -> Vec<(Op, Vec<Vec<usize>>)> {
    let eps = 1e-5.into();
    let scale = 1.0.into();
    let rope = |pairing| Op::Rope {
        pairing,
        heads: 1,
        scale,
    };
    let reduce = |kind| Op::Reduce { kind, axis: 0 };
    let all = [
        Op::Map(Expr::cast(DType::F32)),
        Op::Copy,
        Op::Take,
        Op::Write { axis: 0 },
        reduce(Reduce::Sum),
        reduce(Reduce::Max),
        reduce(Reduce::Mean),
        Op::ArgMax,
        Op::ArgSort,
        Op::Softmax,
        Op::RmsNorm { eps },
        Op::LayerNorm { eps },
        rope(Pairing::Halves),
        rope(Pairing::Neighbours),
        Op::Matmul { epilogue: None },
        Op::Attention { scale, window: 0 },
        Op::Custom(Custom(Arc::new(Nothing))),
    ];
    let shapes = |op: &Op| -> Vec<Vec<usize>> {
        match op {
            Op::Map(_) | Op::Copy | Op::Reduce { .. } | Op::ArgMax | Op::ArgSort | Op::Softmax => {
                vec![vec![2]]
            }
            Op::Take => vec![vec![3, 128], vec![2]],
            Op::Write { .. } => vec![vec![4], vec![2], vec![2]],
            Op::RmsNorm { .. } => vec![vec![2], vec![2]],
            Op::LayerNorm { .. } => vec![vec![2], vec![2], vec![2]],
            Op::Rope { .. } => vec![vec![1, 1, 2], vec![1], vec![1]],
            Op::Matmul { .. } => vec![vec![1, 128], vec![3, 128]],
            Op::Attention { .. } => vec![vec![1, 1, 2], vec![1, 2, 2], vec![1, 2, 2], vec![1]],
            // What backends see of it is its decomposition; its own case is on the list.
            Op::Custom(_) => vec![vec![1]],
        }
    };
    all.into_iter()
        .map(|op| {
            let shapes = shapes(&op);
            (op, shapes)
        })
        .collect()
}

/// Every combination of dtypes that the operations accept, and every function and cast.
fn wanted() -> Seen {
    let quantised = Format::all().into_iter().map(DType::Quantised);
    let dtypes: Vec<DType> = DType::PLAIN.into_iter().chain(quantised).collect();
    let mut wanted = Seen::new();
    for (op, shapes) in operations() {
        if matches!(op, Op::Map(_)) {
            continue;
        }
        let mut combinations: Vec<Vec<DType>> = vec![vec![]];
        for (i, _) in shapes.iter().enumerate() {
            let formats = matches!((&op, i), (Op::Take, 0) | (Op::Matmul { .. }, 1));
            let choices = if formats {
                &dtypes[..]
            } else {
                &DType::PLAIN[..]
            };
            let longer = |c: &Vec<DType>| {
                choices
                    .iter()
                    .map(|&d| [&c[..], &[d]].concat())
                    .collect::<Vec<_>>()
            };
            combinations = combinations.iter().flat_map(longer).collect();
        }
        for combination in combinations {
            let spec = |(&dtype, dims): (&DType, &Vec<usize>)| {
                Some(Spec {
                    dtype,
                    shape: Shape::new(dims)?,
                })
            };
            let specs: Option<Vec<Spec>> = combination.iter().zip(&shapes).map(spec).collect();
            if specs.is_some_and(|specs| op.infer(&specs).is_ok()) {
                wanted.insert(step(&op, &combination));
            }
        }
    }
    let kinds = [Kind::Float, Kind::U32, Kind::I32, Kind::Bool];
    for kind in kinds {
        wanted.extend(
            Scalar::ALL
                .iter()
                .filter(|f| f.result(kind).is_some())
                .map(|&f| function(f, kind)),
        );
        wanted.extend(DType::PLAIN.map(|dtype| cast(kind, dtype)));
    }
    wanted.extend(DType::PLAIN.map(|dtype| format!("load {dtype}")));
    wanted
}

#[test]
fn every_operation_runs_with_every_dtype_and_format_it_accepts() {
    complete(&seen(devices::watched));
}

/// A decomposition would run other operations. Order alone is left to its definition.
#[test]
fn the_gpu_has_a_kernel_of_its_own_for_each() {
    if let Some(gpu) = devices::gpu_backend(&devices::noop()) {
        let mut seen = seen(|options, observer| Device::with(gpu, options, Some(observer)));
        assert!(
            seen.insert(step(&Op::ArgSort, &[DType::U32])),
            "it has one: say so here"
        );
        complete(&seen);
    }
}

fn complete(seen: &Seen) {
    let wanted = wanted();
    let missing: Vec<&String> = wanted.iter().filter(|item| !seen.contains(*item)).collect();
    assert!(missing.is_empty(), "no case runs {missing:#?}");
}
