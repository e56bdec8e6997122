//! Patterns for the paths of layers.

/// A pattern. A path matches as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    /// `?`
    One,
    /// `*`
    Any,
    /// `{…}`
    Choice(Vec<Choice>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Choice {
    Text(String),
    /// From the first to the second, both included. Negative ones count from the end: -1 is the
    /// last layer.
    Numbers(i64, i64),
}

impl Pattern {
    /// Reads a pattern, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        if text.is_empty() {
            return Err("it has no pattern before the =".into());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (piece, length) = match first {
                '*' => (Piece::Any, 1),
                '?' => (Piece::One, 1),
                '{' => {
                    let end = rest.find('}').ok_or("a { has no }")?;
                    let choices = rest[1..end].split(',').map(choice);
                    (Piece::Choice(choices.collect::<Result<_, _>>()?), end + 1)
                }
                _ => {
                    let end = rest.find(['*', '?', '{']).unwrap_or(rest.len());
                    (Piece::Text(word(&rest[..end])?), end)
                }
            };
            pieces.push(piece);
            rest = &rest[length..];
        }
        Ok(Pattern(pieces))
    }

    /// Whether the whole of `path` matches, in a model of so many layers. Takes time in proportion
    /// to the product of both lengths.
    pub(super) fn matches(&self, path: &str, layers: usize) -> bool {
        let path = path.as_bytes();
        // reached[i]: the pieces so far can match the first i bytes.
        let mut reached = vec![false; path.len() + 1];
        reached[0] = true;
        for piece in &self.0 {
            let mut next = vec![false; path.len() + 1];
            for start in (0..=path.len()).filter(|&start| reached[start]) {
                match piece {
                    Piece::Any => next[start..].fill(true),
                    Piece::One if start < path.len() => next[start + 1] = true,
                    Piece::One => {}
                    Piece::Text(text) => {
                        if path[start..].starts_with(text.as_bytes()) {
                            next[start + text.len()] = true;
                        }
                    }
                    Piece::Choice(choices) => {
                        let ends = choices
                            .iter()
                            .filter_map(|choice| choice.end(path, start, layers));
                        ends.for_each(|end| next[end] = true);
                    }
                }
            }
            reached = next;
        }
        reached[path.len()]
    }
}

impl Choice {
    /// Where a match that begins at `start` ends.
    fn end(&self, path: &[u8], start: usize, layers: usize) -> Option<usize> {
        match self {
            Choice::Text(text) => path[start..]
                .starts_with(text.as_bytes())
                .then_some(start + text.len()),
            Choice::Numbers(first, last) => {
                if start > 0 && path[start - 1].is_ascii_digit() {
                    return None;
                }
                let digits = path[start..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit());
                let end = start + digits.count();
                let number: i64 = std::str::from_utf8(&path[start..end]).ok()?.parse().ok()?;
                let count = i64::try_from(layers).unwrap_or(i64::MAX);
                let from_end = |n: i64| if n < 0 { n.saturating_add(count) } else { n };
                (from_end(*first)..=from_end(*last))
                    .contains(&number)
                    .then_some(end)
            }
        }
    }
}

fn choice(text: &str) -> Result<Choice, String> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| !text.starts_with('+'));
    if let Some((first, last)) = text.split_once("..") {
        let range = number(first).zip(number(last));
        let (first, last) =
            range.ok_or_else(|| format!("{text:?} is no range of layers, as 0..3 is"))?;
        if first > last && (first < 0) == (last < 0) {
            return Err(format!("{text:?} is empty: its first layer is the larger"));
        }
        return Ok(Choice::Numbers(first, last));
    }
    match number(text) {
        Some(number) => Ok(Choice::Numbers(number, number)),
        None if text.is_empty() => Err("a choice in { } is empty".into()),
        None => Ok(Choice::Text(word(text)?)),
    }
}

fn word(text: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match text.chars().find(|&c| !known(c)) {
        Some(c) => Err(format!(
            "{c:?} is in no path; letters, digits, _ - . and * ? {{a,b}} {{0..3,-1}} are allowed"
        )),
        None => Ok(text.to_owned()),
    }
}
