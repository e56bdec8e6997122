//! What `kiln-plan` and `kiln-array` offer is recorded, and every function of it is in an example.
//!
//! `KILN_RECORD=1 cargo test -p kiln-tests --test api` writes the record anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use std::path::{Path, PathBuf};

const CRATES: [&str; 2] = ["plan", "array"];

/// The lines of a crate's sources without their tests, by file.
fn sources(krate: &str) -> Vec<(String, Vec<String>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates")
        .join(krate)
        .join("src");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("\n#[cfg(test)]").next().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, text.lines().map(String::from).collect())
    };
    files.into_iter().map(read).collect()
}

/// Declarations that other crates see: signatures and fields on one line each, traits' methods and
/// enums' variants, and which traits are implemented.
fn items(lines: &[String]) -> Vec<String> {
    let mut items = Vec::new();
    let mut code = lines.iter().filter(|line| {
        let line = line.trim_start();
        !line.starts_with("//") && !line.starts_with('#')
    });
    let mut open = false;
    while let Some(line) = code.next() {
        let shown = line.trim();
        if open {
            open = line != "}";
            let inside = shown.trim_end_matches([',', '{', '}', ';']).trim();
            if !inside.is_empty() {
                items.push(format!("    {inside}"));
            }
            continue;
        }
        // The rows of a table that a macro makes functions of.
        if !line.starts_with(' ') && shown.ends_with("! {") && !shown.starts_with("macro_rules") {
            open = true;
            items.push(shown.trim_end_matches(" {").to_string());
            continue;
        }
        let public = shown.starts_with("pub ") && !shown.starts_with("pub mod");
        let implements = line.starts_with("impl") && shown.contains(" for ");
        if !public && !implements {
            continue;
        }
        let mut text = shown.to_string();
        while !text.ends_with([';', '{', '}', ',']) {
            match code.next() {
                Some(more) => text += &format!(" {}", more.trim()),
                None => break,
            }
        }
        // A list of parameters goes on after a comma.
        while text.ends_with(',') && text.contains('(') && !text.contains(')') {
            match code.next() {
                Some(more) => text += &format!(" {}", more.trim()),
                None => break,
            }
        }
        while shown.contains("fn ") && !text.ends_with(['{', ';', '}']) {
            match code.next() {
                Some(more) => text += &format!(" {}", more.trim()),
                None => break,
            }
        }
        open = (shown.starts_with("pub trait") || shown.starts_with("pub enum"))
            && text.ends_with('{');
        items.push(text.trim_end_matches(['{', ',', ';']).trim().to_string());
    }
    items
}

fn record() -> String {
    let mut text = String::from(
        "# What kiln-plan and kiln-array offer. Written by\n\
         # `KILN_RECORD=1 cargo test -p kiln-tests --test api`.\n",
    );
    for krate in CRATES {
        for (file, lines) in sources(krate) {
            let items = items(&lines);
            if !items.is_empty() {
                text += &format!("\n{krate}/{file}\n{}\n", items.join("\n"));
            }
        }
    }
    text
}

#[test]
fn the_public_interface_is_the_recorded_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/api.txt");
    let found = record();
    if std::env::var_os("KILN_RECORD").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    let of = |text: &str| {
        text.lines()
            .map(String::from)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (was, is) = (of(&recorded), of(&found));
    let (gone, new): (Vec<_>, Vec<_>) =
        (was.difference(&is).collect(), is.difference(&was).collect());
    assert!(
        recorded == found,
        "KILN_RECORD=1 records the change. No longer there: {gone:#?}; new: {new:#?}"
    );
}

#[test]
fn every_public_function_is_called_in_an_example() {
    let (mut examples, mut functions) = (String::new(), Vec::new());
    for (file, lines) in CRATES.into_iter().flat_map(sources) {
        let (mut inside, mut table) = (false, false);
        for line in &lines {
            let line = line.trim();
            let doc = line.strip_prefix("///").or(line.strip_prefix("//!"));
            match doc.map(str::trim) {
                Some(doc) if doc.starts_with("```") => inside = !inside,
                Some(doc) if inside => examples += &format!("{doc}\n"),
                _ => {}
            }
            let item = line
                .strip_prefix("pub ")
                .map(|item| item.trim_start_matches("const "));
            let name = item.and_then(|item| item.strip_prefix("fn "));
            let end = |name: &str| name.find(['(', '<', ' ']);
            let name = name.or(Some(line).filter(|_| table && !line.starts_with("///")));
            let named = name.filter(|name| !name.starts_with('$'));
            functions.extend(named.and_then(|n| Some((file.clone(), n[..end(n)?].to_string()))));
            table = line == "reals! {" || (table && line != "}");
        }
    }
    assert!(functions.len() > 150, "{} functions found", functions.len());
    let called = |name: &str| {
        examples.match_indices(name).any(|(at, _)| {
            let before = examples[..at].chars().next_back();
            let after = examples[at + name.len()..].chars().next();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                && matches!(after, Some('(' | ':'))
        })
    };
    let missing: Vec<_> = functions.iter().filter(|(_, name)| !called(name)).collect();
    assert!(missing.is_empty(), "no example calls {missing:#?}");
}
