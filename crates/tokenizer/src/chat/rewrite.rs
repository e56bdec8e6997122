//! A template in the words of the engine, which lacks three things.
//!
//! The tags `{% generation %}` and `{% endgeneration %}` mark what the model wrote; they matter
//! for training only. They become `{% with %}` and `{% endwith %}`: a scope like theirs, whose
//! white space is treated alike. A slice `x[a:b:c]` becomes the method call `x.__slice__(a, b, c)`,
//! since the engine's own panics on some bounds. The operands of `~`, `+` and `*` go through filters that
//! count them (`budget`), since the engine lets them grow without an end.

use super::budget;

/// Most bytes of a tag outside its strings: operators nest as deep as a tag is long.
const TAG_BYTES: usize = 4096;
/// Most `elif` tags: each nests within the one before.
const BRANCHES: usize = 256;
/// Deepest nesting of brackets.
const DEPTH: usize = 64;
/// The method that stands for slicing.
pub(super) const SLICE: &str = "__slice__";

/// The template rewritten, or why it may not run.
pub(super) fn rewrite(template: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut branches = 0;
    while let Some(start) = rest.find('{') {
        let (text, tail) = rest.split_at(start);
        out.push_str(text);
        let end = match tail.as_bytes().get(1) {
            Some(b'#') => {
                let length = tail.find("#}").map_or(tail.len(), |end| end + 2);
                let (comment, after) = tail.split_at(length);
                out.push_str(comment);
                rest = after;
                continue;
            }
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            _ => {
                out.push('{');
                rest = tail.get(1..).unwrap_or_default();
                continue;
            }
        };
        let mut tag = Tag {
            text: tail,
            at: 2,
            end,
            outside: 0,
        };
        let inside = tag.parts(None, 0)?.join(":");
        let whole = tail.get(..tag.at).unwrap_or(tail);
        rest = tail.get(tag.at..).unwrap_or_default();
        branches += usize::from(
            inside
                .trim_start_matches(['-', '+'])
                .trim_start()
                .starts_with("elif"),
        );
        if branches > BRANCHES {
            return Err("it has more than 256 elif tags");
        }
        match name(whole) {
            Some("generation") => out.push_str(&whole.replacen("generation", "with", 1)),
            Some("endgeneration") => out.push_str(&whole.replacen("endgeneration", "endwith", 1)),
            Some("raw") => {
                let length = end_of_raw(rest);
                let (raw, after) = rest.split_at(length);
                out.extend([whole, raw]);
                rest = after;
            }
            _ => out.extend([tail.get(..2).unwrap_or_default(), &inside]),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The name of a block tag, if `tag` is one without arguments.
fn name(tag: &str) -> Option<&str> {
    let inside = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    Some(
        inside
            .trim_start_matches(['-', '+'])
            .trim_end_matches(['-', '+'])
            .trim(),
    )
}

/// Where raw text ends: before its closing tag.
fn end_of_raw(text: &str) -> usize {
    for (start, _) in text.match_indices("{%") {
        let tail = &text[start..];
        let tag = tail.find("%}").map(|end| &tail[..end + 2]);
        if tag.and_then(name) == Some("endraw") {
            return start;
        }
    }
    text.len()
}

/// Reads one tag.
struct Tag<'a> {
    text: &'a str,
    at: usize,
    /// `}}` or `%}`; it does not count within brackets.
    end: &'static str,
    /// How many bytes were read outside strings.
    outside: usize,
}

impl Tag<'_> {
    /// The text up to the closing bracket, or through the end of the tag, cut at its colons. The
    /// bracket is read but is not part of the text.
    fn parts(&mut self, close: Option<char>, depth: usize) -> Result<Vec<String>, &'static str> {
        if depth > DEPTH {
            return Err("its brackets nest more than 64 deep");
        }
        let mut parts = vec![String::new()];
        // Whether a value ends here, so that a bracket would be its subscript.
        let mut value = false;
        let mut word = String::new();
        // What an operator before asks of the operand that is being read.
        let mut asked: Option<&str> = None;
        while let Some(next) = self.text[self.at..].chars().next() {
            let part = parts.last_mut().ok_or("it has no parts")?;
            let rest = &self.text[self.at..];
            let ends = close.is_none() && rest.starts_with(self.end);
            if value && !continues(&word, next) {
                let operator = self.operator(rest, close);
                if ends || Some(next) == close || operator.is_some() || ends_operand(rest) {
                    let mut checks: Vec<&str> = asked.into_iter().chain(operator).collect();
                    checks.dedup();
                    part.extend(checks.into_iter().flat_map(|check| ["|", check, " "]));
                    asked = operator;
                }
            }
            if ends {
                part.push_str(self.end);
                self.at += self.end.len();
                return Ok(parts);
            }
            self.at += next.len_utf8();
            self.outside += next.len_utf8();
            if self.outside > TAG_BYTES {
                return Err("a tag is longer than 4096 bytes, strings aside");
            }
            if Some(next) == close {
                return Ok(parts);
            }
            if is_word(next) {
                word.push(next);
                part.push(next);
                value = !KEYWORDS.contains(&word.as_str());
                continue;
            }
            word.clear();
            match next {
                '"' | '\'' => self.string(next, part),
                '[' => {
                    let inner = self.parts(Some(']'), depth + 1)?;
                    part.push_str(&subscript(inner, value));
                }
                '(' => {
                    let inner = self.parts(Some(')'), depth + 1)?.join(":");
                    part.extend(["(", &inner, ")"]);
                }
                '{' => {
                    let inner = self.parts(Some('}'), depth + 1)?.join(":");
                    part.extend(["{", &inner, "}"]);
                }
                ':' => parts.push(String::new()),
                other => part.push(other),
            }
            value = match next {
                '"' | '\'' | '[' | '(' | '{' => true,
                other => value && other.is_whitespace(),
            };
        }
        // The engine finds the same end missing, and says where.
        Ok(parts)
    }

    /// The filter for the operands of the operator that `rest` begins with, if that makes long values.
    fn operator(&self, rest: &str, close: Option<char>) -> Option<&'static str> {
        let after = rest.get(1..).unwrap_or_default();
        match rest.chars().next() {
            // Of `+%}` the sign belongs to the end.
            Some('+') if close.is_some() || !after.starts_with(self.end) => Some(budget::ADDED),
            Some('~') => Some(budget::JOINED),
            Some('*') if !after.starts_with('*') => Some(budget::FACTOR),
            _ => None,
        }
    }

    /// Copies the rest of a string.
    fn string(&mut self, quote: char, out: &mut String) {
        out.push(quote);
        let mut escaped = false;
        for next in self.text[self.at..].chars() {
            self.at += next.len_utf8();
            out.push(next);
            if next == quote && !escaped {
                return;
            }
            escaped = next == '\\' && !escaped;
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `next` belongs to the word before it, also as the sign of an exponent.
fn continues(word: &str, next: char) -> bool {
    let number = word.starts_with(|first: char| first.is_ascii_digit());
    let exponent = number && word.ends_with(['e', 'E']) && matches!(next, '+' | '-');
    exponent || (!word.is_empty() && is_word(next))
}

/// Whether what an operator stands before ends where `rest` begins.
fn ends_operand(rest: &str) -> bool {
    let word = rest.split(|character| !is_word(character)).next();
    rest.starts_with([',', ':', '=', '<', '>', '!', '/', '%', '-', '+', '*', '~'])
        || word.is_some_and(|word| ENDS.contains(&word))
}

/// Words that end an operand.
const ENDS: [&str; 8] = ["and", "else", "if", "in", "is", "not", "or", "recursive"];

/// Words after which a bracket begins a list.
const KEYWORDS: [&str; 10] = [
    "in",
    "not",
    "and",
    "or",
    "if",
    "else",
    "elif",
    "is",
    "set",
    "recursive",
];

/// A bracketed text: a slice if it has colons and follows a value.
fn subscript(parts: Vec<String>, value: bool) -> String {
    if !value || !(2..=3).contains(&parts.len()) {
        return format!("[{}]", parts.join(":"));
    }
    let bound = |part: &String| match part.trim() {
        "" => "none".to_owned(),
        bound => bound.to_owned(),
    };
    let bounds: Vec<String> = parts.iter().map(bound).collect();
    format!(".{SLICE}({})", bounds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn operands_that_may_grow_are_counted() {
        let cases = [
            ("{{ a ~ b }}", "{{ a |J ~ b |J }}"),
            ("{{a~b~c}}", "{{a|J ~b|J ~c|J }}"),
            ("{{ a + b * c - d }}", "{{ a |A + b |A |F * c |F - d }}"),
            ("{{ -a * -b(1)[2] | f -}}", "{{ -a |F * -b(1)[2] | f |F -}}"),
            ("{%+ if a + b and c +%}", "{%+ if a |A + b |A and c +%}"),
            (
                "{% set x = (a ~ 'b~c') ~ d if e else f %}",
                "{% set x = (a |J ~ 'b~c'|J ) |J ~ d |J if e else f %}",
            ),
            ("{{ f(*a, **b) ** 2 }}", "{{ f(*a, **b) ** 2 }}"),
            (
                "{{ f(x=a ~ b, y={'k': c ~ d}) }}",
                "{{ f(x=a |J ~ b|J , y={'k': c |J ~ d|J }) }}",
            ),
            ("{{ 1e+5 + 2E-3 }}", "{{ 1e+5 |A + 2E-3 |A }}"),
            ("{{ a[b + 1:] }}", "{{ a.__slice__(b |A + 1|A, none) }}"),
            (
                "{% for inner in a + b recursive %}",
                "{% for inner in a |A + b |A recursive %}",
            ),
        ];
        for (template, expected) in cases {
            let names = [
                ("|J", "|__joined__"),
                ("|A", "|__added__"),
                ("|F", "|__factor__"),
            ];
            let expected = names
                .iter()
                .fold(expected.to_owned(), |text, (short, long)| {
                    text.replace(short, long)
                });
            assert_eq!(rewrite(template).as_deref(), Ok(expected.as_str()));
        }
    }

    #[test]
    fn only_the_two_tags_and_slices_change() {
        let cases = [
            (
                "{%- generation -%}a{% endgeneration %}",
                "{%- with -%}a{% endwith %}",
            ),
            ("{#{% generation %}#}", "{#{% generation %}#}"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            (
                "{{ {'a': {}} }}{% generation %}",
                "{{ {'a': {}} }}{% with %}",
            ),
            (
                "{% raw %}{% generation %}{% endraw %}",
                "{% raw %}{% generation %}{% endraw %}",
            ),
            (
                "generation {% if generation %}",
                "generation {% if generation %}",
            ),
            (
                "{% set a = '%}generation' %}{%generation%}",
                "{% set a = '%}generation' %}{%with%}",
            ),
            ("{{ a[::-1] }}", "{{ a.__slice__(none, none, -1) }}"),
            ("{{ a.b[1:][0] }}", "{{ a.b.__slice__(1, none)[0] }}"),
            (
                "{{ (a)[:b[2:3]] }}",
                "{{ (a).__slice__(none, b.__slice__(2, 3)) }}",
            ),
            ("{{ '[1:2]' [1:] }}", "{{ '[1:2]' .__slice__(1, none) }}"),
            (
                "{% for x in [1] %}{{ {'k': [a[0]]} }}",
                "{% for x in [1] %}{{ {'k': [a[0]]} }}",
            ),
            ("{{ 'a\\'[1:2]' }}", "{{ 'a\\'[1:2]' }}"),
            ("é{% generation", "é{% generation"),
            ("{", "{"),
            ("{{", "{{"),
            ("{% 'a\\", "{% 'a\\"),
        ];
        for (template, expected) in cases {
            assert_eq!(rewrite(template).as_deref(), Ok(expected));
        }
    }
}
