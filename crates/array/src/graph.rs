//! What an evaluation has to do: the pending nodes below the roots, as plain data. The graph is
//! also the key under which its program is kept.

use crate::node::Work;
use crate::trace::Trace;
use crate::{Layout, Op, Spec};
use std::ops::Range;

/// Pending nodes in an order in which they can be computed, and the ready ones they read.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) leaves: Vec<Leaf>,
}

#[derive(Debug)]
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

impl Graph {
    /// The traced nodes without the arrays they were made of.
    pub(crate) fn new(trace: &Trace) -> Graph {
        let mut graph = Graph {
            nodes: Vec::with_capacity(trace.nodes.len()),
            edges: Vec::with_capacity(trace.sources.len()),
            leaves: trace.leaves.iter().map(|leaf| leaf.leaf).collect(),
        };
        for (node, work) in trace.nodes.iter().zip(&trace.works) {
            let start = graph.edges.len() as u32;
            let sources = &trace.sources[graph.edges.len()..];
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

    /// Whether [`Graph::new`] of this trace would be equal to this graph.
    pub(crate) fn matches(&self, trace: &Trace) -> bool {
        let mut leaves = self.leaves.iter().zip(&trace.leaves);
        let mut nodes = self.nodes.iter().zip(&trace.nodes).zip(&trace.works);
        self.nodes.len() == trace.nodes.len()
            && self.edges.len() == trace.sources.len()
            && self.leaves.len() == trace.leaves.len()
            && nodes.all(|((known, node), work)| {
                known.spec == node.spec
                    && known.escapes == node.escapes
                    && known.op == work.op
                    && self.reads(known, work, trace)
            })
            && leaves.all(|(known, traced)| *known == traced.leaf)
    }

    /// Whether `known` has the inputs of `work`, provided that all nodes before it have those of
    /// theirs.
    fn reads(&self, known: &GraphNode, work: &Work, trace: &Trace) -> bool {
        let edges = known.edges(self);
        let sources = &trace.sources[known.inputs.start as usize..];
        let mut inputs = work.inputs.iter().zip(sources).zip(edges);
        edges.len() == work.inputs.len()
            && inputs.all(|((input, source), edge)| {
                edge.source == *source && edge.layout == input.layout
            })
    }
}
