//! Telling what lies at a path.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod seeds;

use kiln_formats::{Error, Result, Source, Unusable, sniff};

fn sniffed(name: &str, bytes: &[u8]) -> Result<Source> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    sniff(&path)
}

fn reason(result: Result<Source>) -> Unusable {
    match result {
        Err(Error::Unusable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn contents_decide_and_names_do_not() {
    assert_eq!(
        sniffed("model.gguf", &seeds::safetensors(0)).unwrap(),
        Source::Safetensors
    );
    assert_eq!(
        sniffed("model.safetensors", &seeds::gguf(3)).unwrap(),
        Source::Gguf
    );
}

#[test]
fn every_unusable_file_has_its_own_message() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    let cut = &seeds::safetensors(0)[..40];
    let tar = [&[b'x'; 257][..], b"ustar\0"].concat();
    let cases: [(&[u8], Unusable, &str); 9] = [
        (lfs, Unusable::LfsPointer, "Git LFS pointer"),
        (b"\n <!DOCTYPE html><p>404", Unusable::Html, "web page"),
        (b"<html><body>", Unusable::Html, "web page"),
        (b"", Unusable::EmptyFile, "empty"),
        (cut, Unusable::Truncated, "cut short"),
        (b"GGUF\x03\0\0\0", Unusable::Truncated, "cut short"),
        (&tar, Unusable::Tar, "tar files"),
        (b"\x80\x02}q\x00(X\x05\x00\x00", Unusable::Pickle, "PyTorch"),
        (b"something else entirely", Unusable::Unknown, "neither"),
    ];
    for (bytes, expected, words) in cases {
        let found = reason(sniffed("model.safetensors", bytes));
        assert_eq!(found, expected);
        assert!(found.to_string().contains(words), "{found}");
    }
}

#[test]
fn directories_are_judged_by_their_weights() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str| std::fs::write(directory.path().join(name), b"x").unwrap();
    assert_eq!(reason(sniff(directory.path())), Unusable::EmptyDirectory);
    put("config.json");
    put("consolidated.safetensors");
    put("weights.npz.part");
    let found = reason(sniff(directory.path()));
    assert!(
        found
            .to_string()
            .ends_with("found config.json, consolidated.safetensors, weights.npz.part"),
        "{found}"
    );
    put("model.gguf");
    assert!(
        reason(sniff(directory.path()))
            .to_string()
            .contains("path of the GGUF file itself")
    );
    // Of several kinds, the later ones of these count.
    for (name, kind) in [
        ("weights.npz", Source::NpzDirectory),
        ("consolidated.00.pth", Source::Consolidated),
        ("pytorch_model.bin", Source::TorchDirectory),
        ("model.safetensors", Source::Directory),
    ] {
        put(name);
        assert_eq!(sniff(directory.path()).unwrap(), kind);
    }
    let gone = directory.path().join("gone");
    let error = sniff(&gone).unwrap_err().to_string();
    assert!(
        error.ends_with("gone: no such file or directory"),
        "{error}"
    );
}

#[test]
fn readers_say_the_same_of_a_file_that_is_something_else() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec();
    let error = kiln_formats::safetensors::read(vec![seeds::file(lfs.clone())]).unwrap_err();
    assert!(error.to_string().contains("Git LFS pointer"));
    let error = kiln_formats::gguf::read(seeds::file(lfs)).unwrap_err();
    assert!(error.to_string().contains("Git LFS pointer"));
}
