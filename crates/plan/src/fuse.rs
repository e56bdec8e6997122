//! Two rewrite rules: a map into the map that reads it, and a map into the matmul it reads.
//! Neither changes a result: the cast at the end of a program rounds where the store would have.

use crate::{Edge, Expr, Graph, GraphNode, Op, Source, Spec};

/// A node that can still be rewritten. Sources name nodes by their number in the graph.
pub(crate) struct Item {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Edge>,
    pub(crate) spec: Spec,
    pub(crate) escapes: bool,
    /// The nodes that it computes, its own first.
    pub(crate) parts: Vec<u32>,
    /// Whether another item computes this one now.
    pub(crate) merged: bool,
}

/// WebGPU promises eight storage bindings; one is the result.
const MAP_INPUTS: usize = 7;
/// Operands of an epilogue beside the product: quantised weights bind three buffers themselves.
const EPILOGUE_INPUTS: usize = 3;

/// The graph's nodes as items.
pub(crate) fn items(graph: &Graph) -> Vec<Item> {
    let item = |(number, node): (u32, &GraphNode)| {
        let (op, inputs) = distinct(node.op.clone(), node.edges(graph));
        Item {
            op,
            inputs,
            spec: node.spec,
            escapes: node.escapes,
            parts: vec![number],
            merged: false,
        }
    };
    (0..).zip(&graph.nodes).map(item).collect()
}

/// A map's operand list with every view once; other operations as they are.
fn distinct(op: Op, edges: &[Edge]) -> (Op, Vec<Edge>) {
    let Op::Map(expr) = &op else {
        return (op, edges.to_vec());
    };
    let mut operands: Vec<Edge> = Vec::with_capacity(edges.len());
    for edge in edges {
        if !operands.contains(edge) {
            operands.push(*edge);
        }
    }
    let op = Op::Map(expr.renumber(&numbers(edges, &operands), operands.len()));
    (op, operands)
}

/// Applies both rules wherever they fit.
pub(crate) fn fuse(items: &mut [Item]) {
    let readers = only_readers(items);
    for at in 0..items.len() {
        while let Some(producer) = mergeable(items, &readers, at, |op| matches!(op, Op::Map(_))) {
            if !map_into_map(items, at, producer) {
                break;
            }
        }
    }
    let plain = |op: &Op| matches!(op, Op::Matmul { epilogue: None });
    for at in 0..items.len() {
        if let Some(product) = mergeable(items, &readers, at, plain) {
            map_into_matmul(items, at, product);
        }
    }
}

/// For each item, the only item that reads it, if there is exactly one.
fn only_readers(items: &[Item]) -> Vec<Option<usize>> {
    let mut readers = vec![Vec::new(); items.len()];
    for (at, item) in items.iter().enumerate() {
        for edge in &item.inputs {
            if let Source::Node(n) = edge.source
                && readers[n as usize].last() != Some(&at)
            {
                readers[n as usize].push(at);
            }
        }
    }
    readers
        .iter()
        .map(|r| if let [one] = r[..] { Some(one) } else { None })
        .collect()
}

/// An item that the map `at` could swallow: of the wanted kind, read by nobody else, and read
/// exactly as it lies. The first one that fits the size limits is taken.
fn mergeable(
    items: &[Item],
    readers: &[Option<usize>],
    at: usize,
    wanted: impl Fn(&Op) -> bool,
) -> Option<usize> {
    let Op::Map(expr) = &items[at].op else {
        return None;
    };
    items[at].inputs.iter().find_map(|edge| {
        let Source::Node(n) = edge.source else {
            return None;
        };
        let producer = &items[n as usize];
        let alone = !producer.escapes && final_reader(items, readers, n as usize) == Some(at);
        let whole = items[at]
            .inputs
            .iter()
            .filter(|e| e.source == edge.source)
            .all(|e| {
                e.layout.shape() == producer.spec.shape
                    && e.layout.covers(producer.spec.shape.elements())
            });
        let fits = match &producer.op {
            Op::Map(inner) => {
                operands(items, at, n as usize).len() <= MAP_INPUTS
                    && inner.code().len() + expr.code().len() <= Expr::MAX_CODE
            }
            _ => items[at].inputs.len() <= EPILOGUE_INPUTS + 1,
        };
        (wanted(&producer.op) && alone && whole && fits).then_some(n as usize)
    })
}

/// The reader of item `n`, followed through items that were merged into others.
fn final_reader(items: &[Item], readers: &[Option<usize>], n: usize) -> Option<usize> {
    let mut reader = readers[n]?;
    while items[reader].merged {
        reader = readers[reader]?;
    }
    Some(reader)
}

/// The distinct operands that `at` has once it computes `producer` itself.
fn operands(items: &[Item], at: usize, producer: usize) -> Vec<Edge> {
    let own = items[at]
        .inputs
        .iter()
        .filter(|e| e.source != Source::Node(producer as u32));
    let mut operands: Vec<Edge> = Vec::new();
    for edge in own.chain(&items[producer].inputs) {
        if !operands.contains(edge) {
            operands.push(*edge);
        }
    }
    operands
}

fn numbers(edges: &[Edge], operands: &[Edge]) -> Vec<u8> {
    let number = |edge| operands.iter().position(|o| o == edge).unwrap_or(0) as u8;
    edges.iter().map(number).collect()
}

fn map_into_map(items: &mut [Item], at: usize, producer: usize) -> bool {
    let (Op::Map(outer), Op::Map(inner)) = (&items[at].op, &items[producer].op) else {
        return false;
    };
    let operands = operands(items, at, producer);
    let source = Source::Node(producer as u32);
    let Some(slot) = items[at].inputs.iter().position(|e| e.source == source) else {
        return false;
    };
    // A map's operand list names a view once, so it names the producer once.
    let expr = outer.inline(
        slot,
        &numbers(&items[at].inputs, &operands),
        inner,
        &numbers(&items[producer].inputs, &operands),
        operands.len(),
    );
    items[at].op = Op::Map(expr);
    items[at].inputs = operands;
    merge(items, at, producer);
    true
}

fn map_into_matmul(items: &mut [Item], at: usize, product: usize) {
    let Op::Map(expr) = &items[at].op else { return };
    let source = Source::Node(product as u32);
    let rest: Vec<Edge> = items[at]
        .inputs
        .iter()
        .filter(|e| e.source != source)
        .copied()
        .collect();
    let numbers: Vec<u8> = items[at]
        .inputs
        .iter()
        .map(|edge| {
            rest.iter()
                .position(|r| r == edge)
                .map_or(0, |at| at as u8 + 1)
        })
        .collect();
    let epilogue = expr.renumber(&numbers, rest.len() + 1);
    items[at].op = Op::Matmul {
        epilogue: Some(epilogue),
    };
    items[at].inputs = [&items[product].inputs[..], &rest].concat();
    merge(items, at, product);
}

/// `at` computes `producer` from now on.
fn merge(items: &mut [Item], at: usize, producer: usize) {
    items[producer].merged = true;
    let parts = std::mem::take(&mut items[producer].parts);
    items[at].parts.extend(parts);
}
