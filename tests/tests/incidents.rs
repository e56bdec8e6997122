//! What has gone wrong in other programs, and the file that would show it here: each is refused, for
//! what is wrong with it. What needs more than one parser is in the tests of the crates that have it:
//! `incidents.rs` of `kiln-convert`, `a_template_reaches_nothing` of `kiln-tokenizer`,
//! `an_index_never_leads_out` of `kiln-hub`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use kiln_formats::shards::{Index, PYTORCH, SAFETENSORS};
use kiln_formats::{File, gguf, npz, safetensors, torch};
use std::path::Path;
use std::sync::Arc;

/// What happened, the file in `fuzz/seeds`, and what the message says of it.
const INCIDENTS: [(&str, &str, &str); 68] = [
    // Pickles are programs.
    (
        "torch.load runs what a pickle calls",
        "torch/bad-call",
        "os.system",
    ),
    (
        "torch.load runs what a pickle calls",
        "torch/bad-calls.pth",
        "is read as data",
    ),
    (
        "torch.load runs what a pickle calls",
        "torch/bad-instance",
        "INST",
    ),
    (
        "torch.load runs what a pickle calls",
        "torch/bad-object",
        "os.system",
    ),
    (
        "torch.load runs what a pickle calls",
        "torch/bad-new-object",
        "builtins.bytearray",
    ),
    (
        "a checkpoint of a training run",
        "torch/bad-training.pth",
        "expected a tensor",
    ),
    (
        "nullifAI: a container that scanners do not open",
        "torch/bad-seven-zip",
        "neither safetensors",
    ),
    (
        "CVE-2025-32434: weights_only and the tar format",
        "torch/bad-tar",
        "tar files",
    ),
    (
        "CVE-2025-32434: weights_only and TorchScript",
        "torch/bad-script",
        "__torch__",
    ),
    (
        "CVE-2026-24747: SETITEM on what is no dictionary",
        "torch/bad-item-of-a-number",
        "SETITEM",
    ),
    (
        "CVE-2026-24747: BUILD on what has no state",
        "torch/bad-state-of-a-number",
        "BUILD",
    ),
    (
        "CVE-2026-24747: a storage that is no storage",
        "torch/bad-rebuild",
        "the arguments that PyTorch writes",
    ),
    (
        "CVE-2025-1716: pip.main as the function",
        "torch/bad-installs",
        "pip.main",
    ),
    (
        "CVE-2025-1889: another pickle by any name",
        "torch/bad-loads-another",
        "torch.load",
    ),
    (
        "CVE-2025-1944: two headers, two names",
        "torch/bad-two-names",
        "the name of an entry",
    ),
    (
        "CVE-2025-1945: flags that readers differ on",
        "torch/bad-encrypted",
        "the header of an entry",
    ),
    (
        "CVE-2025-10155: a pickle by another name",
        "torch/bad-plain.pkl",
        "Python pickle",
    ),
    (
        "CVE-2025-10155: a pickle by another name",
        "torch/bad-bare.pth",
        "expected a dictionary of tensors",
    ),
    (
        "CVE-2025-10156: a wrong checksum hides an entry",
        "torch/bad-checksum",
        "checksum",
    ),
    (
        "CVE-2025-10157: a module within a known one",
        "torch/bad-module-in-module",
        "asyncio.unix_events",
    ),
    (
        "a name with dots reaches further",
        "torch/bad-name-with-dots",
        "_rebuild_tensor_v2.x",
    ),
    ("the extension registry", "torch/bad-extension", "EXT1"),
    (
        "two readers, two pickles",
        "torch/bad-two-pickles",
        "one data.pkl",
    ),
    (
        "two readers, two sizes",
        "torch/bad-two-sizes",
        "the header of an entry",
    ),
    (
        "candle: BinUnicode is allocated before it is read",
        "torch/bad-long",
        "found its end",
    ),
    (
        "a pickle of marks alone",
        "torch/bad-deep",
        "expected a dictionary of tensors",
    ),
    (
        "a dictionary that holds itself",
        "torch/bad-memo",
        "expected names of tensors",
    ),
    (
        "safetensors' torch_dos: a packed entry",
        "torch/bad-packed",
        "a packed entry",
    ),
    ("a file that is cut", "torch/bad-cut", "found its end"),
    // GGUF.
    (
        "CVE-2025-53630: the sum of sizes wraps",
        "gguf/bad-sum-wraps",
        "bytes 9223372036854775968 to 13835058055282163872",
    ),
    (
        "CVE-2026-27940: padding wraps",
        "gguf/bad-padding-wraps",
        "an offset within the file",
    ),
    (
        "CVE-2026-33298: exabytes in 4 MB",
        "gguf/bad-sizes-wrap",
        "shape [4, 4294967296, 4294967296]",
    ),
    (
        "llama.cpp#27200: the bytes of blocks wrap",
        "gguf/bad-blocks-wrap",
        "bytes 64 to 2882303761517117506",
    ),
    (
        "llama.cpp#27203: a negative product",
        "gguf/bad-sizes-negative",
        "an offset within the file",
    ),
    (
        "llama.cpp#15711: a number of tensors that wraps",
        "gguf/bad-tensors",
        "number of tensors",
    ),
    (
        "llama.cpp#18674: bytes of a tensor wrap",
        "gguf/bad-counts",
        "number of metadata entries",
    ),
    (
        "llama.cpp#19003: a text without a bound",
        "gguf/bad-long-text",
        "bytes at",
    ),
    (
        "llama.cpp#19856: an array without a bound",
        "gguf/bad-array",
        "as many as the rest of the file can hold",
    ),
    (
        "llama.cpp#26318: an alignment of 0",
        "gguf/bad-alignment",
        "general.alignment",
    ),
    (
        "llama.cpp#26318: an alignment of another type",
        "gguf/bad-alignment-type",
        "general.alignment",
    ),
    (
        "gguf-py#27188: 43 bytes read without end",
        "gguf/bad-loop",
        "found 2; the file is cut short",
    ),
    (
        "gguf-py: arrays in arrays",
        "gguf/bad-nested",
        "nested deeper than 4",
    ),
    (
        "an array of arrays of everything",
        "gguf/bad-element-type",
        "as many as the rest of the file can hold",
    ),
    (
        "an array of no type",
        "gguf/bad-array-of-what",
        "a value type from 0 to 12",
    ),
    (
        "CVE-2026-7482, mlx#4136: tensors beyond the file",
        "gguf/bad-beyond",
        "bytes 96 to 2097248",
    ),
    (
        "CVE-2026-7482, mlx#4136: tensors beyond the file",
        "gguf/bad-far",
        "an offset within the file",
    ),
    (
        "lmstudio#2289: tensors over each other",
        "gguf/bad-overlap",
        "overlaps",
    ),
    (
        "mlx#3358: more dimensions than there is room for",
        "gguf/bad-rank",
        "at most 4 dimensions",
    ),
    (
        "mlx#4213: 50 bytes, 4 MB read",
        "gguf/bad-long-text",
        "bytes at",
    ),
    (
        "mlx#4244: elements modulo 2^32",
        "gguf/bad-int-wraps",
        "bytes 96 to 2417098848",
    ),
    (
        "a file of another byte order",
        "gguf/bad-big-endian",
        "big-endian",
    ),
    // npz.
    (
        "mlx#3365: 12 bytes, 4 GiB allocated",
        "npz/bad-long-header",
        "a header of text",
    ),
    (
        "mlx#3359: more dimensions than there is room for",
        "npz/bad-dimensions",
        "a dictionary of descr",
    ),
    (
        "libnpy#44: a product of sizes wraps",
        "npz/bad-wraps",
        "as many bytes as type and shape ask for",
    ),
    ("numpy: objects are pickles", "npz/bad-objects", "\"|O \""),
    (
        "safetensors' numpy_dos: a small file, a large array",
        "npz/bad-bomb",
        "a NumPy array",
    ),
    (
        "sizes below zero",
        "npz/bad-negative",
        "a dictionary of descr",
    ),
    (
        "a header without an end",
        "npz/bad-header",
        "a dictionary of descr",
    ),
    // safetensors.
    (
        "mlx#3363: offsets that are not those of the shape",
        "safetensors/bad-shape",
        "expected 4000000 bytes",
    ),
    (
        "mlx#3409: offsets beyond the file",
        "safetensors/bad-beyond",
        "at least 4000000 bytes",
    ),
    (
        "fastllm#712: a header's length wraps",
        "safetensors/bad-long-header",
        "neither safetensors",
    ),
    (
        "the audit of safetensors: a product wraps",
        "safetensors/bad-overflow",
        "a size that fits memory",
    ),
    (
        "the audit of safetensors: bytes of two tensors",
        "safetensors/bad-overlap",
        "found an overlap",
    ),
    (
        "the audit of safetensors: bytes of none",
        "safetensors/bad-hole",
        "found a hole",
    ),
    (
        "an end before the beginning",
        "safetensors/bad-backwards",
        "data_offsets [8, 0]",
    ),
    // Indices.
    (
        "transformers#47176: a shard of the directory above",
        "safetensors/bad-index-up",
        "in this directory",
    ),
    (
        "transformers#46097: a shard from the root",
        "safetensors/bad-index-root",
        "in this directory",
    ),
    (
        "transformers#46272: a shard on another drive",
        "safetensors/bad-index-drive",
        "in this directory",
    ),
];

/// What the file is refused for.
fn refusal(file: &str) -> String {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let bytes = std::fs::read(seeds.join(file)).unwrap();
    let opened = || File::new(file, Arc::new(bytes.clone()));
    let (parser, name) = file.split_once('/').unwrap();
    let refused = match parser {
        "torch" => torch::read(vec![opened()]).err(),
        "gguf" => gguf::read(opened()).err(),
        "npz" => npz::read(vec![opened()]).err(),
        _ if name.starts_with("bad-index") => {
            let families = [SAFETENSORS, PYTORCH];
            let errors = families.map(|family| Index::parse(&opened(), &family).err());
            errors
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().next())
        }
        _ => safetensors::read(vec![opened()]).err(),
    };
    match refused {
        Some(error) => error.to_string(),
        None => panic!("{file} is read"),
    }
}

#[test]
fn each_is_refused_for_what_is_wrong_with_it() {
    let mut wrong = Vec::new();
    for (what, file, words) in INCIDENTS {
        let message = refusal(file);
        if !message.starts_with(file) || !message.contains(words) {
            wrong.push(format!("{what}: {words:?} is not in: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
