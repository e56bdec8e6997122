//! Requests: whom the token is shown, which failures are tried again, how they are told.

use crate::{Error, Progress, Result, Settings, Tell};
use std::cell::Cell;
use std::io::Read;
use std::time::{Duration, Instant};
use ureq::http::{Method, Request, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

/// How often a request is made that never gets further.
pub(crate) const ATTEMPTS: u32 = 6;

/// The longest wait between two of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The header of a redirect to large contents that says what they are.
pub(crate) const LINKED: &str = "x-linked-etag";

/// Redirects that are followed.
const REDIRECTS: usize = 5;

/// The longest answer that is read as a whole.
const LONGEST_ANSWER: u64 = 64 << 20;

/// A request's contents.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Nothing,
    /// A media type and the bytes.
    Bytes(&'static str, &'a [u8]),
    /// Some bytes of a file: where they begin, and how many they are.
    Part(&'a std::path::Path, u64, u64),
}

/// What is asked of a server.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content: Content<'a>,
    /// Whether the hub itself is shown the token.
    pub(crate) token: bool,
    /// Whether redirects to other servers, and to large contents, are followed; else they are the
    /// answer.
    pub(crate) anywhere: bool,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: Method, url: String, content: Content<'a>) -> Ask<'a> {
        Ask {
            method,
            url,
            headers: Vec::new(),
            content,
            token: true,
            anywhere: true,
        }
    }
}

/// Why an attempt failed.
pub(crate) enum Fault {
    /// Another attempt may succeed, after this time if the server has said so.
    Again(Error, Option<Duration>),
    Final(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Final(error)
    }
}

/// What could be put together of what was given.
type Made<T> = std::result::Result<T, ureq::http::Error>;

