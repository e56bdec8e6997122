//! A compiled plan: what does not change from run to run, and one run.

mod launches;

use crate::Shared;
use crate::context::lock;
use crate::lower::{Files, Place, tables};
use crate::memory::{GUARD, POISON, Raw, Stored};
use crate::read::{self, Staged};
use kiln_plan::{Buffer, Error, Operand, Plan, Program, Recorder, Result, Run, Slot, Span};
use launches::Launches;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Work of one submission, in bytes moved or eight sums of products: some tenths of a second on a
/// slow GPU, far below what a watchdog allows.
const SUBMISSION: u64 = 8 << 30;

/// Results up to this size are copied to the host with the run that makes them.
const STAGED: usize = 1 << 20;

/// Bind groups of a launch that are kept. Two are in use when runs overlap.
const KEPT: usize = 8;

/// A compiled plan.
pub(crate) struct Compiled {
    shared: Arc<Shared>,
    /// The plan's temporary slots, at their numbers.
    temporaries: HashMap<u32, Raw>,
    /// External slots that are written, and whether they are staged.
    written: Vec<(u32, bool)>,
    work: Work,
    recording: Option<(Plan, Recorder)>,
}

/// A plan's launches.
enum Work {
    /// For arrays that lie where they were copied to.
    Copied(Arc<Launches>),
    /// On devices where weights may stay in their files.
    InFiles(InFiles),
}

/// What it takes to lower a plan again for weights that lie in files.
struct InFiles {
    plan: Plan,
    /// The slots that may.
    tables: Vec<u32>,
    /// By the numbers of these slots' buffers; 0 for what is no file.
    known: Mutex<Vec<(Vec<u64>, Arc<Launches>)>>,
}

impl InFiles {
    /// The launches for arrays of which some may lie in files, lowered when they are new.
    fn launches(&self, shared: &Shared, stored: &[&Stored]) -> Result<Arc<Launches>> {
        let file = |slot: u32| stored.get(slot as usize).and_then(|s| s.mapped.as_ref());
        let id = |&slot: &u32| file(slot).map_or(0, |mapped| mapped.raw.id);
        let ids: Vec<u64> = self.tables.iter().map(id).collect();
        let mut known = lock(&self.known);
        if let Some((_, launches)) = known.iter().find(|(of, _)| *of == ids) {
            return Ok(launches.clone());
        }
        let files = self.tables.iter();
        let files = files.filter_map(|&slot| Some((slot, &file(slot)?.blocks[..])));
        let launches = Launches::new(shared, &self.plan, &files.collect())?;
        let launches = Arc::new(launches);
        if known.len() == KEPT {
            known.remove(0);
        }
        known.push((ids, launches.clone()));
        Ok(launches)
    }
}

/// An error of taking so many bytes for a slot, as one of the first step that needs them there.
fn of_maker(error: Error, plan: &Plan, slot: u32, bytes: usize) -> Error {
    let makes = |output: &Operand| output.slot == slot && output.spec().bytes() == bytes;
    match plan.steps.iter().position(|step| makes(&step.output)) {
        Some(step) => error.in_step(step),
        None => error,
    }
}

impl Compiled {
    pub(crate) fn new(shared: Arc<Shared>, plan: &Plan) -> Result<Compiled> {
        let context = &shared.context;
        context.check()?;
        let mut temporaries = HashMap::new();
        for (number, slot) in (0u32..).zip(&plan.slots) {
            if let Slot::Temporary { bytes } = slot {
                let taken = shared.pool.take(*bytes);
                temporaries.insert(
                    number,
                    taken.map_err(|e| of_maker(e, plan, number, *bytes))?,
                );
            }
        }
        let work = match context.maps {
            None => Work::Copied(Arc::new(Launches::new(&shared, plan, &Files::new())?)),
            Some(_) => Work::InFiles(InFiles {
                tables: tables(plan),
                plan: plan.clone(),
                known: Mutex::default(),
            }),
        };
        Ok(Compiled {
            temporaries,
            written: written(plan),
            work,
            recording: shared.recorder.get().map(|r| (plan.clone(), r.clone())),
            shared,
        })
    }

