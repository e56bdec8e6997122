//! PyTorch files: `.pth`, `.pt`, `.bin`.
//!
//! Since PyTorch 1.6 a file is a zip file: a pickle that says which tensors there are, and one entry
//! for each storage. Before, it was one stream: a magic number, a version, facts about the machine,
//! the pickle, the storages' keys (each of them a pickle), then the storages. Either way a tensor is a
//! view of a storage, and several tensors may share one.
//!
//! Pickles are read as data: see `torch/pickle.rs`. Nothing in a file is ever called or imported.

mod globals;
mod pickle;

use crate::shards::PYTORCH;
use crate::{Bytes, Checkpoint, Error, File, Result, Source, Tensor, sniff, zip};
use pickle::{Pickle, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

/// The first pickle of a stream, and the second.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const VERSION: i128 = 1001;

/// Reads one file, or the shards of one checkpoint: a dictionary of tensors each. Copies no tensor;
/// takes time and memory in proportion to the pickles.
///
/// # Errors
/// A file that is something else, a pickle that asks for anything but tensors, a type that is not
/// known, a tensor outside of its storage, a name that two files hold.
pub fn read(files: Vec<File>) -> Result<Checkpoint> {
    let mut tensors = Vec::new();
    for (index, file) in files.iter().enumerate() {
        sniff::require(file, Source::Torch)?;
        let found = if file.bytes().starts_with(b"PK") {
            zipped(index, file)?
        } else {
            stream(index, file)?
        };
        tensors.extend(found);
    }
    Checkpoint::new(files, tensors, BTreeMap::new())
}

/// Reads the checkpoint of a directory: `pytorch_model*.bin`. `open` gives a file's contents: mapped
/// or read.
///
/// # Errors
/// A shard that is missing or left over, an index that does not parse or fit, and as [`read`].
pub fn open(
    directory: &Path,
    open: &dyn Fn(&Path) -> std::io::Result<Bytes>,
) -> Result<Checkpoint> {
    PYTORCH.open(directory, open, read)
}

/// The pickle in a zip file; the directory that it lies in holds the storages.
const PICKLE: &str = "data.pkl";

fn zipped(index: usize, file: &File) -> Result<Vec<Tensor>> {
    let entries = zip::entries(file)?;
    let mut folders = entries.iter().filter_map(|entry| {
        let folder = entry.name.strip_suffix(PICKLE)?;
        (folder.is_empty() || folder.find('/') == Some(folder.len() - 1)).then_some((folder, entry))
    });
    let (Some((folder, entry)), None) = (folders.next(), folders.next()) else {
        let expected = "one data.pkl in the zip file, as PyTorch writes it";
        return Err(Error::invalid(
            file.path(),
            None,
            expected,
            "none, or several",
        ));
    };
    if let Some(packed) = entries.iter().find(|entry| entry.deflated) {
        let what = "a packed entry (PyTorch packs none)";
        return Err(Error::unsupported(file.path(), Some(packed.name), what));
    }
    let order = entries
        .iter()
        .find(|entry| entry.name.strip_prefix(folder) == Some("byteorder"));
    if order.is_some_and(|order| file.bytes()[order.range.clone()] != *b"little") {
        return Err(Error::unsupported(
            file.path(),
            None,
            "a file of big-endian numbers",
        ));
    }
    let places = entries.iter().filter_map(|entry| {
        let key = entry.name.strip_prefix(folder)?.strip_prefix("data/")?;
        Some((key, entry.range.clone()))
    });
    let bytes = &file.bytes()[entry.range.clone()];
    let pickle = pickle::read(file.path(), bytes, 0)?;
    if !entry.is_whole(bytes) {
        let expected = "a pickle with the checksum that the zip file has of it";
        let found = "another; the file is damaged";
        return Err(Error::invalid(
            file.path(),
            Some(entry.name),
            expected,
            found,
        ));
    }
    place(index, file, pickle, &places.collect())
}

fn stream(index: usize, file: &File) -> Result<Vec<Tensor>> {
    let invalid = |expected: &str, found: &str| Error::invalid(file.path(), None, expected, found);
    let next = |at: usize| pickle::read(file.path(), file.bytes(), at);
    let magic = next(0)?;
    let version = next(magic.end)?;
    if (magic.value, version.value) != (Value::Int(MAGIC), Value::Int(VERSION)) {
        let found = "another magic number or version";
        return Err(invalid("a PyTorch file of version 1001", found));
    }
    let machine = next(version.end)?;
    let little = (Value::Text("little_endian"), Value::Bool(true));
    if !machine
        .heap
        .dicts
        .iter()
        .flatten()
        .any(|pair| *pair == little)
    {
        return Err(Error::unsupported(
            file.path(),
            None,
            "a file of big-endian numbers",
        ));
    }
    let pickle = next(machine.end)?;
    let keys = next(pickle.end)?;
    let Value::Items(list) = keys.value else {
        return Err(invalid("a list of storages", keys.value.kind()));
    };
    let sizes = pickle.heap.storages.iter();
    let lengths: HashMap<&str, usize> = sizes.clone().map(|s| (s.key, s.length)).collect();
    let sizes: HashMap<&str, Option<usize>> = sizes.map(|s| (s.key, s.bytes())).collect();
    let mut places = HashMap::new();
    let mut at = keys.end;
    for key in &keys.heap.items[list] {
        let size = match key {
            Value::Text(key) => sizes.get(key).copied().flatten().map(|size| (*key, size)),
            _ => None,
        };
        let (key, size) = size.ok_or_else(|| invalid("the key of a storage", "another"))?;
        // The number of elements comes first.
        let start = at.saturating_add(8);
        let end = start.saturating_add(size);
        let key_shown: String = key.chars().take(80).collect();
        if end > file.bytes().len() {
            let expected = format!("bytes {start} to {end} for storage {key_shown:?}");
            let found = format!("a file of {} bytes; it is cut short", file.bytes().len());
            return Err(invalid(&expected, &found));
        }
        let count = file
            .bytes()
            .get(at..start)
            .and_then(|bytes| bytes.try_into().ok());
        let count = count.map(u64::from_le_bytes);
        if count != lengths.get(key).map(|length| *length as u64) {
            let expected = format!("as many elements in storage {key_shown:?} as the pickle says");
            let found = count.map_or("nothing".into(), |count| format!("{count}"));
            return Err(invalid(&expected, &found));
        }
        places.insert(key, start..end);
        at = end;
    }
    place(index, file, pickle, &places)
}

/// The tensors of the dictionary, in the places of their storages.
fn place(
    index: usize,
    file: &File,
    mut pickle: Pickle<'_>,
    places: &HashMap<&str, Range<usize>>,
) -> Result<Vec<Tensor>> {
    let Value::Dict(dict) = pickle.value else {
        let found = pickle.value.kind();
        let expected = "a dictionary of tensors";
        return Err(Error::invalid(file.path(), None, expected, found));
    };
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for (name, value) in std::mem::take(&mut pickle.heap.dicts[dict]) {
        let Value::Text(name) = name else {
            let found = format!("{} as one", name.kind());
            return Err(Error::invalid(file.path(), None, "names of tensors", found));
        };
        let invalid = |expected: &str, found: String| {
            Err(Error::invalid(file.path(), Some(name), expected, found))
        };
        // Before the name is copied: a pickle can repeat a long one with three bytes.
        if !names.insert(name) {
            return invalid(
                "a name of its own",
                "a second tensor of this name".to_owned(),
            );
        }
        let Value::Tensor(number) = value else {
            return invalid("a tensor", value.kind().to_owned());
        };
        let (storage, view) = &pickle.heap.tensors[number];
        let storage = pickle.heap.storages[*storage];
        let range = places.get(storage.key).and_then(|range| {
            let end = range.start.checked_add(storage.bytes()?)?;
            (end <= range.end).then_some(range.start..end)
        });
        let Some(range) = range else {
            let key: String = storage.key.chars().take(80).collect();
            let expected = format!("{} elements in storage {key:?}", storage.length);
            return invalid(&expected, "fewer, or none; the file is damaged".to_owned());
        };
        let found = format!(
            "shape {:?}, strides {:?} from element {} of {}",
            view.shape, view.strides, view.offset, storage.length
        );
        let view = view.named(name);
        match view.place(index, &range) {
            Some(tensor) => tensors.push(tensor),
            None => return invalid("elements of their own within the storage", found),
        }
    }
    Ok(tensors)
}
