//! A graph as a picture: the nodes below an array, for Graphviz.

use crate::node::{Node, State};
use crate::{Array, Op};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// Pending nodes that are waiting for their inputs, and the text so far.
struct Picture {
    /// Nodes by address, so that each is drawn once.
    numbers: HashMap<*const Node, usize>,
    stack: Vec<Array>,
    text: String,
}

impl Array {
    /// The pending nodes below this array and the ready ones that they read, in Graphviz's language:
    /// operation, dtype and shape, and the line that made each. An edge that is a view has its shape.
    /// Computes nothing.
    ///
    /// ```
    /// # use kiln_array::Array;
    /// let device = kiln_cpu::device(Default::default())?;
    /// let x = Array::new([1.0, 2.0], &device)?;
    /// let picture = (x.exp()? + 1.0)?.to_dot();
    /// assert!(picture.starts_with("digraph {") && picture.contains("f32[2]"));
    /// # Ok::<(), kiln_array::Error>(())
    /// ```
    pub fn to_dot(&self) -> String {
        let mut picture = Picture {
            numbers: HashMap::new(),
            stack: Vec::new(),
            text: "digraph {\n    node [shape=box];\n".into(),
        };
        picture.number(self);
        while let Some(array) = picture.stack.pop() {
            picture.draw(&array);
        }
        picture.text + "}\n"
    }
}

impl Picture {
    fn number(&mut self, array: &Array) -> usize {
        let next = self.numbers.len();
        let key = Arc::as_ptr(&array.node);
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.stack.push(array.clone());
        }
        number
    }

    fn draw(&mut self, array: &Array) {
        let node = &array.node;
        let number = self.number(array);
        let work = match node.state() {
            State::Pending(work) => Some(work),
            State::Ready(_) => None,
        };
        let name = match &work {
            None => "ready".to_owned(),
            Some(work) => match &work.op {
                Op::Map(expr) => format!("map {expr}"),
                op => op.name().to_owned(),
            },
        };
        let lines = [name, node.spec.to_string(), node.origin.to_string()];
        let lines = lines.map(|line| line.replace('\\', "\\\\").replace('"', "\\\""));
        let style = if work.is_some() { "" } else { ", style=dashed" };
        // Writing to a string does not fail.
        let _ = writeln!(
            self.text,
            "    n{number} [label=\"{}\"{style}];",
            lines.join("\\n")
        );
        for input in work.iter().flat_map(|work| &work.inputs) {
            let from = self.number(input);
            let whole = input.layout.covers(input.node.spec.shape.elements())
                && input.shape() == input.node.spec.shape;
            let view = if whole {
                String::new()
            } else {
                format!(" [label=\"{}\"]", input.shape())
            };
            let _ = writeln!(self.text, "    n{from} -> n{number}{view};");
        }
    }
}
