//! A tensor of the source: where its rows lie.

mod making;

pub(crate) use making::Making;

use crate::{Error, Result};
use kiln_formats::gguf::dequantise;
use kiln_formats::{Bytes, Checkpoint, File, Reader, Tensor, Type};
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A tensor of the source: a piece of one file, pieces of several that are joined, or what is made of
/// other tensors.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: Type,
    pub(crate) shape: Vec<usize>,
    join: Join,
    pieces: Vec<Piece>,
}

/// How pieces follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Join {
    Rows,
    /// Each row is put together of the pieces' rows.
    Columns,
}

/// Where the bytes of a piece come from.
#[derive(Clone, Debug)]
enum Place {
    File(File),
    Made(Making),
}

/// Rows of bytes in one place.
#[derive(Clone, Debug)]
struct Piece {
    place: Place,
    range: Range<usize>,
    rows: usize,
    /// Bytes from one row to the next.
    row_step: usize,
    /// Bytes of a row's elements.
    row_bytes: usize,
    /// Bytes from one element to the next and of one element, where there are others in between.
    scattered: Option<(usize, usize)>,
}

impl Piece {
    /// A vector is one row.
    fn new(checkpoint: &Checkpoint, tensor: &Tensor) -> Piece {
        let (rows, k) = match tensor.shape[..] {
            [rows, k] => (rows, k),
            _ => (1, tensor.elements()),
        };
        let row_bytes = tensor.dtype.bytes(&[k]).unwrap_or(0);
        let size = tensor.dtype.block_bytes();
        let (row_step, step) = match tensor.strides.as_deref() {
            Some(&[row, element]) => (row * size, element * size),
            Some(&[element]) => (0, element * size),
            _ => (row_bytes, size),
        };
        Piece {
            place: Place::File(checkpoint.files()[tensor.file].clone()),
            range: tensor.range.clone(),
            rows,
            row_step,
            row_bytes,
            scattered: (step != size && k > 1).then_some((step, size)),
        }
    }

    /// The bytes from the first element of the first of these rows to the last element of the last.
    fn span(&self, rows: Range<usize>) -> Range<usize> {
        if rows.is_empty() {
            return 0..0;
        }
        let length = match self.scattered {
            Some((step, size)) => (self.row_bytes / size.max(1)).saturating_sub(1) * step + size,
            None => self.row_bytes,
        };
        rows.start * self.row_step..(rows.end - 1) * self.row_step + length
    }

    fn path(&self) -> &Path {
        match &self.place {
            Place::File(file) => file.path(),
            Place::Made(making) => making.path(),
        }
    }

    /// Bytes that were unpacked from its files.
    fn unpacked(&self) -> usize {
        match &self.place {
            Place::File(file) if file.is_made() => file.bytes().len(),
            Place::File(_) => 0,
            Place::Made(making) => making.of.iter().map(Stored::unpacked).sum(),
        }
    }

    /// Bytes that are in memory to read any of it.
    fn whole(&self) -> usize {
        match &self.place {
            Place::File(_) if self.scattered.is_some() => self.range.len(),
            Place::File(_) => 0,
            Place::Made(making) => {
                self.range.len() + making.of.iter().map(Stored::whole).sum::<usize>()
            }
        }
    }

    /// Whether rows follow each other without anything in between.
    fn is_dense(&self) -> bool {
        self.scattered.is_none() && (self.row_step == self.row_bytes || self.rows == 1)
    }

    /// Appends the bytes of the row whose first element is at `start`.
    fn push(&self, bytes: &[u8], start: usize, out: &mut Vec<u8>) -> Option<()> {
        let Some((step, size)) = self.scattered else {
            out.extend_from_slice(bytes.get(start..start + self.row_bytes)?);
            return Some(());
        };
        for element in 0..self.row_bytes / size {
            let at = start + element * step;
            out.extend_from_slice(bytes.get(at..at + size)?);
        }
        Some(())
    }
}

impl Stored {
    /// A tensor that lies in one piece.
    pub(crate) fn one(checkpoint: &Checkpoint, tensor: &Tensor) -> Stored {
        Stored {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            join: Join::Rows,
            pieces: vec![Piece::new(checkpoint, tensor)],
        }
    }

