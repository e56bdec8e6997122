//! Kernel sources and the small preprocessor that specialises them.
//!
//! Directives are comment lines, so that editors still read the files as WGSL:
//!
//! * `//#if A == B`, `//#if A != B`, `//#if A` (neither empty nor 0), `//#elif …`, `//#else`,
//!   `//#endif`;
//! * `//#for I in 0..4` … `//#endfor`: the text once for each value of `$I`;
//! * `//#include FILE A=B …`: another file, with these values set.
//!
//! `$NAME` and `${NAME}` are replaced everywhere; `${X$I}` is the value whose name is `X` and the
//! value of `I`.

macro_rules! kernels {
    ($($name:literal)+) => {
        /// Every file in `kernels/`, by name.
        pub(crate) const FILES: &[(&str, &str)] = &[$((
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../kernels/", $name, ".wgsl")),
        )),+];
    };
}

kernels! {
    "argmax" "attention" "attention_lanes" "attention_merge" "attention_power" "attention_store"
    "attention_tiles" "attention_vector" "bits" "codes" "copy" "custom" "eight" "epilogue" "expr" "four"
    "indices" "lanes" "load" "map" "math" "matmul" "matmul_matrix" "matmul_tiles" "matvec" "norm"
    "packed" "probe" "product" "reduce" "reduce_rows" "rope" "rope_odd" "rounded" "softmax" "store" "strided"
    "take" "weight" "words" "write" "write_odd"
}

/// The kernel whose text is partly from outside.
pub(crate) const CUSTOM: &str = "custom";

/// A kernel with its values: the identity of a pipeline.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Kernel {
    /// The file's name.
    pub(crate) file: &'static str,
    /// What stands for `$NAME`.
    pub(crate) values: Vec<(String, String)>,
}

impl Kernel {
    /// The kernel of `file` without values.
    pub(crate) fn new(file: &'static str) -> Kernel {
        Kernel {
            file,
            values: Vec::new(),
        }
    }

    /// With a value for `$name`.
    pub(crate) fn set(mut self, name: impl Into<String>, value: impl ToString) -> Kernel {
        self.values.push((name.into(), value.to_string()));
        self
    }

    /// The WGSL text, or what is wrong with the source.
    pub(crate) fn text(&self) -> Result<String, String> {
        let mut out = String::new();
        include(self.file, &self.values, &mut out)?;
        Ok(out)
    }
}

type Values = [(String, String)];

fn include(file: &str, values: &Values, out: &mut String) -> Result<(), String> {
    let Some((_, text)) = FILES.iter().find(|(name, _)| *name == file) else {
        return Err(format!("there is no kernel file {file}"));
    };
    let lines: Vec<&str> = text.lines().collect();
    block(&lines, values, out).map_err(|error| format!("{file}.wgsl: {error}"))
}

/// Appends `lines` with their directives carried out.
fn block(lines: &[&str], values: &Values, out: &mut String) -> Result<(), String> {
    let mut at = 0;
    while let Some(&line) = lines.get(at) {
        let trimmed = line.trim();
        if let Some(condition) = trimmed.strip_prefix("//#if ") {
            let (arms, end) = arms(lines, at, condition)?;
            for (condition, body) in arms {
                if holds(condition, values)? {
                    block(&lines[body], values, out)?;
                    break;
                }
            }
            at = end;
        } else if let Some(head) = trimmed.strip_prefix("//#for ") {
            let end = closing(lines, at, "//#for ", "//#endfor")?;
            repeat(head, &lines[at + 1..end], values, out)?;
            at = end;
        } else if let Some(rest) = trimmed.strip_prefix("//#include ") {
            let rest = substitute(rest, values)?;
            let mut words = rest.split_whitespace();
            let file = words.next().unwrap_or_default();
            let mut inner = values.to_vec();
            for word in words {
                let (name, value) = word.split_once('=').ok_or("an include's value has no =")?;
                inner.push((name.into(), value.into()));
            }
            include(file, &inner, out)?;
        } else if trimmed.starts_with("//#") {
            return Err(format!("line {}: {trimmed} stands alone", at + 1));
        } else {
            out.push_str(&substitute(line, values)?);
            out.push('\n');
        }
        at += 1;
    }
    Ok(())
}

