// The word of elements of WIDTH bytes that begins with element `first`. What lies past the end is
// element(count - 1): a word is stored whole.
fn packed(first: u32, count: u32) -> u32 {
//#if $WIDTH == 4
    return element(first);
//#elif $WIDTH == 2
    return element(first) | (element(min(first + 1u, count - 1u)) << 16u);
//#else
    return element(first)
        | (element(min(first + 1u, count - 1u)) << 8u)
        | (element(min(first + 2u, count - 1u)) << 16u)
        | (element(min(first + 3u, count - 1u)) << 24u);
//#endif
}