    /// A tensor whose bytes are made of others.
    pub(crate) fn made(name: &str, dtype: Type, shape: Vec<usize>, making: Making) -> Stored {
        let bytes = dtype.bytes(&shape).unwrap_or(0);
        let rows = rows(&shape);
        let row_bytes = bytes / rows.max(1);
        let piece = Piece {
            place: Place::Made(making),
            range: 0..bytes,
            rows,
            row_step: row_bytes,
            row_bytes,
            scattered: None,
        };
        Stored {
            name: name.to_owned(),
            dtype,
            shape,
            join: Join::Rows,
            pieces: vec![piece],
        }
    }

    /// A matrix that is divided along `axis`, 0 for rows, 1 for columns; the pieces in order.
    ///
    /// # Errors
    /// Pieces that do not fit to each other.
    pub(crate) fn joined(pieces: &[(&Checkpoint, &Tensor)], axis: usize) -> Result<Stored> {
        let mut shape = [0, 0];
        let first = pieces.first().map(|(_, first)| (first.dtype, &first.shape));
        for (checkpoint, piece) in pieces {
            let fits = match (&piece.shape[..], first) {
                (&[rows, columns], Some((dtype, first))) if first.len() == 2 => {
                    let size = [rows, columns];
                    shape[1 - axis] = first[1 - axis];
                    shape[axis] += size[axis];
                    piece.dtype == dtype && size[1 - axis] == first[1 - axis]
                }
                _ => false,
            };
            if !fits {
                let path = checkpoint.path(piece);
                let expected = "a matrix that can be joined with those of the other files";
                let found = format!("{} of shape {:?}", piece.dtype, piece.shape);
                let name = Some(piece.name.as_str());
                return Err(kiln_formats::Error::invalid(path, name, expected, found).into());
            }
        }
        Ok(Stored {
            name: pieces
                .first()
                .map_or(String::new(), |(_, t)| t.name.clone()),
            dtype: first.map_or(Type::F32, |(dtype, _)| dtype),
            shape: shape.to_vec(),
            join: [Join::Rows, Join::Columns][axis.min(1)],
            pieces: pieces.iter().map(|(c, t)| Piece::new(c, t)).collect(),
        })
    }

    /// The same vector as rows of one element.
    pub(crate) fn upright(mut self) -> Stored {
        let size = self.dtype.block_bytes();
        for piece in &mut self.pieces {
            piece.rows = piece.row_bytes / size.max(1);
            piece.row_step = piece.scattered.map_or(size, |(step, _)| step);
            (piece.row_bytes, piece.scattered) = (size, None);
        }
        self
    }

    /// Bytes that were unpacked from its files and stay in memory.
    pub(crate) fn unpacked(&self) -> usize {
        self.pieces.iter().map(Piece::unpacked).sum()
    }

    /// What messages call the file that it lies in, or that its first piece lies in.
    pub(crate) fn path(&self) -> &Path {
        self.pieces.first().map_or(Path::new(""), Piece::path)
    }

    /// Bytes of it that are in memory while it is open: what is made, and what is read as a whole
    /// because each row is spread over it.
    pub(crate) fn whole(&self) -> usize {
        self.pieces.iter().map(Piece::whole).sum()
    }

