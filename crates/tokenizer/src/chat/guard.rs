//! Parts of the template engine that a template could make panic or take endless memory.

use minijinja::filters;
use minijinja::value::{Kwargs, Rest, StringInput, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::budget;
use super::rewrite::SLICE;

const WIDEST: usize = 999;
const LONGEST_RANGE: u64 = 100_000;

/// Replaces or removes what is not safe with every argument.
pub(super) fn install(jinja: &mut Environment<'_>) {
    for filter in ["batch", "slice", "round", "pprint"] {
        jinja.remove_filter(filter);
    }
    jinja.remove_global("debug");
    jinja.add_filter("indent", indent);
    jinja.add_filter("format", format);
    jinja.add_function("range", range);
    jinja.set_unknown_method_callback(method);
}

fn fault(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

fn indent(
    value: StringInput<'_>,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let named = options.get::<Option<usize>>("width")?;
    if width.or(named).is_some_and(|width| width > WIDEST) {
        return Err(fault("indent: a width of at most 999 is supported"));
    }
    filters::indent(value, width, first, blank, options)
}

fn format(
    state: &mut State<'_, '_>,
    text: &Value,
    values: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    narrow(text.as_str().unwrap_or_default())?;
    filters::format(state, text, values)
}

/// Refuses widths of more than three digits, and those taken from a value.
fn narrow(format: &str) -> Result<(), Error> {
    let mut digits = 0;
    for character in format.chars() {
        digits = if character.is_numeric() {
            digits + 1
        } else {
            0
        };
        if digits > 3 || character == '*' {
            return Err(fault("format: a width of at most 999 is supported"));
        }
    }
    Ok(())
}

fn range(start: i64, stop: Option<i64>, step: Option<i64>) -> Result<Vec<i64>, Error> {
    let (start, stop) = stop.map_or((0, start), |stop| (start, stop));
    let step = step.unwrap_or(1);
    let distance = if step > 0 {
        stop.saturating_sub(start)
    } else {
        start.saturating_sub(stop)
    };
    let length = match step.unsigned_abs() {
        0 => return Err(fault("range: a step of 0")),
        step => u64::try_from(distance).unwrap_or(0).div_ceil(step),
    };
    if length > LONGEST_RANGE {
        return Err(fault("range: more than 100000 numbers"));
    }
    Ok(
        std::iter::successors(Some(start), |at| at.checked_add(step))
            .take(length as usize)
            .collect(),
    )
}

/// Python's methods of texts, lists and dicts, and slicing.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (name, value.as_str()) {
        (SLICE, _) => {
            budget::spend(state, value)?;
            slice(value, arguments)
        }
        ("join", Some(between)) => {
            for values in arguments {
                budget::pay_join(state, values, between.len())?;
            }
            pycompat::unknown_method_callback(state, value, name, arguments)
        }
        ("replace", Some(text)) => {
            if let [from, to, ..] = arguments
                && let (Some(from), Some(to)) = (from.as_str(), to.as_str())
            {
                budget::pay_replace(state, text, from, to)?;
            }
            pycompat::unknown_method_callback(state, value, name, arguments)
        }
        ("title", Some(text)) if arguments.is_empty() => Ok(title(text).into()),
        ("format", Some(text)) => {
            narrow(text)?;
            // A replacement field within a width takes the width from a value.
            if text.contains(":{") || text.matches('{').count() > 100 {
                return Err(fault("format: a width taken from a value is not supported"));
            }
            pycompat::unknown_method_callback(state, value, name, arguments)
        }
        _ => pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// Python's `str.title`: a letter is a capital unless a letter stands before it.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut after_letter = false;
    for character in text.chars() {
        match after_letter {
            true => out.extend(character.to_lowercase()),
            false => out.extend(character.to_uppercase()),
        }
        after_letter = character.is_lowercase() || character.is_uppercase();
    }
    out
}

/// `value[start:stop:step]` as Python has it.
fn slice(value: &Value, bounds: &[Value]) -> Result<Value, Error> {
    let bound = |at: usize| match bounds.get(at).filter(|bound| !bound.is_none()) {
        Some(bound) => i64::try_from(bound.clone()).map(Some),
        None => Ok(None),
    };
    let (start, stop, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    match value.kind() {
        ValueKind::String => {
            let characters: Vec<char> = value.as_str().unwrap_or_default().chars().collect();
            let chosen = chosen(characters.len(), start, stop, step)?;
            Ok(chosen
                .filter_map(|at| characters.get(at))
                .collect::<String>()
                .into())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            let chosen = chosen(items.len(), start, stop, step)?;
            Ok(chosen
                .filter_map(|at| items.get(at).cloned())
                .collect::<Vec<Value>>()
                .into())
        }
        kind => Err(fault(&format!("a value of type {kind} cannot be sliced"))),
    }
}

/// The places that a slice takes, in order.
fn chosen(
    length: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> Result<impl Iterator<Item = usize>, Error> {
    let length = i64::try_from(length).map_err(|_| fault("a list is too long"))?;
    if step == 0 {
        return Err(fault("a slice with a step of 0"));
    }
    let (low, high) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let place = |bound: i64| {
        let from_start = if bound < 0 {
            bound.saturating_add(length)
        } else {
            bound
        };
        from_start.clamp(low, high)
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (start, stop) = (start.map_or(first, place), stop.map_or(last, place));
    let places = std::iter::successors(Some(start), move |at| at.checked_add(step));
    Ok(places
        .take_while(move |&at| if step > 0 { at < stop } else { at > stop })
        .filter_map(|at| usize::try_from(at).ok()))
}
