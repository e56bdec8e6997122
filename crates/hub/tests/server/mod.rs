//! A hub on this machine for tests: two servers, the hub and where it redirects large files to.
#![allow(dead_code, reason = "each test program uses a part of it")]

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// The commit that `main` is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The token that private repositories ask for.
pub(crate) const TOKEN: &str = "hf_secret";

/// The repository that there is.
pub(crate) const REPOSITORY: &str = "org/name";

/// What goes wrong with the next requests for a large file's contents, one for each.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// The connection ends after so many bytes.
    Break(usize),
    /// Nothing more comes after so many bytes, though the connection stays.
    Stall(usize),
    /// A status instead of the contents.
    Status(u16),
    /// The whole file, whatever part was asked for.
    Whole,
    /// Other bytes of the same number.
    Wrong,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Whether it came to the second server.
    pub(crate) elsewhere: bool,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The repository's files; those of more than 100 bytes are large.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Whether only the token's account sees it.
    pub(crate) private: bool,
    /// A status for every request of the hub's interface, and its X-Error-Code.
    pub(crate) status: Option<(u16, &'static str)>,
    /// How often the interface answers 503 before it works.
    pub(crate) busy: usize,
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) seen: Vec<Seen>,
    /// Names that the listing has beside those of files.
    pub(crate) listed: Vec<String>,
    /// Where large files are said to be, instead of the second server.
    pub(crate) redirect: Option<String>,
    /// Whether large files are on the first server.
    pub(crate) near: bool,
    /// Large contents that were uploaded, by their sha256.
    pub(crate) stored: BTreeMap<String, Vec<u8>>,
    /// Parts that are not put together yet.
    pub(crate) parts: BTreeMap<String, Vec<u8>>,
    /// Commits, as their lines.
    pub(crate) commits: Vec<Vec<Value>>,
    /// Repositories that were made.
    pub(crate) made: Vec<Value>,
    /// The size from which uploads are in parts.
    pub(crate) part: Option<usize>,
    here: String,
    elsewhere: String,
}

/// The servers; they go away with the program.
#[derive(Clone)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let state = Arc::new(Mutex::new(State::default()));
        for elsewhere in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            match elsewhere {
                false => state.lock().unwrap().here = address,
                true => state.lock().unwrap().elsewhere = address,
            }
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || serve(&stream.unwrap(), elsewhere, &state));
                }
            });
        }
        Server { state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn endpoint(&self) -> String {
        self.state().here.clone()
    }

    pub(crate) fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.state().files.insert(name.to_owned(), bytes.into());
    }

    /// The requests of this method whose path ends with `path`.
    pub(crate) fn seen(&self, method: &str, path: &str) -> Vec<Seen> {
        let state = self.state();
        let seen = state.seen.iter();
        seen.filter(|seen| seen.method == method && seen.path.ends_with(path))
            .cloned()
            .collect()
    }
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of small contents; any will do.
fn blob(bytes: &[u8]) -> String {
    hash(bytes)[..40].to_owned()
}

fn serve(stream: &TcpStream, elsewhere: bool, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(seen) = request(&mut reader, elsewhere) {
        state.lock().unwrap().seen.push(seen.clone());
        let keep = if elsewhere {
            contents(stream, &seen, state)
        } else {
            hub(stream, &seen, state)
        };
        if !keep {
            return;
        }
    }
}

fn request(reader: &mut BufReader<&TcpStream>, elsewhere: bool) -> Option<Seen> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|&count| count > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        elsewhere,
        method,
        path,
        headers,
        body,
    })
}

/// Writes an answer; `length` can be another than that of `body`. Whether that worked.
fn answer(
    mut stream: &TcpStream,
    status: u16,
    headers: &[(&str, String)],
    length: usize,
    body: &[u8],
) -> bool {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream
        .write_all(text.as_bytes())
        .and_then(|()| stream.write_all(body))
        .is_ok()
}

fn plain(stream: &TcpStream, status: u16, headers: &[(&str, String)], body: &[u8]) -> bool {
    answer(stream, status, headers, body.len(), body)
}

