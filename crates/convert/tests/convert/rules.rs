//! Rules and recipes: which layer is stored how, and what the configuration says of it.

use crate::made::*;
use kiln_convert::{Options, Planned, Quantise, Recipe, Rule};
use kiln_formats::Type;
use kiln_plan::{DType, Format, Mode};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn affine(bits: Option<usize>, group: Option<usize>) -> Option<Quantise> {
    let mode = Mode::Affine;
    Some(Quantise { mode, bits, group })
}

fn layer(planned: &Planned) -> &str {
    planned.name.strip_suffix(".weight").unwrap()
}

/// What mlx_lm itself wrote for the same models; scripts/golden/recipes.py asks it.
#[test]
fn recipes_decide_as_mlx_lm_does() {
    let golden: Value = serde_json::from_str(include_str!("../golden/recipes.json")).unwrap();
    let cases = golden.as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let number = |key: &str| case[key].as_u64().map(|number| number as usize);
        let place = with_layers(number("layers").unwrap(), DType::F32);
        let recipe = case["recipe"].as_str().unwrap();
        let quantise = affine(number("bits"), number("group"));
        let options = Options {
            quantise,
            recipe: Recipe::named(recipe),
            ..Options::default()
        };
        let report = place.convert(&options).unwrap();
        let config = place.result_config();
        let mut entries = config["quantization"].clone();
        assert_eq!(entries, config["quantization_config"]);
        let own = entries.as_object_mut().unwrap();
        for (key, value) in case["default"].as_object().unwrap() {
            assert_eq!(
                own.shift_remove(key).as_ref(),
                Some(value),
                "{recipe} {key}"
            );
        }
        assert_eq!(Some(own.len()), number("entries"), "{recipe}");
        let high: Vec<&str> = case["high_paths"]
            .as_array()
            .unwrap()
            .iter()
            .map(|path| path.as_str().unwrap())
            .collect();
        for (path, entry) in own {
            let is_high = high.contains(&path.as_str());
            let expected = if is_high { &case["high"] } else { &case["low"] };
            assert_eq!(entry, expected, "{recipe} {path}");
        }
        let expected = case["bits_per_weight"].as_f64().unwrap();
        assert_eq!(report.bits_per_weight, expected, "{recipe}");
    }
}

/// The layers with more bits, computed by hand from the formula: the first eighth, the last eighth,
/// every third between.
#[test]
fn recipes_give_more_bits_to_these_layers() {
    let table: [(usize, &[usize]); 5] = [
        (1, &[0]),
        (12, &[0, 3, 6, 9, 10, 11]),
        (16, &[0, 1, 4, 7, 10, 13, 14, 15]),
        (24, &[0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]),
        (
            32,
            &[0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31],
        ),
    ];
    let recipes = [
        ("mixed_2_6", 2, 6),
        ("mixed_3_4", 3, 4),
        ("mixed_3_6", 3, 6),
        ("mixed_4_6", 4, 6),
    ];
    for (layers, more) in table {
        let place = with_layers(layers, DType::BF16);
        for (name, low, high) in recipes {
            let options = Options {
                recipe: Recipe::named(name),
                ..Options::default()
            };
            for tensor in place.plan(&options).unwrap().tensors() {
                let Some(bits) = tensor.bits else {
                    assert_eq!(tensor.shape.len(), 1);
                    continue;
                };
                let number = tensor.name.split('.').nth(2).and_then(|n| n.parse().ok());
                let important = tensor.name.contains("v_proj") || tensor.name.contains("down_proj");
                let most = number.is_some_and(|number| more.contains(&number)) && important;
                let expected = if most || tensor.name == "lm_head.weight" {
                    high
                } else {
                    low
                };
                assert_eq!(bits, expected, "{name}, {layers} layers: {}", tensor.name);
                assert!(tensor.rule.unwrap().starts_with(name));
            }
        }
    }
}

/// How each layer of a model with four layers would be stored.
fn decided(options: &Options) -> BTreeMap<String, (String, Option<usize>, Option<usize>)> {
    let place = with_layers(4, DType::F16);
    let plan = place.plan(options).unwrap();
    let decided = plan.tensors().into_iter().map(|tensor| {
        let how = (tensor.kind.clone(), tensor.bits, tensor.group);
        (layer(&tensor).to_owned(), how)
    });
    decided.collect()
}

#[test]
fn the_first_rule_that_matches_decides() {
    let decided = decided(&Options {
        rules: rules(&[
            "lm_head=bf16",
            "layers.{0,-1}.*=8",
            "*.{down,up}_proj=6g32",
            "model.embed_tokens=mxfp4",
        ]),
        quantise: affine(None, None),
        ..Options::default()
    });
    let affine = |bits, group| ("affine".to_owned(), Some(bits), Some(group));
    assert_eq!(decided["lm_head"], ("BF16".to_owned(), None, None));
    assert_eq!(
        decided["model.embed_tokens"],
        ("mxfp4".to_owned(), Some(4), Some(32))
    );
    for (path, expected) in [
        ("model.layers.0.mlp.down_proj", affine(8, 64)),
        ("model.layers.3.self_attn.q_proj", affine(8, 64)),
        ("model.layers.1.mlp.down_proj", affine(6, 32)),
        ("model.layers.2.mlp.up_proj", affine(6, 32)),
        ("model.layers.2.mlp.gate_proj", affine(4, 64)),
        ("model.norm", ("F16".to_owned(), None, None)),
    ] {
        assert_eq!(decided[path], expected, "{path}");
    }
}

