//! What goes wrong says what, where and with which operands, and leaves things usable.

use kiln_array::{
    Array, Backend, Buffer, CustomOp, DType, Device, Error, Format, Mask, Memory, Op, Part, Plan,
    Program, Result, Spec, concat, eval, random, stack,
};
use kiln_tests::devices;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn device() -> Device {
    devices::best().remove(0)
}

fn message<T>(result: Result<T>) -> String {
    result
        .err()
        .map_or_else(|| "no error".into(), |error| error.to_string())
}

#[test]
fn a_wrong_product_names_operation_operands_and_line() -> Result<()> {
    let device = device();
    let x = Array::zeros(DType::F16, &[1, 4096], &device)?;
    let w = Array::zeros(DType::F32, &[11008, 2048], &device)?;
    let line = line!() + 1;
    let message = message(x.matmul(&w));
    let place = format!("{}:{line}", file!());
    for part in [
        "matmul",
        "rows of equal length",
        "f16[1, 4096]",
        "f32[11008, 2048]",
        &place,
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    Ok(())
}

#[test]
fn an_operator_names_the_line_that_it_stands_in() -> Result<()> {
    let device = device();
    let a = Array::zeros(DType::U32, &[2], &device)?;
    let b = Array::zeros(DType::I32, &[2], &device)?;
    let line = line!() + 1;
    let message = message(&a + &b);
    for part in ["u32[2]", "i32[2]", &format!("{}:{line}", file!())] {
        assert!(message.contains(part), "{part} in {message}");
    }
    Ok(())
}

#[test]
fn arrays_of_two_devices_do_not_meet() -> Result<()> {
    let a = Array::zeros(DType::F32, &[2], &device())?;
    let b = Array::zeros(DType::F32, &[2], &device())?;
    assert!(message(&a + &b).contains("one device"));
    assert!(message(eval(&[&a, &b])).contains("one device"));
    Ok(())
}

#[test]
fn wrong_views_and_reads_are_refused() -> Result<()> {
    let device = device();
    let x = Array::zeros(DType::F32, &[2, 3], &device)?;
    let refused = [
        message(x.slice(2, 0..1)),
        message(x.slice(-3, 0..1)),
        message(x.slice(1, 2..4)),
        message(x.transpose(0, 2)),
        message(x.reshape(&[7])),
        message(x.reshape(&[usize::MAX, 2])),
        message(x.broadcast(&[2, 4])),
        message(x.split(1, 4)),
        message(x.to_vec::<u32>()),
        message(x.item::<f32>()),
        message(Array::from_slice(&[1.0f32; 5], &[2, 3], &device)),
        message(Array::from_slice(&[1.0f32], &[1, 1, 1, 1, 1], &device)),
    ];
    for (i, message) in refused.iter().enumerate() {
        assert!(message.contains(file!()), "{i}: {message}");
    }
    Ok(())
}

/// Not one inside of Kiln.
#[test]
fn what_functions_make_comes_from_the_line_that_calls_them() -> Result<()> {
    let device = device();
    let x = Array::new([[1.0, 2.0], [3.0, 4.0]], &device)?;
    let (yes, ids) = (x.greater(1.0)?, Array::new([1u32, 0], &device)?);
    let heads = x.reshape(&[1, 1, 2, 2])?;
    let key = random::key(0, &device)?;
    let made = [
        x.sum(0)?,
        x.sum([0, 1])?,
        x.mean(..)?,
        x.max(-1)?,
        x.min(0)?,
        yes.any(0)?,
        yes.all(0)?,
        x.var(0, 0)?,
        x.std(0, 0)?,
        x.logsumexp(0)?,
        x.argmax(0)?,
        x.argmin(0)?,
        x.cumsum(0)?,
        x.softmax(0)?,
        x.sort(0)?,
        x.argsort(0)?,
        x.topk(1, 0)?.0,
        concat(&[&x, &x], 0)?,
        stack(&[&x, &x], 0)?,
        x.repeat(0, 2)?,
        x.take_axis(&ids, 1)?,
        x.take_along_axis(&ids.reshape(&[2, 1])?, 1)?,
        x.dot(&x)?,
        heads.attend(&heads, &heads, 1.0, Mask::Causal, None)?,
        heads.attend(&heads, &heads, 1.0, &yes, None)?,
        x.exp()?,
        x.sign()?,
        x.ceil()?,
        x.negative()?,
        x.clip(0.0, 1.0)?,
        x.remainder(2)?,
        x.floor_divide(2)?,
        x.is_nan()?,
        yes.select(&x, &x)?,
        yes.logical_and(&yes)?,
        x.cast(DType::F16)?,
        (&x + 1.0)?,
        (1.0 - &x)?,
        Array::full(1.0, DType::F16, &[2], &device)?,
        random::uniform(0.0, 2.0, &[2], DType::F32, &key)?,
        random::normal(&[2], DType::F32, &key)?,
        random::categorical(&x, &key)?,
    ];
    for (i, array) in made.iter().enumerate() {
        assert_eq!(array.site().file(), file!(), "{i}: {}", array.site());
    }
    let empty = Array::zeros(DType::F32, &[0, 2], &device)?;
    let refused = [
        message(empty.max(0)),
        message(empty.logsumexp(..)),
        message(concat(&[&x, &ids], 0)),
        message(x.index((0..1, 0..1, 0..1))),
        message(x.dot(&x.slice(0, 0..1)?)),
        message(x.less(&x.slice(0, 0..0)?)),
    ];
    for (i, message) in refused.iter().enumerate() {
        assert!(message.contains(file!()), "{i}: {message}");
    }
    Ok(())
}

#[test]
fn quantised_rows_are_for_products_and_tables_only() -> Result<()> {
    let device = device();
    let format = Format::affine(4, 32, DType::F16)?;
    let rows = |n: usize| vec![0u8; n].into();
    let part = Part {
        rows: 4,
        data: rows(64),
        scales: Some(rows(8)),
        biases: Some(rows(8)),
    };
    let dtype = DType::Quantised(format);
    let w = Array::from_parts(dtype, &[4, 32], vec![part.clone()], &device)?;
    assert!(message(&w + 1.0f32).contains("quantised"));
    assert!(message(w.softmax(-1)).contains("q4g32-f16[4, 32]"));
    assert!(message(w.transpose(0, 1)).contains("not quantised"));
    assert!(message(w.slice(1, 0..16)).contains("rows"));
    assert_eq!(
        w.slice(0, 1..3)?.cast(DType::F32)?.to_vec::<f32>()?,
        [0.0; 64]
    );
    let short = Part {
        biases: None,
        ..part
    };
    assert!(message(Array::from_parts(dtype, &[4, 32], vec![short], &device)).contains("biases"));
    Ok(())
}

/// A processor that can be told to refuse memory or to fail.
struct Faulty {
    cpu: kiln_cpu::Cpu,
    full: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

struct Broken(Box<dyn Program>, Arc<AtomicBool>);

impl Program for Broken {
    fn run(&self, externals: &[Buffer]) -> Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::Device {
                device: "faulty".into(),
                reason: "unplugged".into(),
            });
        }
        self.0.run(externals)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

impl Backend for Faulty {
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool {
        !matches!(op, Op::Reduce { .. }) && self.cpu.supports(op, inputs)
    }
    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(Error::Memory {
                device: "faulty".into(),
                bytes,
            }),
            false => self.cpu.alloc(bytes),
        }
    }
    fn load(&self, spec: &Spec, rows: Vec<Part>) -> Result<Buffer> {
        self.cpu.load(spec, rows)
    }
    fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()> {
        self.cpu.read(buffer, from, out)
    }
    fn compile(&self, plan: &Plan) -> Result<Box<dyn Program>> {
        Ok(Box::new(Broken(
            self.cpu.compile(plan)?,
            self.broken.clone(),
        )))
    }
    fn memory(&self) -> Memory {
        self.cpu.memory()
    }

    fn queues(&self) -> bool {
        self.cpu.queues()
    }
}

