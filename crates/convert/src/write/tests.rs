use super::*;
use crate::blocks::Lanes;
use crate::file::failing;
use crate::layout::Layout;
use crate::plan::Action;
use crate::{Options, convert};
use kiln_formats::safetensors::{Writer, shard_name};
use kiln_formats::{Type, safetensors};
use std::path::PathBuf;
use std::sync::Arc;

fn open(path: &Path) -> std::io::Result<kiln_formats::Bytes> {
    Ok(Arc::new(std::fs::read(path)?) as kiln_formats::Bytes)
}

fn go_on(_: &Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Everything in a directory: names and contents.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = directory.read_dir().unwrap();
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    entries.map(file).collect()
}

/// A plan that copies four tensors, which lie in three shards of at most 100 bytes.
fn copying(directory: &Path) -> Plan {
    let source = directory.join("source.safetensors");
    let declared = |(name, size): (&str, usize)| Declared {
        name: name.to_owned(),
        dtype: Type::U8,
        shape: vec![size],
    };
    let all = [("a", 60), ("b", 40), ("c", 1), ("d", 120)].map(declared);
    let mut writer = Writer::new(File::create(&source).unwrap(), &source, &all).unwrap();
    for tensor in &all {
        let bytes = vec![tensor.name.as_bytes()[0]; tensor.shape[0]];
        writer.write(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
    let file = kiln_formats::File::new(&source, open(&source).unwrap());
    let checkpoint = safetensors::read(vec![file]).unwrap();
    let job = |tensor: &kiln_formats::Tensor| Job {
        source: crate::stored::Stored::one(&checkpoint, tensor),
        packed: None,
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        rows: 1,
        k: tensor.shape[0],
        turn: None,
        action: Action::Copy,
        rule: None,
        measured: None,
    };
    Plan {
        path: source.clone(),
        jobs: checkpoint.iter().map(job).collect(),
        rules: Vec::new(),
        config: serde_json::Map::new(),
        files: Vec::new(),
        notes: Vec::new(),
        sources: [(source, kiln_formats::Sums::default())].into(),
        lanes: Lanes::within(&[], None).unwrap(),
        layout: Layout::Mlx,
    }
}

#[test]
fn tensors_beyond_the_limit_go_to_further_shards() {
    let directory = tempfile::tempdir().unwrap();
    let plan = copying(directory.path());
    let mut staging = Staging::begin(&directory.path().join("into"), true).unwrap();
    let (files, _) = write_tensors(&plan, &mut staging, 100, &mut go_on).unwrap();
    assert_eq!((files.len(), plan.bytes()), (4, 221));
    let into = staging.path().to_owned();
    let written = safetensors::open(&into, &open).unwrap();
    let shards: Vec<PathBuf> = written
        .files()
        .iter()
        .map(|file| file.path().to_owned())
        .collect();
    let expected: Vec<_> = (0..3)
        .map(|index| into.join(shard_name(index, 3)))
        .collect();
    assert_eq!(shards, expected);
    for (tensor, file) in written.iter().zip([0, 0, 1, 2]) {
        assert_eq!(tensor.file, file);
        let value = tensor.name.as_bytes()[0];
        assert!(written.bytes(tensor).iter().all(|&byte| byte == value));
    }
}

/// What lies in the staging directory of a run that stopped after so many steps. The tensors that
/// are written by the next run, and whether the first one stopped.
fn stopped_and_resumed(
    plan: &Plan,
    into: &Path,
    steps: usize,
    damage: &dyn Fn(&Path),
) -> (Vec<String>, bool, BTreeMap<String, Vec<u8>>) {
    let mut left = steps;
    let mut stop = |_: &Progress<'_>| match left {
        0 => ControlFlow::Break(()),
        _ => {
            left -= 1;
            ControlFlow::Continue(())
        }
    };
    let mut staging = Staging::begin(into, true).unwrap();
    let stopped = write_tensors(plan, &mut staging, 100, &mut stop).is_err();
    damage(staging.path());
    drop(staging);
    let mut staging = Staging::begin(into, true).unwrap();
    let mut written = Vec::new();
    let mut tell = |progress: &Progress<'_>| {
        written.push(progress.tensor.to_owned());
        ControlFlow::Continue(())
    };
    write_tensors(plan, &mut staging, 100, &mut tell).unwrap();
    let made = contents(staging.path());
    staging.commit(false).unwrap();
    std::fs::remove_dir_all(into).unwrap();
    (written, stopped, made)
}

