//! Which files of a repository a conversion needs.

use crate::id::is_file;
use crate::{Error, Id, Result};
use kiln_formats::shards::{CONSOLIDATED, Family, Index, PYTORCH, SAFETENSORS, WEIGHTS};

/// A repository's weights.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Weights {
    /// These files of a directory.
    Files(Vec<String>),
    /// The shards that this index names.
    Indexed(Family),
    /// One file that is a model by itself.
    Gguf(String),
}

/// The weights among `names`, of several kinds those that a directory is read as.
///
/// # Errors
/// No weights, or several GGUF files of which none is meant.
pub(crate) fn weights(id: &Id, names: &[&str]) -> Result<Weights> {
    if let Some(file) = &id.file {
        return match names.contains(&&file[..]) {
            true => Ok(Weights::Gguf(file.clone())),
            false => Err(none(id, format!("there is no file {file}"), names)),
        };
    }
    for family in [SAFETENSORS, PYTORCH] {
        if names.contains(&family.index) {
            return Ok(Weights::Indexed(family));
        }
        let files = those(names, |name| family.holds(name));
        if !files.is_empty() {
            return Ok(Weights::Files(files));
        }
    }
    for family in [CONSOLIDATED, WEIGHTS] {
        let files = those(names, |name| family.holds(name));
        if !files.is_empty() {
            return Ok(Weights::Files(files));
        }
    }
    let mut files = those(names, |name| name.ends_with(".gguf"));
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(Weights::Gguf(file)),
        (Some(file), false) => {
            let others = those(names, |name| name.ends_with(".gguf"));
            let why = format!(
                "several models are in it; name one, as {}/{file}: {}",
                id.repository,
                listed(&others)
            );
            Err(weights_error(id, why))
        }
        (None, _) => Err(none(
            id,
            "no weights that can be read are in it".into(),
            names,
        )),
    }
}

/// The shards of an index, all of which must be among `names`.
///
/// # Errors
/// One that is not.
pub(crate) fn shards(id: &Id, index: &Index, names: &[&str]) -> Result<Vec<String>> {
    let shards = index.shards();
    match shards.iter().find(|shard| !names.contains(shard)) {
        Some(missing) => Err(weights_error(
            id,
            format!("the index names the shard {missing}, which is not in the repository"),
        )),
        None => Ok(shards.into_iter().map(str::to_owned).collect()),
    }
}

/// What goes along with weights in a directory: settings, tokenizer, template, licence. Indexes are
/// not among it.
pub(crate) fn others(names: &[&str]) -> Vec<String> {
    let wanted = [".json", ".model", ".txt", ".jinja"];
    those(names, |name| {
        let index = name.ends_with(".index.json");
        name.starts_with("LICENSE") || !index && wanted.iter().any(|end| name.ends_with(end))
    })
}

/// The names that are those of files in the directory itself.
pub(crate) fn plain(names: &[String]) -> Vec<&str> {
    let names = names.iter().map(String::as_str);
    names.filter(|name| is_file(name, "")).collect()
}

fn those(names: &[&str], wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let found = names.iter().filter(|name| wanted(name));
    found.map(|&name| name.to_owned()).collect()
}

fn none(id: &Id, why: String, names: &[&str]) -> Error {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let there = match names.is_empty() {
        true => "it is empty".to_owned(),
        false => format!("it has {}", listed(&names)),
    };
    weights_error(id, format!("{why}; {there}"))
}

fn weights_error(id: &Id, why: String) -> Error {
    let id = id.to_string();
    Error::Weights { id, why }
}

/// The first eight, and how many more there are.
fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(8)].join(", ");
    match names.len().saturating_sub(8) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<Weights> {
        weights(&"a/b".parse().unwrap(), names)
    }

    #[test]
    fn one_form_of_the_weights_is_chosen() {
        let files =
            |names: &[&str]| Weights::Files(names.iter().map(|&name| name.to_owned()).collect());
        for (names, expected) in [
            (
                &[
                    "consolidated.safetensors",
                    "model.safetensors",
                    "pytorch_model.bin",
                ][..],
                files(&["model.safetensors"]),
            ),
            (
                &["model-1.safetensors", "model.safetensors.index.json"],
                Weights::Indexed(SAFETENSORS),
            ),
            (
                &[
                    "pytorch_model-1.bin",
                    "pytorch_model.bin.index.json",
                    "x.gguf",
                ],
                Weights::Indexed(PYTORCH),
            ),
            (
                &["consolidated.00.pth", "consolidated.01.pth", "params.json"],
                files(&["consolidated.00.pth", "consolidated.01.pth"]),
            ),
            (&["weights.npz", "config.json"], files(&["weights.npz"])),
            (&["README.md", "x.gguf"], Weights::Gguf("x.gguf".into())),
        ] {
            assert_eq!(chosen(names).unwrap(), expected);
        }
    }

    #[test]
    fn no_weights_or_too_many_are_told() {
        let told = |names: &[&str]| chosen(names).unwrap_err().to_string();
        assert!(told(&["a.Q4_0.gguf", "a.Q8_0.gguf"]).contains("a/b/a.Q8_0.gguf"));
        assert!(told(&["adapter_model.safetensors"]).contains("adapter_model.safetensors"));
        assert!(told(&[]).contains("empty"));
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_seen() {
        let names = [
            "../x.json",
            "original/params.json",
            "/etc/x.json",
            "a\\b.json",
            "config.json",
        ];
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(plain(&names), ["config.json"]);
    }

    #[test]
    fn what_is_not_needed_is_not_fetched() {
        let names = [
            "config.json",
            "tokenizer.model",
            "chat_template.jinja",
            "merges.txt",
            "LICENSE.md",
            "model.onnx",
            "README.md",
            "modeling_x.py",
            "pytorch_model.bin.index.json",
            "a.png",
        ];
        let expected = [
            "config.json",
            "tokenizer.model",
            "chat_template.jinja",
            "merges.txt",
            "LICENSE.md",
        ];
        assert_eq!(others(&names), expected);
    }
}
