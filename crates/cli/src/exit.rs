//! Exit codes: which error has which, and how errors are told.

use crate::output::{Closed, say};
use kiln::{convert, formats, sample};
use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

/// What a program exits with. The numbers are part of its interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    Success = 0,
    Internal = 1,
    Usage = 2,
    Input = 3,
    Unsupported = 4,
    Network = 5,
    Limits = 6,
    Verification = 7,
    Device = 8,
    Interrupted = 130,
}

/// The documentation of the codes.
const CODES: [(u8, &str); 10] = [
    (0, "done"),
    (1, "a fault of the program itself; please report it"),
    (
        2,
        "the command line or an option does not fit, or the output exists",
    ),
    (
        3,
        "a file is missing, damaged, or cannot be read or written; the disk is full",
    ),
    (4, "a model, format or setting that is not supported"),
    (5, "the network, or an account on a hub"),
    (6, "out of memory or context"),
    (
        7,
        "a result did not pass its check: logits that are not numbers, checkpoints that differ",
    ),
    (8, "the device is not there, cannot be used, or failed"),
    (130, "interrupted by Ctrl-C"),
];

/// Environment variables that are not the default of an option.
const VARIABLES: [(&str, &str); 14] = [
    ("KILN_DEVICE", "the default of --device"),
    ("KILN_THREADS", "the default of --threads"),
    (
        "KILN_ISA",
        "the instruction set to use (kiln devices lists them)",
    ),
    (
        "KILN_PLAN",
        "1 prints every plan that is compiled to standard error",
    ),
    (
        "KILN_TRACE",
        "a file to write, for Perfetto or Chrome: what every thread did, step by step",
    ),
    (
        "KILN_VERIFY",
        "1 does every step on the processor, too, and stops at the first that differs",
    ),
    (
        "KILN_NAN_CHECK",
        "1 looks at the result of every step, and stops at the first that is not finite: which step, \
         layer and token, and the line of code that made it",
    ),
    (
        "HF_HOME",
        "where the cache of models (hub) and the token are; HF_HUB_CACHE and HF_TOKEN_PATH name one alone",
    ),
    ("HF_TOKEN", "the account on the hub"),
    ("HF_ENDPOINT", "another hub than huggingface.co"),
    ("HF_HUB_OFFLINE", "1 takes models from the cache only"),
    (
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "seconds that a server may be silent (30)",
    ),
    (
        "WGPU_ADAPTER_NAME",
        "part of the name of the GPU that --device gpu takes",
    ),
    (
        "WGPU_BACKEND",
        "vulkan, metal or dx12: only the GPUs that it drives are seen",
    ),
];

/// The end of `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (code, meaning) in CODES {
        text.push_str(&format!("  {code:<14}{meaning}\n"));
    }
    text.push_str("\nEnvironment variables:\n");
    for (name, meaning) in VARIABLES {
        text.push_str(&format!("  {name:<25}{meaning}\n"));
    }
    text.push_str(
        "\nStandard output carries the result alone: the text, the JSON object or the table.\n\
         Bars, notes and statistics go to standard error.",
    );
    text
}

/// What the programs themselves refuse.
#[derive(Debug)]
pub(crate) struct Refused {
    code: Code,
    message: String,
}