#[test]
fn what_is_complete_is_not_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let plan = copying(directory.path());
    let into = directory.path().join("into");
    let (all, _, expected) = stopped_and_resumed(&plan, &into, 0, &|_| {});
    assert_eq!(all, ["a", "b", "c", "d"]);
    for steps in 0..5 {
        let (written, stopped, made) = stopped_and_resumed(&plan, &into, steps, &|_| {});
        assert_eq!(
            (&written[..], stopped),
            (&all[steps..], steps < 4),
            "{steps} steps"
        );
        assert!(made == expected, "{steps} steps");
    }
}

#[test]
fn what_is_damaged_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let plan = copying(directory.path());
    let into = directory.path().join("into");
    let (_, _, expected) = stopped_and_resumed(&plan, &into, 0, &|_| {});
    let flip = |path: PathBuf, at: fn(usize) -> usize| {
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    let beside = |path: &Path| path.with_file_name(".into.journal");
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(Damage<'_>, &[&str]); 7] = [
        (
            &|at| flip(at.join(shard_name(0, 3)), |_| 9),
            &["a", "b", "c", "d"],
        ),
        (
            &|at| flip(at.join(shard_name(0, 3)), |length| length - 1),
            &["b", "c", "d"],
        ),
        (
            &|at| flip(at.join(shard_name(1, 3)), |length| length - 1),
            &["c", "d"],
        ),
        (
            &|at| std::fs::remove_file(at.join(shard_name(1, 3))).unwrap(),
            &["c", "d"],
        ),
        (
            &|at| std::fs::write(at.join(shard_name(1, 3)), "").unwrap(),
            &["c", "d"],
        ),
        // A line that is cut short, and a journal of another plan.
        (
            &|at| {
                let mut text = std::fs::read(beside(at)).unwrap();
                text.truncate(text.len() - 9);
                std::fs::write(beside(at), text).unwrap();
            },
            &["c", "d"],
        ),
        (&|at| flip(beside(at), |_| 7), &["a", "b", "c", "d"]),
    ];
    for (number, (damage, again)) in cases.into_iter().enumerate() {
        let (written, stopped, made) = stopped_and_resumed(&plan, &into, 3, damage);
        assert!(stopped);
        assert_eq!(written, again, "case {number}");
        assert!(made == expected, "case {number}");
    }
}

#[test]
fn a_source_that_changed_is_not_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let plan = copying(directory.path());
    let into = directory.path().join("into");
    let touch = |_: &Path| {
        let file = File::options().write(true).open(&plan.path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
            .unwrap();
    };
    let (written, _, _) = stopped_and_resumed(&plan, &into, 3, &touch);
    assert_eq!(written, ["a", "b", "c", "d"]);
}

/// A checkpoint of this crate's tests, and how it is converted.
fn small() -> (PathBuf, Options) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch/bin_shards");
    let quantise = crate::Quantise {
        mode: kiln_plan::Mode::Affine,
        bits: Some(4),
        group: Some(32),
    };
    let options = Options {
        quantise: Some(quantise),
        ..Options::default()
    };
    (source, options)
}

