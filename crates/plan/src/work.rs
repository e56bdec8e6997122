//! What the steps of a plan have to do at least: bytes to move, numbers to multiply.

use crate::{DType, Op, Operand, Step};

/// The least that a step has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Bytes read and written, each once: of a table only the rows that are taken, of a cache only
    /// the entries that are seen.
    pub bytes: u64,
    /// Multiplications and additions of matmul and attention; 0 for every other operation.
    pub operations: u64,
}

impl Step {
    /// The step's work. `seen` is how many entries of the cache attention's last query sees; each
    /// query before it sees one less.
    pub fn work(&self, seen: usize) -> Work {
        let sizes = self.inputs.iter().map(bytes).collect::<Vec<_>>();
        let result = bytes(&self.output);
        let (mut moved, mut operations) = (sizes.iter().sum::<u64>() + result, 0);
        match (&self.op, &self.inputs[..]) {
            (Op::Matmul { .. }, [x, ..]) => {
                let inner = x.layout.shape().last_axis() as u64;
                operations = 2 * inner * elements(&self.output);
            }
            (Op::Take, [table, ..]) => moved = moved - sizes[0] + rows(table, &self.output),
            (Op::Write { .. }, [_, source, positions]) => {
                moved = 2 * bytes(source) + bytes(positions);
            }
            (Op::Rope { heads, .. }, [x, ..]) => {
                let all = x.layout.shape().iter().rev().nth(1).copied().unwrap_or(1);
                let turned = 2 * sizes[0] * u64::from(*heads) / all.max(1) as u64;
                moved = turned + sizes[1..].iter().sum::<u64>();
            }
            (Op::Attention { window, .. }, [q, keys, values, ..]) => {
                let seen = Seen::new(q, keys, *window as usize, seen);
                let capacity = seen.capacity.max(1) as u64;
                let cache = sizes[1] + sizes[2];
                moved = moved - cache + cache * seen.entries as u64 / capacity;
                operations = seen.operations(q, values);
            }
            _ => {}
        }
        Work {
            bytes: moved,
            operations,
        }
    }
}

/// What the queries of an attention see.
struct Seen {
    capacity: usize,
    /// Entries that at least one query sees.
    entries: usize,
    /// Pairs of a query and an entry that it sees.
    pairs: u64,
}

impl Seen {
    fn new(q: &Operand, keys: &Operand, window: usize, last: usize) -> Seen {
        let capacity = keys.layout.shape().get(1).copied().unwrap_or(0);
        let queries = q.layout.shape().first().copied().unwrap_or(0);
        let most = if window == 0 { usize::MAX } else { window };
        let last = last.min(capacity);
        let seen = (0..queries).map(|back| last.saturating_sub(back).min(most) as u64);
        Seen {
            capacity,
            entries: last.min(most.saturating_add(queries.saturating_sub(1))),
            pairs: seen.sum(),
        }
    }

    fn operations(&self, q: &Operand, values: &Operand) -> u64 {
        let dims = q.layout.shape();
        let heads = dims.get(1).copied().unwrap_or(0);
        let sizes = dims.last_axis() + values.layout.shape().last_axis();
        2 * self.pairs * (heads * sizes) as u64
    }
}

/// How many elements an operand has.
fn elements(operand: &Operand) -> u64 {
    operand.layout.shape().elements() as u64
}

/// Bytes that an operand lies in: what is repeated is there once.
fn bytes(operand: &Operand) -> u64 {
    let shape = operand.layout.shape();
    if let DType::Quantised(_) = operand.dtype {
        return operand.spec().bytes() as u64;
    }
    let axes = shape.iter().zip(operand.layout.strides());
    let distinct = axes.filter(|(_, stride)| **stride > 0);
    let elements: usize = distinct.map(|(dim, _)| *dim).product();
    (elements.min(shape.elements()) * operand.dtype.bytes()) as u64
}

