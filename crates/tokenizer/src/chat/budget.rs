//! How much text a template may make: what joins, adds, repeats and shows values is counted.
//!
//! A text that is joined with itself forty times would fill any memory within a few instructions of the
//! engine, and a list that holds another twice would when it is shown.

use minijinja::value::{Kwargs, StringInput, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, escape_formatter, filters};

/// The filter that the rewritten template passes both operands of `~` through.
pub(super) const JOINED: &str = "__joined__";
/// That of `+`.
pub(super) const ADDED: &str = "__added__";
/// That of `*`.
pub(super) const FACTOR: &str = "__factor__";

/// Most bytes of text that the operations of one conversation may be given.
const MOST: usize = 128 << 20;
/// What an element of a list counts, besides its text.
const ELEMENT: usize = 64;
/// Deepest list that is shown.
const DEPTH: usize = 100;

/// Bytes that are left.
struct Left(usize);

/// Counts what operators and the functions that make longer texts are given.
pub(super) fn install(jinja: &mut Environment<'_>) {
    jinja.add_filter(JOINED, joined);
    jinja.add_filter(ADDED, added);
    jinja.add_filter(FACTOR, factor);
    jinja.add_filter("join", join);
    jinja.add_filter("replace", replace);
    jinja.add_filter("string", string);
    jinja.set_formatter(
        |out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value| {
            spend(state, value)?;
            escape_formatter(out, state, value)
        },
    );
}

fn fault(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Takes `bytes` from what is left for this conversation.
pub(super) fn pay(state: &mut State<'_, '_>, bytes: usize) -> Result<(), Error> {
    let left = state.get_or_insert_extension(Left(MOST));
    match left.0.checked_sub(bytes) {
        Some(rest) => left.0 = rest,
        None => return Err(fault("it makes more than 128 MiB of text")),
    }
    Ok(())
}

/// Pays for `value` as text.
pub(super) fn spend(state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    spend_nested(state, value, DEPTH)
}

fn spend_nested(state: &mut State<'_, '_>, value: &Value, depth: usize) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        return pay(state, text.len());
    }
    let inner = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => depth.checked_sub(1),
        _ => return pay(state, ELEMENT),
    };
    let inner = inner.ok_or_else(|| fault("a list is nested more than 100 deep"))?;
    for item in value.try_iter()? {
        pay(state, ELEMENT)?;
        if value.kind() == ValueKind::Map {
            spend_nested(state, &value.get_item(&item)?, inner)?;
        }
        spend_nested(state, &item, inner)?;
    }
    Ok(())
}

fn joined(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    spend(state, &value).map(|()| value)
}

/// Texts are copied, of lists the elements' handles.
fn added(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    let bytes = match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(0).saturating_mul(ELEMENT),
    };
    pay(state, bytes).map(|()| value)
}

fn factor(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Number | ValueKind::Bool | ValueKind::Undefined => Ok(value),
        kind => Err(fault(format!("a {kind} cannot be repeated"))),
    }
}

fn join(
    state: &mut State<'_, '_>,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    let between = joiner.as_ref().map_or(0, |joiner| joiner.as_str().len());
    pay_join(state, value, between)?;
    filters::join(state, value, joiner, attribute, options)
}

/// Pays for the elements of `value` joined with `between` bytes.
pub(super) fn pay_join(
    state: &mut State<'_, '_>,
    value: &Value,
    between: usize,
) -> Result<(), Error> {
    spend(state, value)?;
    pay(state, value.len().unwrap_or(0).saturating_mul(between))
}

fn replace(
    state: &mut State<'_, '_>,
    value: StringInput<'_>,
    from: StringInput<'_>,
    to: StringInput<'_>,
) -> Result<Value, Error> {
    pay_replace(state, value.as_str(), from.as_str(), to.as_str())?;
    filters::replace(state, value, from, to)
}

/// Pays for `text` with `to` in each place of `from`.
pub(super) fn pay_replace(
    state: &mut State<'_, '_>,
    text: &str,
    from: &str,
    to: &str,
) -> Result<(), Error> {
    let places = text.matches(from).count();
    pay(
        state,
        places.saturating_mul(to.len()).saturating_add(text.len()),
    )
}

fn string(state: &mut State<'_, '_>, value: &Value) -> Result<Value, Error> {
    spend(state, value)?;
    filters::string(state, value)
}
