//! Damaged files: every bit flipped, bytes replaced, every truncation. Nothing panics, and nothing
//! allocates more than the file's size and a megabyte.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![allow(unsafe_code, reason = "a counting allocator cannot be written without")]

mod seeds;

use kiln_formats::shards::{Index, SAFETENSORS};
use kiln_formats::{Checkpoint, File, Result, gguf, npz, safetensors, sniff_bytes, torch};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread has and its highest mark.
struct Counting;

impl Counting {
    fn add(size: usize) {
        let live = LIVE.get().wrapping_add(size);
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
    }

    fn sub(size: usize) {
        LIVE.set(LIVE.get().saturating_sub(size));
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only thread-local
// cells, which neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's own.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the system's own.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Counting::sub(layout.size());
        // SAFETY: `pointer` came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::add(size);
        Counting::sub(layout.size());
        // SAFETY: `pointer` came from the system's allocator with this layout.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `read` and says by how many bytes its memory grew at most.
fn peak(read: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    read();
    PEAK.get() - before
}

/// Every damaged version of `seed`, one at a time.
fn damaged(seed: &[u8], mut read: impl FnMut(Vec<u8>)) -> usize {
    let mut count = 0;
    let mut check = |bytes: Vec<u8>| {
        let limit = bytes.len() + (1 << 20);
        let used = peak(|| read(bytes));
        assert!(used <= limit, "{used} bytes for a file of {}", seed.len());
        count += 1;
    };
    for at in 0..seed.len() {
        let flips = (0..8).map(|bit| seed[at] ^ 1 << bit);
        for value in flips.chain([0, 0x7f, 0xff, b'0', b'9', b'"', b'}']) {
            let mut bytes = seed.to_vec();
            bytes[at] = value;
            check(bytes);
        }
    }
    for length in 0..seed.len() {
        check(seed[..length].to_vec());
    }
    count
}

/// Looks at every byte of every tensor.
fn look(checkpoint: &Checkpoint) {
    let mut out = [0.0; 256];
    for tensor in checkpoint {
        let bytes = checkpoint.bytes(tensor);
        assert_eq!(bytes.len(), tensor.range.len());
        let chunk = 256 / tensor.dtype.block() * tensor.dtype.block_bytes();
        for bytes in bytes.chunks(chunk) {
            let elements = bytes.len() / tensor.dtype.block_bytes() * tensor.dtype.block();
            let _ = gguf::dequantise(tensor.dtype, bytes, &mut out[..elements]);
        }
    }
}

#[test]
fn no_damaged_safetensors_file_panics_or_allocates_much() {
    let seed = seeds::safetensors(3);
    look(&safetensors::read(vec![seeds::file(seed.clone())]).unwrap());
    let mut read = 0;
    let count = damaged(&seed, |bytes| {
        let _ = sniff_bytes(&bytes, bytes.len() as u64);
        if let Ok(checkpoint) = safetensors::read(vec![seeds::file(bytes)]) {
            look(&checkpoint);
            read += 1;
        }
    });
    assert!(
        count > 15 * seed.len() && read > 0 && read < count,
        "{read} of {count}"
    );
}

#[test]
fn no_damaged_shard_or_index_panics_or_allocates_much() {
    let files = seeds::sharded();
    for changed in 0..files.len() {
        damaged(&files[changed].1, |bytes| {
            let file = |index: usize| {
                let bytes = if index == changed {
                    bytes.clone()
                } else {
                    files[index].1.clone()
                };
                File::new(files[index].0.clone(), std::sync::Arc::new(bytes))
            };
            let Ok(index) = Index::parse(&file(2), &SAFETENSORS) else {
                return;
            };
            let Ok(checkpoint) = safetensors::read(vec![file(0), file(1)]) else {
                return;
            };
            if index.check(&checkpoint).is_ok() {
                look(&checkpoint);
            }
        });
    }
}

#[test]
fn no_damaged_gguf_file_panics_or_allocates_much() {
    for version in [2, 3] {
        let seed = seeds::gguf(version);
        look(gguf::read(seeds::file(seed.clone())).unwrap().checkpoint());
        let mut read = 0;
        let count = damaged(&seed, |bytes| {
            let _ = sniff_bytes(&bytes, bytes.len() as u64);
            if let Ok(gguf) = gguf::read(seeds::file(bytes)) {
                look(gguf.checkpoint());
                read += 1;
            }
        });
        assert!(
            count > 15 * seed.len() && read > 0 && read < count,
            "{read} of {count}"
        );
    }
}

/// Files that PyTorch, NumPy and MLX wrote.
#[test]
fn no_damaged_torch_or_npz_file_panics_or_allocates_much() {
    type Read = fn(Vec<File>) -> Result<Checkpoint>;
    let cases: [(&str, Read); 6] = [
        ("views.pth", torch::read),
        ("views_legacy.pth", torch::read),
        ("protocol4.pth", torch::read),
        ("numpy.npz", npz::read),
        ("packed.npz", npz::read),
        ("mlx.npz", npz::read),
    ];
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/torch/");
    for (name, open) in cases {
        let seed = std::fs::read(format!("{directory}{name}")).unwrap();
        look(&open(vec![seeds::file(seed.clone())]).unwrap());
        let mut read = 0;
        let count = damaged(&seed, |bytes| {
            let _ = sniff_bytes(&bytes, bytes.len() as u64);
            if let Ok(checkpoint) = open(vec![seeds::file(bytes)]) {
                look(&checkpoint);
                read += 1;
            }
        });
        assert!(
            count > 15 * seed.len() && read > 0 && read < count,
            "{read} of {count} of {name}"
        );
    }
}

#[test]
fn a_count_beyond_the_file_allocates_nothing() {
    let mut files = vec![
        seeds::gguf_start(3, u64::MAX, 0),
        seeds::gguf_start(3, 1 << 24, 0),
        seeds::gguf_start(3, 0, u64::MAX),
        seeds::gguf_start(3, 0, 1 << 24),
    ];
    for element in 0..=12 {
        for count in [u64::MAX, 1 << 24] {
            let mut file = seeds::gguf_start(3, 0, 1);
            file.string("k").u32(9).u32(element).u64(count);
            files.push(file);
        }
    }
    for seeds::Bytes(bytes) in files {
        let used = peak(|| assert!(gguf::read(seeds::file(bytes)).is_err()));
        assert!(used < 4096, "{used} bytes");
    }
}
