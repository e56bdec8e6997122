use super::*;
use proptest::prelude::*;

fn matches(pattern: &str, path: &str) -> bool {
    Pattern::parse(pattern).unwrap().matches(path, 12)
}

#[test]
fn patterns_match_whole_paths() {
    for (pattern, path, expected) in [
        ("lm_head", "lm_head", true),
        ("lm_head", "lm_head2", false),
        ("head", "lm_head", false),
        ("*head", "lm_head", true),
        ("*.down_proj", "layers.3.mlp.down_proj", true),
        ("*.down_proj", "down_proj", false),
        ("layers.?.mlp.*", "layers.3.mlp.up_proj", true),
        ("layers.?.mlp.*", "layers.10.mlp.up_proj", false),
        ("*.{q,k}_proj", "layers.0.self_attn.k_proj", true),
        ("*.{q,k}_proj", "layers.0.self_attn.v_proj", false),
        ("layers.{0..3,-1}.*", "layers.3.x", true),
        ("layers.{0..3,-1}.*", "layers.11.x", true),
        ("layers.{0..3,-1}.*", "layers.1.x", true),
        ("layers.{0..3,-1}.*", "layers.10.x", false),
        ("layers.{-2..-1}.*", "layers.10.x", true),
        ("layers.{9..-2}.*", "layers.10.x", true),
        ("layers.{9..-2}.*", "layers.11.x", false),
        ("layers.{1}*", "layers.11.x", false),
        ("layers.1{1}.x", "layers.11.x", false),
        ("layers.{-13}.x", "layers.-1.x", false),
        ("layers.{0..99999999999}.x", "layers.11.x", true),
        ("{layers.0,lm_head}*", "layers.0.x", true),
        ("*", "", true),
        ("**", "a.b", true),
    ] {
        assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
    }
}

#[test]
fn the_models_prefix_may_be_left_out() {
    let rule = |text: &str| text.parse::<Rule>().unwrap();
    let path = "model.layers.0.mlp.up_proj";
    assert!(rule("layers.0.*=4").matches(path, 1));
    assert!(rule("model.layers.0.*=4").matches(path, 1));
    assert!(!rule("layers.0=4").matches(path, 1));
    assert!(!rule("odel.layers.0.*=4").matches(path, 1));
}

#[test]
fn values_are_what_they_say() {
    let affine = |bits, group| {
        Target::Quantised(Quantise {
            mode: Mode::Affine,
            bits: Some(bits),
            group,
        })
    };
    let mode = |mode| {
        Target::Quantised(Quantise {
            mode,
            bits: None,
            group: None,
        })
    };
    for (value, expected) in [
        ("8", affine(8, None)),
        ("6g32", affine(6, Some(32))),
        ("mxfp4", mode(Mode::Mxfp4)),
        ("mxfp8", mode(Mode::Mxfp8)),
        ("nvfp4", mode(Mode::Nvfp4)),
        ("bf16", Target::Float(Some(DType::BF16))),
        ("float16", Target::Float(Some(DType::F16))),
        ("f32", Target::Float(Some(DType::F32))),
        ("float", Target::Float(None)),
    ] {
        let rule: Rule = format!(" *.x = {value} ").parse().unwrap();
        assert_eq!(rule.target, expected, "{value}");
        assert_eq!(rule.to_string(), format!("*.x = {value}"));
    }
}

#[test]
fn rules_that_cannot_be_read_say_why() {
    for (text, words) in [
        ("lm_head", "it has no ="),
        ("=4", "no pattern before the ="),
        ("a=", "\"\" is none of BITS"),
        ("a=4g", "\"4g\" is none of"),
        ("a=+4", "\"+4\" is none of"),
        ("a=4g-32", "none of"),
        ("a=int8", "none of"),
        ("a=7", "affine bits must be 1 to 6 or 8, given 7"),
        (
            "a=4g48",
            "affine group size must be 32, 64 or 128, given 48",
        ),
        ("a{b=4", "a { has no }"),
        ("a}b=4", "'}' is in no path"),
        ("a{b{c}=4", "'{' is in no path"),
        ("a{}=4", "a choice in { } is empty"),
        ("a{b,}=4", "a choice in { } is empty"),
        ("a{3..1}=4", "\"3..1\" is empty"),
        ("a{0..}=4", "\"0..\" is no range of layers"),
        ("a{0..99999999999999999999}=4", "is no range of layers"),
        ("a b=4", "' ' is in no path"),
        ("[ab]=4", "'[' is in no path"),
        ("ä=4", "'ä' is in no path"),
    ] {
        let message = text.parse::<Rule>().unwrap_err().to_string();
        assert!(
            message.starts_with("rule \"") && message.contains(words),
            "{text}: {message}"
        );
    }
}

/// The meaning of `*` and `?`, by trying everything.
fn oracle(pattern: &[u8], path: &[u8]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((b'*', rest)) => (0..=path.len()).any(|skip| oracle(rest, &path[skip..])),
        Some((b'?', rest)) => !path.is_empty() && oracle(rest, &path[1..]),
        Some((byte, rest)) => path.first() == Some(byte) && oracle(rest, &path[1..]),
    }
}

proptest! {
    #[test]
    fn wildcards_mean_what_trying_everything_says(
        pattern in "[ab.*?]{1,8}",
        path in "[ab.]{0,10}",
    ) {
        prop_assert_eq!(matches(&pattern, &path), oracle(pattern.as_bytes(), path.as_bytes()));
    }

    /// A choice is the same as the patterns with each word in its place.
    #[test]
    fn a_choice_is_any_of_its_words(
        before in "[ab*?]{0,3}",
        words in prop::collection::vec("[ab]{1,3}", 1..4),
        after in "[ab*?]{0,3}",
        path in "[ab.]{0,8}",
    ) {
        let together = format!("{before}{{{}}}{after}", words.join(","));
        let apart = words.iter().any(|word| {
            oracle(format!("{before}{word}{after}").as_bytes(), path.as_bytes())
        });
        prop_assert_eq!(matches(&together, &path), apart);
    }

    /// Numbers are ranges with both ends, negative ones counted from the number of layers.
    #[test]
    fn ranges_hold_both_ends(
        layers in 1i64..40, first in -45i64..45, last in -45i64..45, layer in 0i64..45,
    ) {
        let text = format!("layers.{{{first}..{last}}}.x");
        let from_end = |n: i64| if n < 0 { n + layers } else { n };
        let path = format!("layers.{layer}.x");
        match Pattern::parse(&text) {
            Ok(pattern) => prop_assert_eq!(
                pattern.matches(&path, layers as usize),
                from_end(first) <= layer && layer <= from_end(last)
            ),
            Err(why) => prop_assert!(first > last && (first < 0) == (last < 0), "{}", why),
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = text.parse::<Rule>();
    }

    #[test]
    fn a_rule_reads_back_what_it_prints(
        bits in prop::sample::select(vec![1usize, 2, 3, 4, 5, 6, 8]),
        group in prop::sample::select(vec![None, Some(32usize), Some(64), Some(128)]),
    ) {
        let target = Target::Quantised(Quantise { mode: Mode::Affine, bits: Some(bits), group });
        let rule: Rule = format!("*={target}").parse().unwrap();
        prop_assert_eq!(rule.target, target);
    }
}