#[test]
fn without_q_only_the_layers_with_a_rule_change() {
    let place = with_layers(2, DType::F16);
    let options = Options {
        rules: rules(&["*.down_proj=5g32", "*.q_proj=8"]),
        ..Options::default()
    };
    place.convert(&options).unwrap();
    let entry = |bits, group| json!({"group_size": group, "bits": bits, "mode": "affine"});
    let mut expected = entry(8, 64);
    for layer in 0..2 {
        expected[format!("model.layers.{layer}.mlp.down_proj")] = entry(5, 32);
    }
    let config = place.result_config();
    assert_eq!(config["quantization"], expected);
    assert_eq!(config["quantization_config"], expected);
    let result = place.result();
    assert_eq!(result.tensor("lm_head.weight").unwrap().dtype, Type::F16);
    let codes = result
        .tensor("model.layers.1.mlp.down_proj.weight")
        .unwrap();
    assert_eq!((codes.dtype, &codes.shape[..]), (Type::U32, &[64, 20][..]));
}

#[test]
fn the_written_tensors_are_those_of_the_plan() {
    let place = with_layers(3, DType::BF16);
    let mut options = Options {
        rules: rules(&["*.o_proj=float32", "layers.1.*=nvfp4", "*.v_proj=3g32"]),
        quantise: affine(Some(6), None),
        ..Options::default()
    };
    for dtype in [None, Some(DType::F16)] {
        options.dtype = dtype;
        options.force = true;
        let plan = place.plan(&options).unwrap();
        let report = place.convert(&options).unwrap();
        assert_eq!(
            (plan.bytes(), plan.parameters()),
            (report.bytes, report.parameters)
        );
        assert_eq!(plan.bits_per_weight(), report.bits_per_weight);
        let result = place.result();
        let mut written = 0;
        for tensor in plan.tensors() {
            let stored = result.tensor(&tensor.name).unwrap();
            let planes = ["scales", "biases"].map(|plane| format!("{}.{plane}", layer(&tensor)));
            let planes = planes.iter().filter_map(|plane| result.tensor(plane));
            let all: Vec<_> = [stored].into_iter().chain(planes).collect();
            let bytes: usize = all.iter().map(|tensor| tensor.range.len()).sum();
            assert_eq!(bytes as u64, tensor.bytes, "{}", tensor.name);
            written += all.len();
            match (tensor.bits, tensor.group) {
                (Some(bits), Some(group)) => {
                    assert_eq!(stored.shape, [tensor.shape[0], tensor.shape[1] * bits / 32]);
                    assert_eq!(all[1].shape, [tensor.shape[0], tensor.shape[1] / group]);
                    assert_eq!(all.len() == 3, tensor.kind == "affine", "{}", tensor.name);
                }
                _ => {
                    assert_eq!(stored.dtype.to_string(), tensor.kind);
                    assert_eq!(stored.shape, tensor.shape);
                    assert_eq!(all.len(), 1);
                }
            }
        }
        assert_eq!(written, result.len());
    }
}

