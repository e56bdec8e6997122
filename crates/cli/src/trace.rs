//! `KILN_TRACE`: a file that Perfetto and Chrome show, with every step of every run.

use crate::output;
use anyhow::Context;
use kiln_array::{Op, Plan, Recorder, Run, Span};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A file of events. Times are microseconds since it was made.
struct Trace {
    zero: Instant,
    /// Threads of the processor, which have a lane each below the steps'; none for a GPU's queue.
    threads: usize,
    /// `None` when it could not be written to.
    file: Mutex<Option<BufWriter<File>>>,
}

/// What writes runs to a new file at `path`. It is complete when the recorder is dropped.
pub(crate) fn recorder(path: &Path, threads: Option<usize>) -> anyhow::Result<Recorder> {
    let file = File::create(path)
        .with_context(|| format!("{}: cannot be written (KILN_TRACE)", path.display()))?;
    let trace = Trace {
        zero: Instant::now(),
        threads: threads.unwrap_or(0),
        file: Mutex::new(Some(BufWriter::new(file))),
    };
    trace.write(&trace.names(), "[\n");
    Ok(Arc::new(move |run: &Run<'_>| {
        trace.write(&trace.events(run), ",\n")
    }))
}

impl Trace {
    /// What the lanes are called.
    fn names(&self) -> Vec<Value> {
        let steps = if self.threads == 0 {
            "GPU queue"
        } else {
            "steps"
        };
        let threads = (0..self.threads).map(|thread| format!("thread {thread}"));
        let names = std::iter::once(steps.to_owned()).chain(threads);
        let name = |(lane, name)| {
            let args = json!({ "name": name });
            json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": args})
        };
        names.enumerate().map(name).collect()
    }

    /// A run: its steps, and what each thread did for them.
    fn events(&self, run: &Run<'_>) -> Vec<Value> {
        let mut steps: BTreeMap<(usize, usize), Span> = BTreeMap::new();
        for span in run.spans {
            let key = (span.steps.start, span.steps.end);
            let step = steps.entry(key).or_insert_with(|| span.clone());
            step.start = step.start.min(span.start);
            step.end = step.end.max(span.end);
        }
        let mut events = Vec::new();
        for step in steps.values() {
            let mut event = self.event(run.plan, 0, step);
            event["args"] = work(run.plan, step);
            events.push(event);
        }
        if self.threads > 0 {
            let threads = run.spans.iter();
            events.extend(threads.map(|span| self.event(run.plan, 1 + span.lane, span)));
        }
        events
    }

    fn event(&self, plan: &Plan, lane: usize, span: &Span) -> Value {
        let since = |time: Instant| time.saturating_duration_since(self.zero).as_secs_f64() * 1e6;
        let (start, end) = (since(span.start), since(span.end));
        let name = match plan.steps.get(span.steps.start) {
            Some(step) if span.steps.len() == 1 => step.op.name().to_owned(),
            _ => format!("steps {} to {}", span.steps.start, span.steps.end),
        };
        json!({"name": name, "ph": "X", "pid": 1, "tid": lane, "ts": start, "dur": end - start})
    }

    /// Writes events, and `before` ahead of the first. That this fails is said once.
    fn write(&self, events: &[Value], mut before: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = file.as_mut() else { return };
        for event in events {
            if let Err(error) = write!(open, "{before}{event}") {
                output::say(format_args!(
                    "warning: KILN_TRACE cannot be written: {error}"
                ));
                *file = None;
                return;
            }
            before = ",\n";
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let end = |file: &mut BufWriter<File>| writeln!(file, "\n]").and_then(|()| file.flush());
        if let Some(Err(error)) = file.as_mut().map(end) {
            output::say(format_args!(
                "warning: KILN_TRACE cannot be written: {error}"
            ));
        }
    }
}

/// What steps computed, the bytes that they moved and how fast. How much of its cache attention
/// reads is not known here.
fn work(plan: &Plan, span: &Span) -> Value {
    let Range { start, end } = span.steps;
    let steps = plan.steps.get(start..end).unwrap_or_default();
    let known = |op: &Op| !matches!(op, Op::Attention { .. });
    let works = steps.iter().filter(|step| known(&step.op));
    let bytes: u64 = works.map(|step| step.work(0).bytes).sum();
    let seconds = (span.end - span.start).as_secs_f64().max(1e-9);
    let mut args = json!({ "step": start });
    if let [step] = steps {
        args["result"] = step.output.spec().to_string().into();
        let inputs = step.inputs.iter().map(|input| input.spec().to_string());
        args["operands"] = inputs.collect::<Vec<_>>().join(" ").into();
    }
    if bytes > 0 {
        args["bytes"] = bytes.into();
        args["GB/s"] = (bytes as f64 / seconds / 1e9).into();
    }
    args
}