/// The hub's interface.
fn hub(stream: &TcpStream, seen: &Seen, state: &Mutex<State>) -> bool {
    if seen.path.starts_with("/contents/") {
        return contents(stream, seen, state);
    }
    let mut state = state.lock().unwrap();
    if state.busy > 0 {
        state.busy -= 1;
        return plain(stream, 503, &[("retry-after", "0".into())], b"busy");
    }
    let known = seen.headers.get("authorization") == Some(&format!("Bearer {TOKEN}"));
    if let Some((status, code)) = state.status {
        return plain(
            stream,
            status,
            &[("x-error-code", code.into())],
            b"{\"error\":\"so it is\"}",
        );
    }
    if (state.private || seen.method == "POST") && !known {
        return plain(stream, 401, &[], b"{\"error\":\"who are you?\"}");
    }
    if seen.method == "POST" {
        let answer = post(&mut state, seen);
        return plain(stream, 200, &[], answer.to_string().as_bytes());
    }
    let revision = format!("/api/models/{REPOSITORY}/revision/");
    if let Some(revision) = seen.path.strip_prefix(&revision) {
        if !["main", "v1", COMMIT].contains(&revision) {
            let code = ("x-error-code", "RevisionNotFound".to_owned());
            return plain(stream, 404, &[code], b"");
        }
        let names = state.files.keys().chain(&state.listed);
        let siblings: Vec<Value> = names.map(|name| json!({"rfilename": name})).collect();
        let listing = json!({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings});
        return plain(stream, 200, &[], listing.to_string().as_bytes());
    }
    let resolve = format!("/{REPOSITORY}/resolve/{COMMIT}/");
    let name = seen.path.strip_prefix(&resolve);
    let Some((_, bytes)) = name.and_then(|name| state.files.get_key_value(name)) else {
        return plain(stream, 404, &[("x-error-code", "RepoNotFound".into())], b"");
    };
    let commit = ("x-repo-commit", COMMIT.to_owned());
    if bytes.len() > 100 {
        let target = state.redirect.clone();
        let place = if state.near {
            &state.here
        } else {
            &state.elsewhere
        };
        let target = target.unwrap_or(format!("{place}/contents/{}", hash(bytes)));
        let headers = [
            commit,
            ("x-linked-etag", format!("\"{}\"", hash(bytes))),
            ("x-linked-size", bytes.len().to_string()),
            ("etag", "\"of the redirect\"".into()),
            ("location", format!("{target}?Signature=secret")),
        ];
        return plain(stream, 302, &headers, b"Found");
    }
    let headers = [commit, ("etag", format!("W/\"{}\"", blob(bytes)))];
    let body = if seen.method == "HEAD" {
        &[]
    } else {
        &bytes[..]
    };
    answer(stream, 200, &headers, bytes.len(), body)
}

