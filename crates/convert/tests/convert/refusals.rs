//! What is refused, before anything is written.

use crate::made::*;
use kiln_convert::{Error, Options, Quantise};
use kiln_formats::Type;
use kiln_plan::{DType, Mode};
use serde_json::{Value, json};

fn quantised(mode: Mode, bits: Option<usize>, group: Option<usize>) -> Options {
    Options {
        quantise: Some(Quantise { mode, bits, group }),
        ..Options::default()
    }
}

/// What a directory with a changed configuration is refused for.
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut config = config();
    change(&mut config);
    hugging_face(&config, DType::F16).refused(&Options::default())
}

#[test]
fn a_group_size_that_does_not_divide_names_the_tensor() {
    let mut config = config();
    config["hidden_size"] = 96.into();
    config["head_dim"] = 16.into();
    let place = Place::new();
    place.put("config.json", config.to_string());
    let resized: Vec<_> = tensors()
        .into_iter()
        .map(|(name, shape)| {
            let resize = |size: usize| {
                if size == HIDDEN && !name.contains("o_proj") {
                    96
                } else {
                    size
                }
            };
            let mut shape: Vec<usize> = shape.into_iter().map(resize).collect();
            if name.contains("q_proj") {
                shape[0] = HEADS * HEAD_DIM;
            } else if name.contains("o_proj") {
                shape = vec![96, HEADS * HEAD_DIM];
            }
            let bytes = vec![0; 2 * shape.iter().product::<usize>()];
            (name, shape, bytes)
        })
        .collect();
    place.put("model.safetensors", safetensors_file(&resized, Type::F16));
    let before = place.names();
    let error = place
        .convert(&quantised(Mode::Affine, None, None))
        .unwrap_err();
    assert!(matches!(
        &error,
        Error::Group { tensor, group: 64, k: 96, .. } if tensor == "model.embed_tokens.weight"
    ));
    assert!(
        error
            .to_string()
            .contains("group size 64 does not divide rows of 96"),
        "{error}"
    );
    assert_eq!(place.names(), before);
    place
        .convert(&quantised(Mode::Affine, None, Some(32)))
        .unwrap();
}

#[test]
fn bits_and_groups_that_a_mode_lacks_are_refused() {
    let place = hugging_face(&config(), DType::F16);
    let cases = [
        (
            Mode::Affine,
            Some(7),
            None,
            "affine bits must be 1 to 6 or 8, given 7",
        ),
        (
            Mode::Affine,
            None,
            Some(16),
            "affine group size must be 32, 64 or 128, given 16",
        ),
        (
            Mode::Mxfp4,
            None,
            Some(64),
            "mxfp4 has group size 32, given 64",
        ),
        (Mode::Mxfp8, Some(4), None, "mxfp8 has bits 8, given 4"),
    ];
    for (mode, bits, group, message) in cases {
        assert_eq!(place.refused(&quantised(mode, bits, group)), message);
    }
    let integers = Options {
        dtype: Some(DType::U32),
        ..Options::default()
    };
    assert_eq!(
        place.refused(&integers),
        "dtype must be f16, bf16 or f32, given u32"
    );
}

