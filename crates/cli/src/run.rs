//! `kiln run`: a prompt goes in, text comes out.

mod arguments;
mod prompt;
mod report;
mod stream;

pub(crate) use arguments::Run;

use crate::exit::{Code, Refused};
use crate::machine::Opened;
use crate::progress::Bar;
use crate::{hub, interrupt, output};
use kiln::formats::{Checkpoint, Source, safetensors, sniff};
use kiln::{Config, Event, Generation, Model, Request, Tokenizer};
use report::{Outcome, Timings};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use stream::Stream;

pub(crate) fn run(task: &Run) -> anyhow::Result<Code> {
    let text = prompt::text(task)?;
    interrupt::listen()?;
    let start = Instant::now();
    let directory = &hub::local(&task.model, task.quiet)?;
    let kind = kind(directory)?;
    let machine = task.machine.open()?;
    let loaded = Arc::new(AtomicBool::new(false));
    let model = model(task, directory, kind, &machine, &loaded)?;
    let tokenizer = tokenizer(task, directory)?;
    loaded.store(true, Ordering::Relaxed);
    let load = start.elapsed();
    let request = Request {
        prompt: prompt::ids(task, text, tokenizer.as_ref())?,
        max_tokens: task.max_tokens as usize,
        eos: match &tokenizer {
            Some(tokenizer) if !task.ignore_eos => tokenizer.eos_ids().to_vec(),
            _ => Vec::new(),
        },
        sampling: task.sampling.options(),
        truncate: task.truncate.map(Into::into),
        top_logprobs: task.top_logprobs,
        ..Request::default()
    };
    let mut generation = model.generate(request)?;
    note_truncation(&generation);
    let mut outcome = Outcome::default();
    let mut stream = Stream::new(tokenizer.as_ref(), task.tokens_per_eval as usize, task.json);
    let timings = generate(task, &mut generation, &mut stream, &mut outcome)?;
    outcome.text = stream.finish()?;
    outcome.timings = Timings { load, ..timings };
    report::report(task, &generation, &machine, &outcome)?;
    // The process ends: to free words one by one would take as long as half a prompt.
    std::mem::forget(tokenizer);
    Ok(if outcome.interrupted {
        Code::Interrupted
    } else {
        Code::Success
    })
}

/// Loads the model. Where it is in another layout than MLX's, it is put into that in memory.
fn model(
    task: &Run,
    path: &Path,
    kind: Source,
    machine: &Opened,
    loaded: &Arc<AtomicBool>,
) -> anyhow::Result<Model> {
    let device = &machine.device;
    if kind == Source::Directory {
        let config = Config::read(path)?;
        let checkpoint = safetensors::open(path, &kiln::map)?;
        if machine.threads.is_some() {
            touch(&checkpoint, loaded.clone());
        }
        return Ok(Model::new(config, &checkpoint, device)?);
    }
    let mut bar = Bar::of_bytes(task.quiet);
    let mut progress = |progress: &kiln::convert::Progress<'_>| {
        bar.set(progress.done, progress.total, progress.tensor);
        match interrupt::asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let loaded = kiln::convert::load(path, &kiln::map, &mut progress);
    bar.clear();
    let (config, checkpoint) = loaded?;
    if !task.quiet {
        output::say(
            "note: all weights were read into memory to put them into MLX's layout; kiln convert does \
             so once",
        );
    }
    Ok(Model::new(config, &checkpoint, device)?)
}

/// Has the system map the pages of a model's files, on a thread of its own, until all is loaded: the
/// first token needs nearly all of them, and reading the tokenizer takes one thread.
fn touch(checkpoint: &Checkpoint, loaded: Arc<AtomicBool>) {
    const PAGE: usize = 4096;
    let files = checkpoint.files().iter().map(|file| file.owner().clone());
    let files: Vec<_> = files.collect();
    let read = move || {
        let pages = files
            .iter()
            .flat_map(|bytes| (**bytes).as_ref().chunks(PAGE));
        for page in pages.take_while(|_| !loaded.load(Ordering::Relaxed)) {
            std::hint::black_box(page[0]);
        }
    };
    // Without the thread the pages come one by one.
    let _ = std::thread::Builder::new().spawn(read);
}

/// What there is to run. A GGUF file is a model too, but not one that can be run as it is.
fn kind(path: &Path) -> anyhow::Result<Source> {
    let advice = match sniff(path) {
        Ok(
            kind @ (Source::Directory
            | Source::TorchDirectory
            | Source::Consolidated
            | Source::NpzDirectory),
        ) => return Ok(kind),
        Ok(Source::Gguf) => "this is a GGUF file; make a directory of it with kiln convert",
        Ok(Source::Safetensors) => "this is a file; give the directory it is in",
        Ok(Source::Torch | Source::Npz) => {
            "this is a file of weights; make a directory of the one it is in with kiln convert"
        }
        Err(error) => return Err(error.into()),
    };
    Err(Refused::new(Code::Usage, format!("{}: {advice}", path.display())).into())
}

/// The model's tokenizer. A prompt of ids can do without: then there is no text, and no token ends
/// the answer.
fn tokenizer(task: &Run, directory: &Path) -> anyhow::Result<Option<Tokenizer>> {
    match Tokenizer::from_directory(directory) {
        Ok(tokenizer) => Ok(Some(tokenizer)),
        Err(error) if task.prompt.ids.is_some() => {
            output::say(format_args!(
                "note: no text, and no stop at an end of sequence: {error}"
            ));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn note_truncation(generation: &Generation<'_>) {
    if generation.truncated() > 0 {
        let (cut, left) = (generation.truncated(), generation.prompt().len());
        output::say(format_args!(
            "note: the prompt was cut by {cut} tokens to {left}"
        ));
    }
}

/// Runs the generation to its end or to Ctrl-C, and says how long its two parts took.
fn generate(
    task: &Run,
    generation: &mut Generation<'_>,
    stream: &mut Stream<'_>,
    outcome: &mut Outcome,
) -> anyhow::Result<Timings> {
    let mut timings = Timings::default();
    let mut bar = Bar::new(task.quiet);
    let mut start = Instant::now();
    while let Some(event) = generation.next() {
        match event {
            Ok(Event::Prefill { done, total }) => {
                timings.prompt = start.elapsed();
                timings.prompt_tokens = done;
                if done < total {
                    bar.set(done as u64, total as u64, "reading the prompt");
                } else {
                    bar.clear();
                    start = Instant::now();
                }
            }
            Ok(Event::Token { id, logprobs }) => {
                timings.generation = start.elapsed();
                outcome.logprobs.extend(logprobs.map(|of| (id, of)));
                // The token that ends the answer is not part of it.
                if generation.finish() != Some(kiln::Finish::Stop) {
                    stream.push(id)?;
                }
            }
            Err(error) => {
                stream.abandon();
                return Err(error.into());
            }
        }
        if interrupt::asked() && generation.finish().is_none() {
            outcome.interrupted = true;
            break;
        }
    }
    Ok(timings)
}