/// What the interface for uploads answers.
fn post(state: &mut State, seen: &Seen) -> Value {
    let text = String::from_utf8(seen.body.clone()).unwrap();
    if seen.path.ends_with("/commit/main") {
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        state.commits.push(lines);
        let url = format!("{}/{REPOSITORY}/commit/{COMMIT}", state.here);
        return json!({"success": true, "commitOid": COMMIT, "commitUrl": url});
    }
    let body: Value = serde_json::from_str(&text).unwrap();
    if seen.path == "/api/repos/create" {
        state.made.push(body);
        return json!({"url": format!("{}/{REPOSITORY}", state.here)});
    }
    if seen.path.ends_with("/preupload/main") {
        let mode = |file: &Value| {
            let large = file["size"].as_u64().unwrap() > 100;
            let mode = if large { "lfs" } else { "regular" };
            json!({"path": file["path"], "uploadMode": mode, "shouldIgnore": false})
        };
        let files: Vec<Value> = body["files"].as_array().unwrap().iter().map(mode).collect();
        return json!({"files": files});
    }
    if seen.path.ends_with("/verify") {
        assert!(state.stored.contains_key(body["oid"].as_str().unwrap()));
        return json!({});
    }
    if seen.path.ends_with("/complete") {
        let oid = body["oid"].as_str().unwrap();
        let mut whole = Vec::new();
        for part in body["parts"].as_array().unwrap() {
            let key = format!("{oid}-{}", part["partNumber"]);
            let bytes = state.parts.remove(&key).unwrap();
            assert_eq!(part["etag"], format!("\"{}\"", hash(&bytes)));
            whole.extend(bytes);
        }
        assert_eq!(hash(&whole), oid);
        state.stored.insert(oid.to_owned(), whole);
        return json!({});
    }
    assert!(
        seen.path.ends_with(".git/info/lfs/objects/batch"),
        "{}",
        seen.path
    );
    let object = &body["objects"][0];
    let (oid, size) = (
        object["oid"].as_str().unwrap(),
        object["size"].as_u64().unwrap(),
    );
    if state.stored.contains_key(oid) {
        return json!({"objects": [{"oid": oid, "size": size}]});
    }
    let verify = json!({"href": format!("{}/{REPOSITORY}/verify", state.here)});
    let upload = match state.part {
        None => json!({"href": format!("{}/upload/{oid}", state.elsewhere)}),
        Some(part) => {
            let mut header = json!({"chunk_size": part.to_string()});
            for number in 1..=size.div_ceil(part as u64) {
                let url = format!("{}/part/{oid}-{number}", state.elsewhere);
                header[number.to_string()] = url.into();
            }
            json!({"href": format!("{}/{REPOSITORY}/complete", state.here), "header": header})
        }
    };
    json!({"objects": [{"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}]})
}

/// The second server.
fn contents(stream: &TcpStream, seen: &Seen, state: &Mutex<State>) -> bool {
    let mut locked = state.lock().unwrap();
    if seen.method == "PUT" {
        let etag = ("etag", format!("\"{}\"", hash(&seen.body)));
        if let Some(oid) = seen.path.strip_prefix("/upload/") {
            assert_eq!(hash(&seen.body), oid);
            locked.stored.insert(oid.to_owned(), seen.body.clone());
        } else if let Some(key) = seen.path.strip_prefix("/part/") {
            locked.parts.insert(key.to_owned(), seen.body.clone());
        }
        return plain(stream, 200, &[etag], b"");
    }
    let path = seen.path.split('?').next().unwrap();
    let wanted = path.strip_prefix("/contents/").unwrap_or("");
    let Some(mut bytes) = locked.files.values().find(|b| hash(b) == wanted).cloned() else {
        return plain(stream, 404, &[], b"");
    };
    let trouble = match locked.troubles.is_empty() {
        true => None,
        false => Some(locked.troubles.remove(0)),
    };
    drop(locked);
    let range = seen.headers.get("range");
    let start = range.map(|range| {
        range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap()
    });
    let mut start: usize = start.map_or(0, |start| start.parse().unwrap());
    match trouble {
        Some(Trouble::Status(status)) => return plain(stream, status, &[], b"no"),
        Some(Trouble::Whole) => start = 0,
        Some(Trouble::Wrong) => bytes.iter_mut().for_each(|byte| *byte ^= 1),
        _ => {}
    }
    let whole = bytes.len();
    let rest = &bytes[start..];
    let range = (
        "content-range",
        format!("bytes {start}-{}/{whole}", whole - 1),
    );
    let (status, headers) = if start > 0 {
        (206, vec![range])
    } else {
        (200, vec![])
    };
    match trouble {
        Some(Trouble::Break(count)) => {
            answer(
                stream,
                status,
                &headers,
                rest.len(),
                &rest[..count.min(rest.len())],
            );
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
        }
        Some(Trouble::Stall(count)) => {
            answer(
                stream,
                status,
                &headers,
                rest.len(),
                &rest[..count.min(rest.len())],
            );
            // Until the other side has had enough.
            let _ = (&mut &*stream).read(&mut [0]);
            false
        }
        _ => answer(stream, status, &headers, rest.len(), rest),
    }
}
