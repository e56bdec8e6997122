//! Tokens that stand for bytes.

/// Appends the bytes of a byte-level token: each character stands for one byte, as in GPT-2; a
/// token with any other character stands for its own UTF-8 bytes.
pub(crate) fn append(token: &str, bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for character in token.chars() {
        match byte(character) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(before);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// The byte of a GPT-2 character: printable Latin-1 stands for itself, the other bytes in
/// ascending order for U+0100 onwards.
fn byte(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The byte of a fallback token such as `<0x0A>`.
pub(crate) fn fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_has_one_character() {
        let mut seen: Vec<u8> = (0..=0x143)
            .filter_map(char::from_u32)
            .filter_map(super::byte)
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
        assert_eq!(super::byte('Ġ'), Some(b' '));
        assert_eq!(super::byte('Ċ'), Some(b'\n'));
    }
}
