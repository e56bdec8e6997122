//! Where a node comes from: the line that made it, and what that line was doing.

use crate::Spec;
use std::cell::Cell;
use std::fmt;
use std::panic::Location;

/// A part of a larger computation: `layer 3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    /// What kind of part.
    pub name: &'static str,
    /// Which one.
    pub number: usize,
}

/// Where a node comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The call that made it.
    pub site: &'static Location<'static>,
    /// The part that it belongs to.
    pub label: Option<Label>,
}

/// What nodes that are made now belong to.
#[derive(Clone, Copy)]
struct Scope {
    /// For the nodes of a decomposition: the call that made the operation.
    site: Option<&'static Location<'static>>,
    label: Option<Label>,
}

thread_local! {
    static SCOPE: Cell<Scope> = const { Cell::new(Scope { site: None, label: None }) };
}

/// Puts the scope back that there was before, also where a panic leaves it.
struct Restored(Scope);

impl Drop for Restored {
    fn drop(&mut self) {
        SCOPE.set(self.0);
    }
}

fn within<R>(scope: Scope, f: impl FnOnce() -> R) -> R {
    let _restored = Restored(SCOPE.replace(scope));
    f()
}

/// Calls `f`; errors name nodes that it makes on this thread as part of `name` `number`, such as
/// `layer 3`. An inner label hides an outer one.
///
/// ```
/// use kiln_array::{Array, label};
/// let device = kiln_cpu::device(Default::default())?;
/// let x = Array::new([1.0, 2.0], &device)?;
/// let y = label("layer", 3, || x.exp())?;
/// assert!(y.to_dot().contains("layer 3"));
/// # Ok::<(), kiln_array::Error>(())
/// ```
pub fn label<R>(name: &'static str, number: usize, f: impl FnOnce() -> R) -> R {
    let label = Some(Label { name, number });
    let scope = SCOPE.get();
    within(Scope { label, ..scope }, f)
}

/// ```
/// use kiln_plan::{Error, Origin, Place, Shape, Spec, DType};
/// let outer = Origin::new(std::panic::Location::caller());
/// let inner = outer.lend(|| Origin::new(std::panic::Location::caller()));
/// assert!(inner.reads_as(&outer) && outer.site.file() == file!());
/// let output = Spec { dtype: DType::F32, shape: Shape::SCALAR };
/// let place = Place { step: None, op: "copy", inputs: vec![output], output, origins: vec![outer] };
/// let error = Error::Memory { device: "cpu".into(), bytes: 4 }.at(place);
/// assert!(error.to_string().starts_with("copy of f32[] giving f32[] (at "));
/// ```
impl Origin {
    /// That of a node made now by a call at `site`.
    pub fn new(site: &'static Location<'static>) -> Origin {
        let scope = SCOPE.get();
        Origin {
            site: scope.site.unwrap_or(site),
            label: scope.label,
        }
    }

    /// Whether both are told in the same words: the same line for the same part.
    pub fn reads_as(&self, other: &Origin) -> bool {
        let place = |origin: &Origin| (origin.site.file(), origin.site.line());
        place(self) == place(other) && self.label == other.label
    }

    /// Calls `f`; nodes that it makes have this origin.
    pub fn lend<R>(self, f: impl FnOnce() -> R) -> R {
        let site = Some(self.site);
        let label = self.label;
        within(Scope { site, label }, f)
    }
}

/// What an evaluation was doing when it failed.
#[derive(Clone, Debug)]
pub struct Place {
    /// The number of the step in its plan, where it was one.
    pub step: Option<usize>,
    /// The operation's name.
    pub op: &'static str,
    /// Dtype and shape of every operand.
    pub inputs: Vec<Spec>,
    /// Dtype and shape of the result.
    pub output: Spec,
    /// Where the operation comes from, and those that are computed in the same step.
    pub origins: Vec<Origin>,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.number)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = self.label {
            write!(f, "{label}, ")?;
        }
        write!(f, "{}:{}", self.site.file(), self.site.line())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = self.step {
            write!(f, "step {step}, ")?;
        }
        let inputs = crate::error::list(&self.inputs);
        write!(f, "{} of {inputs} giving {}", self.op, self.output)?;
        for (number, origin) in self.origins.iter().enumerate() {
            let open = if number == 0 {
                " (at "
            } else {
                ", fused with "
            };
            write!(f, "{open}{origin}")?;
        }
        f.write_str(if self.origins.is_empty() { "" } else { ")" })
    }
}
