// Element i of the array NAME, of WIDTH bytes, as its bits.
fn bits_$NAME(i: u32) -> u32 {
//#if $WIDTH == 4
    return $NAME[i];
//#elif $WIDTH == 2
    return ($NAME[i >> 1u] >> ((i & 1u) << 4u)) & 0xffffu;
//#else
    return ($NAME[i >> 2u] >> ((i & 3u) << 3u)) & 255u;
//#endif
}
