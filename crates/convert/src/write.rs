//! Carries a plan out: shards, index, configuration, the other files, the receipt.

use crate::file::{Hashed, Output, digest};
use crate::journal::Done;
use crate::layout::Layout;
use crate::measure::Distance;
use crate::output::{json_text, read_error, write_error};
use crate::plan::{Job, Plan};
use crate::receipt::{RECEIPT, Receipt, hash_sources, name_in, round_trip};
use crate::shards::Shards;
use crate::source::Extra;
use crate::staging::Staging;
use crate::verify::Verified;
use crate::{Error, Result, card, metadata, rows};
use kiln_formats::safetensors::{Declared, INDEX};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

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
    /// What `conversion.json` says.
    pub receipt: Receipt,
}

/// What was written and read, and how far each tensor is from what it was.
pub(crate) struct Written {
    files: Vec<Hashed>,
    distances: Vec<Distance>,
    sources: Vec<Hashed>,
}

/// Told how far a conversion is; breaking ends it.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>;

/// Writes weights, configuration and other files into the staging directory.
pub(crate) fn write(plan: &Plan, staging: &mut Staging, tell: Tell<'_>) -> Result<Written> {
    // Set by whoever fails first: the other one need not go on.
    let stop = AtomicBool::new(false);
    let mut tell = |progress: &Progress<'_>| match stop.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => tell(progress),
    };
    let tell: Tell<'_> = &mut tell;
    std::thread::scope(|scope| {
        let sources = scope.spawn(|| {
            let sources = hash_sources(plan, &stop);
            stop.fetch_or(sources.is_err(), Ordering::Relaxed);
            sources
        });
        let written = write_output(plan, staging, plan.layout.limit(), tell).and_then(|written| {
            let (done, total) = (plan.bytes(), plan.bytes());
            while !sources.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
                let tensor = "checksums of the source";
                if tell(&Progress {
                    tensor,
                    done,
                    total,
                })
                .is_break()
                {
                    return Err(Error::Interrupted);
                }
            }
            Ok(written)
        });
        stop.fetch_or(written.is_err(), Ordering::Relaxed);
        let sources = sources.join().unwrap_or_else(|_| {
            let fault = std::io::Error::other("the thread that read it failed");
            Err(read_error(&plan.path, fault).into())
        });
        if matches!(
            sources,
            Err(Error::File(kiln_formats::Error::Invalid { .. }))
        ) {
            staging.discard();
        }
        match (written, sources) {
            (Ok((files, distances)), Ok(sources)) => Ok(Written {
                files,
                distances,
                sources,
            }),
            // Where one failed, the other was only told to end.
            (Err(Error::Interrupted), Err(error)) | (Err(error), _) | (Ok(_), Err(error)) => {
                Err(error)
            }
        }
    })
}

/// Weights, configuration and the files that go along.
fn write_output(
    plan: &Plan,
    staging: &mut Staging,
    limit: usize,
    tell: Tell<'_>,
) -> Result<(Vec<Hashed>, Vec<Distance>)> {
    // Weights last: a GGUF file begins with what the tokenizer's files say.
    let into = staging.path().to_owned();
    let into = &into;
    let mut files = Vec::new();
    let sorted: BTreeMap<&String, &Value> = plan.config.iter().collect();
    let config = match plan.layout {
        Layout::Mlx | Layout::Gguf => json!(sorted),
        // In the order of the programs that write it.
        Layout::Npz => json!(plan.config),
    };
    files.push(put(into, "config.json", json_text(&config).as_bytes())?);
    for extra in &plan.files {
        files.push(match extra {
            Extra::Contents(name, contents) => put(into, name, contents)?,
            Extra::Copy(from) => copy(from, into)?,
        });
    }
    let (weights, distances) = write_tensors(plan, staging, limit, tell)?;
    files.extend(weights);
    Ok((files, distances))
}

/// The model card and the receipt.
pub(crate) fn conclude(
    plan: &Plan,
    into: &Path,
    written: Written,
    verified: Option<Verified>,
) -> Result<Report> {
    let Written {
        mut files,
        distances,
        sources,
    } = written;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let has_tokenizer = files.iter().any(|file| file.name.starts_with("tokenizer."));
    let (trip, note) = round_trip(into, has_tokenizer);
    let mut receipt = Receipt::new(plan, &distances);
    receipt.source_files = sources;
    receipt.files = files;
    receipt.tokenizer = trip;
    receipt.verified = verified;
    receipt.notes.extend(note);
    let card = put(into, "README.md", card::card(&receipt).as_bytes())?;
    receipt.files.insert(0, card);
    receipt.files.sort_by(|a, b| a.name.cmp(&b.name));
    let text = json_text(&json!(receipt));
    let own = put(into, RECEIPT, text.as_bytes())?;
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
    let all = receipt.files.iter().chain([&own]);
    let mut sizes: Vec<(String, u64)> = all.map(|file| (file.name.clone(), file.bytes)).collect();
    sizes.sort();
    Ok(Report {
        files: sizes,
        tensors: plan.jobs.iter().map(|job| job.outputs().len()).sum(),
        bytes: receipt.bytes,
        parameters: receipt.parameters,
        bits_per_weight: receipt.bits_per_weight,
        formats,
        notes: receipt.notes.clone(),
        receipt,
    })
}

