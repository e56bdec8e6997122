//! The character rules inside a `tokenizer.model`: a double array that the library walks unchecked.

/// Most rules of which each begins with the one before; the library's array holds 32.
const NESTED_RULES: u8 = 31;

/// Checks a precompiled table: `u32` size of the trie, its cells, then texts that end in zero.
/// Every cell that any text can reach must be inside, and no path may pass too many rules.
pub(super) fn check(map: &[u8]) -> Result<(), &'static str> {
    let (size, rest) = map.split_first_chunk::<4>().ok_or("a table cut short")?;
    let size = u32::from_le_bytes(*size) as usize;
    if size < 1024 || !size.is_multiple_of(1024) {
        return Err("a trie that is not a multiple of 1024 bytes");
    }
    let (trie, texts) = rest
        .split_at_checked(size)
        .ok_or("a trie longer than the table")?;
    if texts.last() != Some(&0) || std::str::from_utf8(texts).is_err() {
        return Err("texts that are not utf-8 or do not end in zero");
    }
    let cells: Vec<u32> = trie
        .chunks_exact(4)
        .map(|cell| {
            cell.iter()
                .rev()
                .fold(0, |bits, &byte| bits << 8 | u32::from(byte))
        })
        .collect();
    walk(&cells, texts)
}

/// State of a cell during the walk: not seen, on the current path, or done with its longest chain.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open(u8),
    Done(u8, u8),
}

/// One cell of the path that is being walked.
struct Step {
    at: u32,
    /// The next byte to try.
    label: u32,
    /// The most rules that end below.
    deepest: u8,
    /// How many bytes the character in hand still needs.
    missing: u8,
}

/// Walks everything that UTF-8 text can reach from the root, depth first and without recursion.
fn walk(cells: &[u32], texts: &[u8]) -> Result<(), &'static str> {
    let offset = |cell: u32| (cell >> 10) << ((cell & (1 << 9)) >> 6);
    let mut marks = vec![Mark::New; cells.len()];
    let mut path = vec![Step {
        at: 0,
        label: 0,
        deepest: 0,
        missing: 0,
    }];
    marks[0] = Mark::Open(0);
    while let Some(step) = path.last_mut() {
        let base = step.at ^ offset(cells[step.at as usize]);
        if (base | 0xff) as usize >= cells.len() {
            return Err("a trie that leads outside");
        }
        if step.label > 0xff {
            let chain = close(step, cells, base, texts)?;
            marks[step.at as usize] = Mark::Done(chain, step.missing);
            path.pop();
            if let Some(step) = path.last_mut() {
                step.deepest = chain.max(step.deepest);
            }
            continue;
        }
        let label = step.label;
        step.label += 1;
        let next = base ^ label;
        let Some(missing) = after(step.missing, label as u8) else {
            continue;
        };
        if cells[next as usize] & 0x8000_00ff != label {
            continue;
        }
        match marks[next as usize] {
            Mark::New => {
                marks[next as usize] = Mark::Open(missing);
                path.push(Step {
                    at: next,
                    label: 0,
                    deepest: 0,
                    missing,
                });
            }
            Mark::Done(chain, same) if same == missing => step.deepest = chain.max(step.deepest),
            _ => return Err("a trie that turns in circles"),
        }
    }
    Ok(())
}

/// The number of rules along the longest path from here, this one included.
fn close(step: &Step, cells: &[u32], base: u32, texts: &[u8]) -> Result<u8, &'static str> {
    let leaf = step.at != 0 && cells[step.at as usize] >> 8 & 1 == 1;
    if leaf && !starts_text(texts, cells[base as usize] & 0x7fff_ffff) {
        return Err("a rule whose text lies outside");
    }
    if leaf && step.missing != 0 {
        return Err("a rule that ends within a character");
    }
    let chain = step.deepest + u8::from(leaf);
    if chain > NESTED_RULES {
        return Err("too many rules that begin with one another");
    }
    Ok(chain)
}

/// How many bytes a character still needs after `byte`; `None` where UTF-8 has no such byte.
fn after(missing: u8, byte: u8) -> Option<u8> {
    match (missing, byte) {
        (0, 0x00..=0x7f) => Some(0),
        (0, 0xc2..=0xdf) => Some(1),
        (0, 0xe0..=0xef) => Some(2),
        (0, 0xf0..=0xf4) => Some(3),
        (1.., 0x80..=0xbf) => Some(missing - 1),
        _ => None,
    }
}

/// Whether `at` is the start of a character, so that a replacement is whole text.
fn starts_text(texts: &[u8], at: u32) -> bool {
    texts
        .get(at as usize)
        .is_some_and(|byte| byte & 0xc0 != 0x80)
}