#[test]
fn what_is_not_a_plain_llama_is_refused() {
    let cases: [(&str, Value, &str); 9] = [
        (
            "model_type",
            json!("mixtral"),
            r#"model_type "mixtral" (llama and mistral are)"#,
        ),
        (
            "architectures",
            json!(["LlamaForSequenceClassification"]),
            "architecture",
        ),
        ("hidden_act", json!("gelu"), r#"hidden_act "gelu""#),
        (
            "rope_scaling",
            json!({"rope_type": "longrope"}),
            r#"rope_type "longrope""#,
        ),
        ("rope_scaling", json!({"type": "su"}), r#"type "su""#),
        (
            "rope_parameters",
            json!({"full_attention": {"rope_type": "default"}}),
            "rope by layer",
        ),
        (
            "quantization_config",
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
            r#"method "bitsandbytes""#,
        ),
        ("quantization_config", json!({}), r#"method "unknown""#),
        (
            "num_key_value_heads",
            json!(3),
            "a divisor of 4 heads, found 3",
        ),
    ];
    for (key, value, words) in cases {
        let message = refused(|config| config[key] = value);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn numbers_that_make_no_model_are_refused() {
    for (key, value) in [
        ("hidden_size", json!(-1)),
        ("num_hidden_layers", json!(1e300)),
        ("vocab_size", json!("96")),
        ("num_attention_heads", json!(0)),
        ("head_dim", json!(7)),
        ("tie_word_embeddings", json!(1)),
    ] {
        let message = refused(|config| config[key] = value);
        assert!(
            message.contains(&format!("{key:?}: expected ")),
            "{message}"
        );
    }
    let message = refused(|config| config["num_hidden_layers"] = json!(2_000_000_000));
    assert!(
        message.contains("the tensors of 2000000000 layers"),
        "{message}"
    );
    let message = refused(|config| {
        config.as_object_mut().unwrap().remove("vocab_size");
    });
    assert!(message.ends_with(r#""vocab_size": expected a positive number, found nothing"#));
}

#[test]
fn tensors_must_be_the_models() {
    let message = refused(|config| config["num_hidden_layers"] = json!(1));
    assert!(
        message.contains("expected only the tensors of a Llama model, found 9 tensors besides")
    );
    let message = refused(|config| config["num_hidden_layers"] = json!(3));
    let missing = r#""model.layers.2.self_attn.q_proj.weight": expected this tensor"#;
    assert!(message.contains(missing), "{message}");
    let message = refused(|config| config["intermediate_size"] = json!(256));
    let shape = r#"mlp.gate_proj.weight": expected shape [256, 64], found [128, 64]"#;
    assert!(message.contains(shape), "{message}");
}

#[test]
fn unmapped_tensors_say_what_kind_of_checkpoint_this_is() {
    let with = |name: &str| {
        let place = hugging_face(&config(), DType::F16);
        let mut all = filled(DType::F16);
        all.push((name.into(), vec![1], vec![0, 0]));
        place.put("model.safetensors", safetensors_file(&all, Type::F16));
        place
    };
    let message = with("model.layers.0.self_attn.q_proj.qweight").refused(&Options::default());
    assert!(message.contains("1 tensor besides, as a GPTQ or AWQ checkpoint has: model.layers.0"));
    let place = with("model.layers.0.self_attn.rotary_emb.inv_freq");
    let report = place.convert(&Options::default()).unwrap();
    assert_eq!(report.notes, ["1 tensor with rope frequencies left out"]);
}

#[test]
fn types_that_are_not_weights_are_refused() {
    let place = hugging_face(&config(), DType::F16);
    let doubled: Vec<_> = filled(DType::F16)
        .into_iter()
        .map(|(name, shape, bytes)| (name, shape, bytes.repeat(4)))
        .collect();
    place.put("model.safetensors", safetensors_file(&doubled, Type::F64));
    let message = place.refused(&Options::default());
    assert!(message.ends_with(r#""model.embed_tokens.weight": type F64 is not supported"#));
}

#[test]
fn placeholders_are_recognised_wherever_they_are() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let place = hugging_face(&config(), DType::F16);
        place.put(name, lfs);
        let message = place.refused(&Options::default());
        assert!(
            message.contains(name) && message.contains("Git LFS pointer"),
            "{message}"
        );
    }
}

#[test]
fn weights_too_large_for_the_dtype_or_not_finite_leave_nothing() {
    let place = hugging_face(&config(), DType::F32);
    let mut all = filled(DType::F32);
    all[3].2[40..44].copy_from_slice(&1e5f32.to_le_bytes());
    place.put("model.safetensors", safetensors_file(&all, Type::F32));
    let to_half = Options {
        dtype: Some(DType::F16),
        ..Options::default()
    };
    let message = place.refused(&to_half);
    assert!(
        message.contains("v_proj.weight\": 100000 is too large for f16; give --dtype bfloat16")
    );
    all[3].2[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
    place.put("model.safetensors", safetensors_file(&all, Type::F32));
    let message = place.refused(&quantised(Mode::Affine, None, None));
    assert!(message.contains("row 0, column 10 is NaN"), "{message}");
}