fn faulty() -> Result<(Device, [Arc<AtomicBool>; 2])> {
    let (full, broken) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let cpu = kiln_cpu::Cpu::new(kiln_cpu::Options::default())?;
    let backend = Faulty {
        cpu,
        full: full.clone(),
        broken: broken.clone(),
    };
    Ok((Device::new(backend), [full, broken]))
}

#[test]
fn without_memory_arrays_stay_pending_and_can_be_evaluated_later() -> Result<()> {
    let (device, [full, _]) = faulty()?;
    let x = Array::from_slice(&[1.0f32, 2.0], &[2], &device)?;
    let y = (&x + 1)?;
    full.store(true, Ordering::Relaxed);
    let message = message(y.eval());
    assert!(
        message.starts_with("step 0, map of f32[2] giving f32[2] (at "),
        "{message}"
    );
    assert!(
        message.ends_with(": device faulty has no room for 8 bytes"),
        "{message}"
    );
    full.store(false, Ordering::Relaxed);
    assert_eq!(y.to_vec::<f32>()?, [2.0, 3.0]);
    Ok(())
}

/// The processor, and the GPU where there is one.
fn both() -> Vec<Device> {
    devices::best().into_iter().chain(devices::gpu()).collect()
}

#[test]
fn what_has_no_room_in_a_chain_names_its_line_on_every_device() -> Result<()> {
    for device in both() {
        let x = Array::from_slice(&[1.0f32; 64], &[8, 8], &device)?;
        let small = ((&x * 2.0)?.softmax(-1)? + 1.0)?;
        let column = small.reshape(&[1 << 6, 1])?;
        // The processor has no room for the exponentials, no kernel of a GPU sees so many.
        let line = line!() + 1;
        let largest = column.broadcast(&[1 << 6, 1 << 40])?.exp()?.max(-1)?;
        let error = message(largest.eval());
        let place = format!("{}:{line}", file!());
        for part in ["step ", "f32[64, 1099511627776]", &place] {
            assert!(error.contains(part), "{part} in {error}, {device}");
        }
        let reasons = [
            "no room for 281474976710656 bytes",
            "has 281474976710656 bytes",
            "an array of 281474976710656 bytes",
        ];
        assert!(
            reasons.iter().any(|reason| error.contains(reason)),
            "{error}"
        );
        // What went before is as it was.
        assert_eq!(small.sum(-1)?.shape()[0], 8);
        small.eval()?;
    }
    Ok(())
}

