//! From a graph to a plan: order, memory, copies.

use crate::device::Options;
use crate::fuse::{self, Item};
use crate::{Edge, Graph, Layout, Leaf, Op, Operand, Plan, Slot, Source, Spec, Step};
use rustc_hash::FxHashMap;

/// What evaluation needs to know of a plan: which fresh buffers it wants after the leaves', and
/// which slot each escaping node ends up in.
pub(crate) struct Schedule {
    pub(crate) fresh: Vec<Spec>,
    pub(crate) results: Vec<(u32, u32)>,
    /// For each step the nodes that it computes, its own first; of a copy those of its reader.
    pub(crate) nodes: Vec<Vec<u32>>,
}

/// A value that a step makes or a leaf holds; several in turn may live in one place.
#[derive(Clone, Copy)]
struct Value {
    spec: Spec,
    place: usize,
}

/// A piece of memory and the steps between which it is needed.
struct Place {
    spec: Spec,
    leaf: Option<u32>,
    escapes: bool,
    first: usize,
    last: usize,
}

/// A value and a view of it.
type View = (usize, Layout);

#[derive(Default)]
struct Scheduler {
    values: Vec<Value>,
    places: Vec<Place>,
    /// Steps whose operands name values.
    steps: Vec<(Op, Vec<View>, usize)>,
    /// For each step the item that it is for.
    items: Vec<usize>,
    /// The copy that was made of a view, so that it is made once.
    copied: FxHashMap<View, usize>,
    leaf_values: Vec<usize>,
    node_values: Vec<Option<usize>>,
    /// The last item that reads each source.
    last_reads: FxHashMap<Source, usize>,
}

impl Schedule {
    /// Fuses, orders, and assigns memory.
    pub(crate) fn new(graph: &Graph, options: Options) -> (Schedule, Plan) {
        let mut items = fuse::items(graph);
        if options.fuse {
            fuse::fuse(&mut items);
        }
        let mut scheduler = Scheduler::default();
        scheduler.leaves(&graph.leaves);
        scheduler.reads(&items);
        scheduler.node_values = vec![None; items.len()];
        for (at, item) in items.iter().enumerate().filter(|(_, item)| !item.merged) {
            scheduler.item(at, item, graph, &items);
            scheduler.items.resize(scheduler.steps.len(), at);
        }
        scheduler.finish(&items, options)
    }
}

impl Scheduler {
    fn leaves(&mut self, leaves: &[Leaf]) {
        for (n, leaf) in leaves.iter().enumerate() {
            let value = self.value(leaf.spec);
            self.places[self.values[value].place].leaf = Some(n as u32);
            self.leaf_values.push(value);
        }
    }

    fn reads(&mut self, items: &[Item]) {
        for (at, item) in items.iter().enumerate().filter(|(_, item)| !item.merged) {
            for edge in &item.inputs {
                self.last_reads.insert(edge.source, at);
            }
        }
    }

    /// A new value in a place of its own.
    fn value(&mut self, spec: Spec) -> usize {
        self.places.push(Place {
            spec,
            leaf: None,
            escapes: false,
            first: usize::MAX,
            last: 0,
        });
        self.values.push(Value {
            spec,
            place: self.places.len() - 1,
        });
        self.values.len() - 1
    }

    fn source(&self, source: Source) -> usize {
        match source {
            Source::Leaf(n) => self.leaf_values[n as usize],
            // Items are in an order in which they can be computed.
            Source::Node(n) => self.node_values[n as usize].unwrap_or(0),
        }
    }

    fn item(&mut self, at: usize, item: &Item, graph: &Graph, items: &[Item]) {
        let mut operands = Vec::with_capacity(item.inputs.len());
        for (i, edge) in item.inputs.iter().enumerate() {
            let value = self.source(edge.source);
            let in_place = i == 0 && item.op.updates();
            let as_it_is = item.op.takes_views(i) || item.op.reads(i, &edge.layout);
            operands.push(match as_it_is || in_place {
                true => (value, edge.layout),
                false => self.copy(value, edge.layout, true),
            });
        }
        let output = if item.op.updates() {
            if !self.donates(at, item, graph, items) {
                let (value, layout) = operands[0];
                operands[0] = self.copy(value, layout, false);
            }
            let (value, _) = operands[0];
            operands[0].1 = Layout::contiguous(item.spec.shape);
            self.values.push(Value {
                spec: item.spec,
                place: self.values[value].place,
            });
            self.values.len() - 1
        } else {
            self.value(item.spec)
        };
        self.places[self.values[output].place].escapes |= item.escapes;
        self.node_values[at] = Some(output);
        self.steps.push((item.op.clone(), operands, output));
    }

    /// A step that makes a view contiguous. A `shared` copy serves everyone who wants that view;
    /// one that is about to be overwritten does not.
    fn copy(&mut self, value: usize, layout: Layout, shared: bool) -> View {
        let spec = Spec {
            dtype: self.values[value].spec.dtype,
            shape: layout.shape(),
        };
        let whole = Layout::contiguous(spec.shape);
        if shared && let Some(&copy) = self.copied.get(&(value, layout)) {
            return (copy, whole);
        }
        let copy = self.value(spec);
        self.steps.push((Op::Copy, vec![(value, layout)], copy));
        if shared {
            self.copied.insert((value, layout), copy);
        }
        (copy, whole)
    }

