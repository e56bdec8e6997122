//! Which hub, which account, which cache: the environment variables of Python's client.

use crate::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where models come from and go to.
#[derive(Clone)]
pub struct Settings {
    /// The server, as `https://huggingface.co`; from `HF_ENDPOINT`.
    pub endpoint: String,
    /// The cache; from `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// The account's token; from `HF_TOKEN`, or the file that `HF_TOKEN_PATH` names, or `token` in
    /// `HF_HOME`.
    pub token: Option<String>,
    /// The file in which a token is looked for.
    pub token_path: PathBuf,
    /// Whether downloads show the token, too (`HF_HUB_DISABLE_IMPLICIT_TOKEN` says no).
    pub token_for_downloads: bool,
    /// Whether nothing may be asked of the network; from `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// How long a server may be silent; from `HF_HUB_DOWNLOAD_TIMEOUT`, in seconds.
    pub silence: Duration,
    /// What is waited for before a second attempt; doubled for each further one.
    pub pause: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &token)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// The settings of this process.
    ///
    /// # Errors
    /// A variable that has no meaning, a token file that cannot be read.
    pub fn from_environment() -> Result<Settings> {
        Settings::from_variables(&|name| std::env::var_os(name))
    }

    /// The settings that these variables make; `variable` gives the value of one.
    ///
    /// # Errors
    /// As [`Settings::from_environment`].
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Settings> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(|value| home(Path::new(&value), &set));
        let home = path("HF_HOME").unwrap_or_else(|| {
            let cache = path("XDG_CACHE_HOME");
            let cache = cache.unwrap_or_else(|| home(Path::new("~/.cache"), &set));
            cache.join("huggingface")
        });
        let token_path = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let silence = text(&set, "HF_HUB_DOWNLOAD_TIMEOUT")?;
        Ok(Settings {
            endpoint: text(&set, "HF_ENDPOINT")?
                .unwrap_or_else(|| "https://huggingface.co".to_owned()),
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            token: match text(&set, "HF_TOKEN")? {
                Some(token) => Some(token),
                None => token_in(&token_path)?,
            },
            token_path,
            token_for_downloads: !is_true(&set, "HF_HUB_DISABLE_IMPLICIT_TOKEN")?,
            offline: is_true(&set, "HF_HUB_OFFLINE")?,
            silence: match silence.map(|text| (text.parse(), text)) {
                None => Duration::from_secs(30),
                Some((Ok(seconds @ 1..=86_400), _)) => Duration::from_secs(seconds),
                Some((_, found)) => {
                    return Err(Error::Setting {
                        name: "HF_HUB_DOWNLOAD_TIMEOUT",
                        expected: "a number of seconds, 1 to 86400",
                        found,
                    });
                }
            },
            pause: Duration::from_secs(1),
        })
    }
}

type Set<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// A path whose first part may be `~`.
fn home(path: &Path, set: &Set<'_>) -> PathBuf {
    let Ok(rest) = path.strip_prefix("~") else {
        return path.to_owned();
    };
    let home = set("HOME").or_else(|| set("USERPROFILE"));
    home.map_or_else(|| path.to_owned(), |home| Path::new(&home).join(rest))
}

/// The trimmed text of a variable.
fn text(set: &Set<'_>, name: &'static str) -> Result<Option<String>> {
    let Some(value) = set(name) else {
        return Ok(None);
    };
    match value.into_string() {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(_) => Err(Error::Setting {
            name,
            expected: "text",
            found: "bytes that are none".into(),
        }),
    }
}

/// What Python's client takes for yes and for no.
fn is_true(set: &Set<'_>, name: &'static str) -> Result<bool> {
    match text(set, name)?.map(|text| text.to_ascii_uppercase()) {
        None => Ok(false),
        Some(text) if ["1", "ON", "YES", "TRUE"].contains(&&text[..]) => Ok(true),
        Some(text) if ["0", "OFF", "NO", "FALSE"].contains(&&text[..]) => Ok(false),
        Some(found) => Err(Error::Setting {
            name,
            expected: "1 or 0",
            found,
        }),
    }
}

fn token_in(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::read(path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_variables(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_pythons_client_has_it() {
        for (variables, cache) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (&[("HOME", "/h"), ("HF_HOME", "~/f")], "/h/f/hub"),
            (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/c"),
        ] {
            assert_eq!(settings(variables).unwrap().cache, Path::new(cache));
        }
    }

    #[test]
    fn a_token_is_in_the_environment_or_in_a_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", path)]).unwrap().token, None);
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let read = settings(&[("HF_HOME", path)]).unwrap();
        assert_eq!(read.token.as_deref(), Some("hf_file"));
        assert!(!format!("{read:?}").contains("hf_file"));
        let both = settings(&[("HF_HOME", path), ("HF_TOKEN", " hf_env ")]).unwrap();
        assert_eq!(both.token.as_deref(), Some("hf_env"));
    }

    #[test]
    fn a_value_without_meaning_is_refused() {
        assert!(settings(&[("HF_HUB_OFFLINE", "yes")]).unwrap().offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        for variable in ["HF_HUB_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"] {
            assert!(settings(&[(variable, "perhaps")]).is_err());
        }
    }
}