/// What sends requests to a hub.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    pause: Duration,
    /// Whether any request has been answered: a network that is down is told at once, one that
    /// breaks is waited for.
    reached: Cell<bool>,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Client> {
        let endpoint = settings.endpoint.trim_end_matches('/').to_owned();
        let Some((scheme, host)) = origin(&endpoint) else {
            return Err(Error::Setting {
                name: "HF_ENDPOINT",
                expected: "an address as https://huggingface.co",
                found: settings.endpoint.clone(),
            });
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(settings.silence))
            .timeout_per_read(Some(settings.silence))
            .timeout_per_write(Some(settings.silence))
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")));
        let config = match scheme {
            "https" => config.tls_config(tls()),
            _ => config,
        };
        // A server on this machine is behind no proxy.
        let config = match host.rsplit_once(':').map_or(host, |(host, _)| host) {
            "localhost" | "127.0.0.1" | "[::1]" => config.proxy(None),
            _ => config,
        };
        Ok(Client {
            agent: Agent::new_with_config(config.build()),
            endpoint,
            token: settings.token.clone(),
            pause: settings.pause,
            reached: Cell::new(false),
        })
    }

    /// An address on the hub; `path` begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint)
    }

    /// Does `attempt` until it succeeds or fails for good. An attempt that got further than those
    /// before it, as `place` tells, counts as the first one.
    pub(crate) fn persist<T>(
        &self,
        what: &str,
        tell: &mut Tell<'_>,
        place: &Cell<u64>,
        mut attempt: impl FnMut(&mut Tell<'_>) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let (mut failures, mut furthest) = (0, place.get());
        loop {
            let (error, wait) = match attempt(tell) {
                Ok(value) => return Ok(value),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Again(error, wait)) => (error, wait),
            };
            if place.get() > furthest {
                (failures, furthest) = (0, place.get());
            }
            failures += 1;
            if failures == ATTEMPTS {
                return Err(error);
            }
            let wait = wait.unwrap_or(self.pause * (1 << (failures - 1)));
            self.sleep(wait.min(LONGEST_PAUSE), what, place.get(), tell)?;
        }
    }

    /// Waits, and lets the callback break it.
    fn sleep(&self, wait: Duration, file: &str, done: u64, tell: &mut Tell<'_>) -> Result<()> {
        let (start, total) = (Instant::now(), 0);
        while start.elapsed() < wait {
            if tell(&Progress { done, total, file }).is_break() {
                return Err(Error::Interrupted);
            }
            let left = wait.saturating_sub(start.elapsed());
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    /// The answer to a request as a whole, after as many attempts as it takes.
    pub(crate) fn whole(
        &self,
        ask: &Ask<'_>,
        tell: &mut Tell<'_>,
    ) -> Result<(Response<()>, Vec<u8>)> {
        self.persist(&bare(&ask.url), tell, &Cell::new(0), |_| {
            let (head, body) = self.send(ask)?.into_parts();
            let mut bytes = Vec::new();
            let mut body = body
                .into_with_config()
                .limit(u64::MAX)
                .reader()
                .take(LONGEST_ANSWER);
            if let Err(error) = body.read_to_end(&mut bytes) {
                return Err(self.network(&ask.url, error.into()));
            }
            Ok((Response::from_parts(head, ()), bytes))
        })
    }

    /// The answer to a request as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        ask: &Ask<'_>,
        tell: &mut Tell<'_>,
    ) -> Result<T> {
        let (_, bytes) = self.whole(ask, tell)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer {
            url: bare(&ask.url),
            expected: "the JSON object that a hub answers with",
            found: error.to_string().chars().take(200).collect(),
        })
    }

    /// Makes a request once, following redirects. The answer is one that means success.
    pub(crate) fn send(&self, ask: &Ask<'_>) -> std::result::Result<Response<Body>, Fault> {
        let mut url = ask.url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.send_here(ask, &url)?;
            if !response.status().is_redirection() {
                return self.judge(&url, ask, response);
            }
            let target = response.headers().get("location");
            let target = target.and_then(|target| redirected(&url, target.to_str().ok()?));
            let Some(target) = target else {
                return Err(answer(&url, "a redirect to an address", "none that is one").into());
            };
            let linked = response.headers().contains_key(LINKED);
            if !ask.anywhere && (linked || origin(&target) != origin(&url)) {
                return Ok(response);
            }
            if url.starts_with("https:") && !target.starts_with("https:") {
                let found = "one to an address without encryption";
                return Err(answer(&url, "a redirect to an https address", found).into());
            }
            url = target;
        }
        Err(answer(&ask.url, "a file", "redirects to redirects").into())
    }

    fn send_here(&self, ask: &Ask<'_>, url: &str) -> std::result::Result<Response<Body>, Fault> {
        let mut request = Request::builder().method(ask.method.clone()).uri(url);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if ask.token
            && let Some(token) = &self.token
            && origin(url) == origin(&self.endpoint)
        {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let unsendable = |found: String| answer(url, "a request that can be sent", found);
        let finish = |request: Made<Request<SendBody<'_>>>| {
            let request = request.map_err(|error| unsendable(error.to_string()))?;
            let sent = self.agent.run(request);
            let response = sent.map_err(|error| self.network(url, error))?;
            self.reached.set(true);
            Ok(response)
        };
        match ask.content {
            Content::Nothing => finish(request.body(SendBody::none())),
            Content::Bytes(kind, mut bytes) => {
                let request = request
                    .header("content-type", kind)
                    .header("content-length", bytes.len().to_string());
                finish(request.body(SendBody::from_reader(&mut bytes)))
            }
            Content::Part(path, start, length) => {
                use std::io::Seek;
                let read = |source| Error::read(path, source);
                let mut file = std::fs::File::open(path).map_err(read)?;
                file.seek(std::io::SeekFrom::Start(start)).map_err(read)?;
                let request = request.header("content-length", length.to_string());
                let mut part = file.take(length);
                finish(request.body(SendBody::from_reader(&mut part)))
            }
        }
    }

    /// What a status means.
    fn judge(
        &self,
        url: &str,
        ask: &Ask<'_>,
        mut response: Response<Body>,
    ) -> std::result::Result<Response<Body>, Fault> {
        let status = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let wait = header("retry-after").and_then(|seconds| seconds.parse().ok());
        let wait = wait.map(Duration::from_secs);
        let body = response.body_mut().with_config().limit(1 << 16);
        let said = said(message, body.read_to_string().unwrap_or_default());
        let url = bare(url);
        let what = match code.as_deref() {
            Some("EntryNotFound") => "file",
            Some("RevisionNotFound") => "revision",
            _ => "repository",
        };
        let token = ask.token && self.token.is_some();
        Err(match status {
            401 => Fault::Final(Error::Unauthorised { url, token }),
            403 => Fault::Final(Error::Forbidden { url, said }),
            404 => Fault::Final(Error::NotFound {
                url,
                what,
                hint: if token || what != "repository" {
                    ""
                } else {
                    "; a private one needs a token in HF_TOKEN"
                },
            }),
            408 | 429 | 500..=599 => Fault::Again(Error::Status { url, status, said }, wait),
            _ => Fault::Final(Error::Status { url, status, said }),
        })
    }

    /// A failure below HTTP.
    pub(crate) fn network(&self, url: &str, error: ureq::Error) -> Fault {
        let hopeless = match &error {
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::BadUri(_) => true,
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => !self.reached.get(),
            ureq::Error::Io(error) => {
                error.kind() == std::io::ErrorKind::ConnectionRefused && !self.reached.get()
            }
            _ => false,
        };
        let (url, source) = (bare(url), Box::new(error));
        let error = Error::Network { url, source };
        if hopeless {
            Fault::Final(error)
        } else {
            Fault::Again(error, None)
        }
    }
}