    /// Whether an updating item may overwrite its first operand: all of it, which nobody needs
    /// afterwards and no other operand of the item lies in.
    fn donates(&self, at: usize, item: &Item, graph: &Graph, items: &[Item]) -> bool {
        let Edge { source, layout } = item.inputs[0];
        let place = |edge: &Edge| self.values[self.source(edge.source)].place;
        let (spec, free) = match source {
            Source::Leaf(n) => {
                let leaf = graph.leaves[n as usize];
                (leaf.spec, leaf.donatable)
            }
            Source::Node(n) => (items[n as usize].spec, !items[n as usize].escapes),
        };
        free && spec.dtype == item.spec.dtype
            && layout.covers(spec.shape.elements())
            && self.last_reads.get(&source) == Some(&at)
            && item.inputs[1..]
                .iter()
                .all(|edge| place(edge) != place(&item.inputs[0]))
    }

    fn finish(mut self, items: &[Item], options: Options) -> (Schedule, Plan) {
        for (step, (_, operands, output)) in self.steps.iter().enumerate() {
            let places = operands.iter().map(|(value, _)| value).chain([output]);
            for &value in places {
                let place = &mut self.places[self.values[value].place];
                place.first = place.first.min(step);
                place.last = place.last.max(step);
            }
        }
        let (slot_of, slots, fresh) = self.assign(options.reuse);
        let operand = |value: usize, layout: Layout| Operand {
            slot: slot_of[self.values[value].place],
            dtype: self.values[value].spec.dtype,
            layout,
        };
        let whole = |value: usize| Layout::contiguous(self.values[value].spec.shape);
        let steps: Vec<Step> = self
            .steps
            .iter()
            .map(|(op, inputs, output)| Step {
                op: op.clone(),
                inputs: inputs
                    .iter()
                    .map(|&(value, layout)| operand(value, layout))
                    .collect(),
                output: operand(*output, whole(*output)),
            })
            .collect();
        let results = items.iter().zip(&self.node_values).enumerate();
        let results = results
            .filter(|(_, (item, _))| item.escapes)
            .filter_map(|(n, (_, value))| Some((n as u32, slot_of[self.values[(*value)?].place])))
            .collect();
        let plan = Plan { steps, slots };
        let schedule = Schedule {
            fresh,
            results,
            nodes: self
                .items
                .iter()
                .map(|at| items[*at].parts.clone())
                .collect(),
        };
        (schedule, plan)
    }

    /// Slots for places: leaves first, then fresh buffers for what escapes, then temporaries by
    /// best fit over their lifetimes.
    fn assign(&self, reuse: bool) -> (Vec<u32>, Vec<Slot>, Vec<Spec>) {
        let mut slot_of = vec![0; self.places.len()];
        let mut slots = Vec::new();
        let mut fresh = Vec::new();
        for (slot, place) in slot_of.iter_mut().zip(&self.places) {
            if place.leaf.is_some() {
                *slot = slots.len() as u32;
                slots.push(Slot::External(place.spec));
            }
        }
        for (slot, place) in slot_of.iter_mut().zip(&self.places) {
            if place.leaf.is_none() && place.escapes {
                *slot = slots.len() as u32;
                slots.push(Slot::External(place.spec));
                fresh.push(place.spec);
            }
        }
        let externals = slots.len();
        let mut free: Vec<usize> = Vec::new();
        let mut sizes: Vec<usize> = Vec::new();
        for (step, (_, operands, output)) in self.steps.iter().enumerate() {
            let made = self.values[*output].place;
            let temporary = |place: usize| {
                let place = &self.places[place];
                place.leaf.is_none() && !place.escapes
            };
            if temporary(made) && self.places[made].first == step {
                let bytes = self.places[made].spec.bytes();
                let chosen = best_fit(&mut free, &mut sizes, bytes);
                slot_of[made] = (externals + chosen) as u32;
            }
            let mut ending: Vec<usize> = operands
                .iter()
                .map(|(value, _)| self.values[*value].place)
                .chain([made])
                .collect();
            ending.sort_unstable();
            ending.dedup();
            for place in ending {
                if reuse && temporary(place) && self.places[place].last == step {
                    free.push(slot_of[place] as usize - externals);
                }
            }
        }
        slots.extend(sizes.into_iter().map(|bytes| Slot::Temporary { bytes }));
        (slot_of, slots, fresh)
    }
}

/// The smallest free slot of at least `bytes`, else the largest one grown, else a new one.
fn best_fit(free: &mut Vec<usize>, sizes: &mut Vec<usize>, bytes: usize) -> usize {
    let enough = free
        .iter()
        .enumerate()
        .filter(|(_, slot)| sizes[**slot] >= bytes);
    let fit = enough
        .min_by_key(|(_, slot)| sizes[**slot])
        .map(|(at, _)| at);
    let largest = || {
        free.iter()
            .enumerate()
            .max_by_key(|(_, slot)| sizes[**slot])
            .map(|(at, _)| at)
    };
    match fit.or_else(largest) {
        Some(at) => {
            let slot = free.swap_remove(at);
            sizes[slot] = sizes[slot].max(bytes);
            slot
        }
        None => {
            sizes.push(bytes);
            sizes.len() - 1
        }
    }
}
