//! Named tensors in one or several files.

use crate::{Error, Result, Type};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file's contents: mapped, read, or made up. Cloning shares them.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A file's contents and where they came from.
#[derive(Clone)]
pub struct File {
    path: PathBuf,
    bytes: Bytes,
    made: bool,
}

impl File {
    /// `path` is what messages call the file; nothing is opened.
    pub fn new(path: impl Into<PathBuf>, bytes: Bytes) -> File {
        File {
            path: path.into(),
            bytes,
            made: false,
        }
    }

    /// The file at `path`, its contents as `open` gives them.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open(path: &Path, open: &dyn Fn(&Path) -> std::io::Result<Bytes>) -> Result<File> {
        let bytes = open(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(File::new(path, bytes))
    }

    /// Contents that were made of what lies at `path`, unpacked for example.
    pub(crate) fn made(path: impl Into<PathBuf>, bytes: Vec<u8>) -> File {
        File {
            path: path.into(),
            bytes: Arc::new(bytes),
            made: true,
        }
    }

    /// Whether the contents were made of the file's, and so stay in memory as long as this lives.
    pub fn is_made(&self) -> bool {
        self.made
    }

    /// What messages call the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole contents.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// The owner of the contents, for whoever wants to keep them alive.
    pub fn owner(&self) -> &Bytes {
        &self.bytes
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "File({}, {} bytes)",
            self.path.display(),
            self.bytes().len()
        )
    }
}

/// Where a tensor's bytes are and what they mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// The name in the file.
    pub name: String,
    /// How elements are stored.
    pub dtype: Type,
    /// The last dimension is the innermost.
    pub shape: Vec<usize>,
    /// Elements from one index to the next in each dimension; `None` for row-major elements. Only
    /// PyTorch and npz files have others.
    pub strides: Option<Vec<usize>>,
    /// Index into [`Checkpoint::files`].
    pub file: usize,
    /// The bytes within that file, from the first element to the end of the last; as many as type
    /// and shape ask for where elements are row-major.
    pub range: Range<usize>,
}

impl Tensor {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        crate::dtype::elements(&self.shape).unwrap_or(0)
    }
}

/// The tensors of one or several files, in name order.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    files: Vec<File>,
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Puts a checkpoint together from tensors whose ranges lie within `files` and are as long as
    /// their types, shapes and strides ask for. Ranges may overlap.
    ///
    /// # Errors
    /// A name that occurs twice, a file that is not there, a range that its file does not hold.
    pub fn new(
        files: Vec<File>,
        mut tensors: Vec<Tensor>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Checkpoint> {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(tensor) = tensors.iter().find(|tensor| tensor.file >= files.len()) {
            return Err(Error::invalid(
                Path::new(""),
                Some(&tensor.name),
                format!("one of {} files", files.len()),
                format!("number {}", tensor.file),
            ));
        }
        for pair in tensors.windows(2) {
            if pair[0].name == pair[1].name {
                let [first, second] = [&files[pair[0].file], &files[pair[1].file]];
                return Err(Error::invalid(
                    second.path(),
                    Some(&pair[1].name),
                    "a name that occurs once",
                    format!("it also in {}", first.path().display()),
                ));
            }
        }
        for tensor in &tensors {
            let file = &files[tensor.file];
            if file.bytes().get(tensor.range.clone()).is_none() {
                return Err(Error::invalid(
                    file.path(),
                    Some(&tensor.name),
                    format!("bytes {} to {}", tensor.range.start, tensor.range.end),
                    format!("a file of {} bytes; it is cut short", file.bytes().len()),
                ));
            }
        }
        Ok(Checkpoint {
            files,
            tensors,
            metadata,
        })
    }

    /// The files, in the order they were given.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The tensor called `name`. Takes the logarithm of the number of tensors.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let index = self
            .tensors
            .binary_search_by(|tensor| tensor.name.as_str().cmp(name))
            .ok()?;
        Some(&self.tensors[index])
    }

    /// All tensors in name order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.tensors.iter()
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The bytes of one of this checkpoint's tensors, inside the file's own; empty for a tensor of
    /// another checkpoint that does not fit this one.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        let file = self.files.get(tensor.file);
        file.and_then(|file| file.bytes().get(tensor.range.clone()))
            .unwrap_or(&[])
    }

    /// The file that one of this checkpoint's tensors lies in.
    pub fn path(&self, tensor: &Tensor) -> &Path {
        self.files
            .get(tensor.file)
            .map_or(Path::new(""), File::path)
    }

    /// Free text that the files carry about themselves, such as `format`. GGUF's typed metadata is
    /// [`Gguf::metadata`](crate::gguf::Gguf::metadata).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

impl<'a> IntoIterator for &'a Checkpoint {
    type Item = &'a Tensor;
    type IntoIter = std::slice::Iter<'a, Tensor>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