/// The system's certificates.
fn tls() -> TlsConfig {
    let found = rustls_native_certs::load_native_certs().certs;
    let found = found.iter();
    let certificates: Vec<_> = found
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    TlsConfig::builder()
        .root_certs(RootCerts::Specific(certificates.into()))
        .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
        .build()
}

pub(crate) fn answer(url: &str, expected: &'static str, found: impl Into<String>) -> Error {
    Error::Answer {
        url: bare(url),
        expected,
        found: found.into(),
    }
}

/// An address without its query, in which signatures stand.
pub(crate) fn bare(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    url[..end].chars().take(500).collect()
}

/// Scheme, and host with port, of an http or https address.
fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let uri: Uri = url.parse().ok()?;
    let plain = matches!(scheme, "http" | "https") && uri.host().is_some_and(|h| !h.is_empty());
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // Who writes user names into addresses wants them taken for hosts.
    (plain && !rest[..end].contains('@')).then_some((scheme, &rest[..end]))
}

/// Where a redirect leads to: another server, or another path on the same one.
fn redirected(from: &str, target: &str) -> Option<String> {
    let (scheme, host) = origin(from)?;
    let target = match target.strip_prefix('/') {
        Some(rest) if rest.starts_with('/') => format!("{scheme}:{target}"),
        Some(_) => format!("{scheme}://{host}{target}"),
        None => target.to_owned(),
    };
    origin(&target)?;
    Some(target)
}

/// What a server says about a failure, behind a colon: its header, the `error` of its JSON, nothing
/// if it is something else.
fn said(header: Option<String>, body: String) -> String {
    let error = || {
        let json: serde_json::Value = serde_json::from_str(&body).ok()?;
        Some(json.get("error")?.as_str()?.to_owned())
    };
    let Some(said) = header.or_else(error) else {
        return String::new();
    };
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    format!(
        ": {}",
        said.chars().map(plain).take(300).collect::<String>()
    )
}

/// A part of an address, with what has a meaning there escaped.
pub(crate) fn escaped(part: &str) -> String {
    let mut text = String::new();
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_servers_or_paths() {
        let from = "https://hub.example:8443/a/b?c";
        for (target, expected) in [
            ("/x/y", Some("https://hub.example:8443/x/y")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("http://cdn.example/x?s", Some("http://cdn.example/x?s")),
            ("file:///etc/passwd", None),
            ("https://user@cdn.example/x", None),
            ("x/y", None),
            ("", None),
        ] {
            assert_eq!(redirected(from, target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn origins_differ_in_scheme_host_or_port() {
        let own = origin("http://a.example:80/x");
        for other in [
            "https://a.example:80/x",
            "http://b.example:80/x",
            "http://a.example:81/x",
        ] {
            assert_ne!(origin(other), own);
        }
        assert_eq!(origin("http://a.example:80?y"), own);
    }

    #[test]
    fn messages_have_no_signatures() {
        assert_eq!(bare("https://a/b?X-Signature=1"), "https://a/b");
        assert_eq!(escaped("refs/pr/1 ü"), "refs%2Fpr%2F1%20%C3%BC");
    }
}