    /// The launches for these arrays, and the buffers that they read and write.
    fn placed<'s>(&self, stored: &[&'s Stored]) -> Result<(Arc<Launches>, Vec<&'s [Raw]>)> {
        let pool = &self.shared.pool;
        let in_files = match &self.work {
            Work::Copied(launches) => {
                let pieces = stored.iter().map(|stored| stored.pieces(pool));
                return Ok((launches.clone(), pieces.collect::<Result<_>>()?));
            }
            Work::InFiles(in_files) => in_files,
        };
        let mut buffers = Vec::with_capacity(stored.len());
        for (slot, stored) in (0u32..).zip(stored) {
            buffers.push(match &stored.mapped {
                Some(mapped) if in_files.tables.contains(&slot) => {
                    std::slice::from_ref(&mapped.raw)
                }
                _ => stored.pieces(pool)?,
            });
        }
        Ok((in_files.launches(&self.shared, stored)?, buffers))
    }

    /// Fails if something was written behind a watched buffer.
    fn check_guards(&self, launches: &Launches, externals: &[&[Raw]]) -> Result<()> {
        let shared = &self.shared;
        let owned = externals.iter().copied().flatten();
        let raws = owned.chain(self.temporaries.values());
        for raw in raws.chain(&launches.scratch).filter(|raw| raw.is_pooled()) {
            let mut guard = [0; GUARD as usize];
            let from = raw.buffer.size() - GUARD;
            read::read(&shared.staging, raw, from as usize, &mut guard)?;
            if guard != [POISON; GUARD as usize] {
                let bytes = raw.bytes;
                let message = format!("a kernel wrote behind a buffer of {bytes} bytes");
                return Err(shared.context.failed(message));
            }
        }
        Ok(())
    }
}

impl Compiled {
    /// The buffer that an operand lies in.
    fn raw<'r>(
        &'r self,
        launches: &'r Launches,
        externals: &[&'r [Raw]],
        place: Place,
    ) -> Result<&'r Raw> {
        let found = match place {
            Place::Scratch(which) => launches.scratch.get(which),
            Place::Slot(slot, piece) => match externals.get(slot as usize) {
                Some(pieces) => pieces.get(piece),
                None => self.temporaries.get(&slot),
            },
        };
        found.ok_or_else(|| {
            self.shared
                .context
                .failed("a plan names memory that is not there")
        })
    }

    /// Encodes all launches; submits whenever enough work has come together. What is left is in
    /// the encoder that comes back.
    fn encode(&self, launches: &Launches, externals: &[&[Raw]]) -> Result<wgpu::CommandEncoder> {
        let context = &self.shared.context;
        let mut kept = lock(&launches.groups);
        let begin = || context.device.create_command_encoder(&Default::default());
        let mut encoder = begin();
        let mut at = 0;
        while at < launches.launches.len() {
            if at > 0 {
                context.queue.submit([encoder.finish()]);
                context.counter.add(|counts| counts.submissions += 1);
                encoder = begin();
            }
            let mut work = 0;
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let mut current = None;
            while let Some(launch) = launches.launches.get(at)
                && (work == 0 || work + launch.work <= SUBMISSION)
            {
                let raws: Vec<&Raw> = launch
                    .operands
                    .iter()
                    .map(|&place| self.raw(launches, externals, place))
                    .collect::<Result<_>>()?;
                let key: Vec<u64> = raws.iter().map(|raw| raw.id).collect();
                let known = &mut kept[at];
                if known.len() == KEPT && !known.contains_key(&key) {
                    known.clear();
                }
                let group = known.entry(key).or_insert_with(|| self.bind(&raws));
                if current != Some(&launch.pipeline) {
                    pass.set_pipeline(&launch.pipeline);
                    current = Some(&launch.pipeline);
                }
                pass.set_bind_group(0, &*group, &[]);
                pass.set_bind_group(1, &launch.bind_parameters, &[launch.parameters]);
                pass.dispatch_workgroups(launch.size.0, launch.size.1, 1);
                work += launch.work;
                at += 1;
            }
        }
        Ok(encoder)
    }

    /// Waits for a run's last submission, and tells of the run.
    fn tell(&self, start: Instant, queued: Instant, last: wgpu::SubmissionIndex) -> Result<()> {
        let Some((plan, recorder)) = &self.recording else {
            return Ok(());
        };
        let context = &self.shared.context;
        let wait = wgpu::PollType::Wait {
            submission_index: Some(last),
            timeout: None,
        };
        let waited = context.device.poll(wait);
        waited.map_err(|error| context.failed(error.to_string()))?;
        let end = Instant::now();
        let span = Span {
            steps: 0..plan.steps.len(),
            lane: 0,
            start: queued,
            end,
        };
        recorder(&Run {
            plan,
            start,
            end,
            spans: &[span],
        });
        Ok(())
    }

    fn bind(&self, raws: &[&Raw]) -> wgpu::BindGroup {
        let context = &self.shared.context;
        context.counter.add(|counts| counts.bind_groups += 1);
        let entries: Vec<_> = (0u32..)
            .zip(raws)
            .map(|(binding, raw)| wgpu::BindGroupEntry {
                binding,
                resource: raw.buffer.as_entire_binding(),
            })
            .collect();
        context
            .device
            .create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &context.layouts(raws.len()).operands,
                entries: &entries,
            })
    }
}

