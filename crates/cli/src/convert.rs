//! `kiln convert`: a checkpoint becomes a directory in the MLX layout.

use crate::exit::Code;
use crate::progress::Bar;
use crate::{interrupt, machine, output};
use clap::{Args, ValueEnum};
use kiln::DType;
use kiln::convert::{Error, Options, Quantise, Report};
use kiln::formats::{self, Unusable};
use kiln_array::Mode;
use serde_json::{Map, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Convert a checkpoint into a directory that kiln and mlx-lm load
///
/// Reads a Hugging Face directory (config.json and safetensors) or a GGUF file. Nothing is left
/// behind when it fails. A GGUF's Q4_0, Q4_1 and Q8_0 blocks are kept exactly unless --dtype or -q
/// asks for something else. Prints the path of the directory.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    #[command(flatten)]
    source: Source,

    /// The directory to write
    #[arg(
        long,
        visible_alias = "out",
        value_name = "DIR",
        default_value = "mlx_model"
    )]
    mlx_path: PathBuf,

    /// Quantise the linear layers, the embedding and the head
    #[arg(short, long)]
    quantize: bool,

    /// Bits per weight: 1, 2, 3, 4, 5, 6 or 8 [default: 4; mxfp8: 8]
    #[arg(long, value_name = "N", requires = "quantize")]
    q_bits: Option<usize>,

    /// Weights per scale: 32, 64 or 128 [default: 64; mxfp4, mxfp8: 32; nvfp4: 16]
    #[arg(long, value_name = "N", requires = "quantize")]
    q_group_size: Option<usize>,

    /// How weights are quantised
    #[arg(long, value_enum, default_value_t = QuantiseMode::Affine, requires = "quantize")]
    q_mode: QuantiseMode,

    /// The dtype of weights that are not quantised, and of scales [default: what config.json says;
    /// GGUF: float16]
    #[arg(long, value_enum)]
    dtype: Option<Float>,

    /// Replace the output directory if it exists
    #[arg(long)]
    force: bool,

    /// Print a JSON object instead of the path
    #[arg(long)]
    json: bool,

    /// Say more: the files written
    #[arg(short, long)]
    verbose: bool,

    /// Accepted for compatibility; nothing in a checkpoint is ever executed
    #[arg(long)]
    trust_remote_code: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The checkpoint: a Hugging Face directory or a GGUF file
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,

    /// The same, as mlx_lm spells it
    #[arg(long = "hf-path", visible_aliases = ["torch-path", "model"], value_name = "PATH")]
    path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum QuantiseMode {
    Affine,
    Mxfp4,
    Mxfp8,
    Nvfp4,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Float {
    Float16,
    Bfloat16,
    Float32,
}

impl Convert {
    fn options(&self) -> Options {
        let mode = match self.q_mode {
            QuantiseMode::Affine => Mode::Affine,
            QuantiseMode::Mxfp4 => Mode::Mxfp4,
            QuantiseMode::Mxfp8 => Mode::Mxfp8,
            QuantiseMode::Nvfp4 => Mode::Nvfp4,
        };
        let quantise = Quantise {
            mode,
            bits: self.q_bits,
            group: self.q_group_size,
        };
        let dtype = self.dtype.map(|dtype| match dtype {
            Float::Float16 => DType::F16,
            Float::Bfloat16 => DType::BF16,
            Float::Float32 => DType::F32,
        });
        Options {
            quantise: self.quantize.then_some(quantise),
            dtype,
            force: self.force,
        }
    }
}

pub(crate) fn convert(task: &Convert) -> anyhow::Result<Code> {
    interrupt::listen()?;
    if task.trust_remote_code {
        output::say("note: --trust-remote-code changes nothing: a checkpoint is never executed");
    }
    // One of the two is there: the parser has seen to it.
    let source = task.source.model.as_ref().or(task.source.path.as_ref());
    let source = source.cloned().unwrap_or_default();
    let start = Instant::now();
    let mut bar = Bar::new(false);
    let mut progress = |progress: &kiln::convert::Progress<'_>| {
        bar.set(progress.done, progress.total, progress.tensor);
        if interrupt::asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let report = kiln::convert::convert(
        &source,
        &task.mlx_path,
        &task.options(),
        &kiln::map,
        &mut progress,
    );
    bar.clear();
    let report = report.map_err(|error| not_here(error, &source))?;
    let seconds = start.elapsed().as_secs_f64();
    tell(task, &report, seconds);
    let path = task.mlx_path.display();
    if task.json {
        let files: Map<String, _> = report
            .files
            .iter()
            .map(|(name, bytes)| (name.clone(), json!(bytes)))
            .collect();
        output::write_json(&json!({
            "path": path.to_string(),
            "files": files,
            "formats": report.formats,
            "tensors": report.tensors,
            "bytes": report.bytes,
            "parameters": report.parameters,
            "bits_per_weight": report.bits_per_weight,
            "notes": report.notes,
            "seconds": seconds,
            "peak_memory_bytes": machine::peak_memory(),
        }))?;
    } else {
        output::write(&format!("{path}\n"))?;
    }
    Ok(Code::Success)
}

/// A name on a hub is no path, and nobody fetches what it stands for.
fn not_here(error: Error, source: &Path) -> anyhow::Error {
    let missing = matches!(
        &error,
        Error::File(formats::Error::Unusable {
            reason: Unusable::Missing,
            ..
        })
    );
    let error = anyhow::Error::new(error);
    if missing && source.is_relative() && source.components().count() == 2 {
        let message = format!(
            "{} is not on this machine, and is not downloaded",
            source.display()
        );
        return error.context(message);
    }
    error
}

/// What was done, on standard error.
fn tell(task: &Convert, report: &Report, seconds: f64) {
    for note in &report.notes {
        output::say(format_args!("note: {note}"));
    }
    if task.verbose {
        for (name, bytes) in &report.files {
            output::say(format_args!("wrote {name}, {}", output::size(*bytes)));
        }
    }
    let formats: Vec<String> = report
        .formats
        .iter()
        .map(|(format, count)| format!("{count} × {format}"))
        .collect();
    output::say(format_args!(
        "{} parameters in {}: {}; {:.3} bits per weight, {seconds:.2} s",
        output::count(report.parameters),
        output::size(report.bytes),
        formats.join(", "),
        report.bits_per_weight,
    ));
    if let Some(bytes) = machine::peak_memory() {
        output::say(format_args!("peak memory: {} MB", bytes / 1_000_000));
    }
}
