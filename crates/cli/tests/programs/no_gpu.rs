//! The programs in a build without GPUs.

use crate::checkpoint::tiny;
use crate::process::{failed, json, kiln, stderr};

#[test]
fn a_build_without_gpus_says_so() {
    let model = tiny();
    let path = model.argument();
    for device in ["gpu", "gpu:0", "gpu:llvmpipe"] {
        let run = ["run", "--model", &path, "-p", "x", "--device", device];
        failed(&kiln(&run), 8, &["no GPU support", "wgpu"]);
        let bench = ["bench", "-m", &path, "--device", device];
        failed(&kiln(&bench), 8, &["no GPU support"]);
    }
    let wrong = ["run", "--model", &path, "-p", "x", "--device", "abacus"];
    failed(&kiln(&wrong), 2, &["gpu:NAME"]);
    let output = kiln(&["devices", "--json", "-v"]);
    assert_eq!(json(&output)["devices"].as_array().unwrap().len(), 1);
    assert!(
        stderr(&output).contains("no GPU support"),
        "{}",
        stderr(&output)
    );
}
