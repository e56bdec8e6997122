//! What a model on a hub is called.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A model on a hub: `ORG/NAME`, `ORG/NAME@REVISION`, or with a file of it `ORG/NAME/FILE.gguf`; each
/// may begin with `hf://`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Id {
    /// `ORG/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` if none was named.
    pub revision: String,
    /// The one file that is meant.
    pub file: Option<String>,
}

/// The longest repository name.
const LONGEST: usize = 96;

impl Id {
    /// Whether a path that is not there can be meant as an [`Id`].
    pub fn is_like(text: &str) -> bool {
        text.parse::<Id>().is_ok()
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Id> {
        let wrong = |why| {
            let text = text.chars().take(200).collect();
            Err(Error::Id { text, why })
        };
        let rest = text.strip_prefix("hf://").unwrap_or(text);
        let (rest, revision) = match rest.split_once('@') {
            Some((rest, revision)) => (rest, revision),
            None => (rest, "main"),
        };
        let mut parts = rest.split('/');
        let (Some(organisation), Some(name)) = (parts.next(), parts.next()) else {
            return wrong("expected ORG/NAME or ORG/NAME@REVISION");
        };
        let file = parts.next();
        if parts.next().is_some() || file.is_some_and(|file| !is_file(file, ".gguf")) {
            return wrong("expected ORG/NAME, or ORG/NAME/FILE.gguf for one file");
        }
        let repository = format!("{organisation}/{name}");
        let plain = [organisation, name].into_iter().all(is_name);
        if !plain || repository.len() > LONGEST {
            return wrong(
                "names have letters, digits, '-', '_' and single dots, at most 96 in all, and begin \
                 and end with a letter or a digit",
            );
        }
        if !is_revision(revision) {
            return wrong("the revision is no name of a branch, a tag or a commit");
        }
        Ok(Id {
            repository,
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let within = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(within)
        && name.starts_with(edge)
        && name.ends_with(edge)
        && !name.contains("..")
        && !name.contains("--")
}

/// Whether a revision is a relative path that stays below where it is put, as its file in `refs` must.
fn is_revision(revision: &str) -> bool {
    let within = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(within) && !part.starts_with('.') && part.len() < 200
    };
    revision.split('/').all(plain)
}

/// Whether a name is that of a file with this ending, in no other directory, on any system.
pub(crate) fn is_file(name: &str, ending: &str) -> bool {
    let strange = |c: char| c.is_control() || "/\\:*?\"<>|@".contains(c);
    name.len() > ending.len()
        && name.len() < 200
        && name.ends_with(ending)
        && !name.contains(strange)
        && !name.starts_with('.')
}

/// A commit's full name.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_say_repository_revision_and_file() {
        for (text, repository, revision, file) in [
            ("a/b", "a/b", "main", None),
            ("hf://Org-1/Name_2.5", "Org-1/Name_2.5", "main", None),
            ("a/b@v1.0", "a/b", "v1.0", None),
            ("a/b@refs/pr/3", "a/b", "refs/pr/3", None),
            ("a/b/x.Q4_0.gguf@dev", "a/b", "dev", Some("x.Q4_0.gguf")),
        ] {
            let id: Id = text.parse().unwrap();
            assert_eq!(
                (&id.repository[..], &id.revision[..], id.file.as_deref()),
                (repository, revision, file)
            );
            let again: Id = id.to_string().parse().unwrap();
            assert_eq!(again, id);
        }
    }

    #[test]
    fn what_could_leave_the_cache_is_no_id() {
        for text in [
            "",
            "a",
            "a/",
            "/b",
            "./b",
            "../b",
            "a/..",
            "a/.b",
            "a/b/c",
            "a/b/c/d.gguf",
            "a/b--c",
            "a/b/../c.gguf",
            "a b/c",
            "a\\b/c",
            "a/b@",
            "a/b@../x",
            "a/b@x//y",
            "a/b@/x",
            "a/b@x/.lock",
            "C:/b",
            "a/b\n",
            "a/b/.gguf",
            "a/b/x:y.gguf",
        ] {
            assert!(!Id::is_like(text), "{text:?}");
        }
    }
}
