//! The team's own code under every order of its threads' steps that memory allows: `scripts/model`.

use super::sync::{AtomicUsize, Ordering};
use super::{Dismissal, Hand, Stretch, Team, Work};
use crate::kernels::Kernel;
use crate::memory::Memory;
use std::ops::Range;
use std::sync::Arc;

/// Numbers that kernels count up, one unit each; what a thread has not been told it may not see.
type Numbers = Arc<Vec<AtomicUsize>>;

/// Sees that every number is `step`'s, as far as it is not of the step itself, and counts its own up.
struct Count {
    step: usize,
    numbers: Numbers,
}

impl Kernel for Count {
    fn units(&self) -> usize {
        self.numbers.len()
    }
    fn cost(&self) -> usize {
        1_000_000
    }
    fn run(&self, _: &Memory<'_>, range: Range<usize>) {
        for (unit, number) in self.numbers.iter().enumerate() {
            // Relaxed: only what the team orders makes the last step's numbers visible.
            let found = number.load(Ordering::Relaxed);
            if range.contains(&unit) {
                assert_eq!(found, self.step, "unit {unit} of step {}", self.step);
                number.store(self.step + 1, Ordering::Relaxed);
            } else {
                let own = found == self.step || found == self.step + 1;
                assert!(own, "unit {unit} is {found} in step {}", self.step);
            }
        }
    }
}

/// Kernels dealt in these pieces, on two threads, in every order with up to three interruptions of one
/// that could have gone on. With three threads two idle ones can wait for each other's steps for ever,
/// which loom does not take for progress.
fn run(pieces: &'static [usize]) {
    let threads = 2;
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 20_000;
    model.check(move || {
        let units = pieces.iter().copied().max().unwrap_or(1);
        let numbers: Numbers = Arc::new((0..units).map(|_| AtomicUsize::new(0)).collect());
        let kernel = |step| -> Box<dyn Kernel> {
            let numbers = numbers.clone();
            Box::new(Count { step, numbers })
        };
        let kernels: Arc<Vec<_>> = Arc::new((0..pieces.len()).map(kernel).collect());
        let stretch = |(at, &pieces): (usize, &usize)| Stretch {
            kernels: at..at + 1,
            pieces,
        };
        let stretches: Arc<Vec<_>> = Arc::new(pieces.iter().enumerate().map(stretch).collect());
        let team = Arc::new(Team {
            helpers: None,
            hands: (0..threads).map(|_| Hand::default()).collect(),
            left: AtomicUsize::new(0),
        });
        // As `Team::run` does it: all hands empty, helpers called, the first deal by the caller.
        for hand in &team.hands {
            hand.put(0, 0..0);
        }
        let helper = |thread| {
            let (team, kernels, stretches) = (team.clone(), kernels.clone(), stretches.clone());
            loom::thread::spawn(move || {
                let memory = Memory::with_capacity(0);
                team.help(thread, work(&kernels, &stretches, &memory));
            })
        };
        let helpers: Vec<_> = (1..threads).map(helper).collect();
        let memory = Memory::with_capacity(0);
        let _dismissal = Dismissal(&team);
        team.deal(0, work(&kernels, &stretches, &memory));
        team.help(0, work(&kernels, &stretches, &memory));
        for helper in helpers {
            helper.join().unwrap();
        }
        for number in numbers.iter() {
            assert_eq!(number.load(Ordering::Relaxed), pieces.len());
        }
    });
}

fn work<'w>(
    kernels: &'w [Box<dyn Kernel>],
    stretches: &'w [Stretch],
    memory: &'w Memory<'w>,
) -> Work<'w> {
    Work {
        kernels,
        stretches,
        memory,
    }
}

#[test]
fn two_threads_run_every_piece_once_and_in_order() {
    run(&[2, 2]);
}

#[test]
fn small_kernels_between_large_ones_see_them_and_are_seen() {
    run(&[2, 1, 2]);
}

#[test]
fn more_pieces_than_threads_are_all_taken() {
    run(&[3, 2]);
}