    /// Opens its files anew, to read rows by position, and makes what is made of them.
    ///
    /// # Errors
    /// A file that cannot be opened or became shorter; parts that do not fit.
    pub(crate) fn open(&self) -> Result<Opened<'_>> {
        let data = self.pieces.iter().map(|piece| Data::of(piece, &self.name));
        Ok(Opened {
            stored: self,
            data: data.collect::<Result<Vec<Data>>>()?,
        })
    }

    /// Whether two tensors are the same bytes, row by row.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn equals(&self, other: &Stored) -> Result<bool> {
        if (self.dtype, &self.shape) != (other.dtype, &other.shape) {
            return Ok(false);
        }
        let (mine, its) = (self.open()?, other.open()?);
        let rows = rows(&self.shape);
        let size: usize = self.pieces.iter().map(|piece| piece.row_bytes).sum();
        let step = (COMPARED / size.max(1)).max(1);
        for start in (0..rows).step_by(step) {
            let block = start..rows.min(start + step);
            if mine.rows(block.clone())? != its.rows(block)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A vector is one row.
fn rows(shape: &[usize]) -> usize {
    match shape[..] {
        [rows, _] => rows,
        _ => 1,
    }
}

/// Bytes that are compared at a time.
const COMPARED: usize = 1 << 20;

/// Where a piece's bytes are read.
enum Data {
    File(Reader),
    /// The whole piece.
    Memory(Bytes, Range<usize>),
}

impl Data {
    fn of(piece: &Piece, name: &str) -> Result<Data> {
        let whole = match &piece.place {
            Place::Made(making) => making.make(name, piece.range.len())?,
            Place::File(file) if file.is_made() => {
                return Ok(Data::Memory(file.owner().clone(), piece.range.clone()));
            }
            Place::File(file) => {
                let reader = Reader::open(file.path())?;
                if piece.scattered.is_none() {
                    return Ok(Data::File(reader));
                }
                reader.read(piece.range.clone())?
            }
        };
        let range = 0..whole.len();
        Ok(Data::Memory(Arc::new(whole), range))
    }

    /// Bytes counted from the piece's first.
    fn read(&self, piece: &Piece, span: Range<usize>) -> Result<Cow<'_, [u8]>> {
        match self {
            Data::File(reader) => {
                let start = piece.range.start;
                let bytes = reader.read(start + span.start..start + span.end)?;
                Ok(Cow::Owned(bytes))
            }
            Data::Memory(bytes, range) => {
                let bytes = (**bytes).as_ref().get(range.clone()).unwrap_or(&[]);
                Ok(Cow::Borrowed(bytes.get(span).unwrap_or(&[])))
            }
        }
    }
}

/// A tensor whose files are open.
pub(crate) struct Opened<'a> {
    stored: &'a Stored,
    /// One for each piece.
    data: Vec<Data>,
}

impl Opened<'_> {
    /// The bytes of neighbouring rows.
    ///
    /// # Errors
    /// Those of reading; rows that are not there.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Result<Vec<u8>> {
        if let ([piece], [data]) = (&self.stored.pieces[..], &self.data[..])
            && piece.is_dense()
        {
            let (start, end) = (rows.start * piece.row_bytes, rows.end * piece.row_bytes);
            let bytes = data.read(piece, start..end)?;
            return match bytes.len() == end - start {
                true => Ok(bytes.into_owned()),
                false => Err(self.short()),
            };
        }
        self.gather(rows.collect())
    }

    /// The bytes of all rows.
    ///
    /// # Errors
    /// As for [`Opened::rows`].
    pub(crate) fn all(&self) -> Result<Vec<u8>> {
        self.rows(0..rows(&self.stored.shape))
    }

    /// The numbers that a row stands for, as many as `out` has.
    ///
    /// # Errors
    /// As for [`Opened::rows`]; a row of more or fewer.
    pub(crate) fn floats(&self, row: usize, out: &mut [f32]) -> Result<()> {
        match dequantise(self.stored.dtype, &self.rows(row..row + 1)?, out) {
            true => Ok(()),
            false => Err(self.short()),
        }
    }

    /// The error that rows are not there.
    fn short(&self) -> Error {
        let expected = format!("{} rows", rows(&self.stored.shape));
        let name = Some(self.stored.name.as_str());
        kiln_formats::Error::invalid(self.stored.path(), name, expected, "fewer").into()
    }

    /// The bytes of these rows, one after the other.
    ///
    /// # Errors
    /// As for [`Opened::rows`].
    pub(crate) fn gather(&self, rows: Vec<usize>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut spans = Vec::with_capacity(self.data.len());
        let mut first = 0;
        for (piece, data) in self.stored.pieces.iter().zip(&self.data) {
            let of_piece = first..first + piece.rows;
            if self.stored.join == Join::Rows {
                first = of_piece.end;
            }
            let here = rows.iter().filter(|row| of_piece.contains(row));
            let here = match (here.clone().min(), here.max()) {
                (Some(&low), Some(&high)) => low - of_piece.start..high + 1 - of_piece.start,
                _ => 0..0,
            };
            let span = piece.span(here);
            let bytes = data.read(piece, span.clone())?;
            spans.push((piece, of_piece, span.start, bytes));
        }
        for row in rows {
            for (piece, of_piece, start, bytes) in &spans {
                if of_piece.contains(&row) {
                    let at = (row - of_piece.start) * piece.row_step - start;
                    piece
                        .push(bytes, at, &mut out)
                        .ok_or_else(|| self.short())?;
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
