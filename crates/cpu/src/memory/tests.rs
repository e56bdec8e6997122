use super::*;

#[test]
fn equal_requests_are_served_from_the_pool() {
    let pool = Pool::new(false);
    for bytes in [100, 5000, 1 << 20] {
        drop(pool.take(bytes));
    }
    let allocations = pool.memory().allocations;
    for _ in 0..10 {
        for bytes in [100, 5000, 1 << 20] {
            drop(pool.take(bytes));
        }
    }
    assert_eq!(pool.memory().allocations, allocations);
    assert_eq!(pool.memory().bytes, 0);
    assert!(pool.memory().peak_bytes >= 1 << 20);
}

#[test]
fn size_classes_waste_at_most_an_eighth() {
    for bytes in (512..100_000).step_by(37) {
        let class = class(bytes).unwrap();
        assert!(
            class >= bytes && class - bytes <= bytes / 8 && class.is_multiple_of(ALIGN),
            "{bytes}"
        );
    }
    assert_eq!(class(0), Some(ALIGN));
    assert_eq!(class(usize::MAX), None);
}

#[test]
fn blocks_are_aligned_and_requests_beyond_memory_refused() {
    let pool = Pool::new(false);
    let block = pool.take(3).unwrap();
    assert_eq!(block.as_slice().as_ptr().align_offset(ALIGN), 0);
    assert!(pool.take(usize::MAX / 2).is_none());
}

#[test]
fn poisoned_memory_is_nan_also_when_recycled() {
    let pool = Pool::new(true);
    let mut block = pool.take(64).unwrap();
    block.bytes_mut().fill(0);
    drop(block);
    assert!(
        pool.take(64)
            .unwrap()
            .as_slice()
            .iter()
            .all(|&b| b == POISON)
    );
}

#[test]
fn a_write_behind_a_block_is_noticed() {
    let pool = Pool::new(true);
    let mut block = pool.take(64).unwrap();
    if let Some(raw) = &mut block.raw {
        raw.all()[64] = 0;
    }
    assert!(!block.is_intact());
    drop(block);
    assert!(pool.damaged());
}

#[cfg(debug_assertions)]
mod claims {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn panics(f: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(f)).is_err()
    }

    #[test]
    fn overlapping_writes_of_one_step_are_caught() {
        let block = Pool::new(false).take(64).unwrap();
        let mut memory = Memory::with_capacity(1);
        memory.push_block(&block);
        memory.write(0, 0..16);
        memory.write(0, 16..32);
        assert!(panics(|| memory.write(0, 31..40).fill(0)));
        memory.next_step();
        memory.write(0, 0..64);
    }

    #[test]
    fn a_step_cannot_read_what_it_writes() {
        let block = Pool::new(false).take(64).unwrap();
        let mut memory = Memory::with_capacity(1);
        memory.push_block(&block);
        memory.write(0, 0..16);
        assert!(panics(|| assert_eq!(memory.read(0).len(), 64)));
        memory.next_step();
        memory.read(0);
        assert!(panics(|| memory.write(0, 0..1).fill(0)));
    }
}