impl Program for Compiled {
    fn run(&self, externals: &[Buffer]) -> Result<()> {
        let shared = &self.shared;
        let begin = self.recording.as_ref().map(|_| Instant::now());
        shared.context.check()?;
        let externals: Vec<&Stored> = externals
            .iter()
            .map(|buffer| shared.stored(buffer))
            .collect::<Result<_>>()?;
        let (launches, buffers) = self.placed(&externals)?;
        if shared.context.poison {
            for raw in self.temporaries.values().chain(&launches.scratch) {
                let bytes = vec![POISON; raw.buffer.size() as usize];
                shared.context.queue.write_buffer(&raw.buffer, 0, &bytes);
            }
        }
        let mut encoder = self.encode(&launches, &buffers)?;
        let mut copies = Vec::new();
        let mut places = Vec::new();
        let mut bytes = 0;
        for &(slot, staged) in &self.written {
            let stored = externals[slot as usize];
            *lock(&stored.staged) = None;
            let (true, [raw]) = (staged, buffers[slot as usize]) else {
                continue;
            };
            let size = (raw.bytes as u64).next_multiple_of(8);
            copies.push((raw, 0, size.min(raw.buffer.size())));
            places.push((stored, bytes));
            bytes += size;
        }
        let staged = (bytes > 0).then(|| shared.staging.take(bytes, &mut encoder, &copies));
        let queued = self.recording.as_ref().map(|_| Instant::now());
        let index = shared.context.queue.submit([encoder.finish()]);
        shared.context.counter.add(|counts| {
            counts.submissions += 1;
            counts.dispatches += launches.launches.len() as u64;
        });
        if let (Some(begin), Some(queued)) = (begin, queued) {
            self.tell(begin, queued, index.clone())?;
        }
        if let Some(staged) = staged {
            staged.submitted(index);
            for (stored, at) in places {
                *lock(&stored.staged) = Some((staged.clone(), at));
            }
        }
        if shared.context.poison {
            self.check_guards(&launches, &buffers)?;
        }
        shared.context.check()
    }
}

impl Shared {
    /// Bytes of a buffer: from the copy that came with the run that made it, or by a copy now.
    pub(crate) fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()> {
        let stored = self.stored(buffer)?;
        let staged: Option<(Arc<Staged>, u64)> = lock(&stored.staged).clone();
        if let Some((staged, at)) = staged {
            return staged.read_from(at as usize + from, out);
        }
        let [raw] = stored.pieces(&self.pool)? else {
            return Err(self
                .context
                .failed("an array in several pieces cannot be read"));
        };
        read::read(&self.staging, raw, from, out)
    }
}

/// External slots that a plan writes, and whether their contents go to the host at once: small new
/// results do, what is updated in place does not.
fn written(plan: &Plan) -> Vec<(u32, bool)> {
    let mut written: Vec<(u32, bool)> = Vec::new();
    for step in &plan.steps {
        let number = step.output.slot;
        let Some(Slot::External(spec)) = plan.slots.get(number as usize) else {
            continue;
        };
        // The first step to write a slot tells whether it held something before.
        if written.iter().all(|(slot, _)| *slot != number) {
            written.push((number, !step.op.updates() && spec.bytes() <= STAGED));
        }
    }
    written
}
