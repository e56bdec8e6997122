//! `Matmul`: every format, with and without an epilogue.

use super::table::{TablePiece, format_values};
use super::{Dispatch, Lowering, Place, Target, dims, per_word, view};
use crate::expr;
use crate::source::Kernel;
use kiln_array::{DType, Expr, Operand, Result};

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
        let target = self.target(output, product.n);
        for piece in &found {
            self.plain_matmul(&product, piece, &target)?;
        }
        self.pack(&target, output)
    }

    /// One thread for each word of the result: slow, for every case.
    fn plain_matmul(
        &mut self,
        product: &Product<'_>,
        piece: &TablePiece,
        target: &Target,
    ) -> Result<()> {
        let lines = product.batch * product.t;
        // Of weights with batches the rows are all batches' rows; they are never cut.
        let n = if product.w_batch > 0 {
            product.n
        } else {
            piece.rows.len()
        };
        let count = lines * n;
        let mut parameters = vec![
            count as u32,
            product.t as u32,
            n as u32,
            product.k as u32,
            product.x.layout.offset() as u32,
            piece.first as u32,
            product.w_batch as u32,
            product.n as u32,
            if product.w_batch > 0 {
                0
            } else {
                piece.rows.start as u32
            },
            piece.planes[0],
            piece.planes[1],
        ];
        let mut operands = vec![target.place, self.place(product.x)?, piece.place];
        let kernel = format_values(Kernel::new("matmul"), product.w.dtype)
            .set("X", product.x.dtype)
            .set("Y", target.dtype)
            .set("PER", per_word(target.dtype));
        let kernel = self.finish(kernel, product, target, (&mut operands, &mut parameters))?;
        self.push(Dispatch {
            kernel,
            operands,
            parameters,
            groups: count.div_ceil(per_word(target.dtype)).div_ceil(64) as u32,
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
