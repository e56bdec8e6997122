//! A model's files come into the cache.

use crate::cache::{Place, directory_of};
use crate::client::{Ask, Client, Content, Fault, LINKED, answer, escaped};
use crate::id::is_commit;
use crate::select::{self, Weights};
use crate::{Error, Hub, Id, Progress, Result, Tell};
use kiln_formats::File as Source;
use kiln_formats::shards::Index;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use ureq::Body;
use ureq::http::{HeaderMap, Method, Response};

/// A model in the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The directory with its files; for a GGUF file that file.
    pub path: PathBuf,
    /// The commit that it is of.
    pub commit: String,
    /// Bytes that were fetched for it.
    pub fetched: u64,
    /// What should be said about it.
    pub note: Option<String>,
}

/// What the hub says of a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A file on the hub.
#[derive(Clone, Debug)]
struct Remote {
    name: String,
    url: String,
    /// The name of its contents: for large ones their sha256.
    etag: String,
    size: u64,
}

impl Hub {
    /// Brings what a conversion of a model needs into the cache, if it is not there.
    ///
    /// `HF_HUB_OFFLINE` forbids to ask the network, and a network that is down is not needed where
    /// the cache has the revision; then the snapshot is what was fetched last.
    ///
    /// # Errors
    /// An account that may not see the model, names that the hub does not have, a repository with no
    /// weights that can be read, a network that breaks again and again, contents with another hash
    /// than the hub has, a cache that cannot be written.
    pub fn model(&self, id: &Id, tell: &mut Tell<'_>) -> Result<Snapshot> {
        let place = Place::new(&self.settings.cache, id);
        if self.settings.offline {
            let cached = self.cached(id, &place);
            let (id, cache) = (id.to_string(), self.settings.cache.clone());
            return cached.ok_or(Error::Offline { id, cache });
        }
        let listing = match self.listing(id, tell) {
            Err(error @ Error::Network { .. }) => {
                let Some(cached) = self.cached(id, &place) else {
                    return Err(error);
                };
                let note = format!("{error}; {id} is taken as it was last fetched");
                return Ok(Snapshot {
                    note: Some(note),
                    ..cached
                });
            }
            other => other?,
        };
        let names: Vec<String> = listing.siblings.into_iter().map(|s| s.rfilename).collect();
        let names = select::plain(&names);
        let mut visit = Visit {
            client: &self.client,
            place: &place,
            id,
            commit: &listing.sha,
            token: self.settings.token_for_downloads,
            tell,
            fetched: 0,
        };
        let path = visit.bring_all(&names)?;
        let fetched = visit.fetched;
        place.remember(&id.revision, &listing.sha)?;
        Ok(Snapshot {
            path,
            commit: listing.sha,
            fetched,
            note: None,
        })
    }

    fn listing(&self, id: &Id, tell: &mut Tell<'_>) -> Result<Listing> {
        let (repository, revision) = (&id.repository, escaped(&id.revision));
        let path = format!("/api/models/{repository}/revision/{revision}");
        let mut ask = Ask::new(Method::GET, self.client.url(&path), Content::Nothing);
        ask.token = self.settings.token_for_downloads;
        let listing: Listing = self.client.json(&ask, tell)?;
        if !is_commit(&listing.sha) {
            let found: String = listing.sha.chars().take(80).collect();
            return Err(answer(&ask.url, "a commit's name", found));
        }
        Ok(listing)
    }

    /// What the cache has of a revision.
    fn cached(&self, id: &Id, place: &Place) -> Option<Snapshot> {
        let commit = place.commit(&id.revision)?;
        let mut path = place.snapshot(&commit);
        let names = fs::read_dir(&path).ok()?;
        let names: Vec<String> = names
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        if let Ok(Weights::Gguf(file)) = select::weights(id, &select::plain(&names)) {
            path.push(file);
        }
        path.exists().then_some(Snapshot {
            path,
            commit,
            fetched: 0,
            note: None,
        })
    }
}

/// One model's way into the cache.
struct Visit<'a, 'b> {
    client: &'a Client,
    place: &'a Place,
    id: &'a Id,
    commit: &'a str,
    token: bool,
    tell: &'a mut Tell<'b>,
    fetched: u64,
}

