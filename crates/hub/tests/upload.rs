//! Uploads to a hub on this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod server;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_hub::{Error, Hub, Result, Settings};
use serde_json::json;
use server::{COMMIT, Server, TOKEN, hash};
use std::ops::ControlFlow;
use std::time::Duration;
use tempfile::TempDir;

fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("config.json", b"{}".to_vec()),
        ("empty.txt", Vec::new()),
        ("model.safetensors", (0..250u8).collect()),
    ] {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    directory
}

fn upload(server: &Server, token: Option<&str>) -> Result<String> {
    let directory = directory();
    let settings = Settings {
        endpoint: server.endpoint(),
        cache: directory.path().join("cache"),
        token: token.map(str::to_owned),
        token_path: directory.path().join("token"),
        token_for_downloads: true,
        offline: false,
        silence: Duration::from_secs(20),
        pause: Duration::from_millis(1),
    };
    let id = "org/name".parse().unwrap();
    let mut tell = |_: &kiln_hub::Progress<'_>| ControlFlow::Continue(());
    Hub::new(settings)?.upload(directory.path(), &id, "A model", &mut tell)
}

#[test]
fn a_directory_becomes_a_commit() {
    let server = Server::start();
    server.state().busy = 1;
    let url = upload(&server, Some(TOKEN)).unwrap();
    assert_eq!(
        url,
        format!("{}/org/name/commit/{COMMIT}", server.endpoint())
    );
    let weights: Vec<u8> = (0..250).collect();
    let oid = hash(&weights);
    let state = server.state();
    assert_eq!(state.stored[&oid], weights);
    assert_eq!(
        state.made,
        [json!({"type": "model", "organization": "org", "name": "name"})]
    );
    let encoded = STANDARD.encode("{}");
    let lines = vec![
        json!({"key": "header", "value": {"summary": "A model", "description": ""}}),
        json!({"key": "file", "value": {"content": encoded, "path": "config.json", "encoding": "base64"}}),
        json!({"key": "file", "value": {"content": "", "path": "empty.txt", "encoding": "base64"}}),
        json!({"key": "lfsFile", "value": {"path": "model.safetensors", "algo": "sha256", "oid": oid, "size": 250}}),
    ];
    assert_eq!(state.commits, [lines]);
    assert!(state.seen.iter().any(|seen| seen.path.ends_with("/verify")));
}

#[test]
fn large_contents_go_in_parts_where_the_hub_wants_them() {
    let server = Server::start();
    server.state().part = Some(60);
    upload(&server, Some(TOKEN)).unwrap();
    let weights: Vec<u8> = (0..250).collect();
    assert_eq!(server.state().stored[&hash(&weights)], weights);
    let parts = server
        .state()
        .seen
        .iter()
        .filter(|seen| seen.method == "PUT")
        .count();
    assert_eq!(parts, 5);
}

#[test]
fn what_the_hub_has_is_not_sent_again() {
    let server = Server::start();
    upload(&server, Some(TOKEN)).unwrap();
    upload(&server, Some(TOKEN)).unwrap();
    let puts = server
        .state()
        .seen
        .iter()
        .filter(|seen| seen.method == "PUT")
        .count();
    assert_eq!((puts, server.state().commits.len()), (1, 2));
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let server = Server::start();
    upload(&server, Some(TOKEN)).unwrap();
    for seen in &server.state().seen {
        assert_eq!(
            seen.headers.contains_key("authorization"),
            !seen.elsewhere,
            "{}",
            seen.path
        );
    }
}

#[test]
fn without_a_token_nothing_is_asked() {
    let server = Server::start();
    let error = upload(&server, None).unwrap_err();
    assert!(matches!(error, Error::NoToken { .. }), "{error}");
    assert!(server.state().seen.is_empty());
    let error = upload(&server, Some("hf_wrong")).unwrap_err();
    assert!(
        error.to_string().contains("check the name and the token"),
        "{error}"
    );
}