#[test]
fn a_file_holds_the_same_rules() {
    let place = Place::new();
    let file = place.source().join("recipe.toml");
    let read = |text: &str| {
        place.put("recipe.toml", text);
        Rule::file(&file, &open).map_err(|error| error.to_string())
    };
    let text = "# The ends matter most.\nrules = [\n  \"layers.{0..3,-1}.*=8\", # eight\n  'lm_head = bf16',\n]\n";
    assert_eq!(
        read(text).unwrap(),
        rules(&["layers.{0..3,-1}.*=8", "lm_head = bf16"])
    );
    for (text, words) in [
        ("rules = 3", "in line 1"),
        ("# a\nrule = ['a=4']", "unknown field `rule`"),
        ("\nrules = ['a=4'", "in line 2"),
        ("", "missing field `rules`"),
        ("rules = ['a']", "rule \"a\": it has no ="),
        (
            "rules = ['a=7']",
            "affine bits must be 1 to 6 or 8, given 7",
        ),
        ("rules = \"\u{1}", "recipe.toml"),
    ] {
        let message = read(text).unwrap_err();
        assert!(
            message.contains(words) && message.contains("recipe.toml"),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    std::fs::write(&file, [b'r', 0xff]).unwrap();
    assert!(
        Rule::file(&file, &open)
            .unwrap_err()
            .to_string()
            .contains("utf-8")
    );
    assert!(Rule::file(&place.source().join("none"), &open).is_err());
}

#[test]
fn rules_that_decide_nothing_or_do_not_fit_are_refused_by_name() {
    let refused = |texts: &[&str]| {
        let options = Options {
            rules: rules(texts),
            ..Options::default()
        };
        with_layers(2, DType::F16).refused(&options)
    };
    let message = refused(&["*.o_proj=8", "layers.7.*=4"]);
    assert!(
        message.starts_with("rule \"layers.7.*=4\": it matches no layer"),
        "{message}"
    );
    assert!(
        message.contains("to 1 and model.embed_tokens, lm_head"),
        "{message}"
    );
    assert!(refused(&["*layernorm=4"]).contains("matches no layer"));
    let message = refused(&["layers.*=4", "*.v_proj=8"]);
    let words = "rule \"*.v_proj=8\": it decides nothing: the first rule that matches counts, and \
                 \"layers.*=4\" comes before it";
    assert!(message.contains(words), "{message}");
    let message = refused(&["*.down_proj=4g128", "*.up_proj=4g128"]);
    let words = "\"model.layers.0.mlp.up_proj.weight\": group size 128 does not divide rows of 64 \
                 (decided by *.up_proj=4g128)";
    assert!(message.contains(words), "{message}");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let place = with_layers(1, DType::F16);
    let mxfp4 = Some(Quantise {
        mode: Mode::Mxfp4,
        bits: None,
        group: None,
    });
    let recipe = Recipe::named("mixed_3_6");
    let none = Options::default;
    let cases = [
        (
            Options {
                quantise: affine(None, None),
                dequantise: true,
                ..none()
            },
            "and to dequantise",
        ),
        (
            Options {
                target: Some(4.0),
                dequantise: true,
                ..none()
            },
            "and to dequantise",
        ),
        (
            Options {
                recipe,
                target: Some(4.0),
                ..none()
            },
            "both a recipe and a target",
        ),
        (
            Options {
                recipe,
                quantise: mxfp4,
                ..none()
            },
            "a recipe is affine",
        ),
        (
            Options {
                target: Some(4.0),
                quantise: mxfp4,
                ..none()
            },
            "affine formats",
        ),
        (
            Options {
                target: Some(4.0),
                quantise: affine(Some(4), None),
                ..none()
            },
            "give no others",
        ),
    ];
    for (options, words) in cases {
        let message = place.refused(&options);
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(Recipe::named("mixed_5_6"), None);
    assert_eq!(Recipe::names().len(), 4);
}

#[test]
fn a_group_of_q_is_that_of_rules_without_one() {
    let decided = decided(&Options {
        rules: rules(&["*.o_proj=8", "*.q_proj=mxfp8"]),
        quantise: affine(Some(4), Some(32)),
        ..Options::default()
    });
    assert_eq!(
        decided["model.layers.0.self_attn.o_proj"],
        ("affine".into(), Some(8), Some(32))
    );
    assert_eq!(
        decided["model.layers.0.self_attn.q_proj"],
        ("mxfp8".into(), Some(8), Some(32))
    );
}

/// Groups of 16 make rows possible that are no multiple of 32.
#[test]
fn rows_of_three_groups_of_16_are_written_whole() {
    let place = Place::new();
    let mut config = config();
    config["intermediate_size"] = 48.into();
    place.put("config.json", config.to_string());
    let resized = filled(DType::F16).into_iter().map(|(name, shape, _)| {
        let resize = |size| if size == INTERMEDIATE { 48 } else { size };
        let shape: Vec<usize> = shape.into_iter().map(resize).collect();
        let bytes = encode(&values(&name, shape.iter().product()), DType::F16);
        (name, shape, bytes)
    });
    let resized: Vec<_> = resized.collect();
    place.put("model.safetensors", safetensors_file(&resized, Type::F16));
    let options = Options {
        rules: rules(&["*.down_proj=nvfp4"]),
        ..Options::default()
    };
    place.convert(&options).unwrap();
    let name = "model.layers.0.mlp.down_proj";
    let codes = place
        .result()
        .tensor(&format!("{name}.weight"))
        .unwrap()
        .shape
        .clone();
    assert_eq!(codes, [HIDDEN, 6]);
    let made = numbers(&place.result(), name, Some(Format::NVFP4));
    let weights = values(&format!("{name}.weight"), HIDDEN * 48);
    let far = made
        .iter()
        .zip(&weights)
        .filter(|(a, b)| (*a - *b).abs() > 0.2);
    assert_eq!((made.len(), far.count()), (HIDDEN * 48, 0));
}

/// The format of a layer in the plan; the scales' dtype is not part of it.
pub(crate) fn format(tensor: &Planned, scales: DType) -> Option<Format> {
    match tensor.kind.as_str() {
        "affine" => Some(Format::affine(tensor.bits?, tensor.group?, scales).unwrap()),
        "mxfp4" => Some(Format::MXFP4),
        "mxfp8" => Some(Format::MXFP8),
        "nvfp4" => Some(Format::NVFP4),
        _ => None,
    }
}
