//! Writes a `tokenizer.model`.

/// A piece as a GGUF file lists it; its kinds have the same numbers.
pub(crate) struct Piece<'a> {
    pub(crate) text: &'a str,
    pub(crate) score: f32,
    pub(crate) kind: i32,
}

/// The bytes of a model that merges by score, falls back to bytes if `pieces` have them, and
/// changes nothing in a text but its spaces.
pub(crate) fn model(
    pieces: &[Piece<'_>],
    dummy_prefix: bool,
    bos: Option<&str>,
    eos: Option<&str>,
) -> Vec<u8> {
    let mut model = Vec::new();
    for piece in pieces {
        let mut message = Vec::with_capacity(piece.text.len() + 16);
        bytes(1, piece.text.as_bytes(), &mut message);
        tag(2, 5, &mut message);
        message.extend(piece.score.to_le_bytes());
        // A negative number is ten bytes long and refused by whoever reads it.
        number(3, i64::from(piece.kind) as u64, &mut message);
        bytes(1, &message, &mut model);
    }
    let mut trainer = Vec::new();
    number(3, 2, &mut trainer);
    number(4, pieces.len() as u64, &mut trainer);
    number(
        35,
        u64::from(pieces.iter().any(|piece| piece.kind == 6)),
        &mut trainer,
    );
    for (field, name) in [(46, bos), (47, eos)] {
        if let Some(name) = name {
            bytes(field, name.as_bytes(), &mut trainer);
        }
    }
    bytes(2, &trainer, &mut model);
    let mut normalizer = Vec::new();
    bytes(1, b"identity", &mut normalizer);
    number(3, u64::from(dummy_prefix), &mut normalizer);
    number(4, 0, &mut normalizer);
    bytes(3, &normalizer, &mut model);
    model
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(field: u64, wire_type: u64, out: &mut Vec<u8>) {
    varint(field << 3 | wire_type, out);
}

fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    tag(field, 0, out);
    varint(value, out);
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    tag(field, 2, out);
    varint(value.len() as u64, out);
    out.extend(value);
}
