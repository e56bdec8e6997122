//! mlx_lm's mixed recipes: most layers in few bits, those that matter most in more.

use crate::rules::{Origin, Rule, Target};
use crate::{Quantise, Result};
use kiln_plan::Mode;

/// Names, bits of most layers, bits of those that matter most.
const RECIPES: [(&str, usize, usize); 4] = [
    ("mixed_2_6", 2, 6),
    ("mixed_3_4", 3, 4),
    ("mixed_3_6", 3, 6),
    ("mixed_4_6", 4, 6),
];

/// One of mlx_lm's recipes. It is a list of rules: the head, and in some of the layers v and the
/// MLP's down projection, get more bits than the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recipe {
    name: &'static str,
    low: usize,
    high: usize,
}

impl Recipe {
    /// The recipe that mlx_lm calls `name`.
    pub fn named(name: &str) -> Option<Recipe> {
        let known = RECIPES.into_iter().find(|(known, _, _)| *known == name);
        known.map(|(name, low, high)| Recipe { name, low, high })
    }

    /// The names of all recipes.
    pub fn names() -> [&'static str; 4] {
        RECIPES.map(|(name, _, _)| name)
    }

    /// Its rules for a model of so many layers. `group` is the group size; `None` is left open.
    pub(crate) fn rules(self, layers: usize, group: Option<usize>) -> Result<Vec<Rule>> {
        let more = numbers((0..layers).filter(|&layer| has_more_bits(layer, layers)));
        let rule = |pattern: &str, bits| {
            let quantise = Quantise {
                mode: Mode::Affine,
                bits: Some(bits),
                group,
            };
            Rule::made(
                pattern,
                Target::Quantised(quantise),
                Origin::Recipe(self.name),
            )
        };
        let important = format!("layers.{{{more}}}.*.{{v_proj,v_a_proj,v_b_proj,down_proj}}");
        Ok(vec![
            rule(&important, self.high)?,
            rule("lm_head", self.high)?,
            rule("*", self.low)?,
        ])
    }
}

/// The first and the last eighth of the layers, and every third between.
fn has_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// Ascending numbers as a pattern's choices: `0..3,6,9`.
fn numbers(all: impl Iterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in all {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}..{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}
