//! Downloads from a hub on this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod server;

use kiln_hub::{Error, Hub, Id, Result, Settings, Snapshot};
use server::{COMMIT, Server, TOKEN, Trouble, hash};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A hub with a model, and a cache.
struct Here {
    server: Server,
    cache: TempDir,
}

fn weights() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

impl Here {
    fn new() -> Here {
        let server = Server::start();
        server.put("config.json", "{}");
        server.put("tokenizer.json", "{\"a\":1}");
        server.put("model.safetensors", weights());
        server.put("README.md", "# not needed");
        server.put("model.onnx", vec![0; 1000]);
        let cache = tempfile::tempdir().unwrap();
        Here { server, cache }
    }

    fn settings(&self) -> Settings {
        Settings {
            endpoint: self.server.endpoint(),
            cache: self.cache.path().join("hub"),
            token: None,
            token_path: PathBuf::from("token"),
            token_for_downloads: true,
            offline: false,
            silence: Duration::from_secs(20),
            pause: Duration::from_millis(1),
        }
    }

    fn model(&self, settings: Settings, id: &str) -> Result<Snapshot> {
        let id: Id = id.parse()?;
        Hub::new(settings)?.model(&id, &mut |_| ControlFlow::Continue(()))
    }

    fn get(&self) -> Result<Snapshot> {
        self.model(self.settings(), "org/name")
    }

    fn place(&self, rest: &str) -> PathBuf {
        self.cache.path().join("hub/models--org--name").join(rest)
    }

