//! The threads that kernels run on. They are called once for a list of kernels and walk it
//! together.
//!
//! A kernel that is worth it is cut into pieces, which are dealt out to the threads; who has done
//! its own takes what others have not begun. Who completes the last piece deals out the next
//! kernel, having run small ones in between by itself. So no kernel waits for a thread that has
//! nothing in hand, as one may that has lost its core to another program.

mod hand;
#[cfg(all(test, kiln_loom))]
mod model;
mod sync;

use crate::kernels::Kernel;
use crate::memory::Memory;
use hand::{HOME, Hand};
use std::ops::Range;
use sync::{AtomicUsize, Ordering, spin_loop, yield_now};

/// Steps of less than this many nanoseconds are not worth another thread's attention.
const ALONE: usize = 2_000;

/// Pieces of a kernel for each thread, so that a slow one is made up for.
const PIECES: usize = 4;

/// How often an idle thread looks for work before it lets others have its core: some tens of
/// microseconds, longer than most kernels take one thread more than another.
const SPINS: usize = 2_000;

/// The calling thread and some that help it.
pub(crate) struct Team {
    helpers: Option<rayon::ThreadPool>,
    hands: Vec<Hand>,
    /// Pieces of the current kernel that are not done.
    left: AtomicUsize,
}

/// Kernels from one deal to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    kernels: Range<usize>,
    /// Into how many pieces the one kernel is cut; several kernels, or a small one, are one thread's.
    pieces: usize,
}

/// What a team works on.
#[derive(Clone, Copy)]
struct Work<'w> {
    kernels: &'w [Box<dyn Kernel>],
    stretches: &'w [Stretch],
    memory: &'w Memory<'w>,
}

impl Team {
    /// A team of `threads` threads, at least one. An error where the system has no more.
    pub(crate) fn new(threads: usize) -> Result<Team, rayon::ThreadPoolBuildError> {
        let threads = threads.max(1);
        let pool = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads - 1)
                .thread_name(|i| format!("kiln-cpu-{}", i + 1))
                .build()
        };
        Ok(Team {
            helpers: (threads > 1).then(pool).transpose()?,
            hands: (0..threads).map(|_| Hand::default()).collect(),
            left: AtomicUsize::new(0),
        })
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.hands.len()
    }

    /// How these kernels are dealt out.
    pub(crate) fn stretches(&self, kernels: &[Box<dyn Kernel>]) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for (at, kernel) in kernels.iter().enumerate() {
            let units = kernel.units();
            let small =
                units <= 1 || units.saturating_mul(kernel.cost()) < ALONE || self.threads() == 1;
            let pieces = if small {
                1
            } else {
                units.min(PIECES * self.threads())
            };
            match stretches.last_mut() {
                Some(last) if small && last.pieces == 1 => last.kernels.end = at + 1,
                _ => stretches.push(Stretch {
                    kernels: at..at + 1,
                    pieces,
                }),
            }
        }
        stretches
    }

    /// Runs the kernels one after the other, each on all threads. One call at a time.
    pub(crate) fn run(
        &self,
        kernels: &[Box<dyn Kernel>],
        stretches: &[Stretch],
        memory: &Memory<'_>,
    ) {
        let work = Work {
            kernels,
            stretches,
            memory,
        };
        match &self.helpers {
            Some(helpers) if stretches.iter().any(|stretch| stretch.pieces > 1) => {
                let all = || {
                    // Not what the last call left: helpers would go home at once.
                    for hand in &self.hands {
                        hand.put(0, 0..0);
                    }
                    helpers.in_place_scope(|scope| {
                        scope.spawn_broadcast(|_, context| self.help(context.index() + 1, work));
                        let _dismissal = Dismissal(self);
                        self.deal(0, work);
                        self.help(0, work);
                    });
                };
                if rayon::current_thread_index().is_none() {
                    return all();
                }
                // A worker of another pool would run other jobs of that pool while it waits, and
                // those may want the locks that the caller holds.
                let outcome = std::thread::scope(|scope| scope.spawn(all).join());
                outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
            _ => stretches.iter().for_each(|stretch| alone(stretch, work)),
        }
    }

    /// Runs small kernels from stretch `next` on, up to one that is worth dealing out, or ends.
    fn deal(&self, mut next: usize, work: Work<'_>) {
        while let Some(stretch) = work.stretches.get(next) {
            next += 1;
            if stretch.pieces == 1 {
                alone(stretch, work);
                continue;
            }
            let (pieces, threads) = (stretch.pieces, self.threads());
            self.left.store(pieces, Ordering::Relaxed);
            for (thread, hand) in self.hands.iter().enumerate() {
                let own = thread * pieces / threads..(thread + 1) * pieces / threads;
                if hand.put(next, own) == HOME {
                    // A thread that had its pieces already has panicked.
                    return self.dismiss();
                }
            }
            return;
        }
        self.dismiss();
    }

    /// No more work: all threads go home.
    fn dismiss(&self) {
        for hand in &self.hands {
            hand.put(HOME, 0..0);
        }
    }

    /// Does pieces until there are no more kernels.
    fn help(&self, thread: usize, work: Work<'_>) {
        let _dismissal = Dismissal(self);
        let (mut idle, threads) = (0, self.threads());
        loop {
            let own = &self.hands[thread];
            let others = (1..threads).map(|other| &self.hands[(thread + other) % threads]);
            let taken = own
                .take_first()
                .or_else(|| others.rev().find_map(Hand::take_last));
            if let Some((next, piece)) = taken {
                idle = 0;
                self.piece(next, piece, work);
                continue;
            }
            if own.is_home() {
                return;
            }
            idle += 1;
            if idle < SPINS {
                spin_loop();
            } else {
                yield_now();
            }
        }
    }

    /// Runs a piece of the stretch before stretch `next`; the last one deals again.
    fn piece(&self, next: usize, piece: usize, work: Work<'_>) {
        let stretch = &work.stretches[next - 1];
        let kernel = &work.kernels[stretch.kernels.start];
        let (units, pieces) = (kernel.units(), stretch.pieces);
        let range = piece * units / pieces..(piece + 1) * units / pieces;
        kernel.run(work.memory, range);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            work.memory.next_step();
            self.deal(next, work);
        }
    }
}

