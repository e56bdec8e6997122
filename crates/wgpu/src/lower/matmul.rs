//! `Matmul`: every format, with and without an epilogue.

use super::table::{TablePiece, format_values};
use super::{Dispatch, Lowering, Place, Target, dims, per_word, view};
use crate::expr;
use crate::source::Kernel;
use kiln_plan::{DType, Expr, Operand, Result};

/// A product as all kernels see it.
pub(super) struct Product<'p> {
    pub(super) x: &'p Operand,
    pub(super) w: &'p Operand,
    /// Products of matrices.
    pub(super) batch: usize,
    pub(super) t: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Rows of `w` from one batch to the next: 0 where all share them.
    pub(super) w_batch: usize,
    /// What the product is rounded to before the epilogue.
    pub(super) dtype: DType,
    pub(super) epilogue: Option<&'p Expr>,
    /// The epilogue's further operands.
    pub(super) extras: &'p [Operand],
    pub(super) output: &'p Operand,
}

impl<'p> Product<'p> {
    fn new(
        epilogue: Option<&'p Expr>,
        inputs: &'p [Operand],
        output: &'p Operand,
    ) -> Option<Product<'p>> {
        let [x, w, extras @ ..] = inputs else {
            return None;
        };
        let (x_shape, w_shape) = (x.layout.shape(), w.layout.shape());
        let ([batch @ .., t, k], [w_batch @ .., n, _]) = (&*x_shape, &*w_shape) else {
            return None;
        };
        let scales = match w.dtype {
            DType::Quantised(format) if format.has_biases() => format.dequantised(),
            DType::Quantised(_) => x.dtype,
            plain => plain,
        };
        Some(Product {
            x,
            w,
            batch: batch.iter().product(),
            t: *t,
            n: *n,
            k: *k,
            w_batch: if w_batch.is_empty() { 0 } else { *n },
            dtype: x.dtype.join(scales)?,
            epilogue,
            extras,
            output,
        })
    }

    /// Sums of products, in all.
    fn work(&self) -> u64 {
        let sums = self.batch * self.t * self.n * self.k / 8;
        let weights = self.w.dtype.row_bytes(self.k) * self.n;
        (sums + weights) as u64
    }
}

/// What one launch computes: the columns of the rows of `w` that lie in one buffer.
#[derive(Clone, Copy)]
pub(super) struct Part<'p> {
    pub(super) product: &'p Product<'p>,
    pub(super) piece: &'p TablePiece,
    pub(super) target: &'p Target,
}

impl Part<'_> {
    /// Columns.
    pub(super) fn n(&self) -> usize {
        // Of weights with batches the rows are all batches' rows; they are never cut.
        if self.product.w_batch > 0 {
            self.product.n
        } else {
            self.piece.rows.len()
        }
    }

    /// Lines of `x`.
    pub(super) fn lines(&self) -> usize {
        self.product.batch * self.product.t
    }

    /// Lines of `x` that share their weights.
    pub(super) fn sharing(&self) -> usize {
        if self.product.w_batch > 0 {
            self.product.t
        } else {
            self.lines()
        }
    }

    /// Elements.
    pub(super) fn count(&self) -> usize {
        self.lines() * self.n()
    }
}

/// The kernels of a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `matvec.wgsl`.
    Matvec,
    /// `matmul_matrix.wgsl`, with matrices of this size.
    Matrix(u32),
    /// `matmul_tiles.wgsl`; whether rows are whole steps of aligned elements.
    Tiles { whole: bool },
    /// `matmul.wgsl`.
    Plain,
}

/// Lines for which `matvec` reads the weights anew rather than through workgroup memory.
pub(super) const FEW: usize = 8;

/// Lines from which on a tile of matrices has more to do than to wait.
const MANY: usize = 24;

/// Chooses by size, alignment and dtypes; the first that fits.
fn way(product: &Product<'_>, matrix: Option<u32>) -> Way {
    let Product { batch, t, k, .. } = *product;
    let shared = product.w_batch == 0;
    let lines = if shared { batch * t } else { t };
    let aligned = k > 0 && k.is_multiple_of(8) && product.x.layout.offset().is_multiple_of(8);
    let whole = aligned && k.is_multiple_of(32);
    match matrix {
        _ if shared && lines <= FEW && aligned => Way::Matvec,
        Some(size) if lines >= MANY && whole && exact(product) => Way::Matrix(size),
        _ if lines > FEW && k > 0 => Way::Tiles { whole },
        _ => Way::Plain,
    }
}

/// Whether f16 holds the lines of `x` and the weights, or the codes that they are made of.
fn exact(product: &Product<'_>) -> bool {
    product.x.dtype == DType::F16 && product.w.dtype == DType::F16
}

