//! Running a program and looking at what it leaves.

use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// What the environment can set.
pub(crate) const VARIABLES: [&str; 9] = [
    "KILN_DEVICE",
    "KILN_THREADS",
    "KILN_ISA",
    "KILN_PLAN",
    "KILN_TRACE",
    "KILN_VERIFY",
    "KILN_NAN_CHECK",
    "WGPU_ADAPTER_NAME",
    "WGPU_BACKEND",
];

/// One of the programs with arguments, and without the environment's own settings.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Command {
    let path = match name {
        "kiln" => env!("CARGO_BIN_EXE_kiln"),
        "kiln-convert" => env!("CARGO_BIN_EXE_kiln-convert"),
        "kiln-run" => env!("CARGO_BIN_EXE_kiln-run"),
        other => panic!("no program {other}"),
    };
    program_at(path, arguments)
}

/// The program at `path`, likewise.
pub(crate) fn program_at(path: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    // A name that is no path must not lead out of this machine.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", "nowhere");
    for variable in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_ENDPOINT"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// `kiln` with arguments, run to its end.
pub(crate) fn kiln(arguments: &[&str]) -> Output {
    program("kiln", arguments).output().unwrap()
}

/// `kiln` with arguments and something on its standard input.
pub(crate) fn kiln_reading(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = program("kiln", arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The JSON object of a program that succeeded.
#[track_caller]
pub(crate) fn json(output: &Output) -> Value {
    succeeded(output);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
pub(crate) fn succeeded(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
}

/// Checks that a program failed with `code`, that it printed nothing, and that the plain lines in
/// which it says why contain `words`.
#[track_caller]
pub(crate) fn failed(output: &Output, code: i32, words: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert_eq!(stdout(output), "", "something on standard output");
    let mut errors = told.lines().filter(|line| !line.starts_with("note: "));
    assert!(
        errors
            .next()
            .is_some_and(|line| line.starts_with("error: ")),
        "{told}"
    );
    assert!(
        !told.contains("panicked") && !told.contains("internal fault"),
        "{told}"
    );
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

/// The keys of an object, in order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}
