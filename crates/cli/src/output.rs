//! The one place that writes to standard output and standard error.

use std::fmt;
use std::io::{ErrorKind, Write, stderr, stdout};

/// Whoever read standard output does not any more. Not worth a word.
#[derive(Debug)]
pub(crate) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for Closed {}

/// Writes to standard output at once. Fails with [`Closed`], or as the system says.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

/// Writes a JSON value on one line to standard output.
pub(crate) fn write_json(value: &serde_json::Value) -> anyhow::Result<()> {
    write(&format!("{value}\n"))
}

/// Writes a line to standard error. That nobody reads it is no reason to stop.
pub(crate) fn say(line: impl fmt::Display) {
    let line = plain(&line.to_string());
    let _ = writeln!(stderr().lock(), "{line}");
}

/// `text` without control characters, so that a name out of a file cannot steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars()
        .map(|c| {
            if harmless(c) {
                c
            } else {
                char::REPLACEMENT_CHARACTER
            }
        })
        .collect()
}

/// A size as people read it: `98.50 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A number of things as people read it: `134.52 M`.
pub(crate) fn count(number: u64) -> String {
    scaled(number as f64, 1000.0, &["", "K", "M", "B", "T"])
}

fn scaled(mut number: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while number >= base && unit + 1 < units.len() {
        number /= base;
        unit += 1;
    }
    let text = if unit == 0 {
        format!("{number}")
    } else {
        format!("{number:.2}")
    };
    format!("{text} {}", units[unit]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_are_scaled() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(3 << 29), "1.50 GiB");
        assert_eq!(count(999), "999");
        assert_eq!(count(134_515_008), "134.52 M");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{7}"), "a\u{fffd}[2Jb\nc\u{fffd}");
    }
}
