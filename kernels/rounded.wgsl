// The word of PER registers that begins with element `first`. What lies past the end is
// element(count - 1): a word is stored whole.
fn rounded(first: u32, count: u32) -> u32 {
//#if $PER == 1
    return word(element(first));
//#elif $PER == 2
    return word(element(first), element(min(first + 1u, count - 1u)));
//#else
    return word(
        element(first),
        element(min(first + 1u, count - 1u)),
        element(min(first + 2u, count - 1u)),
        element(min(first + 3u, count - 1u)),
    );
//#endif
}
