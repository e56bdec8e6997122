//! The walk from the wanted arrays to everything pending below them.

use crate::node::{Node, Pending, State};
use crate::{Array, Buffer, Device, Error, Op, Origin, Place, Result, Spec, decompose};
use kiln_plan::{Edge, Graph, GraphNode, Leaf, Source, Traced, Turn};
use std::sync::Arc;

/// Pending nodes in an order in which they can be computed, and the ready ones they read. It holds
/// work, not nodes: a handle on a node would count as a reader.
pub(crate) struct Trace {
    pub(crate) nodes: Vec<TracedNode>,
    /// How each node is computed.
    pub(crate) works: Vec<Arc<Pending>>,
    /// Where the inputs of the nodes come from, node after node.
    pub(crate) sources: Vec<Source>,
    pub(crate) leaves: Vec<TracedLeaf>,
    /// The buffers of the leaves.
    pub(crate) buffers: Vec<Buffer>,
    /// The nodes that escape, by number.
    kept: Vec<(u32, Arc<Node>)>,
}

pub(crate) struct TracedNode {
    pub(crate) spec: Spec,
    pub(crate) origin: Origin,
    pub(crate) escapes: bool,
    /// How many inputs of the graph's nodes are handles on this one.
    edges: u32,
}

pub(crate) struct TracedLeaf {
    pub(crate) leaf: Leaf,
    edges: u32,
}

impl Trace {
    /// Walks from the roots to everything pending below them. Unsupported operations are replaced
    /// by their decompositions on the way. Errors leave the arrays as they were, or decomposed.
    ///
    pub(crate) fn new(roots: &[&Array], turn: &Turn<'_>) -> Result<Trace> {
        let [nodes, edges, leaves] = turn.sizes();
        let mut tracer = Tracer {
            trace: Trace {
                nodes: Vec::with_capacity(nodes),
                works: Vec::with_capacity(nodes),
                sources: Vec::with_capacity(edges),
                leaves: Vec::with_capacity(leaves),
                buffers: Vec::with_capacity(leaves + 1),
                kept: Vec::new(),
            },
            specs: Vec::new(),
            device: turn.device(),
            turn: turn.number(),
        };
        for root in roots {
            tracer.walk(root)?;
        }
        Ok(tracer.finish(roots))
    }

    /// Whether `node` of `known` has the inputs of `work`, provided that all nodes before it have
    /// those of theirs.
    fn reads(&self, known: &Graph, node: &GraphNode, work: &Pending) -> bool {
        let edges = node.edges(known);
        let sources = &self.sources[node.inputs.start as usize..];
        let mut inputs = work.inputs.iter().zip(sources).zip(edges);
        edges.len() == work.inputs.len()
            && inputs.all(|((input, source), edge)| {
                edge.source == *source && edge.layout == input.layout
            })
    }

    /// Gives the nodes that escape their buffers, by the slots of `results`, and lets go of all nodes.
    pub(crate) fn settle(&mut self, results: &[(u32, u32)], buffers: &[Buffer]) {
        // Both are in the order of the nodes.
        for ((number, node), &(result, slot)) in self.kept.drain(..).zip(results) {
            debug_assert_eq!(number, result, "every node that escapes has a result");
            node.set(State::Ready(buffers[slot as usize].clone()));
        }
        // Readers before what they read: then each drop finds nothing else to drop.
        self.works.drain(..).rev().for_each(drop);
    }
}

impl Traced for Trace {
    fn matches(&self, known: &Graph) -> bool {
        let mut leaves = known.leaves.iter().zip(&self.leaves);
        let mut nodes = known.nodes.iter().zip(&self.nodes).zip(&self.works);
        known.nodes.len() == self.nodes.len()
            && known.edges.len() == self.sources.len()
            && known.leaves.len() == self.leaves.len()
            && nodes.all(|((node, traced), work)| {
                node.spec == traced.spec
                    && node.escapes == traced.escapes
                    && node.op == work.op
                    && self.reads(known, node, work)
            })
            && leaves.all(|(leaf, traced)| *leaf == traced.leaf)
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph {
            nodes: Vec::with_capacity(self.nodes.len()),
            edges: Vec::with_capacity(self.sources.len()),
            leaves: self.leaves.iter().map(|leaf| leaf.leaf).collect(),
        };
        for (node, work) in self.nodes.iter().zip(&self.works) {
            let start = graph.edges.len() as u32;
            let sources = &self.sources[graph.edges.len()..];
            let edges = work.inputs.iter().zip(sources);
            graph.edges.extend(edges.map(|(input, &source)| Edge {
                source,
                layout: input.layout,
            }));
            graph.nodes.push(GraphNode {
                op: work.op.clone(),
                inputs: start..graph.edges.len() as u32,
                spec: node.spec,
                escapes: node.escapes,
            });
        }
        graph
    }

    fn origin(&self, node: u32) -> Option<Origin> {
        self.nodes.get(node as usize).map(|node| node.origin)
    }
}

/// Definitions of definitions that are followed for one node.
const DEEPEST: usize = 64;

/// A pending node whose inputs are being visited.
struct Visit {
    work: Arc<Pending>,
    next: usize,
}

struct Tracer<'a> {
    trace: Trace,
    specs: Vec<Spec>,
    device: &'a Device,
    turn: u64,
}