impl Visit<'_, '_> {
    /// Brings what is needed of these files; the path of the model.
    fn bring_all(&mut self, names: &[&str]) -> Result<PathBuf> {
        let directory = self.place.snapshot(self.commit);
        let (mut wanted, weights) = match select::weights(self.id, names)? {
            Weights::Gguf(file) => {
                self.bring(&[&file])?;
                return Ok(directory.join(file));
            }
            Weights::Files(files) => (select::others(names), files),
            Weights::Indexed(family) => {
                self.bring(&[family.index])?;
                let path = directory.join(family.index);
                let bytes = fs::read(&path).map_err(|source| Error::read(&path, source))?;
                let file = Source::new(path, std::sync::Arc::new(bytes));
                let index = Index::parse(&file, &family)?;
                (
                    select::others(names),
                    select::shards(self.id, &index, names)?,
                )
            }
        };
        wanted.extend(weights);
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        self.bring(&wanted)?;
        Ok(directory)
    }

    /// Brings these files, small ones first if they are named first.
    fn bring(&mut self, names: &[&str]) -> Result<()> {
        let mut remotes = Vec::new();
        for name in names {
            if !self.place.snapshot(self.commit).join(name).exists() {
                remotes.push(self.remote(name)?);
            }
        }
        let total = remotes.iter().map(|remote| remote.size).sum();
        let mut before = 0;
        for remote in &remotes {
            let _lock = self.place.lock(&remote.etag)?;
            if !self.place.blob(&remote.etag).exists() {
                let arriving = Arriving::new(remote, self.place.incomplete(&remote.etag))?;
                self.fetch(arriving, before, total)?;
            }
            self.place.name(self.commit, &remote.name, &remote.etag)?;
            before += remote.size;
        }
        Ok(())
    }

    /// Asks for a file's hash and size.
    fn remote(&mut self, name: &str) -> Result<Remote> {
        let (repository, commit) = (&self.id.repository, self.commit);
        let path = format!("/{repository}/resolve/{commit}/{}", escaped(name));
        let mut ask = Ask::new(Method::HEAD, self.client.url(&path), Content::Nothing);
        // Another server would have no idea of the hash.
        (ask.anywhere, ask.token) = (false, self.token);
        let (response, _) = self.client.whole(&ask, self.tell)?;
        let header = |names: [&str; 2]| first(response.headers(), names);
        let etag = header([LINKED, "etag"]).map(plain_etag);
        let size = header(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
        let other = header(["x-repo-commit", "x-repo-commit"]).filter(|other| *other != commit);
        match (etag.flatten(), size, other) {
            (Some(etag), Some(size), None) => Ok(Remote {
                name: name.to_owned(),
                url: ask.url,
                etag,
                size,
            }),
            (_, _, Some(other)) => Err(answer(&ask.url, "a file of the commit asked for", other)),
            (None, ..) => Err(answer(&ask.url, "the hash of a file (ETag)", "none")),
            (_, None, _) => Err(answer(&ask.url, "the size of a file", "none")),
        }
    }

    /// Fetches contents to their place in the cache. Contents with a wrong hash are fetched once
    /// more from their beginning if an earlier program can have left a wrong part.
    fn fetch(&mut self, mut arriving: Arriving<'_>, before: u64, total: u64) -> Result<()> {
        let remote = arriving.remote;
        let resumed = arriving.done > 0;
        self.complete(&mut arriving, before, total)?;
        if resumed && arriving.wrong().is_some() {
            arriving.start_over()?;
            self.complete(&mut arriving, before, total)?;
        }
        if let Some((expected, found)) = arriving.wrong() {
            return Err(arriving.discard(expected, found)?);
        }
        let blob = self.place.blob(&remote.etag);
        arriving
            .file
            .sync_all()
            .map_err(|source| Error::write(&blob, source))?;
        fs::rename(&arriving.path, &blob).map_err(|source| Error::write(blob, source))
    }

    /// Asks for contents until all are there.
    fn complete(&mut self, arriving: &mut Arriving<'_>, before: u64, total: u64) -> Result<()> {
        let place = &Cell::new(arriving.done);
        let (client, token, remote) = (self.client, self.token, arriving.remote);
        let fetched = &mut self.fetched;
        client.persist(&remote.name, self.tell, place, |tell| {
            let mut tell = |done: u64, more: u64| {
                *fetched += more;
                place.set(done);
                let file = &remote.name[..];
                let done = before + done;
                tell(&Progress { done, total, file }).is_continue()
            };
            arriving.attempt(client, token, &mut tell)
        })
    }
}

/// Contents on their way.
struct Arriving<'a> {
    remote: &'a Remote,
    path: PathBuf,
    file: File,
    hash: Sha256,
    done: u64,
}