/// Runs kernels on this thread.
fn alone(stretch: &Stretch, work: Work<'_>) {
    for kernel in &work.kernels[stretch.kernels.clone()] {
        kernel.run(work.memory, 0..kernel.units());
        work.memory.next_step();
    }
}

/// Sends all threads home when its thread panics, which would leave a piece undone for ever.
struct Dismissal<'t>(&'t Team);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.dismiss();
        }
    }
}

#[cfg(all(test, not(kiln_loom)))]
mod tests {
    use super::*;
    use crate::memory::Pool;

    struct Squares {
        slot: u32,
        count: usize,
    }

    impl Kernel for Squares {
        fn units(&self) -> usize {
            self.count
        }
        fn cost(&self) -> usize {
            1_000_000
        }
        fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
            for i in range {
                memory.floats_mut(self.slot, i..i + 1)[0] = (i * i) as f32;
            }
        }
    }

    fn run(team: &Team, kernels: Vec<Box<dyn Kernel>>, memory: &Memory<'_>) {
        team.run(&kernels, &team.stretches(&kernels), memory);
    }

    #[test]
    fn every_unit_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let team = Team::new(threads).unwrap();
            for count in [0, 1, 2, 5, 1000] {
                let block = Pool::new(true).take(4 * count).unwrap();
                let mut memory = Memory::with_capacity(1);
                memory.push_block(&block);
                run(&team, vec![Box::new(Squares { slot: 0, count })], &memory);
                let squares: Vec<f32> = (0..count).map(|i| (i * i) as f32).collect();
                assert_eq!(memory.floats(0), squares, "{threads} threads");
            }
        }
    }

    /// Adds one to each of some numbers, having seen that all are what they should be.
    struct Count {
        step: usize,
        units: usize,
        cost: usize,
    }

    impl Kernel for Count {
        fn units(&self) -> usize {
            self.units
        }
        fn cost(&self) -> usize {
            self.cost
        }
        fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
            let (from, to) = ((self.step % 2) as u32, ((self.step + 1) % 2) as u32);
            let all = memory.floats(from);
            assert!(
                all.iter().all(|n| *n == self.step as f32),
                "step {}",
                self.step
            );
            for unit in range {
                let numbers = unit * 64 / self.units..(unit + 1) * 64 / self.units;
                memory.floats_mut(to, numbers).fill((self.step + 1) as f32);
            }
        }
    }

    #[test]
    fn a_kernel_sees_what_the_one_before_wrote() {
        let pool = Pool::new(false);
        for threads in [1, 2, 3, 5] {
            let team = Team::new(threads).unwrap();
            for _ in 0..20 {
                let blocks = [pool.take(256).unwrap(), pool.take(256).unwrap()];
                let mut memory = Memory::with_capacity(2);
                blocks.iter().for_each(|block| memory.push_block(block));
                memory.floats_mut(0, 0..64).fill(0.0);
                memory.next_step();
                let kernel = |step: usize| -> Box<dyn Kernel> {
                    let (units, cost) =
                        [(64, 1_000_000), (1, 1), (7, 1_000_000), (64, 1)][step % 4];
                    Box::new(Count { step, units, cost })
                };
                run(&team, (0..200).map(kernel).collect(), &memory);
                assert!(memory.floats(0).iter().all(|n| *n == 200.0));
            }
        }
    }

    #[test]
    fn small_kernels_in_a_row_are_one_stretch() {
        let team = Team::new(2).unwrap();
        let kernels: Vec<Box<dyn Kernel>> = [(1, 9), (5, 9), (8, 9000), (3, 1), (90, 9000)]
            .map(|(units, cost)| -> Box<dyn Kernel> {
                Box::new(Count {
                    step: 0,
                    units,
                    cost,
                })
            })
            .into();
        let found = team.stretches(&kernels);
        let found: Vec<_> = found.into_iter().map(|s| (s.kernels, s.pieces)).collect();
        assert_eq!(found, [(0..2, 1), (2..3, 8), (3..4, 1), (4..5, 8)]);
    }

    /// Panics in one of its units.
    struct Panics(usize);

    impl Kernel for Panics {
        fn units(&self) -> usize {
            16
        }
        fn cost(&self) -> usize {
            1_000_000
        }
        fn run(&self, _: &Memory<'_>, range: Range<usize>) {
            assert!(!range.contains(&self.0), "unit {}", self.0);
        }
    }

    #[test]
    fn a_panic_ends_the_walk_of_all_threads_and_the_team_works_on() {
        let pool = Pool::new(false);
        let team = Team::new(3).unwrap();
        for unit in [0, 9, 15].repeat(20) {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let memory = Memory::with_capacity(0);
                run(
                    &team,
                    vec![Box::new(Panics(unit)), Box::new(Panics(unit))],
                    &memory,
                );
            }));
            assert!(outcome.is_err());
            let block = pool.take(4 * 50).unwrap();
            let mut memory = Memory::with_capacity(1);
            memory.push_block(&block);
            run(
                &team,
                vec![Box::new(Squares { slot: 0, count: 50 })],
                &memory,
            );
            assert_eq!(memory.floats(0)[49], 2401.0);
        }
    }
}