impl Lowering<'_> {
    pub(super) fn matmul(
        &mut self,
        epilogue: Option<&Expr>,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<()> {
        let product = Product::new(epilogue, inputs, output)
            .ok_or_else(|| self.context.failed("matmul of operands that do not fit"))?;
        let found = self.table(
            product.w,
            product.k,
            product.n
                * if product.w_batch > 0 {
                    product.batch
                } else {
                    1
                },
        )?;
        // Threads store whole words, which must not be shared by two pieces.
        let target = match found.iter().all(|piece| piece.rows.start.is_multiple_of(8)) {
            true => self.target(output, product.n),
            false => self.wide_target(output),
        };
        let way = way(&product, self.context.matrix);
        for piece in &found {
            let part = Part {
                product: &product,
                piece,
                target: &target,
            };
            match way {
                Way::Matvec => self.matvec(&part)?,
                Way::Tiles { whole } => self.tiles(&part, whole)?,
                Way::Matrix(size) => self.matrices(&part, size)?,
                Way::Plain => self.plain_matmul(&part)?,
            }
        }
        self.pack(&target, output)
    }

    /// One thread for each word of the result: slow, for every case.
    fn plain_matmul(&mut self, part: &Part<'_>) -> Result<()> {
        let words = part.count().div_ceil(per_word(part.target.dtype));
        let kernel = Kernel::new("matmul").set("XS", "u32").set("CODES", "u32");
        self.product(kernel, part, words.div_ceil(64))
    }

    /// Launches a kernel that includes `product.wgsl`. `XS` and `CODES` are set already.
    pub(super) fn product(&mut self, kernel: Kernel, part: &Part<'_>, groups: usize) -> Result<()> {
        let Part {
            product,
            piece,
            target,
        } = *part;
        let column = if product.w_batch > 0 {
            0
        } else {
            piece.rows.start
        };
        let mut parameters = vec![
            part.count() as u32,
            part.sharing() as u32,
            part.n() as u32,
            product.k as u32,
            product.x.layout.offset() as u32,
            piece.first as u32,
            product.w_batch as u32,
            product.n as u32,
            column as u32,
            piece.starts[0],
            piece.starts[1],
            piece.starts[2],
        ];
        let mut operands = vec![
            target.place,
            self.place(product.x)?,
            piece.place,
            piece.place,
        ];
        let kernel = format_values(kernel, product.w.dtype)
            .set("X", product.x.dtype)
            .set("Y", target.dtype)
            .set("PER", per_word(target.dtype));
        let kernel = self.finish(kernel, product, target, (&mut operands, &mut parameters))?;
        self.push(Dispatch {
            kernel,
            operands,
            parameters,
            groups: groups as u32,
            work: product.work(),
        });
        Ok(())
    }

    /// What `epilogue.wgsl` needs: values, operands, parameters.
    pub(super) fn finish(
        &self,
        kernel: Kernel,
        product: &Product<'_>,
        target: &Target,
        (operands, parameters): (&mut Vec<Place>, &mut Vec<u32>),
    ) -> Result<Kernel> {
        let Some(epilogue) = product.epilogue else {
            return Ok(kernel
                .set("EPILOGUE", 0)
                .set("EXTRAS", 0)
                .set("CONSTANTS", 0)
                .set("TYPE", "f32"));
        };
        let dtypes: Vec<DType> = std::iter::once(product.dtype)
            .chain(product.extras.iter().map(|extra| extra.dtype))
            .collect();
        let body = expr::function(epilogue, &dtypes)
            .ok_or_else(|| self.context.failed(format!("{epilogue} is no program")))?;
        let mut kernel = kernel
            .set("EPILOGUE", 1)
            .set("EXTRAS", product.extras.len())
            .set("CONSTANTS", epilogue.constants().len())
            .set("PRODUCT", product.dtype)
            .set("TYPE", expr::type_of(target.dtype.kind()))
            .set("BODY", body);
        for (i, extra) in product.extras.iter().enumerate() {
            kernel = kernel
                .set(format!("E{i}"), extra.dtype)
                .set(format!("BINDING{i}"), operands.len());
            operands.push(self.place(extra)?);
            parameters.extend(view(&extra.layout));
        }
        parameters.extend(dims(&product.output.layout.shape()));
        parameters.extend(epilogue.constants().iter().map(|constant| constant.bits));
        Ok(kernel)
    }
}

/// The values that `codes.wgsl` needs and how `codes` is bound: for plain weights, four words at a
/// time.
pub(super) fn code_values(kernel: Kernel, dtype: DType) -> Kernel {
    let DType::Quantised(format) = dtype else {
        let words = 8 * dtype.bytes() / 4;
        return kernel.set("CODES", "vec4<u32>").set("EIGHT", words);
    };
    let step = format.group().min(32);
    let words = step * format.bits() / 32;
    let mut kernel = kernel
        .set("STEP", step)
        .set("STEPS", format.group() / step)
        .set("WORDS", words)
        .set("FOURS", step / 4)
        .set("EIGHTS", step / 8)
        .set(
            "CODES",
            match words {
                4 | 8 => "vec4<u32>",
                2 | 6 => "vec2<u32>",
                _ => "u32",
            },
        );
    for four in 0..step / 4 {
        let bit = four * 4 * format.bits();
        let (word, shift) = (bit / 32, bit % 32);
        let crosses = shift + 4 * format.bits() > 32;
        kernel = kernel
            .set(format!("WORD{four}"), word)
            .set(format!("SHIFT{four}"), shift)
            .set(format!("NEXT{four}"), if crosses { word + 1 } else { 0 });
    }
    for eight in 0..step / 8 {
        kernel = kernel
            .set(format!("FIRST{eight}"), 2 * eight)
            .set(format!("SECOND{eight}"), 2 * eight + 1);
    }
    kernel
}