/// Converts with every step that changes the disk failing in turn. `check` sees what is left.
/// Gives how many steps there are.
fn with_failing_steps(options: &Options, destination: &Path, check: &dyn Fn(usize)) -> usize {
    let (source, _) = small();
    for step in 0.. {
        failing::after(Some(step));
        let result = convert(&source, destination, options, &open, &mut go_on);
        failing::after(None);
        match result {
            Ok(_) => return step,
            Err(Error::File(kiln_formats::Error::Write { source, .. })) => {
                assert_eq!(
                    source.kind(),
                    std::io::ErrorKind::StorageFull,
                    "step {step}"
                );
            }
            Err(other) => panic!("step {step}: {other}"),
        }
        check(step);
    }
    0
}

#[test]
fn a_step_that_fails_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (source, options) = small();
    let destination = place.path().join("out");
    let steps = with_failing_steps(&options, &destination, &|step| {
        assert_eq!(place.path().read_dir().unwrap().count(), 0, "step {step}");
    });
    // Every tensor and every file are a step at least.
    assert!(steps > 40, "{steps}");
    println!("{steps} steps failed, nothing was left each time");
    let expected = contents(&destination);
    // Where a model would be replaced, it is there as it was.
    std::fs::write(destination.join("old"), "").unwrap();
    let old = contents(&destination);
    let force = Options {
        force: true,
        ..options
    };
    let steps = with_failing_steps(&force, &destination, &|step| {
        assert!(contents(&destination) == old, "step {step}");
    });
    assert!(steps > 40, "{steps}");
    println!("{steps} steps failed, the old model was left each time");
    convert(&source, &destination, &force, &open, &mut go_on).unwrap();
    assert_eq!(place.path().read_dir().unwrap().count(), 1);
    assert!(contents(&destination) == expected);
}

#[test]
fn a_step_that_fails_can_be_resumed() {
    let place = tempfile::tempdir().unwrap();
    let (source, options) = small();
    let (destination, whole) = (place.path().join("out"), place.path().join("whole"));
    convert(&source, &whole, &options, &open, &mut go_on).unwrap();
    let expected = contents(&whole);
    let resume = Options {
        resume: true,
        ..options
    };
    let steps = with_failing_steps(&resume, &destination, &|step| {
        assert!(!destination.exists(), "step {step}");
        convert(&source, &destination, &resume, &open, &mut go_on).unwrap();
        assert!(contents(&destination) == expected, "step {step}");
        std::fs::remove_dir_all(&destination).unwrap();
    });
    assert!(steps > 40, "{steps}");
    println!("{steps} steps failed, a second run finished each");
    std::fs::remove_dir_all(&destination).unwrap();
    convert(&source, &destination, &resume, &open, &mut go_on).unwrap();
    let names = place.path().read_dir().unwrap().count();
    assert_eq!(names, 2);
}

#[test]
fn two_conversions_do_not_write_to_one_destination() {
    let place = tempfile::tempdir().unwrap();
    let (source, options) = small();
    let destination = place.path().join("out");
    let first = Staging::begin(&destination, false).unwrap();
    let error = convert(&source, &destination, &options, &open, &mut go_on).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("is being written by another conversion"),
        "{error}"
    );
    assert!(first.path().exists());
    drop(first);
    convert(&source, &destination, &options, &open, &mut go_on).unwrap();
}

#[test]
fn a_model_that_was_moved_aside_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let (source, options) = small();
    let (destination, aside) = (place.path().join("out"), place.path().join(".out.replaced"));
    convert(&source, &destination, &options, &open, &mut go_on).unwrap();
    let expected = contents(&destination);
    // Killed after the first of the two renames.
    std::fs::rename(&destination, &aside).unwrap();
    let error = convert(&source, &destination, &options, &open, &mut go_on).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert!(contents(&destination) == expected && !aside.exists());
    // Killed after the second.
    std::fs::create_dir(&aside).unwrap();
    let force = Options {
        force: true,
        ..options
    };
    convert(&source, &destination, &force, &open, &mut go_on).unwrap();
    assert_eq!(place.path().read_dir().unwrap().count(), 1);
}
