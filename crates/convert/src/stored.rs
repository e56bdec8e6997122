//! A tensor of the source: where its rows lie.

use crate::{Error, Open, Result};
use kiln_formats::{Bytes, Checkpoint, File, Tensor, Type};
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

/// The bytes, row after row; `None` if what they are made of is not there.
type How = dyn Fn(&[Opened<'_>]) -> Option<Vec<u8>> + Send + Sync;

impl Making {
    pub(crate) fn new(
        of: Vec<Stored>,
        how: impl Fn(&[Opened<'_>]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Making {
        let how = Arc::new(how);
        Making { of, how }
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

    /// The bytes of rows, where they lie together.
    fn together<'a>(&self, bytes: &'a [u8], rows: Range<usize>) -> Option<&'a [u8]> {
        let whole = self.scattered.is_none() && (self.row_step == self.row_bytes || self.rows == 1);
        let (start, end) = (rows.start * self.row_bytes, rows.end * self.row_bytes);
        bytes.get(start..end).filter(|_| whole)
    }

    /// Appends a row's bytes.
    fn push(&self, bytes: &[u8], row: usize, out: &mut Vec<u8>) -> Option<()> {
        let start = row * self.row_step;
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
        // What messages call the file, and what is mapped to read it, are those of the parts.
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

    /// Bytes that are mapped or made to read it.
    pub(crate) fn mapped(&self) -> usize {
        if let Some(making) = &self.making {
            let made = self.pieces.iter().map(|piece| piece.range.len());
            return making.of.iter().map(Stored::mapped).chain(made).sum();
        }
        let mapped = self.pieces.iter().filter(|piece| !piece.file.is_made());
        mapped.map(|piece| piece.range.len()).sum()
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

    /// The contents of the files of its pieces.
    ///
    /// # Errors
    /// Those of `open`; a file that became shorter.
    pub(crate) fn open(&self, open: &Open<'_>) -> Result<Opened<'_>> {
        if let Some(making) = &self.making {
            let parts = making.of.iter().map(|part| part.open(open));
            return self.make(making, &parts.collect::<Result<Vec<_>>>()?);
        }
        let mut files = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let bytes = piece.file.reopen(open)?;
            if (*bytes).as_ref().len() < piece.range.end {
                return Err(Error::File(kiln_formats::Error::Read {
                    path: piece.file.path().to_owned(),
                    source: std::io::Error::other("the file became shorter"),
                }));
            }
            files.push(bytes);
        }
        let stored = self;
        Ok(Opened { stored, files })
    }

    /// Whether two tensors are the same bytes, row by row.
    pub(crate) fn equals(&self, other: &Stored) -> bool {
        if (self.dtype, &self.shape) != (other.dtype, &other.shape) {
            return false;
        }
        let (Ok(mine), Ok(its)) = (self.at_hand(), other.at_hand()) else {
            return false;
        };
        let rows = self.shape.first().copied().unwrap_or(0);
        (0..rows).all(
            |row| match (mine.rows(row..row + 1), its.rows(row..row + 1)) {
                (Some(mine), Some(its)) => mine == its,
                _ => false,
            },
        )
    }

    /// Its files as they were opened to find the tensor.
    ///
    /// # Errors
    /// Bytes that cannot be made.
    pub(crate) fn at_hand(&self) -> Result<Opened<'_>> {
        if let Some(making) = &self.making {
            let parts = making.of.iter().map(Stored::at_hand);
            return self.make(making, &parts.collect::<Result<Vec<_>>>()?);
        }
        let files = self.pieces.iter();
        Ok(Opened {
            stored: self,
            files: files.map(|piece| piece.file.owner().clone()).collect(),
        })
    }

    fn make(&self, making: &Making, parts: &[Opened<'_>]) -> Result<Opened<'_>> {
        let length = self.dtype.bytes(&self.shape);
        let made = (making.how)(parts).filter(|made| Some(made.len()) == length);
        let Some(made) = made else {
            let expected = "what a layer of its kind consists of";
            let found = "parts that do not fit";
            let name = Some(self.name.as_str());
            return Err(kiln_formats::Error::invalid(self.path(), name, expected, found).into());
        };
        Ok(Opened {
            stored: self,
            files: vec![Arc::new(made)],
        })
    }
}

/// A tensor and its files' contents.
pub(crate) struct Opened<'a> {
    stored: &'a Stored,
    /// One for each piece.
    files: Vec<Bytes>,
}

impl Opened<'_> {
    /// How elements are stored.
    pub(crate) fn dtype(&self) -> Type {
        self.stored.dtype
    }

    /// The bytes of all rows.
    pub(crate) fn all(&self) -> Option<Cow<'_, [u8]>> {
        let rows = match self.stored.shape[..] {
            [rows, _] => rows,
            _ => 1,
        };
        self.rows(0..rows)
    }

    fn pieces(&self) -> impl Iterator<Item = (&Piece, &[u8])> {
        let bytes = self.files.iter().map(|file| (**file).as_ref());
        let pieces = self.stored.pieces.iter().zip(bytes);
        pieces.map(|(piece, bytes)| (piece, bytes.get(piece.range.clone()).unwrap_or(&[])))
    }

    /// The bytes of neighbouring rows: in place where they lie together. `None` if they are not
    /// there.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Option<Cow<'_, [u8]>> {
        if let Some((piece, bytes)) = self.pieces().next().filter(|_| self.files.len() == 1)
            && let Some(bytes) = piece.together(bytes, rows.clone())
        {
            return Some(Cow::Borrowed(bytes));
        }
        self.gather(rows).map(Cow::Owned)
    }

    /// The bytes of these rows, one after the other. `None` if they are not there.
    pub(crate) fn gather(&self, rows: impl Iterator<Item = usize>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for row in rows {
            match self.stored.join {
                Join::Columns => {
                    for (piece, bytes) in self.pieces() {
                        piece.push(bytes, row, &mut out)?;
                    }
                }
                Join::Rows => {
                    let mut first = 0;
                    let (piece, bytes) = self.pieces().find(|(piece, _)| {
                        let here = row < first + piece.rows;
                        first += if here { 0 } else { piece.rows };
                        here
                    })?;
                    piece.push(bytes, row - first, &mut out)?;
                }
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_formats::npz;
    use std::sync::Arc;

    #[test]
    fn what_was_unpacked_is_told_from_what_is_mapped() {
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
                let expected = if packed { 0 } else { tensor.range.len() };
                assert_eq!(stored.mapped(), expected, "{name}: {}", tensor.name);
                assert_eq!(unpacked.is_some_and(|header| header >= 64), packed);
            }
        }
    }
}
