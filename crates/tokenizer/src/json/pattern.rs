//! Which regular expressions of a `tokenizer.json` may run.
//!
//! The engine tries alternatives by going back, and stops the process when it has gone back ten
//! million times. So only patterns are accepted whose work for one match grows linearly with the
//! text: no repetition of something that itself varies, no backreference, and after a second
//! open-ended repetition in an alternative only what may be absent. The known pre-tokenizers are
//! all of this kind.

use std::iter::Peekable;
use std::str::Chars;

const LONGEST: usize = 4096;
const DEEPEST: usize = 32;

/// What matters of a part of a pattern.
#[derive(Clone, Copy, Default)]
struct Part {
    /// It can match in more than one way at one place.
    varies: bool,
    /// It can match nothing.
    optional: bool,
    /// How many open-ended repetitions it has in its worst alternative.
    open: u32,
}

/// Says why `pattern` may not run, if it may not.
pub(super) fn check(pattern: &str) -> Result<(), &'static str> {
    if pattern.len() > LONGEST {
        return Err("it is longer than 4096 bytes");
    }
    let mut chars = pattern.chars().peekable();
    alternatives(&mut chars, 0)?;
    match chars.next() {
        None => Ok(()),
        Some(_) => Err("its parentheses do not match"),
    }
}

fn alternatives(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Part, &'static str> {
    if depth > DEEPEST {
        return Err("its parentheses are nested too deeply");
    }
    let mut whole = sequence(chars, depth)?;
    while chars.next_if_eq(&'|').is_some() {
        let part = sequence(chars, depth)?;
        whole = Part {
            varies: true,
            optional: whole.optional || part.optional,
            open: whole.open.max(part.open),
        };
    }
    Ok(whole)
}

fn sequence(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Part, &'static str> {
    let mut whole = Part {
        optional: true,
        ..Part::default()
    };
    while let Some(&next) = chars.peek() {
        if matches!(next, '|' | ')') {
            break;
        }
        chars.next();
        let atom = atom(next, chars, depth)?;
        let part = repeated(atom, chars)?;
        if whole.open >= 2 && !part.optional || whole.open + part.open > 2 {
            return Err("it goes back too often");
        }
        whole.open += part.open;
        whole.varies |= part.varies;
        whole.optional &= part.optional;
    }
    Ok(whole)
}

fn atom(first: char, chars: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Part, &'static str> {
    match first {
        '(' => {
            let looks = group_kind(chars)?;
            let inner = alternatives(chars, depth + 1)?;
            if chars.next() != Some(')') {
                return Err("its parentheses do not match");
            }
            Ok(if looks {
                Part {
                    varies: false,
                    optional: false,
                    ..inner
                }
            } else {
                inner
            })
        }
        '[' => class(chars).map(|()| Part::default()),
        '\\' => escape(chars).map(|()| Part::default()),
        '*' | '+' | '?' => Err("it repeats nothing"),
        _ => Ok(Part::default()),
    }
}

/// Reads what follows an opening parenthesis; true for a look-around.
fn group_kind(chars: &mut Peekable<Chars<'_>>) -> Result<bool, &'static str> {
    if chars.next_if_eq(&'?').is_none() {
        return Ok(false);
    }
    match chars.next() {
        Some('=' | '!') => Ok(true),
        Some(':' | '>') => Ok(false),
        Some('i') if chars.next_if_eq(&':').is_some() => Ok(false),
        Some('<') if chars.next_if(|c| matches!(c, '=' | '!')).is_some() => Ok(true),
        _ => Err("it has a group of an unknown kind"),
    }
}

fn class(chars: &mut Peekable<Chars<'_>>) -> Result<(), &'static str> {
    let mut depth = 1;
    chars.next_if_eq(&'^');
    chars.next_if_eq(&']');
    while let Some(next) = chars.next() {
        match next {
            '\\' => escape(chars)?,
            '[' => depth += 1,
            ']' if depth == 1 => return Ok(()),
            ']' => depth -= 1,
            _ => {}
        }
    }
    Err("its brackets do not match")
}

fn escape(chars: &mut Peekable<Chars<'_>>) -> Result<(), &'static str> {
    match chars.next() {
        None => Err("it ends in a backslash"),
        Some('1'..='9' | 'k' | 'g' | 'K') => Err("it refers back to a group"),
        Some('p' | 'P' | 'x') if chars.next_if_eq(&'{').is_some() => chars
            .find(|&c| c == '}')
            .map(drop)
            .ok_or("its braces do not match"),
        Some(_) => Ok(()),
    }
}

/// The atom with the repetition marks that follow it.
fn repeated(atom: Part, chars: &mut Peekable<Chars<'_>>) -> Result<Part, &'static str> {
    let (least, most) = match chars.peek() {
        Some('?') => (0, Some(1)),
        Some('*') => (0, None),
        Some('+') => (1, None),
        Some('{') => return braces(atom, chars),
        _ => return Ok(atom),
    };
    chars.next();
    times(atom, least, most, chars)
}

fn braces(atom: Part, chars: &mut Peekable<Chars<'_>>) -> Result<Part, &'static str> {
    chars.next();
    let mut text = String::new();
    loop {
        match chars.next() {
            Some('}') => break,
            Some(c) if text.len() < 16 => text.push(c),
            _ => return Err("it has a repetition that cannot be read"),
        }
    }
    let number = |text: &str| text.parse::<u32>().ok().filter(|&n| n <= 1000);
    let unreadable = "it has a repetition that cannot be read";
    let (least, most) = match text.split_once(',') {
        None => (
            number(&text).ok_or(unreadable)?,
            Some(number(&text).ok_or(unreadable)?),
        ),
        Some((least, "")) => (number(least).ok_or(unreadable)?, None),
        Some(("", most)) => (0, Some(number(most).ok_or(unreadable)?)),
        Some((least, most)) => (
            number(least).ok_or(unreadable)?,
            Some(number(most).ok_or(unreadable)?),
        ),
    };
    times(atom, least, most, chars)
}

fn times(
    atom: Part,
    least: u32,
    most: Option<u32>,
    chars: &mut Peekable<Chars<'_>>,
) -> Result<Part, &'static str> {
    // A mark after a mark makes it lazy or possessive, which changes only the order of attempts.
    chars.next_if(|c| matches!(c, '?' | '+'));
    if chars
        .peek()
        .is_some_and(|c| matches!(c, '*' | '+' | '?' | '{'))
    {
        return Err("it repeats a repetition");
    }
    if most != Some(1) && (atom.varies || atom.open > 0) {
        return Err("it repeats something that varies");
    }
    Ok(Part {
        varies: atom.varies || most != Some(least),
        optional: atom.optional || least == 0,
        open: atom.open + u32::from(most.is_none()),
    })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn the_known_pre_tokenizers_may_run() {
        for pattern in crate::pretokenizer::patterns() {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
        let grouped_digits = r"\d{1,3}(?=(?:\d{3})*\b)";
        assert_eq!(check(grouped_digits), Ok(()));
    }

    #[test]
    fn patterns_that_go_back_without_end_may_not_run() {
        for pattern in [
            r"(a+)+b",
            r"(?:a|a)*b",
            r"(a*)*",
            r"a*a*a*b",
            r"a*b+c",
            r"(x?){20}",
            r"(a)\1",
            r"a**",
            r"(",
            r"[a",
            r"a)",
            r"\",
            r"(?P<n>a)",
            r"a{2,",
            r"(?:(?:a{1,9}){1,9}){1,9}",
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
    }
}
