//! Damaged files: every byte changed, every truncation. Nothing panics or aborts, and nothing
//! allocates more than the file's size and a megabyte.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![allow(unsafe_code, reason = "a counting allocator cannot be written without")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kiln_tokenizer::{Error, Source, Tokenizer};
use support::{directory, golden, load};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TOTAL: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread has, its highest mark, and all it ever got.
struct Counting;

impl Counting {
    fn add(size: usize) {
        let live = LIVE.get() + size as isize;
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        TOTAL.set(TOTAL.get().wrapping_add(size));
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

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as isize);
        // SAFETY: `pointer` came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const TEXT: &str = "the kiln [x]y[xy] is hot, été \u{1f642}\n<s>A[c] fire</s> \u{fb01}n  1234";

/// Loads and uses one version of a file, in a thread of its own: the libraries keep caches for
/// each thread. Says how much memory was used at most, and whether the file loaded.
fn try_to_load(name: &str, source: Source, bytes: &[u8]) -> (isize, bool) {
    let attempt = || {
        let Ok(tokenizer) = Tokenizer::from_bytes(source, name, bytes.to_vec()) else {
            return (PEAK.get(), false);
        };
        if let Ok(ids) = tokenizer.encode(TEXT, true) {
            let _ = tokenizer.decode(&ids, false);
        }
        let all: Vec<u32> = (0..tokenizer.vocab_size().min(1000) as u32).collect();
        let _ = tokenizer.decode(&all, false);
        (PEAK.get(), true)
    };
    std::thread::scope(|scope| scope.spawn(attempt).join()).unwrap()
}

/// Loads every damaged version of a golden file and uses those that load.
fn survives(name: &str, source: Source) {
    let seed = std::fs::read(golden(name)).unwrap();
    let (mut count, mut loaded) = (0, 0);
    let mut check = |bytes: &[u8]| {
        let (used, loads) = try_to_load(name, source, bytes);
        assert!(
            used <= (bytes.len() + (1 << 20)) as isize,
            "{used} bytes for a file of {}",
            seed.len()
        );
        count += 1;
        loaded += u32::from(loads);
    };
    check(&seed);
    for at in 0..seed.len() {
        for value in [seed[at] ^ 1, seed[at] ^ 0x80, 0, 0xff, b'9', b'"'] {
            let mut bytes = seed.clone();
            bytes[at] = value;
            check(&bytes);
        }
        check(&seed[..at]);
    }
    assert!(0 < loaded && loaded < count, "{loaded} of {count} loaded");
}

#[test]
fn damaged_sentencepiece_bpe_models_are_refused_or_work() {
    survives("tiny_bpe.model", Source::Model);
}

#[test]
fn damaged_sentencepiece_unigram_models_are_refused_or_work() {
    survives("tiny_unigram.model", Source::Model);
}

#[test]
fn damaged_tokenizer_json_files_are_refused_or_work() {
    for name in [
        "tiny_bytes.json",
        "tiny_first.json",
        "tiny_always.json",
        "tiny_spaces.json",
    ] {
        survives(name, Source::Json);
    }
}

#[test]
fn a_stream_allocates_in_proportion_to_its_tokens() {
    for (name, file) in [
        ("tiny_bpe.model", "tokenizer.model"),
        ("tiny_bytes.json", "tokenizer.json"),
    ] {
        let tokenizer = load(name, file, "{}");
        let ids = tokenizer
            .encode("the kiln is hot, été \u{1f642}. ", false)
            .unwrap();
        let mut stream = tokenizer.detokenizer(true);
        let mut bytes = |count: usize| {
            let before = TOTAL.get();
            for &id in ids.iter().cycle().take(count) {
                drop(stream.push(id));
            }
            TOTAL.get().wrapping_sub(before)
        };
        let (early, late) = (bytes(ids.len() * 100), bytes(ids.len() * 10_000));
        assert!(
            late <= early * 101,
            "{early} bytes, then {late} for 100 times as many tokens"
        );
    }
}

#[test]
fn a_changed_byte_is_named_with_its_place() {
    let mut bytes = std::fs::read(golden("tiny_bpe.model")).unwrap();
    let score = bytes.windows(2).position(|pair| pair == [0x15, 0]).unwrap() + 1;
    bytes[score..score + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let directory = directory(&[("tokenizer.model", &bytes)]);
    let error = Tokenizer::from_directory(directory.path()).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }));
    let message = error.to_string();
    assert!(
        message.contains("tokenizer.model: piece 0: expected a finite score"),
        "{message}"
    );
}

#[test]
fn a_merge_that_makes_no_token_is_refused() {
    let read = |vocabulary: &str, merges: &str| {
        let text = format!(
            r#"{{"model": {{"type": "BPE", "vocab": {vocabulary}, "merges": [{merges}]}},
                "decoder": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false}}}}"#
        );
        Tokenizer::from_bytes(Source::Json, "tokenizer.json", text.into_bytes())
    };
    for merges in [r#""a b""#, r#"["a", "b"]"#] {
        let whole = read(r#"{"a": 0, "b": 1, "ab": 2}"#, merges);
        assert!(whole.is_ok(), "{:?}", whole.err());
        // Longer than all tokens there are; and not, but none of them.
        for rest in ["", r#", "xyz": 2"#] {
            let error = read(&format!(r#"{{"a": 0, "b": 1{rest}}}"#), merges).err();
            assert!(error.is_some(), "{merges} {rest}");
        }
        let message = read(r#"{"a": 0, "b": 1}"#, merges).err().unwrap();
        let message = message.to_string();
        assert!(message.contains("one that makes 2 bytes"), "{message}");
    }
}
