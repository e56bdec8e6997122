//! A directory's files go into a repository.

use crate::client::{Ask, Content, answer, escaped};
use crate::download::hex;
use crate::{Error, Hub, Id, Progress, Result, Tell};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use ureq::http::Method;

const JSON: &str = "application/json";
const LFS: &str = "application/vnd.git-lfs+json";

/// Bytes from a file's beginning by which the hub decides how it is stored.
const SAMPLE: u64 = 512;

/// A file to upload.
struct Local {
    name: String,
    path: PathBuf,
    size: u64,
}

/// How the hub wants a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

/// What is to be done with one large file.
#[derive(Deserialize)]
struct Object {
    oid: String,
    error: Option<Value>,
    actions: Option<BTreeMap<String, Action>>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Map<String, Value>,
}

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_url: String,
}

impl Hub {
    /// Puts the files of a directory into a repository, which is made if there is none; they are one
    /// commit with this `summary`, whose address is returned. Large files that the hub already has
    /// are not sent again. Files of the repository that the directory has not stay.
    ///
    /// # Errors
    /// No token, an account that may not write there, a network that breaks again and again, files
    /// that cannot be read.
    pub fn upload(
        &self,
        directory: &Path,
        id: &Id,
        summary: &str,
        tell: &mut Tell<'_>,
    ) -> Result<String> {
        self.require_token(id)?;
        let files = files(directory)?;
        self.create(id, tell)?;
        let modes = self.modes(id, &files, tell)?;
        let total = files.iter().map(|file| file.size).sum();
        let mut lines = vec![json!({
            "key": "header",
            "value": {"summary": summary, "description": ""},
        })];
        let mut done = 0;
        for file in &files {
            let mode = modes.iter().find(|mode| mode.path == file.name);
            let Some(mode) = mode else {
                return Err(answer(&self.preupload(id), "a mode for every file", "none"));
            };
            if !mode.should_ignore {
                // What has no bytes cannot be stored apart.
                let lfs = mode.upload_mode == "lfs" && file.size > 0;
                lines.push(match lfs {
                    true => self.send_large(id, file, done, total, tell)?,
                    false => small(file)?,
                });
            }
            done += file.size;
            let file = &file.name[..];
            if tell(&Progress { done, total, file }).is_break() {
                return Err(Error::Interrupted);
            }
        }
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        let revision = escaped(&id.revision);
        let path = format!("/api/models/{}/commit/{revision}", id.repository);
        let committed: Committed = self.post(
            &path,
            "application/x-ndjson",
            lines.concat().as_bytes(),
            tell,
        )?;
        Ok(committed.commit_url)
    }

    /// Refuses an upload without a token, before there is anything to upload.
    ///
    /// # Errors
    /// [`Error::NoToken`].
    pub fn require_token(&self, id: &Id) -> Result<()> {
        match self.settings.token {
            Some(_) => Ok(()),
            None => Err(Error::NoToken {
                id: id.to_string(),
                file: self.settings.token_path.clone(),
            }),
        }
    }

    fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        kind: &'static str,
        bytes: &[u8],
        tell: &mut Tell<'_>,
    ) -> Result<T> {
        let content = Content::Bytes(kind, bytes);
        let mut ask = Ask::new(Method::POST, self.client.url(path), content);
        ask.headers
            .push(("accept", if kind == LFS { LFS } else { JSON }.to_owned()));
        self.client.json(&ask, tell)
    }

    /// Makes the repository, if it is not there.
    fn create(&self, id: &Id, tell: &mut Tell<'_>) -> Result<()> {
        let (organisation, name) = id.repository.split_once('/').unwrap_or_default();
        let body = json!({"type": "model", "organization": organisation, "name": name});
        match self.post::<Value>("/api/repos/create", JSON, body.to_string().as_bytes(), tell) {
            // It exists.
            Ok(_) | Err(Error::Status { status: 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn preupload(&self, id: &Id) -> String {
        let revision = escaped(&id.revision);
        format!("/api/models/{}/preupload/{revision}", id.repository)
    }

    fn modes(&self, id: &Id, files: &[Local], tell: &mut Tell<'_>) -> Result<Vec<Mode>> {
        let mut modes = Vec::new();
        for files in files.chunks(256) {
            let mut described = Vec::new();
            for file in files {
                let mut sample = Vec::new();
                let read = File::open(&file.path)
                    .and_then(|opened| opened.take(SAMPLE).read_to_end(&mut sample));
                read.map_err(|source| Error::read(&file.path, source))?;
                described.push(json!({
                    "path": file.name,
                    "sample": STANDARD.encode(&sample),
                    "size": file.size,
                }));
            }
            let body = json!({"files": described}).to_string();
            let answer: Modes = self.post(&self.preupload(id), JSON, body.as_bytes(), tell)?;
            modes.extend(answer.files);
        }
        Ok(modes)
    }

    /// Sends a file to where large ones are stored, and gives its line in the commit.
    fn send_large(
        &self,
        id: &Id,
        file: &Local,
        done: u64,
        total: u64,
        tell: &mut Tell<'_>,
    ) -> Result<Value> {
        let oid = sha256(file, done, total, tell)?;
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": [{"oid": oid, "size": file.size}],
            "hash_algo": "sha256",
            "ref": {"name": id.revision},
        });
        let path = format!("/{}.git/info/lfs/objects/batch", id.repository);
        let batch: Batch = self.post(&path, LFS, body.to_string().as_bytes(), tell)?;
        let url = self.client.url(&path);
        let object = batch.objects.into_iter().find(|object| object.oid == oid);
        let object = object.ok_or_else(|| answer(&url, "what to do with a file", "nothing"))?;
        if let Some(error) = object.error {
            let found: String = error.to_string().chars().take(300).collect();
            return Err(answer(&url, "a place for a file", found));
        }
        let mut actions = object.actions.unwrap_or_default();
        if let Some(action) = actions.remove("upload") {
            self.send_contents(file, &oid, &action, tell)?;
        }
        if let Some(action) = actions.remove("verify") {
            let body = json!({"oid": oid, "size": file.size}).to_string();
            let content = Content::Bytes(LFS, body.as_bytes());
            let ask = Ask::new(Method::POST, action.href, content);
            self.client.whole(&ask, tell)?;
        }
        Ok(json!({
            "key": "lfsFile",
            "value": {"path": file.name, "algo": "sha256", "oid": oid, "size": file.size},
        }))
    }

    /// One request, or one for each part where the hub wants parts.
    fn send_contents(
        &self,
        file: &Local,
        oid: &str,
        action: &Action,
        tell: &mut Tell<'_>,
    ) -> Result<()> {
        let put = |url: &str, start: u64, length: u64| {
            let content = Content::Part(&file.path, start, length);
            let mut ask = Ask::new(Method::PUT, url.to_owned(), content);
            // The address itself says who may write there.
            ask.token = false;
            ask
        };
        let Some(size) = action.header.get("chunk_size") else {
            self.client.whole(&put(&action.href, 0, file.size), tell)?;
            return Ok(());
        };
        let number = match size {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        };
        let parts: BTreeMap<u64, &str> = action
            .header
            .iter()
            .filter_map(|(key, url)| Some((key.parse().ok()?, url.as_str()?)))
            .collect();
        let Some(size) =
            number.filter(|&size: &u64| size > 0 && file.size.div_ceil(size) == parts.len() as u64)
        else {
            let found = format!("{} parts of {size}", parts.len());
            return Err(answer(
                &action.href,
                "addresses for all parts of a file",
                found,
            ));
        };
        let mut sent = Vec::new();
        for (index, (number, url)) in parts.into_iter().enumerate() {
            let start = index as u64 * size;
            let part = put(url, start, size.min(file.size - start));
            let (response, _) = self.client.whole(&part, tell)?;
            let etag = response
                .headers()
                .get("etag")
                .and_then(|etag| etag.to_str().ok());
            let etag = etag.ok_or_else(|| answer(url, "the hash of a part (ETag)", "none"))?;
            sent.push(json!({"partNumber": number, "etag": etag}));
        }
        let body = json!({"oid": oid, "parts": sent}).to_string();
        let content = Content::Bytes(LFS, body.as_bytes());
        let mut ask = Ask::new(Method::POST, action.href.clone(), content);
        ask.headers.push(("accept", LFS.to_owned()));
        self.client.whole(&ask, tell)?;
        Ok(())
    }
}

/// The files of a directory in the order of their names.
fn files(directory: &Path) -> Result<Vec<Local>> {
    let read = |source| Error::read(directory, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let metadata = fs::metadata(&path).map_err(|source| Error::read(&path, source))?;
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && metadata.is_file()
        {
            files.push(Local {
                name: name.to_owned(),
                size: metadata.len(),
                path: path.clone(),
            });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// A small file's line in the commit, its contents included.
fn small(file: &Local) -> Result<Value> {
    let bytes = fs::read(&file.path).map_err(|source| Error::read(&file.path, source))?;
    Ok(json!({
        "key": "file",
        "value": {"content": STANDARD.encode(bytes), "path": file.name, "encoding": "base64"},
    }))
}

fn sha256(file: &Local, done: u64, total: u64, tell: &mut Tell<'_>) -> Result<String> {
    let read = |source| Error::read(&file.path, source);
    let mut opened = File::open(&file.path).map_err(read)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = opened.read(&mut buffer).map_err(read)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
        let file = &file.name[..];
        if tell(&Progress { done, total, file }).is_break() {
            return Err(Error::Interrupted);
        }
    }
}
