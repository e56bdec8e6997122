//! `kiln convert`: a checkpoint becomes a directory in the MLX layout.

mod planned;

use crate::exit::Code;
use crate::progress::Bar;
use crate::{hub, interrupt, machine, output};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use kiln::DType;
use kiln::convert::{Layout, Options, Quantise, Recipe, Report, Rule, Verify};
use kiln::formats::BlockType;
use kiln_array::Mode;
use serde_json::{Map, json};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// Convert a checkpoint into a directory that kiln and mlx-lm load
///
/// Reads a directory in Hugging Face's or MLX's layout (config.json with safetensors or
/// pytorch_model.bin), Meta's or Mistral's consolidated.NN.pth with params.json, weights.npz with
/// config.json, a GGUF file, or a model on a hub, which is downloaded into the cache of Hugging Face's
/// own programs. Nothing in a file is ever executed.
/// Nothing is left behind when it fails. What is quantised is kept exactly unless something else is
/// asked for: MLX's, GPTQ's and AWQ's layers, and a GGUF's Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and MXFP4
/// blocks. Prints the path of the directory.
///
/// Rules say which layers are stored how: PATTERN=VALUE, as 'layers.{0..3,-1}.*=8',
/// '*.down_proj=6g32' or 'lm_head=bf16'. The pattern is for a layer's path, as
/// model.layers.0.self_attn.q_proj, whose model. may be left out; * is any run of characters, ? one,
/// {a,b} a choice, {0..3,-1} the numbers 0 to 3 and the last layer's. The value is BITS, BITSgGROUP,
/// mxfp4, mxfp8, nvfp4, float16, bfloat16, float32, or float for the dtype of the other weights. The
/// first rule that matches decides; what none matches goes by -q and its kin. A rule that decides
/// nothing is an error.
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

    /// Quantise by a recipe of mlx_lm's: the head, and in some layers v_proj and down_proj, get more
    /// bits than the rest
    #[arg(long, value_name = "RECIPE", value_parser = recipes())]
    quant_predicate: Option<Recipe>,

    /// Quantise to at most N bits per weight of the whole model: the bits of each layer are chosen
    /// by the error that 2, 3, 4, 5, 6 and 8 bits make in its weights
    #[arg(long, value_name = "N")]
    target_bpw: Option<f64>,

    /// A rule for some layers; may be given more than once
    #[arg(long, value_name = "PATTERN=VALUE")]
    rule: Vec<String>,

    /// A TOML file with rules = ["PATTERN=VALUE", ...]; they come after those of --rule
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,

    /// Store quantised layers as floats
    #[arg(short, long)]
    dequantize: bool,

    /// The dtype of weights that are not quantised, and of scales [default: what config.json says;
    /// GGUF: float16; Meta and npz: each tensor's own]
    #[arg(long, value_enum)]
    dtype: Option<Float>,

    /// Upload the directory to this repository on the hub, which is made if there is none
    #[arg(long, value_name = "ORG/NAME", conflicts_with = "dry_run")]
    upload_repo: Option<String>,

    /// How the output is laid out: mlx, npz as MLX's example programs write and read it, or a GGUF
    /// file for llama.cpp
    #[arg(long, value_enum, default_value_t = Format::Mlx)]
    format: Format,

    /// With --format gguf: quantise all matrices; --dtype float16 or bfloat16 for floats
    #[arg(long, value_enum)]
    gguf_type: Option<Blocks>,

    /// Replace the output directory if it exists
    #[arg(long)]
    force: bool,

    /// Finish what a run with the same arguments began and did not end; keep what is done if this one
    /// fails, too
    #[arg(long)]
    resume: bool,

    /// Use at most so much memory, as 500MB or 1GiB, at the price of time
    #[arg(long, value_name = "SIZE", value_parser = output::bytes)]
    max_memory: Option<u64>,

    /// Compare what the converted model makes of a text with what the source makes of it, one layer
    /// at a time: KL divergence, agreement, perplexity [default text: a page of English]
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = PAGE)]
    verify: Option<String>,

    /// Write nothing: print what would become of every tensor, and what it would need
    #[arg(long)]
    dry_run: bool,

    /// Print a JSON object instead of the path or the table
    #[arg(long)]
    json: bool,

    /// Say more: the files written
    #[arg(short, long)]
    verbose: bool,

    /// Accepted for compatibility; nothing in a checkpoint is ever executed
    #[arg(long)]
    trust_remote_code: bool,

    /// Accepted for compatibility; what a checkpoint is, its files tell
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The checkpoint: a Hugging Face, MLX, Meta or npz directory, a GGUF file, or on a hub
    /// ORG/NAME[@REVISION] or ORG/NAME/FILE.gguf
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
enum Format {
    Mlx,
    Npz,
    Gguf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Blocks {
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q8_0")]
    Q8_0,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Float {
    Float16,
    Bfloat16,
    Float32,
}

/// What models are compared on where no text is given.
const PAGE: &str = include_str!("convert/page.txt");

fn recipes() -> impl TypedValueParser<Value = Recipe> {
    PossibleValuesParser::new(Recipe::names())
        .try_map(|name| Recipe::named(&name).ok_or("is no recipe"))
}

impl Convert {
    fn options(&self) -> anyhow::Result<Options> {
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
        let mut rules = Vec::new();
        for rule in &self.rule {
            rules.push(rule.parse()?);
        }
        for file in &self.rules {
            rules.extend(Rule::file(file, &kiln::map)?);
        }
        Ok(Options {
            rules,
            quantise: self.quantize.then_some(quantise),
            recipe: self.quant_predicate,
            target: self.target_bpw,
            dequantise: self.dequantize,
            dtype,
            layout: match self.format {
                Format::Mlx => Layout::Mlx,
                Format::Npz => Layout::Npz,
                Format::Gguf => Layout::Gguf,
            },
            blocks: self.gguf_type.map(|blocks| match blocks {
                Blocks::Q4_0 => BlockType::Q4_0,
                Blocks::Q4_1 => BlockType::Q4_1,
                Blocks::Q8_0 => BlockType::Q8_0,
            }),
            force: self.force,
            resume: self.resume,
            max_memory: self.max_memory,
            verify: match &self.verify {
                Some(text) => Some(Verify {
                    text: text.clone(),
                    device: kiln::cpu(kiln::CpuOptions::default())?,
                }),
                None => None,
            },
        })
    }
}

pub(crate) fn convert(task: &Convert) -> anyhow::Result<Code> {
    interrupt::listen()?;
    if task.trust_remote_code {
        output::say("note: --trust-remote-code changes nothing: a checkpoint is never executed");
    }
    if let Some(name) = &task.model_name {
        output::say(format_args!(
            "note: --model-name {name:?} changes nothing: what a checkpoint is, its files tell"
        ));
    }
    // One of the two is there: the parser has seen to it.
    let source = task.source.model.as_ref().or(task.source.path.as_ref());
    let source = source.cloned().unwrap_or_default();
    let options = task.options()?;
    let upload = task.upload_repo.as_deref().map(hub::Destination::new);
    let upload = upload.transpose()?;
    let vacant = kiln::convert::vacant(&source, &task.mlx_path, options.force);
    if !task.dry_run {
        // Before gigabytes are downloaded for nothing.
        vacant?;
    } else if let Err(error) = vacant {
        output::say(format_args!("note: the conversion would stop: {error}"));
    }
    let source = hub::local(&source, false)?;
    let start = Instant::now();
    let mut bar = Bar::of_bytes(false);
    let mut progress = |progress: &kiln::convert::Progress<'_>| {
        bar.set(progress.done, progress.total, progress.tensor);
        if interrupt::asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    if task.dry_run {
        let plan = kiln::convert::plan(&source, &options, &kiln::map, &mut progress);
        bar.clear();
        planned::print(&plan?, task.json)?;
        return Ok(Code::Success);
    }
    let report =
        kiln::convert::convert(&source, &task.mlx_path, &options, &kiln::map, &mut progress);
    bar.clear();
    let report = report?;
    let seconds = start.elapsed().as_secs_f64();
    tell(task, &report, seconds);
    if let Some(destination) = upload {
        destination.upload(&task.mlx_path)?;
    }
    if task.json {
        return print_json(task, &report, seconds);
    }
    output::write(&format!("{}\n", task.mlx_path.display()))?;
    Ok(Code::Success)
}

fn print_json(task: &Convert, report: &Report, seconds: f64) -> anyhow::Result<Code> {
    let files: Map<String, _> = report
        .files
        .iter()
        .map(|(name, bytes)| (name.clone(), json!(bytes)))
        .collect();
    output::write_json(&json!({
        "path": task.mlx_path.display().to_string(),
        "files": files,
        "formats": report.formats,
        "tensors": report.tensors,
        "bytes": report.bytes,
        "parameters": report.parameters,
        "bits_per_weight": report.bits_per_weight,
        "notes": report.notes,
        "verified": report.receipt.verified,
        "seconds": seconds,
        "peak_memory_bytes": machine::peak_memory(),
    }))?;
    Ok(Code::Success)
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
    if let Some(verified) = &report.receipt.verified {
        output::say(format_args!(
            "{}{} tokens: KL divergence {:.5}, the same token first in {:.1} %, perplexity {:.3} \
             (source: {:.3})",
            if verified.cut { "the first " } else { "" },
            verified.tokens,
            verified.divergence,
            100.0 * verified.agreement,
            verified.perplexity,
            verified.source_perplexity,
        ));
    }
    if let Some(bytes) = machine::peak_memory() {
        output::say(format_args!("peak memory: {} MB", bytes / 1_000_000));
    }
}
