//! Carries a plan out: shards, index, configuration, the other files.

use crate::output::{json_text, read_error, write_error};
use crate::plan::{Job, Plan};
use crate::source::Extra;
use crate::{Error, Open, Result, rows};
use kiln_formats::safetensors::{Declared, INDEX, Writer, plan_shards, shard_name};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Shards are at most this long, as MLX's.
const SHARD: usize = 5 << 30;

/// How far a conversion is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor that is being written.
    pub tensor: &'a str,
    /// Bytes of tensors written.
    pub done: u64,
    /// Bytes of tensors in all.
    pub total: u64,
}

/// What a conversion made.
#[derive(Clone, Debug)]
pub struct Report {
    /// The files and their sizes in bytes, in name order.
    pub files: Vec<(String, u64)>,
    /// Tensors written; codes, scales and biases are three.
    pub tensors: usize,
    /// Bytes of these tensors.
    pub bytes: u64,
    /// Weights of the model.
    pub parameters: u64,
    /// `8 · bytes / parameters`.
    pub bits_per_weight: f64,
    /// How many of the model's tensors are in which format.
    pub formats: BTreeMap<String, usize>,
    /// What is not as it was in the source, and what is missing.
    pub notes: Vec<String>,
}

/// Writes everything into the directory `into`.
pub(crate) fn write(
    plan: &Plan,
    into: &Path,
    open: &Open<'_>,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Report> {
    let (tensors, bytes) = write_tensors(plan, into, SHARD, open, progress)?;
    let parameters = plan.parameters();
    let sorted: BTreeMap<&String, &Value> = plan.config.iter().collect();
    put(into, "config.json", json_text(&json!(sorted)).as_bytes())?;
    for extra in &plan.files {
        match extra {
            Extra::Contents(name, contents) => put(into, name, contents)?,
            Extra::Copy(from) => copy(from, into)?,
        }
    }
    let mut formats = BTreeMap::new();
    for job in &plan.jobs {
        let outputs = job.outputs();
        let plain = outputs.first().map(|output| output.dtype.to_string());
        let name = job
            .action
            .format()
            .map(|format| format.to_string())
            .or(plain);
        *formats.entry(name.unwrap_or_default()).or_insert(0) += 1;
    }
    let bits_per_weight = 8.0 * bytes as f64 / parameters.max(1) as f64;
    put(
        into,
        "README.md",
        card(plan, bits_per_weight, &formats).as_bytes(),
    )?;
    let files = sizes(into)?;
    let notes = plan.notes.clone();
    Ok(Report {
        files,
        tensors,
        bytes,
        parameters,
        bits_per_weight,
        formats,
        notes,
    })
}

/// Writes shards of at most `limit` bytes and their index; says how many tensors and bytes.
fn write_tensors(
    plan: &Plan,
    into: &Path,
    limit: usize,
    open: &Open<'_>,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<(usize, u64)> {
    let declared: Vec<Declared> = plan.jobs.iter().flat_map(Job::outputs).collect();
    let sizes: Vec<usize> = declared.iter().map(|d| d.bytes().unwrap_or(0)).collect();
    let total = sizes.iter().map(|&size| size as u64).sum();
    let shards = plan_shards(&sizes, limit);
    let mut map = BTreeMap::new();
    let mut pending = VecDeque::new();
    for (index, range) in shards.iter().enumerate() {
        let name = shard_name(index, shards.len());
        let tensors = &declared[range.clone()];
        map.extend(
            tensors
                .iter()
                .map(|tensor| (tensor.name.clone(), name.clone())),
        );
        pending.push_back((name, tensors));
    }
    let mut sink = Sink {
        into,
        pending,
        current: None,
    };
    let mut done = 0;
    for job in &plan.jobs {
        let report = |done| Progress {
            tensor: &job.name,
            done,
            total,
        };
        let mut emit = |name: &str, bytes: &[u8]| {
            sink.write(name, bytes)?;
            done += bytes.len() as u64;
            if progress(&report(done)).is_break() {
                Err(Error::Interrupted)
            } else {
                Ok(())
            }
        };
        let emit_rows = &mut |bytes: &[u8]| emit(&job.name, bytes);
        let (scales, biases) = rows::convert(job, open, emit_rows)?;
        for (output, bytes) in job.outputs().iter().skip(1).zip([scales, biases]) {
            emit(&output.name, &bytes)?;
        }
    }
    sink.finish()?;
    let metadata = json!({"total_size": total, "total_parameters": plan.parameters()});
    let index = json!({"metadata": metadata, "weight_map": map});
    put(into, INDEX, json_text(&index).as_bytes())?;
    Ok((declared.len(), total))
}

/// The shards, written one after the other.
struct Sink<'a> {
    into: &'a Path,
    pending: VecDeque<(String, &'a [Declared])>,
    current: Option<Shard<'a>>,
}

struct Shard<'a> {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
    tensors: &'a [Declared],
}

