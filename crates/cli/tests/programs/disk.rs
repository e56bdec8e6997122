//! Files and directories without rights, and a disk without room.

use crate::checkpoint::{text, tiny};
use crate::process::{failed, kiln, program, program_at, succeeded};
use std::path::Path;

#[test]
fn an_output_that_cannot_be_written() {
    let model = tiny();
    std::fs::write(model.beside("file"), "in the way").unwrap();
    let out = text(&Path::new(&model.beside("file")).join("out"));
    failed(
        &kiln(&["convert", &model.argument(), "--out", &out]),
        3,
        &["file", "cannot be written"],
    );
}

/// `kiln` with arguments, as a user with no rights of root's.
#[cfg(unix)]
fn without_rights(arguments: &[&str]) -> std::process::Output {
    use std::os::unix::{fs::MetadataExt, fs::PermissionsExt, process::CommandExt};
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("kiln");
    let mut command = program_at(env!("CARGO_BIN_EXE_kiln"), arguments);
    if std::fs::metadata(place.path()).unwrap().uid() == 0 {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.path(), open).unwrap();
        // Where it was built nobody else may be able to look.
        std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
        command = program_at(program.to_str().unwrap(), arguments);
        command.uid(65534).gid(65534);
    }
    command.current_dir("/").output().unwrap()
}

#[test]
#[cfg(unix)]
fn files_and_directories_without_rights() {
    use std::os::unix::fs::PermissionsExt;
    let model = tiny();
    let allow = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (path, out) = (model.argument(), text(&model.beside("out")));
    let convert = ["convert", &path, "--out", &out];
    // The model can be read, and nothing written beside it.
    allow(&model.beside(""), 0o555);
    let output = without_rights(&convert);
    allow(&model.beside(""), 0o755);
    failed(&output, 3, &["cannot be written", "ermission denied"]);
    assert_eq!(model.names(), ["model"]);
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        allow(&model.path().join(name), 0o000);
        allow(&model.beside(""), 0o777);
        let output = without_rights(&convert);
        failed(&output, 3, &[name, "cannot be read", "ermission denied"]);
        allow(&model.path().join(name), 0o644);
        assert_eq!(model.names(), ["model"]);
    }
    succeeded(&without_rights(&convert));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = program("kiln", &["devices"]).stdout(full).output().unwrap();
    failed(&output, 3, &["standard output"]);
}