/// Bytes of the table's rows that make up a result.
fn rows(table: &Operand, result: &Operand) -> u64 {
    let row: usize = table.layout.shape().iter().skip(1).product();
    let taken = elements(result) as usize / row.max(1);
    (taken * table.dtype.row_bytes(row)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, Layout, Pairing, Shape};

    fn q4() -> DType {
        DType::Quantised(Format::affine(4, 64, DType::BF16).unwrap())
    }

    fn operand(dtype: DType, dims: &[usize]) -> Operand {
        Operand {
            slot: 0,
            dtype,
            layout: Layout::contiguous(Shape::new(dims).unwrap()),
        }
    }

    fn work(op: Op, inputs: &[Operand], output: Operand, seen: usize) -> (u64, u64) {
        let inputs = inputs.to_vec();
        let work = Step { op, inputs, output }.work(seen);
        (work.bytes, work.operations)
    }

    #[test]
    fn a_matmul_reads_its_weights_once_and_multiplies_each_with_each_token() {
        let [x, y] = [[3, 128], [3, 10]].map(|dims| operand(DType::BF16, &dims));
        let weights = operand(q4(), &[10, 128]);
        // A row is 64 bytes of codes and two groups' scales and biases.
        let bytes = 3 * 128 * 2 + 10 * (64 + 2 * 4) + 3 * 10 * 2;
        let op = Op::Matmul { epilogue: None };
        assert_eq!(
            work(op, &[x, weights], y, 0),
            (bytes, 2 * 3 * 10 * 128),
            "bytes and operations"
        );
    }

    #[test]
    fn a_take_reads_the_rows_that_it_takes() {
        let table = operand(q4(), &[1000, 128]);
        let ids = operand(DType::U32, &[5]);
        let result = operand(DType::BF16, &[5, 128]);
        let bytes = 5 * (64 + 8) + 5 * 4 + 5 * 128 * 2;
        assert_eq!(work(Op::Take, &[table, ids], result, 0), (bytes, 0));
    }

    #[test]
    fn attention_reads_what_it_sees() {
        let q = operand(DType::BF16, &[2, 4, 64]);
        let cache = operand(DType::BF16, &[2, 256, 64]);
        let positions = operand(DType::U32, &[2]);
        let attention = |window, seen| {
            let scale = 1.0.into();
            let op = Op::Attention { scale, window };
            work(op, &[q, cache, cache, positions], q, seen)
        };
        let rest = 2 * (2 * 4 * 64 * 2) + 2 * 4;
        let entry = 2 * (2 * 64 * 2);
        let pair = 2 * 4 * (64 + 64);
        assert_eq!(attention(0, 10), (rest + 10 * entry, (10 + 9) * pair));
        assert_eq!(attention(4, 10), (rest + 5 * entry, (4 + 4) * pair));
        assert_eq!(attention(0, 999).0, rest + 256 * entry, "the capacity");
    }

    #[test]
    fn what_is_written_in_place_moves_no_more_than_its_source() {
        let cache = operand(DType::F16, &[2, 256, 64]);
        let source = operand(DType::F16, &[2, 3, 64]);
        let positions = operand(DType::U32, &[3]);
        let write = work(Op::Write { axis: 1 }, &[cache, source, positions], cache, 0);
        assert_eq!(write, (2 * 2 * 3 * 64 * 2 + 12, 0));
        let x = operand(DType::F32, &[3, 4, 64]);
        let turn = Op::Rope {
            pairing: Pairing::Halves,
            heads: 3,
            scale: 1.0.into(),
        };
        let frequencies = operand(DType::F32, &[32]);
        let rope = work(turn, &[x, positions, frequencies], x, 0);
        assert_eq!(rope, (2 * 3 * 3 * 64 * 4 + 12 + 128, 0));
    }

    #[test]
    fn what_is_repeated_is_read_once() {
        let mut row = operand(DType::F32, &[1, 64]);
        row.layout = row.layout.broadcast(Shape::new(&[7, 64]).unwrap()).unwrap();
        assert_eq!(bytes(&row), 256);
    }
}