impl Sink<'_> {
    /// Writes a piece of tensor `name`, opening the shard that it lies in.
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let holds = |shard: &Shard<'_>| shard.tensors.iter().any(|tensor| tensor.name == name);
        while !self.current.as_ref().is_some_and(holds) && !self.pending.is_empty() {
            self.next()?;
        }
        if let Some(shard) = &mut self.current {
            shard.writer.write(name, bytes)?;
        }
        Ok(())
    }

    /// Completes the current shard and begins the next.
    fn next(&mut self) -> Result<()> {
        if let Some(shard) = self.current.take() {
            complete(shard)?;
        }
        if let Some((name, tensors)) = self.pending.pop_front() {
            let path = self.into.join(name);
            let file = File::create_new(&path).map_err(|source| write_error(&path, source))?;
            let writer = Writer::new(BufWriter::with_capacity(1 << 20, file), &path, tensors)?;
            self.current = Some(Shard {
                path,
                writer,
                tensors,
            });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        while self.current.is_some() || !self.pending.is_empty() {
            self.next()?;
        }
        Ok(())
    }
}

/// Every byte is there and on the disk before the directory gets its name.
fn complete(shard: Shard<'_>) -> Result<()> {
    let file = shard.writer.finish()?;
    let synced = file
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error);
    let synced = synced.and_then(|file| file.sync_all());
    synced.map_err(|source| write_error(&shard.path, source).into())
}

fn put(into: &Path, name: &str, contents: &[u8]) -> Result<()> {
    let path = into.join(name);
    std::fs::write(&path, contents).map_err(|source| write_error(&path, source).into())
}

fn copy(from: &Path, into: &Path) -> Result<()> {
    let Some(name) = from.file_name() else {
        return Ok(());
    };
    let to = into.join(name);
    // Contents alone: a copy of a read-only file need not be read-only.
    let copied = File::open(from)
        .map_err(|source| read_error(from, source))
        .and_then(|mut read| {
            let mut write = File::create(&to).map_err(|source| write_error(&to, source))?;
            std::io::copy(&mut read, &mut write).map_err(|source| write_error(&to, source))
        });
    copied.map(|_| ()).map_err(Error::from)
}

/// The model card: MLX's front matter, and what was done.
fn card(plan: &Plan, bits: f64, formats: &BTreeMap<String, usize>) -> String {
    let name = plan
        .path
        .file_name()
        .unwrap_or(plan.path.as_os_str())
        .display();
    let mut card = format!(
        "---\nlanguage: en\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n---\n\n\
         Converted from {name} with Kiln {}: {bits:.3} bits per weight.\n\n\
         | format | tensors |\n|---|---|\n",
        env!("CARGO_PKG_VERSION"),
    );
    for (format, count) in formats {
        card.push_str(&format!("| {format} | {count} |\n"));
    }
    for note in &plan.notes {
        card.push_str(&format!("\n* {note}"));
    }
    if !plan.notes.is_empty() {
        card.push('\n');
    }
    card
}

fn sizes(directory: &Path) -> Result<Vec<(String, u64)>> {
    let list = || -> std::io::Result<Vec<(String, u64)>> {
        let mut sizes = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            sizes.push((
                entry.file_name().display().to_string(),
                entry.metadata()?.len(),
            ));
        }
        sizes.sort();
        Ok(sizes)
    };
    list().map_err(|source| read_error(directory, source).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;
    use kiln_formats::{Type, safetensors};
    use std::sync::Arc;

    #[test]
    fn tensors_beyond_the_limit_go_to_further_shards() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source.safetensors");
        let declared = |name: &str, size| Declared {
            name: name.to_owned(),
            dtype: Type::U8,
            shape: vec![size],
        };
        let all = [
            declared("a", 60),
            declared("b", 40),
            declared("c", 1),
            declared("d", 120),
        ];
        let mut writer = Writer::new(File::create(&source).unwrap(), &source, &all).unwrap();
        for tensor in &all {
            writer
                .write(
                    &tensor.name,
                    &vec![tensor.name.as_bytes()[0]; tensor.shape[0]],
                )
                .unwrap();
        }
        writer.finish().unwrap();
        let open = |path: &Path| Ok(Arc::new(std::fs::read(path)?) as kiln_formats::Bytes);
        let read = |path: &Path| kiln_formats::File::new(path, open(path).unwrap());
        let checkpoint = safetensors::read(vec![read(&source)]).unwrap();
        let job = |tensor: &kiln_formats::Tensor| Job {
            source: crate::stored::Stored::one(&checkpoint, tensor),
            packed: None,
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            rows: 1,
            k: tensor.shape[0],
            heads: None,
            action: Action::Copy,
            rule: None,
            measured: None,
        };
        let plan = Plan {
            path: source.clone(),
            jobs: checkpoint.iter().map(job).collect(),
            rules: Vec::new(),
            config: serde_json::Map::new(),
            files: Vec::new(),
            notes: Vec::new(),
        };
        let into = directory.path().join("into");
        std::fs::create_dir(&into).unwrap();
        let go_on = &mut |_: &Progress<'_>| ControlFlow::Continue(());
        let (tensors, bytes) = write_tensors(&plan, &into, 100, &open, go_on).unwrap();
        assert_eq!((tensors, bytes), (4, 221));
        let written = safetensors::open(&into, &open).unwrap();
        let shards: Vec<&Path> = written
            .files()
            .iter()
            .map(kiln_formats::File::path)
            .collect();
        let expected: Vec<_> = (0..3)
            .map(|index| into.join(shard_name(index, 3)))
            .collect();
        assert_eq!(shards, expected);
        for (tensor, file) in written.iter().zip([0, 0, 1, 2]) {
            assert_eq!(tensor.file, file);
            let value = tensor.name.as_bytes()[0];
            assert!(written.bytes(tensor).iter().all(|&byte| byte == value));
        }
    }
}
