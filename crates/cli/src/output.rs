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

/// A size as people write it: `500MB`, `1.5 GiB`; without a unit, bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1.0),
        ("B", 1.0),
        ("K", 1024.0),
        ("KB", 1e3),
        ("KIB", 1024.0),
        ("M", 1048576.0),
        ("MB", 1e6),
        ("MIB", 1048576.0),
        ("G", 1073741824.0),
        ("GB", 1e9),
        ("GIB", 1073741824.0),
    ];
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let (number, unit) = text.split_at(text.find(|c| !digits(c)).unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_uppercase();
    let unit = units.iter().find(|(name, _)| *name == unit);
    match (number.parse::<f64>(), unit) {
        (Ok(number), Some((_, unit))) => Ok((number * unit) as u64),
        _ => Err("expected a size, as 500MB or 1GiB".into()),
    }
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

/// Columns as wide as their longest entry; those without any entry are left out. The first row is
/// the heads.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let length = |text: &str| text.chars().count();
    let width = |column: usize| {
        let filled = rows.iter().skip(1).any(|row| !row[column].is_empty());
        let most = rows.iter().map(|row| length(&row[column])).max();
        most.filter(|_| filled)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, entry) in row.iter().enumerate() {
            if let Some(most) = width(column) {
                line.push_str(&format!("{entry:most$}  "));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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
    fn sizes_are_read() {
        let cases = [
            ("0", 0),
            ("1000", 1000),
            ("1 kb", 1000),
            ("500MB", 500_000_000),
            ("1.5GiB", 3 << 29),
        ];
        for (text, size) in cases {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for wrong in ["", "MB", "1.2.3", "-1", "5 parsecs", "1e9"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{7}"), "a\u{fffd}[2Jb\nc\u{fffd}");
    }
}