    /// How often contents were asked for, and from which byte.
    fn ranges(&self) -> Vec<Option<String>> {
        let state = self.server.state();
        let seen = state.seen.iter().filter(|seen| seen.elsewhere);
        seen.map(|seen| seen.headers.get("range").cloned())
            .collect()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_laid_out_as_pythons_client_does() {
    let here = Here::new();
    let snapshot = here.get().unwrap();
    assert_eq!(snapshot.path, here.place("snapshots").join(COMMIT));
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(
        names(&snapshot.path),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    assert_eq!(
        std::fs::read(snapshot.path.join("model.safetensors")).unwrap(),
        weights()
    );
    let link = std::fs::read_link(snapshot.path.join("model.safetensors")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(hash(&weights())));
    assert_eq!(
        std::fs::read_to_string(here.place("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(names(&here.place("blobs")).len(), 3);
    assert_eq!(snapshot.fetched, weights().len() as u64 + 2 + 7);
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let here = Here::new();
    here.get().unwrap();
    let asked = here.server.state().seen.len();
    assert_eq!(here.get().unwrap().fetched, 0);
    assert_eq!(
        here.server.state().seen.len(),
        asked + 1,
        "the listing alone"
    );
    // A tag at the same commit has the same files.
    assert_eq!(
        here.model(here.settings(), "org/name@v1").unwrap().fetched,
        0
    );
    assert_eq!(
        std::fs::read_to_string(here.place("refs/v1")).unwrap(),
        COMMIT
    );
}

#[test]
fn the_token_is_shown_to_the_hub_alone() {
    let here = Here::new();
    here.server.state().private = true;
    let token = Some(TOKEN.to_owned());
    let settings = Settings {
        token,
        ..here.settings()
    };
    here.model(settings, "org/name").unwrap();
    let state = here.server.state();
    for seen in &state.seen {
        let shown = seen.headers.contains_key("authorization");
        assert_eq!(shown, !seen.elsewhere, "{} {}", seen.method, seen.path);
    }
    assert!(state.seen.iter().any(|seen| seen.elsewhere));
}

#[test]
fn a_transfer_that_breaks_goes_on_where_it_was() {
    let here = Here::new();
    here.server.state().troubles = vec![
        Trouble::Break(100_000),
        Trouble::Status(503),
        Trouble::Break(0),
        Trouble::Break(200_000),
    ];
    let snapshot = here.get().unwrap();
    assert_eq!(
        std::fs::read(snapshot.path.join("model.safetensors")).unwrap(),
        weights()
    );
    let from = |start: &str| Some(format!("bytes={start}-"));
    let places = [
        None,
        from("100000"),
        from("100000"),
        from("100000"),
        from("300000"),
    ];
    assert_eq!(here.ranges(), places);
    assert_eq!(snapshot.fetched, weights().len() as u64 + 9);
}

#[test]
fn a_transfer_that_gets_further_is_never_given_up() {
    let here = Here::new();
    here.server.state().troubles = vec![Trouble::Break(100_000); 11];
    let snapshot = here.get().unwrap();
    assert_eq!(here.ranges().len(), 12);
    assert_eq!(
        std::fs::read(snapshot.path.join("model.safetensors")).unwrap(),
        weights()
    );
}

#[test]
fn large_contents_on_the_hub_itself_are_found_too() {
    let here = Here::new();
    here.server.state().near = true;
    let snapshot = here.get().unwrap();
    assert_eq!(
        std::fs::read(snapshot.path.join("model.safetensors")).unwrap(),
        weights()
    );
}

#[test]
fn a_transfer_that_stalls_goes_on_where_it_was() {
    let here = Here::new();
    here.server.state().troubles = vec![Trouble::Stall(100_000), Trouble::Stall(0)];
    let silence = Duration::from_millis(200);
    let settings = Settings {
        silence,
        ..here.settings()
    };
    let snapshot = here.model(settings, "org/name").unwrap();
    assert_eq!(
        std::fs::read(snapshot.path.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(here.ranges()[1].as_deref(), Some("bytes=100000-"));
}

#[test]
fn a_transfer_that_breaks_for_good_is_taken_up_by_the_next_run() {
    let here = Here::new();
    here.server.state().troubles = vec![Trouble::Break(70_000); 1];
    here.server
        .state()
        .troubles
        .extend(vec![Trouble::Break(0); 6]);
    let error = here.get().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Truncated {
                done: 70_000,
                size: 1_200_000,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        !here
            .place("snapshots")
            .join(COMMIT)
            .join("model.safetensors")
            .exists()
    );
    let before = here.ranges().len();
    let snapshot = here.get().unwrap();
    assert_eq!(here.ranges()[before].as_deref(), Some("bytes=70000-"));
    assert_eq!(
        std::fs::read(snapshot.path.join("model.safetensors")).unwrap(),
        weights()
    );
}

#[test]
fn an_interrupted_transfer_is_taken_up_by_the_next_run() {
    let here = Here::new();
    let hub = Hub::new(here.settings()).unwrap();
    let mut stop = |progress: &kiln_hub::Progress<'_>| match progress.done {
        0..100_000 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    let error = hub
        .model(&"org/name".parse().unwrap(), &mut stop)
        .unwrap_err();
    assert!(matches!(error, Error::Interrupted));
    let fetched = here.get().unwrap().fetched;
    assert!(fetched > 0 && fetched <= 1_100_000, "{fetched}");
    assert!(here.ranges()[1].is_some());
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let here = Here::new();
    here.server.state().troubles = vec![Trouble::Break(100_000), Trouble::Whole];
    let snapshot = here.get().unwrap();
    assert_eq!(
        std::fs::read(snapshot.path.join("model.safetensors")).unwrap(),
        weights()
    );
}

#[test]
fn contents_with_another_hash_are_refused_and_not_kept() {
    let here = Here::new();
    here.server.state().troubles = vec![Trouble::Wrong];
    let error = here.get().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(&hash(&weights())));
    let blob = here.place("blobs").join(hash(&weights()));
    assert!(!blob.exists() && !blob.with_extension("incomplete").exists());
}

#[test]
fn a_wrong_part_of_an_earlier_run_is_fetched_afresh() {
    let here = Here::new();
    let part = here
        .place("blobs")
        .join(format!("{}.incomplete", hash(&weights())));
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, vec![9; 5000]).unwrap();
    let snapshot = here.get().unwrap();
    assert_eq!(
        std::fs::read(snapshot.path.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(here.ranges(), [Some("bytes=5000-".to_owned()), None]);
    assert!(!part.exists());
}

#[test]
fn a_busy_hub_is_asked_again() {
    let here = Here::new();
    here.server.state().busy = 4;
    here.get().unwrap();
    here.server.state().busy = 100;
    let error = here.get().unwrap_err();
    assert!(
        matches!(error, Error::Status { status: 503, .. }),
        "{error}"
    );
    assert_eq!(here.server.state().busy, 94, "six attempts");
}

#[test]
fn each_refusal_says_what_is_wrong() {
    let here = Here::new();
    let refused = |id: &str| here.model(here.settings(), id).unwrap_err().to_string();
    let told = refused("org/name@nothing");
    assert!(told.contains("no such revision (404)"), "{told}");
    let told = refused("org/other");
    assert!(
        told.contains("no such repository (404)") && told.contains("HF_TOKEN"),
        "{told}"
    );
    here.server.state().private = true;
    let told = refused("org/name");
    assert!(
        told.contains("(401)") && told.contains("HF_TOKEN"),
        "{told}"
    );
    here.server.state().status = Some((403, "GatedRepo"));
    let told = refused("org/name");
    assert!(told.contains("(403): so it is"), "{told}");
    assert!(
        !here.cache.path().join("hub").exists(),
        "something was left behind"
    );
}

#[test]
fn a_network_that_is_down_is_told_at_once() {
    let here = Here::new();
    // A port that nobody listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let down = Settings {
        endpoint,
        pause: Duration::from_secs(3600),
        ..here.settings()
    };
    let error = here.model(down.clone(), "org/name").unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    let fetched = here.get().unwrap();
    let cached = here.model(down, "org/name").unwrap();
    assert_eq!(cached.path, fetched.path);
    assert!(cached.note.unwrap().contains("as it was last fetched"));
}

#[test]
fn offline_the_cache_alone_is_asked() {
    let here = Here::new();
    let offline = Settings {
        offline: true,
        ..here.settings()
    };
    let error = here.model(offline.clone(), "org/name").unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    assert_eq!(here.server.state().seen.len(), 0);
    let fetched = here.get().unwrap();
    let asked = here.server.state().seen.len();
    for id in ["org/name", &format!("org/name@{COMMIT}")] {
        assert_eq!(here.model(offline.clone(), id).unwrap().path, fetched.path);
    }
    assert!(
        here.model(offline, "org/name@v1").is_err(),
        "never asked for"
    );
    assert_eq!(here.server.state().seen.len(), asked);
}

#[test]
fn only_the_shards_of_the_index_are_fetched() {
    let here = Here::new();
    let index = |shard: &str| format!(r#"{{"weight_map":{{"a":"{shard}"}}}}"#);
    here.server
        .put("model-00001-of-00001.safetensors", vec![1; 400]);
    here.server.put(
        "model.safetensors.index.json",
        index("model-00001-of-00001.safetensors"),
    );
    let snapshot = here.get().unwrap();
    assert_eq!(
        names(&snapshot.path),
        [
            "config.json",
            "model-00001-of-00001.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json"
        ]
    );
}

#[test]
fn an_index_that_leads_elsewhere_is_refused() {
    for shard in [
        "../../../../x.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
    ] {
        let here = Here::new();
        let index = format!(r#"{{"weight_map":{{"a":"{shard}"}}}}"#);
        here.server.put("model.safetensors.index.json", index);
        here.server.state().listed = vec![shard.to_owned()];
        let error = here.get().unwrap_err();
        assert!(matches!(error, Error::File(_)), "{error}");
        let asked = here.server.seen("HEAD", ".safetensors");
        assert!(asked.is_empty(), "{asked:?}");
    }
}

#[test]
fn a_shard_that_the_repository_lacks_is_named() {
    let here = Here::new();
    let index = r#"{"weight_map":{"a":"model-2.safetensors"}}"#;
    here.server.put("model.safetensors.index.json", index);
    let told = here.get().unwrap_err().to_string();
    assert!(told.contains("model-2.safetensors"), "{told}");
}

#[test]
fn names_that_lead_elsewhere_are_never_asked_for() {
    let here = Here::new();
    let listed = [
        "../../evil.json",
        "/evil.json",
        "sub/evil.json",
        "..\\evil.json",
    ];
    here.server.state().listed = listed.map(str::to_owned).into();
    here.get().unwrap();
    assert!(here.server.seen("HEAD", "evil.json").is_empty());
}

#[test]
fn a_gguf_file_is_a_model_by_itself() {
    let here = Here::new();
    here.server.put("x.Q4_0.gguf", vec![7; 500]);
    here.server.put("x.Q8_0.gguf", vec![8; 500]);
    let snapshot = here.model(here.settings(), "org/name/x.Q8_0.gguf").unwrap();
    assert_eq!(std::fs::read(&snapshot.path).unwrap(), vec![8; 500]);
    assert_eq!(names(snapshot.path.parent().unwrap()), ["x.Q8_0.gguf"]);
    let told = here
        .model(here.settings(), "org/name/y.gguf")
        .unwrap_err()
        .to_string();
    assert!(told.contains("no file y.gguf"), "{told}");
}

#[test]
fn a_redirect_to_what_is_no_server_is_refused() {
    let here = Here::new();
    here.server.state().redirect = Some("file:///etc/passwd".into());
    let error = here.get().unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let here = Here::new();
    std::fs::write(here.cache.path().join("hub"), "a file").unwrap();
    let error = here.get().unwrap_err();
    assert!(
        matches!(error, Error::File(kiln_formats::Error::Write { .. })),
        "{error}"
    );
}