impl Refused {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Refused {
        Refused {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refused {}

/// Tells an error and gives its code.
pub(crate) fn finish(outcome: anyhow::Result<Code>) -> ExitCode {
    let code = match outcome {
        Ok(code) => code,
        Err(error) if error.is::<Closed>() => Code::Success,
        Err(error) => {
            tell(&error);
            code_of(&error)
        }
    };
    ExitCode::from(code as u8)
}

/// `error: …`, then a line for each cause that says something new.
fn tell(error: &anyhow::Error) {
    let mut last = error.to_string();
    say(format_args!("error: {last}"));
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !last.ends_with(&cause) {
            say(format_args!("caused by: {cause}"));
        }
        last = cause;
    }
}

/// Instead of a panic's report: one line, and the code of a fault.
pub(crate) fn report_faults() {
    std::panic::set_hook(Box::new(|fault| {
        let message = fault.payload_as_str().unwrap_or("unknown");
        let place = fault
            .location()
            .map(|at| format!(" at {at}"))
            .unwrap_or_default();
        say(format_args!(
            "error: internal fault{place}: {message}; please report it"
        ));
        std::process::exit(Code::Internal as i32);
    }));
}

/// The code of the first error in the chain that has one.
fn code_of(error: &anyhow::Error) -> Code {
    error.chain().find_map(known).unwrap_or(Code::Internal)
}

/// The table: every crate's error type.
fn known(error: &(dyn Error + 'static)) -> Option<Code> {
    None.or_else(|| error.downcast_ref().map(|refused: &Refused| refused.code))
        .or_else(|| error.downcast_ref().map(of_model))
        .or_else(|| error.downcast_ref().map(of_convert))
        .or_else(|| error.downcast_ref().map(of_formats))
        .or_else(|| error.downcast_ref().map(of_tokenizer))
        .or_else(|| error.downcast_ref().map(of_sample))
        .or_else(|| error.downcast_ref().map(of_array))
        .or_else(|| error.downcast_ref().map(of_cpu))
        .or_else(|| crate::gpu::code(error))
        .or_else(|| crate::hub::code(error))
        .or_else(|| error.downcast_ref().map(of_io))
}

fn of_model(error: &kiln::Error) -> Code {
    use kiln::Error as E;
    match error {
        E::Io { source, .. } => of_io(source),
        E::Config { .. } | E::Tensor { .. } | E::Unmapped { .. } => Code::Input,
        E::Unsupported { .. } => Code::Unsupported,
        E::Context { .. } => Code::Limits,
        E::Request(_) => Code::Usage,
        E::Formats(error) => of_formats(error),
        E::Array(error) => of_array(error),
        E::Sample(error) => of_sample(error),
        E::NotFinite { .. } => Code::Verification,
        _ => Code::Internal,
    }
}

fn of_convert(error: &convert::Error) -> Code {
    use convert::Error as E;
    match error {
        E::Model(error) => of_model(error),
        E::File(error) => of_formats(error),
        E::Tokenizer(error) => of_tokenizer(error),
        E::Options(_)
        | E::Rule { .. }
        | E::Exists { .. }
        | E::Budget { .. }
        | E::Overflow { .. } => Code::Usage,
        E::Group { .. } => Code::Unsupported,
        E::Quantise { .. } => Code::Input,
        E::Interrupted => Code::Interrupted,
        _ => Code::Internal,
    }
}

pub(crate) fn of_formats(error: &formats::Error) -> Code {
    use formats::{Error as E, Unusable};
    match error {
        E::Read { source, .. } | E::Write { source, .. } => of_io(source),
        E::Unusable {
            reason: Unusable::Pickle | Unusable::Tar,
            ..
        }
        | E::Refused { .. }
        | E::Unsupported { .. } => Code::Unsupported,
        E::Unusable { .. } | E::Invalid { .. } => Code::Input,
        _ => Code::Internal,
    }
}

fn of_tokenizer(error: &kiln_tokenizer::Error) -> Code {
    use kiln_tokenizer::Error as E;
    match error {
        E::Read { source, .. } => of_io(source),
        E::NoTokenizer { .. } | E::Malformed { .. } | E::Library { .. } | E::NotUtf8 { .. } => {
            Code::Input
        }
        E::UnknownId { .. } | E::NoTemplate { .. } | E::TemplateRefused { .. } => Code::Usage,
        E::Unsupported { .. } | E::TemplateSyntax { .. } | E::TemplateFailed { .. } => {
            Code::Unsupported
        }
        _ => Code::Internal,
    }
}

fn of_sample(error: &sample::Error) -> Code {
    use sample::Error as E;
    match error {
        E::Option { .. } | E::TopK { .. } | E::Id { .. } => Code::Usage,
        E::NotFinite { .. } | E::Nothing => Code::Verification,
        _ => Code::Internal,
    }
}

fn of_array(error: &kiln_array::Error) -> Code {
    use kiln_array::Error as E;
    match error.cause() {
        E::Memory { .. } => Code::Limits,
        E::NotFinite { .. } => Code::Verification,
        E::Format(_) => Code::Input,
        E::Device { .. } => Code::Device,
        _ => Code::Internal,
    }
}

fn of_cpu(error: &kiln_cpu::Error) -> Code {
    use kiln_cpu::Error as E;
    match error {
        E::UnknownIsa { .. } | E::MissingIsa { .. } | E::NoFast { .. } => Code::Usage,
        E::Threads { .. } => Code::Limits,
        _ => Code::Internal,
    }
}

fn of_io(error: &std::io::Error) -> Code {
    match error.kind() {
        ErrorKind::OutOfMemory => Code::Limits,
        _ => Code::Input,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(kind: ErrorKind) -> std::io::Error {
        kind.into()
    }

    #[test]
    fn errors_have_the_codes_of_the_table() {
        let written = |kind| {
            let (path, source) = ("a".into(), io(kind));
            kiln::Error::Formats(formats::Error::Write { path, source })
        };
        let nan = kiln::Error::Sample(sample::Error::NotFinite {
            id: 3,
            value: f32::NAN,
        });
        let isa = kiln_cpu::Error::UnknownIsa {
            name: "x".into(),
            known: vec![],
        };
        let memory = kiln_array::Error::Memory {
            device: "cpu".into(),
            bytes: 1,
        };
        let lost = kiln_array::Error::Device {
            device: "gpu".into(),
            reason: "lost".into(),
        };
        let cases: Vec<(anyhow::Error, Code)> = vec![
            (anyhow::anyhow!("a surprise"), Code::Internal),
            (kiln::Error::Request("no tokens".into()).into(), Code::Usage),
            (isa.into(), Code::Usage),
            (io(ErrorKind::NotFound).into(), Code::Input),
            (
                anyhow::Error::new(io(ErrorKind::NotFound)).context("reading"),
                Code::Input,
            ),
            (
                kiln::Error::Context {
                    prompt: 9,
                    new: 9,
                    context: 9,
                }
                .into(),
                Code::Limits,
            ),
            (written(ErrorKind::StorageFull).into(), Code::Input),
            (written(ErrorKind::QuotaExceeded).into(), Code::Input),
            (written(ErrorKind::FileTooLarge).into(), Code::Input),
            (written(ErrorKind::OutOfMemory).into(), Code::Limits),
            (kiln::Error::Array(memory).into(), Code::Limits),
            (kiln::Error::Array(lost).into(), Code::Device),
            (nan.into(), Code::Verification),
            (convert::Error::Interrupted.into(), Code::Interrupted),
            (Refused::new(Code::Usage, "no").into(), Code::Usage),
        ];
        for (error, code) in cases {
            assert_eq!(code_of(&error), code, "{error}");
        }
    }

    #[test]
    fn every_code_is_documented() {
        let used = [
            Code::Success,
            Code::Internal,
            Code::Usage,
            Code::Input,
            Code::Unsupported,
            Code::Network,
            Code::Limits,
            Code::Verification,
            Code::Device,
            Code::Interrupted,
        ];
        for code in used {
            assert!(
                CODES.iter().any(|(number, _)| *number == code as u8),
                "{code:?}"
            );
        }
        assert!(help().contains("130           interrupted"));
    }
}
