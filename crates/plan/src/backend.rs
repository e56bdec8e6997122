//! What a backend is: something that compiles plans and runs them. It never sees an `Array`.

use crate::{DType, Op, Plan, Result, Spec};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Where arrays live and plans run.
pub trait Backend: fmt::Display + Send + Sync {
    /// Whether `op` has a kernel here for these operands; if not, its decomposition is used.
    /// `Map`, `Copy`, `Take`, `Write`, `Reduce`, `ArgMax` and `Matmul` must have one.
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool;
    /// Uninitialised memory from a pool; it goes back there when the last handle drops.
    fn alloc(&self, bytes: usize) -> Result<Buffer>;
    /// Host data as a buffer: blocks of rows, one after the other. May keep the blocks where they
    /// are, and may rearrange them if `take` and `matmul` both still work on the result. The
    /// blocks' sizes fit `spec`; the caller has checked.
    fn load(&self, spec: &Spec, rows: Vec<Part>) -> Result<Buffer>;
    /// Waits for pending work on `buffer` and copies its bytes out, from byte `from` on. Not for
    /// quantised buffers.
    fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()>;
    /// Everything that can be decided before the data exists.
    fn compile(&self, plan: &Plan) -> Result<Box<dyn Program>>;
    /// What the pool has done so far.
    fn memory(&self) -> Memory;
    /// Whether a run returns before its work is done, so that a reader of results gains by
    /// submitting the next run first.
    fn queues(&self) -> bool;
    /// How many rows a matmul takes at most in the way that it takes one: each row of its result is
    /// what it would be alone, bit for bit unless the device's own compiler rounds otherwise.
    fn together(&self) -> usize {
        1
    }
}

/// A compiled plan.
pub trait Program: Send + Sync {
    /// Runs the plan; returns once the work is submitted (GPU) or done (CPU). `externals` are the
    /// plan's external slots in order, of the sizes it names.
    fn run(&self, externals: &[Buffer]) -> Result<()>;
}

/// What a backend's memory pool has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Requests that the pool could not serve from what it had.
    pub allocations: u64,
    /// Bytes that live arrays and programs hold now. Mapped weights are not counted.
    pub bytes: usize,
    /// The most that `bytes` has been.
    pub peak_bytes: usize,
}

/// A backend's memory.
pub trait Storage: Any + Send + Sync {
    /// Size in bytes.
    fn bytes(&self) -> usize;
    /// Whether a plan may write to it. Mapped files are not.
    fn writable(&self) -> bool;
    /// For the backend to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// A handle on a backend's memory; cheap to clone.
#[derive(Clone)]
pub struct Buffer(pub Arc<dyn Storage>);

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.bytes())
    }
}

/// Part of something that owns host memory, a mapped file or a vector; cheap to clone.
/// No alignment is promised.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kiln_array::{Array, Bytes, DType, Format, Part};
/// let device = kiln_cpu::device(Default::default())?;
/// let file = Bytes::new(std::sync::Arc::new(vec![0x22; 34]), 0..34).ok_or("inside")?;
/// assert_eq!(file.owner().len(), 34);
/// let part = Part {
///     rows: 1,
///     data: file.slice(0..16).ok_or("inside")?,
///     scales: Some(vec![127].into()),
///     biases: None,
/// };
/// let weights = Array::from_parts(DType::Quantised(Format::MXFP4), &[1, 32], vec![part], &device)?;
/// assert_eq!(weights.cast(DType::F32)?.to_vec::<f32>()?, [1.0; 32]);
/// let plain = Part::plain(2, file.slice(0..8).ok_or("inside")?);
/// assert_eq!(*Array::from_parts(DType::F32, &[2], vec![plain], &device)?.shape(), [2]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// `range` of `owner`, or `None` where it ends outside.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Bytes> {
        (*owner).as_ref().get(range.clone())?;
        Some(Bytes { owner, range })
    }

    /// All that the owner holds, of which these bytes are a part.
    pub fn owner(&self) -> &[u8] {
        (*self.owner).as_ref()
    }

    /// `range` of these bytes, or `None` where it ends outside.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        let end = self.range.start.checked_add(range.end)?;
        (range.start <= range.end && end <= self.range.end).then(|| Bytes {
            owner: self.owner.clone(),
            range: self.range.start + range.start..end,
        })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        let range = 0..bytes.len();
        Bytes {
            owner: Arc::new(bytes),
            range,
        }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // An owner whose slice shrinks later would be a broken `AsRef`; it gets no bytes.
        (*self.owner)
            .as_ref()
            .get(self.range.clone())
            .unwrap_or_default()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.range.len())
    }
}

/// A block of consecutive rows on the host.
#[derive(Clone, Debug)]
pub struct Part {
    /// How many rows (slices along the first axis).
    pub rows: usize,
    /// The elements, or the codes of a quantised block.
    pub data: Bytes,
    /// The scales of a quantised block.
    pub scales: Option<Bytes>,
    /// The biases of a quantised block whose format has them.
    pub biases: Option<Bytes>,
}

impl Part {
    /// A block of plain rows.
    pub fn plain(rows: usize, data: Bytes) -> Part {
        Part {
            rows,
            data,
            scales: None,
            biases: None,
        }
    }

    /// Whether the blocks together are an array of `spec`, or what was expected.
    pub fn check(parts: &[Part], spec: &Spec) -> std::result::Result<(), String> {
        let rows = spec.shape.first().copied().unwrap_or(1);
        let mut counts = parts.iter().map(|part| part.rows);
        let given = counts.try_fold(0, usize::checked_add);
        if given != Some(rows) {
            let given = given.unwrap_or(usize::MAX);
            return Err(format!("{rows} rows, not {given}"));
        }
        let row = spec.shape.get(1..).map_or(1, |axes| axes.iter().product());
        for part in parts {
            let planes = match spec.dtype {
                DType::Quantised(format) => {
                    if spec.shape.len() != 2 || row % format.group() != 0 {
                        return Err("two axes and rows of whole groups".into());
                    }
                    let biases = if format.has_biases() {
                        format.scale_row(row)
                    } else {
                        0
                    };
                    [format.code_row(row), format.scale_row(row), biases]
                }
                plain => [plain.row_bytes(row), 0, 0],
            };
            let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |b| b.len());
            let given = [part.data.len(), length(&part.scales), length(&part.biases)];
            let wanted = planes.map(|plane| plane * part.rows);
            if given != wanted {
                return Err(format!(
                    "{wanted:?} bytes of data, scales and biases, not {given:?}"
                ));
            }
        }
        Ok(())
    }
}
