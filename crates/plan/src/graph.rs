//! What an evaluation has to do: the pending nodes below the roots, as plain data. The graph is
//! also the key under which its program is kept.

use crate::{Layout, Op, Origin, Spec};
use std::ops::Range;

/// Pending nodes in an order in which they can be computed, and the ready ones they read.
#[derive(PartialEq, Eq, Debug)]
pub struct Graph {
    /// Each reads leaves and nodes before it.
    pub nodes: Vec<GraphNode>,
    /// What the nodes read, node after node.
    pub edges: Vec<Edge>,
    /// Results that are there.
    pub leaves: Vec<Leaf>,
}

/// A pending node.
#[derive(PartialEq, Eq, Debug)]
pub struct GraphNode {
    /// What computes it.
    pub op: Op,
    /// Which of the graph's edges are its operands.
    pub inputs: Range<u32>,
    /// The result's dtype and shape, as [`Op::infer`] gives them.
    pub spec: Spec,
    /// Whether somebody outside the graph can still read the result.
    pub escapes: bool,
}

/// An operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Edge {
    /// Whose result is read.
    pub source: Source,
    /// Which view of it.
    pub layout: Layout,
}

/// Whose result an edge reads, by number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// A result that is there.
    Leaf(u32),
    /// A node's.
    Node(u32),
}

/// A result that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Its dtype and shape.
    pub spec: Spec,
    /// Whether its buffer may be overwritten once the graph has read it.
    pub donatable: bool,
}

impl GraphNode {
    /// The node's operands; the node is one of `graph`.
    pub fn edges<'a>(&self, graph: &'a Graph) -> &'a [Edge] {
        &graph.edges[self.inputs.start as usize..self.inputs.end as usize]
    }
}

/// What wants a program: pending nodes that are compared with graphs, and made into one only where
/// none of those that are kept is equal.
pub trait Traced {
    /// Whether [`Traced::graph`] would be equal to `known`.
    fn matches(&self, known: &Graph) -> bool;
    /// The pending nodes as plain data.
    fn graph(&self) -> Graph;
    /// Where a node comes from.
    fn origin(&self, node: u32) -> Option<Origin>;
}