/// An operation whose definition is wrong.
#[derive(Debug)]
struct Misdefined;

impl CustomOp for Misdefined {
    fn name(&self) -> &'static str {
        "misdefined"
    }
    fn parameters(&self) -> Vec<u32> {
        Vec::new()
    }
    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        Ok(inputs[0])
    }
    fn decompose(&self, inputs: &[Array]) -> Result<Array> {
        inputs[0].matmul(&inputs[0].transpose(0, 1)?)
    }
}

#[test]
fn an_error_of_a_definition_names_the_line_of_the_operation() -> Result<()> {
    for device in both() {
        let x = Array::zeros(DType::F32, &[2, 3], &device)?;
        let line = line!() + 1;
        let y = Array::custom(Misdefined, &[&x])?;
        let error = message((y + 1.0f32)?.eval());
        let place = format!(
            "misdefined of f32[2, 3] giving f32[2, 3] (at {}:{line})",
            file!()
        );
        for part in [
            &*place,
            "matmul: rows of equal length, given f32[2, 3], f32[3, 2]",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
    Ok(())
}

#[test]
fn a_kept_program_names_the_lines_of_the_graph_that_runs() -> Result<()> {
    let (device, [full, _]) = faulty()?;
    let x = Array::from_slice(&[1.0f32, 2.0], &[2], &device)?;
    ((&x + 1)? * 2)?.eval()?;
    let misses = device.stats().misses;
    let line = line!() + 1;
    let y = ((&x + 1)? * 2)?;
    full.store(true, Ordering::Relaxed);
    let error = message(y.eval());
    assert_eq!(device.stats().misses, misses);
    assert!(
        error.contains(&format!("(at {}:{line})", file!())),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_device_that_failed_says_so_from_then_on() -> Result<()> {
    let (device, [_, broken]) = faulty()?;
    let x = Array::from_slice(&[1.0f32, 2.0], &[2], &device)?;
    let y = (&x + 1)?;
    broken.store(true, Ordering::Relaxed);
    assert!(message(y.eval()).contains("unplugged"));
    broken.store(false, Ordering::Relaxed);
    assert!(message(y.eval()).contains("unplugged"));
    assert!(message(y.to_vec::<f32>()).contains("unplugged"));
    assert!(message((&x * 2)?.eval()).contains("unplugged"));
    Ok(())
}

#[test]
fn a_device_without_a_primitive_says_which() -> Result<()> {
    let (device, _) = faulty()?;
    let x = Array::from_slice(&[1.0f32, 2.0], &[2], &device)?;
    assert!(message(x.sum(0)?.eval()).contains("no kernel for sum"));
    assert_eq!((&x + 1)?.to_vec::<f32>()?, [2.0, 3.0]);
    Ok(())
}
