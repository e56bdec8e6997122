//! A compiled plan: its kernels, its temporaries, and one run at a time.

use crate::Shared;
use crate::lower::{Lowered, lower};
use crate::memory::{Block, Memory, lock};
use crate::recorded::Recording;
use crate::storage::Stored;
use crate::team::Stretch;
use kiln_plan::{Buffer, Plan, Program, Result, Slot, Spec};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A plan for this backend.
pub(crate) struct Compiled {
    shared: Arc<Shared>,
    lowered: Lowered,
    stretches: Vec<Stretch>,
    externals: Vec<Spec>,
    temporaries: Mutex<Vec<Block>>,
    /// For each external slot: whether a run writes it.
    writes: Vec<bool>,
    recording: Option<Arc<Recording>>,
}

impl Compiled {
    /// Lowers `plan` and takes memory for its temporaries.
    pub(crate) fn new(shared: Arc<Shared>, plan: &Plan) -> Result<Compiled> {
        let mut lowered = lower(shared.isa, shared.precision, plan)
            .ok_or_else(|| shared.failed("a step without a kernel: `supports` was not asked"))?;
        shared.rounds.fetch_or(lowered.rounds, Ordering::Relaxed);
        let record = |recorder| Recording::new(plan, recorder, shared.team.threads());
        let recording = shared.recorder.get().map(record);
        if let Some(recording) = &recording {
            let kernels = std::mem::take(&mut lowered.kernels).into_iter();
            let steps = lowered.steps.iter();
            lowered.kernels = kernels
                .zip(steps)
                .map(|(kernel, step)| recording.watch(kernel, *step))
                .collect();
        }
        let mut externals = Vec::new();
        let mut temporaries = Vec::new();
        for slot in &plan.slots {
            match slot {
                Slot::External(spec) if temporaries.is_empty() => externals.push(*spec),
                Slot::External(_) => {
                    return Err(shared.failed("external slots come before temporary ones"));
                }
                Slot::Temporary { bytes } => temporaries.push(shared.take(*bytes)?),
            }
        }
        temporaries.push(shared.take(lowered.scratch)?);
        let writes = (0..externals.len())
            .map(|i| lowered.written.contains(&(i as u32)))
            .collect();
        Ok(Compiled {
            stretches: shared.team.stretches(&lowered.kernels),
            shared,
            lowered,
            externals,
            temporaries: Mutex::new(temporaries),
            writes,
            recording,
        })
    }

    fn stored<'b>(&self, buffers: &'b [Buffer]) -> Result<Vec<&'b Stored>> {
        if buffers.len() != self.externals.len() {
            return Err(self
                .shared
                .failed("a run needs one buffer for each external slot"));
        }
        let stored = |(buffer, spec): (&'b Buffer, &Spec)| {
            let stored = self.shared.stored(buffer)?;
            if kiln_plan::Storage::bytes(stored) < spec.bytes() {
                return Err(self.shared.failed("a buffer is smaller than its slot"));
            }
            Ok(stored)
        };
        buffers.iter().zip(&self.externals).map(stored).collect()
    }

    /// Marks what this run writes; an error where it may not, or where another slot is the same.
    fn claim<'b>(&self, stored: &[&'b Stored]) -> Result<Claims<'b>> {
        let mut claims = Claims(Vec::new());
        for (stored, _) in stored
            .iter()
            .zip(&self.writes)
            .filter(|(_, writes)| **writes)
        {
            match stored {
                Stored::Owned(_, busy) if !busy.swap(true, Ordering::AcqRel) => {
                    claims.0.push(busy);
                }
                Stored::Owned(..) => {
                    return Err(self.shared.failed("two slots of a run are one buffer"));
                }
                Stored::Loaded(_) => {
                    return Err(self.shared.failed("a run would write to loaded rows"));
                }
            }
        }
        let read = stored
            .iter()
            .zip(&self.writes)
            .filter(|(_, writes)| !**writes);
        for (stored, _) in read {
            if let Stored::Owned(_, busy) = stored
                && busy.load(Ordering::Acquire)
            {
                return Err(self.shared.failed("a run reads a buffer that it writes"));
            }
        }
        Ok(claims)
    }

    fn join(&self, stored: &[&Stored]) -> Result<()> {
        for &slot in &self.lowered.joined {
            if let Some(Stored::Loaded(loaded)) = stored.get(slot as usize)
                && !loaded.join(&self.shared.pool)
            {
                return Err(self.shared.no_room(loaded.size()));
            }
        }
        Ok(())
    }
}

/// What a run writes, released when it ends.
struct Claims<'b>(Vec<&'b AtomicBool>);

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        self.0
            .iter()
            .for_each(|busy| busy.store(false, Ordering::Release));
    }
}

impl Program for Compiled {
    fn run(&self, externals: &[Buffer]) -> Result<()> {
        let start = self.recording.as_ref().map(|_| Instant::now());
        let _turn = lock(&self.shared.turn);
        let mut temporaries = lock(&self.temporaries);
        let stored = self.stored(externals)?;
        let _claims = self.claim(&stored)?;
        self.join(&stored)?;
        if self.shared.pool.poisons() {
            temporaries.iter_mut().for_each(Block::poison);
        }
        let mut memory = Memory::with_capacity(stored.len() + temporaries.len());
        for stored in stored {
            match stored {
                Stored::Owned(block, _) => memory.push_block(block),
                Stored::Loaded(loaded) => memory.push_loaded(loaded),
            }
        }
        temporaries
            .iter()
            .for_each(|block| memory.push_block(block));
        self.shared
            .team
            .run(&self.lowered.kernels, &self.stretches, &memory);
        drop(memory);
        if let (Some(recording), Some(start)) = (&self.recording, start) {
            recording.tell(start);
        }
        if !temporaries.iter_mut().all(Block::is_intact) || self.shared.pool.damaged() {
            return Err(self.shared.failed("a kernel wrote behind its memory"));
        }
        Ok(())
    }
}