impl Tracer<'_> {
    /// Post-order without recursion: graphs may be deeper than the stack.
    fn walk(&mut self, root: &Array) -> Result<()> {
        let mut stack: Vec<Visit> = Vec::new();
        stack.extend(self.visit(&root.node)?);
        while let Some(top) = stack.last_mut() {
            if let Some(input) = top.work.inputs.get(top.next) {
                top.next += 1;
                let visit = self.visit(&input.node)?;
                stack.extend(visit);
            } else if let Some(done) = stack.pop() {
                let reader = stack.last();
                let node = reader.map_or(root, |r| &r.work.inputs[r.next - 1]);
                self.emit(&node.node, done.work);
            }
        }
        Ok(())
    }

    /// Records a ready node; says what to do first for a pending one that is new.
    fn visit(&mut self, node: &Node) -> Result<Option<Visit>> {
        if node.mark.get(self.turn).is_some() {
            return Ok(None);
        }
        match node.state() {
            State::Ready(buffer) => {
                let number = self.trace.leaves.len() as u32;
                node.mark.set(self.turn, Source::Leaf(number));
                self.trace.leaves.push(TracedLeaf {
                    leaf: Leaf {
                        spec: node.spec,
                        donatable: false,
                    },
                    edges: 0,
                });
                self.trace.buffers.push(buffer);
                Ok(None)
            }
            State::Pending(work) => {
                let work = self.supported(node, work)?;
                Ok(Some(Visit { work, next: 0 }))
            }
        }
    }

    /// The node's work, decomposed until the backend has a kernel for it.
    fn supported(&mut self, node: &Node, mut work: Arc<Pending>) -> Result<Arc<Pending>> {
        for _ in 0..DEEPEST {
            self.specs.clear();
            self.specs.extend(work.inputs.iter().map(Array::spec));
            if self.device.backend().supports(&work.op, &self.specs) {
                return Ok(work);
            }
            let simpler = node.origin.lend(|| self.decomposed(&work, node.spec));
            let simpler = simpler.map_err(|error| {
                error.at(Place {
                    step: None,
                    op: work.op.name(),
                    inputs: self.specs.clone(),
                    output: node.spec,
                    origins: vec![node.origin],
                })
            })?;
            let made = simpler.node.spec.shape;
            let whole = made == node.spec.shape && simpler.layout.covers(made.elements());
            work = match simpler.node.state() {
                // Work that two nodes shared would count as two edges where there is one handle.
                State::Pending(inner) if whole && Arc::strong_count(&simpler.node) == 1 => inner,
                _ => Arc::new(Pending {
                    op: Op::Copy,
                    inputs: vec![simpler],
                }),
            };
            node.set(State::Pending(work.clone()));
        }
        Err(Error::Invalid {
            op: work.op.name(),
            expected: "a definition by other operations, which comes to an end,".into(),
            inputs: self.specs.clone(),
            site: node.origin.site,
        })
    }

    fn decomposed(&self, work: &Pending, wanted: Spec) -> Result<Array> {
        let (op, device) = (&work.op, self.device.to_string());
        let Some(simpler) = decompose(op, &work.inputs)? else {
            let reason = format!("it has no kernel for {}", op.name());
            return Err(Error::Device { device, reason });
        };
        // The turn of this device does not order the marks of another one's nodes.
        if simpler.device() != self.device {
            let reason = format!("{} decomposes into arrays of another", op.name());
            return Err(Error::Device { device, reason });
        }
        if simpler.spec() != wanted {
            let found = simpler.spec();
            let reason = format!("{} decomposes into {found}, not {wanted}", op.name());
            return Err(Error::Device { device, reason });
        }
        Ok(simpler)
    }

    fn emit(&mut self, node: &Node, work: Arc<Pending>) {
        for input in &work.inputs {
            // Every input has been visited before its reader is emitted.
            let source = input.node.mark.get(self.turn).unwrap_or(Source::Leaf(0));
            match source {
                Source::Node(n) => self.trace.nodes[n as usize].edges += 1,
                Source::Leaf(n) => self.trace.leaves[n as usize].edges += 1,
            }
            self.trace.sources.push(source);
        }
        let number = self.trace.nodes.len() as u32;
        node.mark.set(self.turn, Source::Node(number));
        self.trace.works.push(work);
        self.trace.nodes.push(TracedNode {
            spec: node.spec,
            origin: node.origin,
            escapes: false,
            edges: 0,
        });
    }

    /// A node escapes if it has more handles than the graph has edges to it: then somebody outside
    /// holds one. Nobody outside can make a new one of a node that does not escape.
    fn finish(self, roots: &[&Array]) -> Trace {
        let mut trace = self.trace;
        let inputs = trace.works.iter().flat_map(|work| &work.inputs);
        for Array { node, .. } in roots.iter().copied().chain(inputs) {
            let handles = Arc::strong_count(node);
            match node.mark.get(self.turn) {
                Some(Source::Node(n)) => {
                    let traced = &mut trace.nodes[n as usize];
                    if !traced.escapes && handles > traced.edges as usize {
                        traced.escapes = true;
                        trace.kept.push((n, node.clone()));
                    }
                }
                Some(Source::Leaf(n)) => {
                    let traced = &mut trace.leaves[n as usize];
                    traced.leaf.donatable =
                        handles <= traced.edges as usize && trace.buffers[n as usize].0.writable();
                }
                None => {}
            }
        }
        trace.kept.sort_unstable_by_key(|(n, _)| *n);
        trace
    }
}