impl<'a> Arriving<'a> {
    /// What an earlier attempt left is taken up.
    fn new(remote: &'a Remote, path: PathBuf) -> Result<Arriving<'a>> {
        directory_of(&path)?;
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| Error::write(&path, source))?;
        let (mut hash, mut done) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    done += count as u64;
                }
                Err(source) => return Err(Error::read(path, source)),
            }
        }
        let mut arriving = Arriving {
            remote,
            path,
            file,
            hash,
            done,
        };
        if done > remote.size {
            arriving.start_over()?;
        }
        Ok(arriving)
    }

    fn start_over(&mut self) -> Result<()> {
        use std::io::Seek;
        let start = self.file.set_len(0).and_then(|()| self.file.rewind());
        start.map_err(|source| Error::write(&self.path, source))?;
        self.hash = Sha256::new();
        self.done = 0;
        Ok(())
    }

    /// Asks for what is missing and takes what comes. `tell` is told how much is there, and how much
    /// of it is new.
    fn attempt(
        &mut self,
        client: &Client,
        token: bool,
        tell: &mut dyn FnMut(u64, u64) -> bool,
    ) -> std::result::Result<(), Fault> {
        let (start, size) = (self.done, self.remote.size);
        if start == size {
            return Ok(());
        }
        let mut ask = Ask::new(Method::GET, self.remote.url.clone(), Content::Nothing);
        ask.token = token;
        if start > 0 {
            ask.headers.push(("range", format!("bytes={start}-")));
        }
        let response = client.send(&ask)?;
        if start > 0 && !continues(&response, start) {
            // The server gives the whole file again.
            self.start_over()?;
        }
        let mut body = response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(client.network(&self.remote.url, error.into())),
            };
            if self.done + count as u64 > size {
                let found = format!("more than {size} bytes");
                return Err(self.discard(format!("{size} bytes"), found)?.into());
            }
            let written = self.file.write_all(&buffer[..count]);
            written.map_err(|source| Error::write(&self.path, source))?;
            self.hash.update(&buffer[..count]);
            self.done += count as u64;
            if !tell(self.done, count as u64) {
                return Err(Error::Interrupted.into());
            }
        }
        if self.done == size {
            return Ok(());
        }
        let (file, done) = (self.remote.name.clone(), self.done);
        Err(Fault::Again(Error::Truncated { file, done, size }, None))
    }

    /// The hash that complete contents must have and the one they have, where these differ.
    fn wrong(&self) -> Option<(String, String)> {
        let expected = &self.remote.etag;
        // Small files are named by a hash of Git's.
        if expected.len() != 64 {
            return None;
        }
        let found = hex(&self.hash.clone().finalize());
        let differs = found != *expected;
        differs.then(|| (format!("sha256 {expected}"), format!("sha256 {found}")))
    }

    /// Throws away what is there, and says why.
    fn discard(&self, expected: String, found: String) -> Result<Error> {
        fs::remove_file(&self.path).map_err(|source| Error::write(&self.path, source))?;
        let file = self.remote.name.clone();
        Ok(Error::Damaged {
            file,
            expected,
            found,
        })
    }
}

/// Whether an answer goes on from byte `start`.
fn continues(response: &Response<Body>, start: u64) -> bool {
    let range = response.headers().get("content-range");
    let range = range.and_then(|range| range.to_str().ok()).unwrap_or("");
    response.status() == 206 && range.starts_with(&format!("bytes {start}-"))
}

fn first<'a>(headers: &'a HeaderMap, names: [&str; 2]) -> Option<&'a str> {
    let mut found = names.iter().filter_map(|name| headers.get(*name));
    found.next()?.to_str().ok()
}

/// The name in an ETag, if it can be one of a file.
fn plain_etag(etag: &str) -> Option<String> {
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fits = (1..=128).contains(&etag.len()) && etag.chars().all(plain);
    fits.then(|| etag.to_owned())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
