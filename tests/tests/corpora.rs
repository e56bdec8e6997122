//! The fuzzers' corpora, given to the same functions without a fuzzer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(unreachable_pub, reason = "it is a module of the fuzzers")]
#[path = "../../fuzz/src/parsers.rs"]
mod parsers;

use std::path::Path;

#[test]
fn every_kept_file_is_read_or_refused() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&seeds).unwrap() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    names.sort();
    let mut known = parsers::ALL.map(|(name, _)| name);
    known.sort_unstable();
    assert_eq!(names, known, "one corpus for each parser");
    let mut wrong = Vec::new();
    for (name, parse) in parsers::ALL {
        let files = std::fs::read_dir(seeds.join(name)).unwrap();
        let mut count = 0;
        for entry in files {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let understood = parse(&bytes);
            let file = path.file_name().unwrap().to_str().unwrap();
            if !file.starts_with("found-") && understood != file.starts_with("good-") {
                wrong.push(format!("{name}/{file}"));
            }
            // And what is left of it when it is cut.
            for part in 1..8 {
                parse(&bytes[..bytes.len() * part / 8]);
            }
            count += 1;
        }
        assert!(count >= 3, "{name}: {count} files");
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
