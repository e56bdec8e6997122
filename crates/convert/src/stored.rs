//! A tensor of the source: where its rows lie.

use crate::Result;
use kiln_formats::{Bytes, Checkpoint, File, Reader, Tensor, Type};
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A tensor of the source: a piece of one file, or pieces of several that are joined.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: Type,
    pub(crate) shape: Vec<usize>,
    join: Join,
    pieces: Vec<Piece>,
    making: Option<Making>,
}

/// Of what, and how, the bytes of a tensor are made that no file has as they are needed. They are
/// made as a whole when the tensor is opened.
#[derive(Clone)]
pub(crate) struct Making {
    of: Vec<Stored>,
    how: Arc<How>,
}

/// The bytes, row after row; `None` if parts do not fit to each other.
type How = dyn Fn(&[Opened<'_>]) -> Result<Option<Vec<u8>>> + Send + Sync;

impl Making {
    pub(crate) fn new(
        of: Vec<Stored>,
        how: impl Fn(&[Opened<'_>]) -> Result<Option<Vec<u8>>> + Send + Sync + 'static,
    ) -> Making {
        let how = Arc::new(how);
        Making { of, how }
    }

    /// Bytes of all that is read.
    fn bytes(&self) -> usize {
        let pieces = self.of.iter().flat_map(|part| &part.pieces);
        pieces.map(|piece| piece.range.len()).sum()
    }
}

impl std::fmt::Debug for Making {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Making").field(&self.of).finish()
    }
}

/// How pieces follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Join {
    Rows,
    /// Each row is put together of the pieces' rows.
    Columns,
}

/// Rows of bytes in one file.
#[derive(Clone, Debug)]
struct Piece {
    file: File,
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
            file: checkpoint.files()[tensor.file].clone(),
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
            making: None,
        }
    }

    /// A tensor whose bytes are made of others.
    pub(crate) fn made(name: &str, dtype: Type, shape: Vec<usize>, making: Making) -> Stored {
        let bytes = dtype.bytes(&shape).unwrap_or(0);
        let rows = match shape[..] {
            [rows, _] => rows,
            _ => 1,
        };
        let row = bytes / rows.max(1);
        // What messages call the file is that of the first part.
        let pieces = making
            .of
            .iter()
            .flat_map(|part| part.pieces.first())
            .take(1);
        let pieces = pieces.map(|piece| Piece {
            file: piece.file.clone(),
            range: 0..bytes,
            rows,
            row_step: row,
            row_bytes: row,
            scattered: None,
        });
        Stored {
            name: name.to_owned(),
            dtype,
            shape,
            join: Join::Rows,
            pieces: pieces.collect(),
            making: Some(making),
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
            making: None,
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
        let made = self.pieces.iter().filter(|piece| piece.file.is_made());
        made.map(|piece| piece.file.bytes().len()).sum()
    }

    /// What messages call the file that it lies in, or that its first piece lies in.
    pub(crate) fn path(&self) -> &Path {
        self.pieces
            .first()
            .map_or(Path::new(""), |piece| piece.file.path())
    }

    /// Bytes that are read or made as a whole, because each row is spread over them.
    pub(crate) fn whole(&self) -> usize {
        if let Some(making) = &self.making {
            return making.bytes() + self.dtype.bytes(&self.shape).unwrap_or(0);
        }
        let spread = self.pieces.iter().filter(|piece| piece.scattered.is_some());
        spread.map(|piece| piece.range.len()).sum()
    }

    /// Opens its files anew, to read rows by position.
    ///
    /// # Errors
    /// A file that cannot be opened or became shorter.
    pub(crate) fn open(&self) -> Result<Opened<'_>> {
        if let Some(making) = &self.making {
            return self.make(making);
        }
        let data = self.pieces.iter().map(Data::of);
        Ok(Opened {
            stored: self,
            data: data.collect::<Result<Vec<Data>>>()?,
        })
    }

    fn make(&self, making: &Making) -> Result<Opened<'_>> {
        let parts = making.of.iter().map(Stored::open);
        let made = (making.how)(&parts.collect::<Result<Vec<_>>>()?)?;
        let length = self.dtype.bytes(&self.shape);
        let Some(made) = made.filter(|made| Some(made.len()) == length) else {
            let expected = "what a layer of its kind consists of";
            let found = "parts that do not fit";
            let name = Some(self.name.as_str());
            return Err(kiln_formats::Error::invalid(self.path(), name, expected, found).into());
        };
        let range = 0..made.len();
        Ok(Opened {
            stored: self,
            data: vec![Data::Memory(Arc::new(made), range)],
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
        let rows = match self.shape[..] {
            [rows, _] => rows,
            _ => 1,
        };
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

/// Bytes that are compared at a time.
const COMPARED: usize = 1 << 20;

/// Where a piece's bytes are read.
enum Data {
    File(Reader),
    /// The whole piece.
    Memory(Bytes, Range<usize>),
}

impl Data {
    fn of(piece: &Piece) -> Result<Data> {
        if piece.file.is_made() {
            return Ok(Data::Memory(
                piece.file.owner().clone(),
                piece.range.clone(),
            ));
        }
        let reader = Reader::open(piece.file.path())?;
        if piece.scattered.is_none() {
            return Ok(Data::File(reader));
        }
        let whole = reader.read(piece.range.clone())?;
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
    /// How elements are stored.
    pub(crate) fn dtype(&self) -> Type {
        self.stored.dtype
    }

    /// The bytes of all rows.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn all(&self) -> Result<Vec<u8>> {
        let rows = match self.stored.shape[..] {
            [rows, _] => rows,
            _ => 1,
        };
        self.rows(0..rows)
    }

    /// The bytes of neighbouring rows.
    ///
    /// # Errors
    /// Those of reading; rows that are not there.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Result<Vec<u8>> {
        if let ([piece], [data]) = (&self.stored.pieces[..], &self.data[..])
            && piece.is_dense()
        {
            let (start, end) = (rows.start * piece.row_bytes, rows.end * piece.row_bytes);
            return Ok(data.read(piece, start..end)?.into_owned());
        }
        self.gather(rows.collect())
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
                    piece.push(bytes, at, &mut out).ok_or_else(|| {
                        let expected = format!("{} rows", self.stored.shape.first().unwrap_or(&1));
                        let name = Some(self.stored.name.as_str());
                        kiln_formats::Error::invalid(self.stored.path(), name, expected, "fewer")
                    })?;
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_formats::npz;

    #[test]
    fn what_was_unpacked_is_told_from_what_is_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/torch");
        for (name, packed) in [("packed.npz", true), ("numpy.npz", false)] {
            let path = directory.join(name);
            let file = File::new(&path, Arc::new(std::fs::read(&path).unwrap()));
            let checkpoint = npz::read(vec![file]).unwrap();
            assert!(!checkpoint.is_empty());
            for tensor in &checkpoint {
                let stored = Stored::one(&checkpoint, tensor);
                // What is unpacked has a header, too.
                let unpacked = stored.unpacked().checked_sub(tensor.range.len());
                assert_eq!(unpacked.is_some_and(|header| header >= 64), packed);
            }
        }
    }
}
