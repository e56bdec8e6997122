//! `--precision fast`: named wherever it is used, refused where it would mislead.

use crate::checkpoint::tiny;
use crate::process::{failed, json, program, stderr, succeeded};
use std::process::Output;

/// A program's answer on the first of these instruction sets that is asked for.
fn on(isa: &str, arguments: &[&str]) -> Output {
    program("kiln", arguments)
        .env("KILN_ISA", isa)
        .output()
        .unwrap()
}

#[test]
fn fast_is_named_in_every_output_and_refused_where_nothing_has_it() {
    let model = tiny();
    let path = model.argument();
    let run = [
        "run",
        "--model",
        &path,
        "-p",
        "hello",
        "-m",
        "3",
        "--precision",
        "fast",
    ];
    let fast = kiln_cpu::instruction_sets()
        .into_iter()
        .find(|isa| ["amx", "avx512vnni", "avx512bf16"].contains(isa));
    if let Some(isa) = fast {
        let plain = on(isa, &run);
        succeeded(&plain);
        // Weights of this model are not quantised.
        let note = "note: --precision fast rounded nothing";
        assert!(stderr(&plain).contains(note), "{}", stderr(&plain));
        let object = json(&on(isa, &[&run[..], &["--json"]].concat()));
        assert!(
            object["device"]
                .as_str()
                .unwrap()
                .ends_with("precision fast)")
        );
        let bench = "bench --synthetic 135m -p 9 -n 0 -r 1 --precision fast --json";
        let bench = on(isa, &bench.split(' ').collect::<Vec<_>>());
        assert!(!stderr(&bench).contains(note), "{}", stderr(&bench));
        assert_eq!(json(&bench)["backend"], "CPU fast");
    }
    failed(
        &on("scalar", &run),
        2,
        &["precision fast needs products of bytes", "scalar"],
    );
    let gpu = [&run[..], &["--device", "gpu"]].concat();
    failed(&on("scalar", &gpu), 2, &["--precision fast is for the cpu"]);
    failed(
        &on("scalar", &["selftest", "--precision", "fast"]),
        2,
        &["kiln selftest compares exact results"],
    );
}