/// The conditions of an `if` with the lines that belong to each, and where it ends.
#[allow(clippy::type_complexity, reason = "a list of pairs and a number")]
fn arms<'t>(
    lines: &[&'t str],
    start: usize,
    condition: &'t str,
) -> Result<(Vec<(&'t str, std::ops::Range<usize>)>, usize), String> {
    let end = closing(lines, start, "//#if ", "//#endif")?;
    let mut arms = Vec::new();
    let (mut from, mut current, mut depth) = (start + 1, condition, 0);
    for (at, line) in lines.iter().enumerate().take(end).skip(start + 1) {
        let line = line.trim();
        depth += usize::from(line.starts_with("//#if "));
        depth -= usize::from(line == "//#endif");
        let next = line
            .strip_prefix("//#elif ")
            .or((line == "//#else").then_some("1"));
        if let (0, Some(next)) = (depth, next) {
            arms.push((current, from..at));
            (from, current) = (at + 1, next);
        }
    }
    arms.push((current, from..end));
    Ok((arms, end))
}

fn closing(lines: &[&str], start: usize, open: &str, close: &str) -> Result<usize, String> {
    let mut depth = 0;
    for (at, line) in lines.iter().enumerate().skip(start) {
        let line = line.trim();
        depth += usize::from(line.starts_with(open));
        depth -= usize::from(line == close);
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(format!("line {}: no {close}", start + 1))
}

fn holds(condition: &str, values: &Values) -> Result<bool, String> {
    let condition = substitute(condition, values)?;
    Ok(if let Some((a, b)) = condition.split_once("==") {
        a.trim() == b.trim()
    } else if let Some((a, b)) = condition.split_once("!=") {
        a.trim() != b.trim()
    } else {
        !matches!(condition.trim(), "" | "0")
    })
}

fn repeat(head: &str, body: &[&str], values: &Values, out: &mut String) -> Result<(), String> {
    let head = substitute(head, values)?;
    let parts = head
        .split_once(" in ")
        .and_then(|(name, range)| Some((name, range.split_once("..")?)));
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let Some((name, Some(from), Some(to))) =
        parts.map(|(name, (from, to))| (name, number(from), number(to)))
    else {
        return Err(format!("//#for {head} is not NAME in A..B"));
    };
    for value in from..to {
        let mut inner = values.to_vec();
        inner.push((name.trim().into(), value.to_string()));
        block(body, &inner, out)?;
    }
    Ok(())
}

fn substitute(line: &str, values: &Values) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let name = if let Some(braced) = rest.strip_prefix('{') {
            let end = braced.find('}').ok_or("${ without }")?;
            rest = &braced[end + 1..];
            substitute(&braced[..end], values)?
        } else {
            let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = rest.find(|c| !letter(c)).unwrap_or(rest.len());
            let name = rest[..end].to_string();
            rest = &rest[end..];
            name
        };
        let value = values.iter().rev().find(|(known, _)| *known == name);
        let (_, value) = value.ok_or_else(|| format!("${name} has no value"))?;
        out.push_str(value);
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let lines: Vec<&str> = text.lines().collect();
        let values = [
            ("A", "1"),
            ("X0", "f32"),
            ("X1", "f16"),
            ("N", "2"),
            ("NO", "0"),
        ]
        .map(|(a, b)| (a.to_string(), b.to_string()));
        let mut out = String::new();
        block(&lines, &values, &mut out)?;
        Ok(out)
    }

    #[test]
    fn loops_unroll_and_names_nest() {
        let text = "//#for I in 0..$N\nx$I: ${X$I};\n//#endfor";
        assert_eq!(expand(text).unwrap(), "x0: f32;\nx1: f16;\n");
    }

    #[test]
    fn the_first_arm_that_holds_counts() {
        let text = "//#if $NO\na\n//#elif $A == 1\n//#if $X0 != f32\nb\n//#else\nc\n//#endif\n\
                    //#elif 1\nd\n//#else\ne\n//#endif";
        assert_eq!(expand(text).unwrap(), "c\n");
    }

    #[test]
    fn mistakes_are_errors() {
        for text in [
            "$B",
            "//#if 1",
            "//#endif",
            "//#for I in x..2\n//#endfor",
            "${A",
        ] {
            assert!(expand(text).is_err(), "{text}");
        }
    }
}