/// Writes shards of at most `limit` bytes and their index, from where an earlier run stopped.
fn write_tensors(
    plan: &Plan,
    staging: &mut Staging,
    limit: usize,
    tell: Tell<'_>,
) -> Result<(Vec<Hashed>, Vec<Distance>)> {
    let into = staging.path().to_owned();
    let declared: Vec<Declared> = plan.jobs.iter().flat_map(|job| plan.outputs(job)).collect();
    let metadata = match plan.layout {
        Layout::Gguf => metadata::metadata(&plan.path, &plan.name(), &plan.config, &into)?,
        _ => Vec::new(),
    };
    let mut shards = Shards::new(&into, plan.layout, metadata, &declared, limit);
    let map: BTreeMap<String, String> = shards
        .names()
        .map(|(tensor, shard)| (tensor.name.clone(), shard))
        .collect();
    let mut distances = resume(plan, staging, &mut shards)?;
    let resumed = distances.len();
    let total = plan.bytes();
    let mut done = plan.jobs[..resumed].iter().map(Job::bytes).sum::<u64>();
    for job in &plan.jobs[resumed..] {
        let outputs = plan.outputs(job);
        let mut emit = |name: &str, bytes: &[u8]| {
            shards.write(name, bytes)?;
            done += bytes.len() as u64;
            let tensor = name;
            match tell(&Progress {
                tensor,
                done,
                total,
            }) {
                ControlFlow::Break(()) => Err(Error::Interrupted),
                ControlFlow::Continue(()) => Ok(()),
            }
        };
        let rest = rows::convert(job, plan.lanes, &mut |bytes| emit(&outputs[0].name, bytes))?;
        let planes = [&rest.scales, &rest.biases];
        for (output, bytes) in outputs.iter().skip(1).zip(planes) {
            emit(&output.name, bytes)?;
        }
        distances.push(rest.distance);
        let entry = shards.done(rest.distance)?;
        staging
            .journal()
            .map_or(Ok(()), |journal| journal.append(&entry))?;
    }
    let mut files = shards.finish()?;
    let metadata = json!({"total_size": total, "total_parameters": plan.parameters()});
    let index = json!({"metadata": metadata, "weight_map": map});
    if plan.layout == Layout::Mlx {
        files.push(put(&into, INDEX, json_text(&index).as_bytes())?);
    }
    Ok((files, distances))
}

/// Takes over what an earlier run of this plan has done: how far the tensors are that it completed.
fn resume(plan: &Plan, staging: &mut Staging, shards: &mut Shards<'_>) -> Result<Vec<Distance>> {
    let Some(journal) = staging.journal() else {
        return Ok(Vec::new());
    };
    let digest = identity(plan)?;
    let mut done = journal.read(&digest)?.unwrap_or_default();
    done.truncate(plan.jobs.len());
    done.truncate(shards.resume(&done)?);
    journal.restart(&digest, &done)?;
    Ok(done.iter().map(Done::distance).collect())
}

/// What must be the same for a run to go on with what another has begun: the program, the plan, and
/// the source's files by length and time.
fn identity(plan: &Plan) -> Result<String> {
    let mut files = Map::new();
    for path in plan.sources.keys() {
        let metadata = path.metadata().map_err(|source| read_error(path, source))?;
        let time = metadata.modified().ok();
        let time = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let time = time.map(|time| time.as_nanos().to_string());
        files.insert(name_in(&plan.path, path), json!([metadata.len(), time]));
    }
    let actions: Vec<String> = plan
        .jobs
        .iter()
        .map(|job| format!("{:?}", job.action))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let whole = json!([version, plan.tensors(), actions, plan.config, files]);
    Ok(digest(whole.to_string().as_bytes()))
}

fn put(into: &Path, name: &str, contents: &[u8]) -> Result<Hashed> {
    let path = into.join(name);
    let mut file = Output::create(&path)?;
    file.write_all(contents)
        .map_err(|source| write_error(&path, source))?;
    file.finish()
}

/// Contents alone: a copy of a read-only file need not be read-only.
fn copy(from: &Path, into: &Path) -> Result<Hashed> {
    let to = into.join(from.file_name().unwrap_or_default());
    let mut read = File::open(from).map_err(|source| read_error(from, source))?;
    let mut write = Output::create(&to)?;
    std::io::copy(&mut read, &mut write).map_err(|source| write_error(&to, source))?;
    write.finish()
}

#[cfg(test)]
mod tests;
