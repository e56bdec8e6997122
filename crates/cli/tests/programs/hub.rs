//! Models on a hub: a server on this machine stands for it.

use crate::checkpoint::{Model, text, tiny};
use crate::process::{failed, json, program, stderr, stdout, succeeded};
use crate::server::{COMMIT, Server, TOKEN, Trouble, hash};
use std::process::{Command, Output};

/// A hub that has the tiny model, and room for a cache.
struct Hub {
    server: Server,
    model: Model,
}

impl Hub {
    fn new() -> Hub {
        let (server, model) = (Server::start(), tiny());
        for entry in std::fs::read_dir(model.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            server.put(&name, std::fs::read(entry.path()).unwrap());
        }
        Hub { server, model }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program("kiln", arguments);
        command
            .env("HF_ENDPOINT", self.server.endpoint())
            .env("HF_HOME", self.model.beside("home"))
            .env_remove("HF_HUB_OFFLINE")
            .current_dir(self.model.beside(""));
        command
    }

    fn kiln(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

#[test]
fn a_name_on_a_hub_is_downloaded_and_converted_as_its_files_are() {
    let hub = Hub::new();
    let output = hub.kiln(&["convert", "org/name", "--out", "from-hub"]);
    succeeded(&output);
    assert_eq!(stdout(&output), "from-hub\n");
    assert!(
        stderr(&output).contains("downloaded org/name"),
        "{}",
        stderr(&output)
    );
    succeeded(&hub.kiln(&["convert", &hub.model.argument(), "--out", "from-files"]));
    let weights = |directory: &str| {
        std::fs::read(hub.model.beside(directory).join("model.safetensors")).unwrap()
    };
    assert_eq!(weights("from-hub"), weights("from-files"));
    let cache = hub
        .model
        .beside("home/hub/models--org--name/snapshots")
        .join(COMMIT);
    assert!(cache.join("config.json").exists());
}

#[test]
fn nothing_is_downloaded_for_a_destination_that_exists() {
    let hub = Hub::new();
    std::fs::create_dir(hub.model.beside("out")).unwrap();
    let output = hub.kiln(&["convert", "org/name", "--out", "out"]);
    failed(&output, 2, &["out", "already exists"]);
    assert!(!hub.model.beside("home").exists());
}

#[test]
fn a_name_on_a_hub_runs() {
    let hub = Hub::new();
    let arguments = [
        "run",
        "--model",
        "org/name@v1",
        "-p",
        "ab",
        "-m",
        "4",
        "--json",
    ];
    let fetched = json(&hub.kiln(&arguments));
    let path = hub.model.argument();
    let local = ["run", "--model", &path, "-p", "ab", "-m", "4", "--json"];
    assert_eq!(fetched["text"], json(&hub.kiln(&local))["text"]);
    let offline = hub
        .command(&arguments)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert_eq!(json(&offline)["text"], fetched["text"]);
}

#[test]
fn what_a_hub_refuses_has_the_code_of_the_network() {
    let hub = Hub::new();
    let refused = |words: &[&str]| {
        let before = hub.model.names();
        failed(
            &hub.kiln(&["convert", "org/name", "--out", "out"]),
            5,
            words,
        );
        failed(
            &hub.kiln(&["run", "--model", "org/name", "-p", "x"]),
            5,
            words,
        );
        assert_eq!(hub.model.names(), before);
    };
    for (status, words) in [
        (401, "HF_TOKEN"),
        (403, "so it is"),
        (404, "no such"),
        (418, "418"),
    ] {
        hub.server.state().status = Some((status, "RepoNotFound"));
        refused(&[
            words,
            "org/name is not on this machine",
            &status.to_string(),
        ]);
    }
    let down = ["convert", "org/name", "--out", "out"];
    let before = hub.model.names();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = hub
        .command(&down)
        .env("HF_ENDPOINT", endpoint)
        .output()
        .unwrap();
    failed(&output, 5, &["cannot be reached", "refused"]);
    let output = hub
        .command(&down)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    failed(&output, 5, &["not in the cache", "HF_HUB_OFFLINE"]);
    assert_eq!(hub.model.names(), before);
}

#[test]
fn contents_with_another_hash_are_refused() {
    let hub = Hub::new();
    hub.server.state().troubles = vec![Trouble::Wrong];
    let output = hub.kiln(&["convert", "org/name", "--out", "out"]);
    failed(&output, 5, &["expected sha256", "nothing of it is kept"]);
    assert!(!hub.model.beside("out").exists());
}

#[test]
fn what_is_no_model_on_a_hub_has_the_code_of_input() {
    let hub = Hub::new();
    hub.server.state().files.remove("model.safetensors");
    let output = hub.kiln(&["convert", "org/name", "--out", "out"]);
    failed(&output, 3, &["org/name", "no weights", "config.json"]);
    let index = r#"{"weight_map":{"a":"../../../evil.safetensors"}}"#;
    hub.server.put("model.safetensors.index.json", index);
    let output = hub.kiln(&["convert", "org/name", "--out", "out"]);
    failed(&output, 3, &["evil.safetensors", "in this directory"]);
    assert!(!hub.model.beside("out").exists());
}

#[test]
fn what_is_written_is_uploaded() {
    let hub = Hub::new();
    let path = hub.model.argument();
    let arguments = [
        "convert",
        &path,
        "--out",
        "out",
        "--upload-repo",
        "org/name",
    ];
    failed(&hub.kiln(&arguments), 5, &["needs a token", "HF_TOKEN"]);
    assert!(
        !hub.model.beside("out").exists(),
        "converted though it cannot be uploaded"
    );
    let output = hub
        .command(&arguments)
        .env("HF_TOKEN", TOKEN)
        .output()
        .unwrap();
    succeeded(&output);
    assert!(
        stderr(&output).contains("/org/name/commit/"),
        "{}",
        stderr(&output)
    );
    let state = hub.server.state();
    let weights = std::fs::read(hub.model.beside("out").join("model.safetensors")).unwrap();
    assert_eq!(state.stored[&hash(&weights)], weights);
    let names: Vec<&str> = state.commits[0]
        .iter()
        .filter_map(|line| line["value"]["path"].as_str())
        .collect();
    for entry in std::fs::read_dir(hub.model.beside("out")).unwrap() {
        let name = text(entry.unwrap().file_name().as_ref());
        assert!(names.contains(&&name[..]), "{name}");
    }
}
