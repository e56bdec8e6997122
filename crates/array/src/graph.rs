//! What an evaluation has to do: the pending nodes below the roots, as plain data. The graph is
//! also the key under which its program is kept.

use crate::node::{Node, State, Work};
use crate::{Array, Buffer, Device, Error, Layout, Op, Result, Spec};
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Pending nodes in an order in which they can be computed, and the ready ones they read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) leaves: Vec<Leaf>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GraphNode {
    pub(crate) op: Op,
    pub(crate) inputs: Range<u32>,
    pub(crate) spec: Spec,
    /// Whether somebody outside the graph can still read the result.
    pub(crate) escapes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Edge {
    pub(crate) source: Source,
    pub(crate) layout: Layout,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Source {
    Leaf(u32),
    Node(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub(crate) spec: Spec,
    /// Whether its buffer may be overwritten once the graph has read it.
    pub(crate) donatable: bool,
}

impl GraphNode {
    pub(crate) fn edges<'a>(&self, graph: &'a Graph) -> &'a [Edge] {
        &graph.edges[self.inputs.start as usize..self.inputs.end as usize]
    }
}

/// A graph with the nodes and buffers it was made of.
pub(crate) struct Trace {
    pub(crate) graph: Graph,
    pub(crate) nodes: Vec<Weak<Node>>,
    pub(crate) buffers: Vec<Buffer>,
}

/// A pending node whose inputs are being visited.
struct Visit {
    node: Weak<Node>,
    work: Arc<Work>,
    next: usize,
}

impl Trace {
    /// Walks from the roots to everything pending below them. Unsupported operations are replaced
    /// by their decompositions on the way. Errors leave the arrays as they were, or decomposed.
    pub(crate) fn new(roots: &[&Array], device: &Device) -> Result<Trace> {
        let mut tracer = Tracer {
            trace: Trace {
                graph: Graph::default(),
                nodes: Vec::new(),
                buffers: Vec::new(),
            },
            leaves: Vec::new(),
            seen: FxHashMap::default(),
            specs: Vec::new(),
            device,
        };
        for root in roots {
            tracer.walk(root)?;
        }
        Ok(tracer.finish())
    }
}

struct Tracer<'a> {
    trace: Trace,
    leaves: Vec<Weak<Node>>,
    seen: FxHashMap<*const Node, Source>,
    specs: Vec<Spec>,
    device: &'a Device,
}

impl Tracer<'_> {
    /// Post-order without recursion: graphs may be deeper than the stack.
    fn walk(&mut self, root: &Array) -> Result<()> {
        let mut stack: Vec<Visit> = Vec::new();
        stack.extend(self.visit(root)?);
        while let Some(top) = stack.last_mut() {
            if let Some(input) = top.work.inputs.get(top.next) {
                top.next += 1;
                let visit = self.visit(input)?;
                stack.extend(visit);
            } else if let Some(done) = stack.pop() {
                self.emit(done);
            }
        }
        Ok(())
    }

    /// Records a ready node; says what to do first for a pending one that is new.
    fn visit(&mut self, array: &Array) -> Result<Option<Visit>> {
        let key = Arc::as_ptr(&array.node);
        if self.seen.contains_key(&key) {
            return Ok(None);
        }
        match array.node.state() {
            State::Ready(buffer) => {
                let leaf = Leaf {
                    spec: array.node.spec,
                    donatable: false,
                };
                self.seen
                    .insert(key, Source::Leaf(self.trace.graph.leaves.len() as u32));
                self.trace.graph.leaves.push(leaf);
                self.trace.buffers.push(buffer);
                self.leaves.push(Arc::downgrade(&array.node));
                Ok(None)
            }
            State::Pending(work) => {
                let work = self.supported(&array.node, work)?;
                Ok(Some(Visit {
                    node: Arc::downgrade(&array.node),
                    work,
                    next: 0,
                }))
            }
        }
    }

    /// The node's work, decomposed until the backend has a kernel for it.
    fn supported(&mut self, node: &Node, mut work: Arc<Work>) -> Result<Arc<Work>> {
        loop {
            self.specs.clear();
            self.specs.extend(work.inputs.iter().map(Array::spec));
            if self.device.backend().supports(&work.op, &self.specs) {
                return Ok(work);
            }
            let simpler = work
                .op
                .decompose(&work.inputs)?
                .ok_or_else(|| Error::Device {
                    device: self.device.to_string(),
                    reason: format!("it has no kernel for {}", work.op.name()),
                })?;
            debug_assert_eq!(
                simpler.spec(),
                node.spec,
                "decomposition of {}",
                work.op.name()
            );
            let whole = simpler.layout.covers(simpler.node.spec.shape.elements());
            work = match simpler.node.state() {
                // Work that two nodes shared would count as two edges where there is one handle.
                State::Pending(inner) if whole && Arc::strong_count(&simpler.node) == 1 => inner,
                _ => Arc::new(Work {
                    op: Op::Copy,
                    inputs: vec![simpler],
                }),
            };
            node.set(State::Pending(work.clone()));
        }
    }

    fn emit(&mut self, done: Visit) {
        let graph = &mut self.trace.graph;
        let start = graph.edges.len() as u32;
        for input in &done.work.inputs {
            // Every input has been visited before its reader is emitted.
            if let Some(&source) = self.seen.get(&Arc::as_ptr(&input.node)) {
                graph.edges.push(Edge {
                    source,
                    layout: input.layout,
                });
            }
        }
        self.seen
            .insert(done.node.as_ptr(), Source::Node(graph.nodes.len() as u32));
        graph.nodes.push(GraphNode {
            op: done.work.op.clone(),
            inputs: start..graph.edges.len() as u32,
            spec: done
                .node
                .upgrade()
                .map_or_else(unreachable_spec, |node| node.spec),
            escapes: false,
        });
        self.trace.nodes.push(done.node);
    }

    /// A node escapes if it has more handles than the graph has edges to it: then somebody outside
    /// holds one. Nobody outside can make a new one of a node that does not escape.
    fn finish(mut self) -> Trace {
        let graph = &mut self.trace.graph;
        let mut node_edges = vec![0; graph.nodes.len()];
        let mut leaf_edges = vec![0; graph.leaves.len()];
        for edge in &graph.edges {
            match edge.source {
                Source::Node(n) => node_edges[n as usize] += 1,
                Source::Leaf(n) => leaf_edges[n as usize] += 1,
            }
        }
        for ((node, weak), edges) in graph
            .nodes
            .iter_mut()
            .zip(&self.trace.nodes)
            .zip(node_edges)
        {
            node.escapes = weak.strong_count() > edges;
        }
        let leaves = graph.leaves.iter_mut().zip(&self.leaves).zip(leaf_edges);
        for (((leaf, weak), edges), buffer) in leaves.zip(&self.trace.buffers) {
            leaf.donatable = weak.strong_count() <= edges && buffer.0.writable();
        }
        self.trace
    }
}

/// A traced node is held by its reader or a root, so it cannot have gone.
fn unreachable_spec() -> Spec {
    debug_assert!(false, "a traced node is alive");
    Spec {
        dtype: crate::DType::F32,
        shape: crate::Shape::SCALAR,
    }
}
