//! The tags `{% generation %}` and `{% endgeneration %}`, which mark what the model wrote.
//!
//! They matter for training only. The engine has no tags of its own making, so they become
//! `{% with %}` and `{% endwith %}`: a scope like theirs, whose white space is treated alike.

use std::borrow::Cow;

/// The template with both tags replaced.
pub(super) fn without_tags(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{").filter(|_| template.contains("generation")) {
        let (text, tail) = rest.split_at(start);
        out.push_str(text);
        let length = match tail.as_bytes().get(1) {
            Some(b'#') => tail.find("#}").map_or(tail.len(), |end| end + 2),
            Some(b'{') => end_of(tail, "}}"),
            Some(b'%') => end_of(tail, "%}"),
            _ => 1,
        };
        let (tag, after) = tail.split_at(length);
        if is_raw(tag) {
            let length = end_of_raw(after);
            let (raw, after) = after.split_at(length);
            out.push_str(tag);
            out.push_str(raw);
            rest = after;
            continue;
        }
        out.push_str(&renamed(tag));
        rest = after;
    }
    out.push_str(rest);
    out
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

fn renamed(tag: &str) -> Cow<'_, str> {
    match name(tag) {
        Some("generation") => tag.replacen("generation", "with", 1).into(),
        Some("endgeneration") => tag.replacen("endgeneration", "endwith", 1).into(),
        _ => tag.into(),
    }
}

fn is_raw(tag: &str) -> bool {
    name(tag) == Some("raw")
}

/// Where the raw text ends: before its closing tag.
fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(start) = text[from..].find("{%") {
        let tag = &text[from + start..];
        if name(&tag[..end_of(tag, "%}")]) == Some("endraw") {
            return from + start;
        }
        from += start + 2;
    }
    text.len()
}

/// The length of the tag that `text` begins with. Its end does not count within a string or,
/// for `}}`, within braces.
fn end_of(text: &str, end: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut open) = (2, 0_usize);
    while at < bytes.len() {
        if open == 0 && bytes[at..].starts_with(end.as_bytes()) {
            return at + 2;
        }
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
            }
            b'{' | b'[' | b'(' => open += 1,
            b'}' | b']' | b')' => open = open.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::without_tags;

    #[test]
    fn only_the_two_tags_change() {
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
            ("é{% generation", "é{% generation"),
            ("generation{", "generation{"),
            ("generation{% 'a\\", "generation{% 'a\\"),
        ];
        for (template, expected) in cases {
            assert_eq!(without_tags(template), expected);
        }
    }
}
