//! Properties of whole models, on small random checkpoints.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use kiln_array::{Array, DType, Device, Format};
use kiln_model::{Event, Finish, Model, Request, Truncate};
use kiln_tests::checkpoint::Llama;
use kiln_tests::devices;
use serde_json::json;
use tempfile::TempDir;

/// A model written as `dtype`, with the directory it is mapped from.
fn load(llama: &Llama, dtype: DType, device: &Device) -> (TempDir, Model) {
    let directory = tempfile::tempdir().unwrap();
    llama.write(directory.path(), dtype);
    let model = Model::load(directory.path(), device).unwrap();
    (directory, model)
}

fn every_device() -> Vec<Device> {
    [
        devices::best(),
        devices::each_isa(),
        devices::plain(),
        [devices::decomposed(), devices::gpu()].concat(),
    ]
    .concat()
}

fn values(logits: &Array) -> Vec<f32> {
    logits.cast(DType::F32).unwrap().to_vec().unwrap()
}

/// Logits of the last of `ids`, computed in one go.
fn at_once(model: &Model, ids: &[u32]) -> Vec<f32> {
    values(
        &model
            .forward(ids, &mut model.cache(ids.len()).unwrap())
            .unwrap(),
    )
}

/// Sums of a few hundred f32 products in another order differ by some ulps of the largest logit.
const F32: f32 = 2e-5;

fn close(a: &[f32], b: &[f32], bound: f32, what: &str) {
    let largest = a.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (a - b).abs() <= bound * largest,
            "{what}: logit {i} is {a} and {b}"
        );
    }
}

fn ids(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + 11) % 96).collect()
}

/// The model in f64, straight from the definition: one row of logits for each id.
fn oracle(llama: &Llama, ids: &[u32], window: usize) -> Vec<Vec<f64>> {
    let matrix = |name: &str| &llama.floats[&format!("{name}.weight")];
    let product = |x: &[f64], name: &str| -> Vec<f64> {
        let rows = matrix(name).1.chunks(x.len());
        rows.map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum())
            .collect()
    };
    let norm = |x: &[f64], name: &str| -> Vec<f64> {
        let scale = (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
        x.iter()
            .zip(&matrix(name).1)
            .map(|(v, w)| v / scale * f64::from(*w))
            .collect()
    };
    let turn = |head: &mut [f64], position: usize| {
        for i in 0..8 {
            let angle = position as f64 * 10000f64.powf(-(i as f64) / 8.0);
            let (a, b) = (head[i], head[i + 8]);
            head[i] = a * angle.cos() - b * angle.sin();
            head[i + 8] = a * angle.sin() + b * angle.cos();
        }
    };
    let embed = |id: &u32| -> Vec<f64> {
        let table = &matrix("model.embed_tokens").1;
        table[*id as usize * 64..][..64]
            .iter()
            .map(|v| f64::from(*v))
            .collect()
    };
    let mut xs: Vec<Vec<f64>> = ids.iter().map(embed).collect();
    for layer in 0..2 {
        let path = |name: &str| format!("model.layers.{layer}.{name}");
        let heads = |name: &str, rotate: bool| -> Vec<Vec<f64>> {
            let project = |(position, x): (usize, &Vec<f64>)| {
                let mut out = product(&norm(x, &path("input_layernorm")), &path(name));
                if rotate {
                    out.chunks_mut(16).for_each(|head| turn(head, position));
                }
                out
            };
            xs.iter().enumerate().map(project).collect()
        };
        let q = heads("self_attn.q_proj", true);
        let k = heads("self_attn.k_proj", true);
        let v = heads("self_attn.v_proj", false);
        for (i, x) in xs.iter_mut().enumerate() {
            let first = if window == 0 {
                0
            } else {
                (i + 1).saturating_sub(window)
            };
            let mut mixed = vec![0.0; 64];
            for head in 0..4 {
                let part = |rows: &[f64], group: usize| rows[group * 16..][..16].to_vec();
                let query = part(&q[i], head);
                let score = |j: usize| {
                    let key = part(&k[j], head / 2);
                    (query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / 4.0).exp()
                };
                let weights: Vec<f64> = (first..=i).map(score).collect();
                let sum: f64 = weights.iter().sum();
                for (j, weight) in (first..=i).zip(weights) {
                    let value = part(&v[j], head / 2);
                    for (m, v) in mixed[head * 16..][..16].iter_mut().zip(value) {
                        *m += weight / sum * v;
                    }
                }
            }
            let out = product(&mixed, &path("self_attn.o_proj"));
            x.iter_mut().zip(out).for_each(|(x, o)| *x += o);
            let h = norm(x, &path("post_attention_layernorm"));
            let gate = product(&h, &path("mlp.gate_proj"));
            let up = product(&h, &path("mlp.up_proj"));
            let silu = |g: f64| g / (1.0 + (-g).exp());
            let fed: Vec<f64> = gate.iter().zip(up).map(|(g, u)| silu(*g) * u).collect();
            let out = product(&fed, &path("mlp.down_proj"));
            x.iter_mut().zip(out).for_each(|(x, o)| *x += o);
        }
    }
    xs.iter()
        .map(|x| product(&norm(x, "model.norm"), "lm_head"))
        .collect()
}

#[test]
fn a_model_computes_its_definition_on_every_device() {
    let llama = Llama::random(1);
    let ids = ids(23);
    let expected = oracle(&llama, &ids, 0).concat();
    let expected: Vec<f32> = expected.iter().map(|v| *v as f32).collect();
    for device in every_device() {
        let (_directory, model) = load(&llama, DType::F32, &device);
        let mut cache = model.cache(ids.len()).unwrap();
        let logits = values(&model.forward_all(&ids, &mut cache).unwrap());
        close(&logits, &expected, F32, &device.to_string());
    }
}

#[test]
fn a_window_hides_what_lies_before_it() {
    let llama = Llama::random(2)
        .with("model_type", json!("mistral"))
        .with("sliding_window", json!(5));
    let ids = ids(23);
    let expected: Vec<f32> = oracle(&llama, &ids, 5)
        .concat()
        .iter()
        .map(|v| *v as f32)
        .collect();
    for device in [devices::best(), devices::decomposed()].concat() {
        let (_directory, model) = load(&llama, DType::F32, &device);
        let mut cache = model.cache(ids.len()).unwrap();
        let logits = values(&model.forward_all(&ids, &mut cache).unwrap());
        close(&logits, &expected, F32, &device.to_string());
    }
}

#[test]
fn prefill_then_decode_equals_a_longer_prefill() {
    let device = &devices::best()[0];
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let (_directory, model) = load(&Llama::random(3), dtype, device);
        let ids = ids(40);
        let mut cache = model.cache(ids.len()).unwrap();
        model.forward(&ids[..39], &mut cache).unwrap();
        let stepped = values(&model.forward(&ids[39..], &mut cache).unwrap());
        let longer = at_once(&model, &ids);
        // 16-bit activations: a sum in another order can round to the neighbour, and errors of
        // half an ulp (2^-9 in bf16, 2^-12 in f16) add up over two layers.
        let bound = match dtype {
            DType::BF16 => 3e-2,
            DType::F16 => 4e-3,
            _ => F32,
        };
        close(&stepped, &longer, bound, &dtype.to_string());
    }
}

#[test]
fn any_chunking_of_a_prompt_gives_the_same_logits() {
    let device = &devices::best()[0];
    let (_directory, model) = load(&Llama::random(4), DType::F32, device);
    let ids = ids(60);
    let whole = at_once(&model, &ids);
    for cuts in [
        vec![1, 59],
        vec![20, 20, 20],
        vec![7, 1, 1, 33, 18],
        vec![1; 60],
    ] {
        let mut cache = model.cache(60).unwrap();
        let mut done = 0;
        let mut logits = Vec::new();
        for cut in &cuts {
            let chunk = model.forward(&ids[done..done + cut], &mut cache).unwrap();
            chunk.eval().unwrap();
            logits = values(&chunk);
            done += cut;
        }
        close(&logits, &whole, F32, &format!("{cuts:?}"));
    }
}

#[test]
fn long_prompts_are_computed_in_chunks_and_the_cache_grows() {
    let device = &devices::best()[0];
    let (_directory, model) = load(&Llama::random(5), DType::F32, device);
    let ids = ids(700);
    let whole = at_once(&model, &ids);
    let mut small = model.cache(1).unwrap();
    assert_eq!(small.capacity(), 256);
    let chunked = values(&model.prefill(&ids, &mut small).unwrap());
    assert!(small.capacity() >= 700 && small.len() == 700);
    close(&chunked, &whole, F32, "700 ids in chunks");
    let mut grown = model.cache(1).unwrap();
    for part in ids.chunks(100) {
        model.forward(part, &mut grown).unwrap().eval().unwrap();
    }
    assert_eq!(grown.capacity(), 1024);
    let last = values(&model.forward(&ids[..1], &mut grown).unwrap());
    let again = values(&model.forward(&ids[..1], &mut small).unwrap());
    close(&last, &again, F32, "a cache that grew");
}

#[test]
fn a_cloned_cache_goes_its_own_way() {
    let device = &devices::best()[0];
    let (_directory, model) = load(&Llama::random(6), DType::F32, device);
    let mut cache = model.cache(32).unwrap();
    model.forward(&ids(10), &mut cache).unwrap().eval().unwrap();
    let mut other = cache.clone();
    let first = values(&model.forward(&[1, 2, 3], &mut other).unwrap());
    let original = values(&model.forward(&[5, 6, 7], &mut cache).unwrap());
    let expected = at_once(&model, &[&ids(10)[..], &[5, 6, 7]].concat());
    close(&original, &expected, F32, "the original");
    assert_ne!(first, original);
}

#[test]
fn neighbour_pairs_are_permuted_halves() {
    let device = &devices::best()[0];
    let llama = Llama::random(7);
    let (_a, halves) = load(&llama, DType::F32, device);
    let mut permuted = llama.clone().with("rope_traditional", json!(true));
    for layer in 0..2 {
        for name in ["q_proj", "k_proj"] {
            let name = format!("model.layers.{layer}.self_attn.{name}.weight");
            let (_, rows) = permuted.floats.get_mut(&name).unwrap();
            let old = rows.clone();
            for (at, row) in rows.chunks_mut(64).enumerate() {
                let (head, i) = (at / 16, at % 16);
                row.copy_from_slice(&old[(head * 16 + i / 2 + i % 2 * 8) * 64..][..64]);
            }
        }
    }
    let (_b, neighbours) = load(&permuted, DType::F32, device);
    close(
        &at_once(&halves, &ids(20)),
        &at_once(&neighbours, &ids(20)),
        F32,
        "pairing",
    );
}

#[test]
fn layers_of_different_formats_stay_separate_and_mean_the_same() {
    let device = &devices::best()[0];
    let format = Format::affine(8, 32, DType::F32).unwrap();
    let mut joint = Llama::random(8).with(
        "quantization",
        json!({"group_size": 32, "bits": 8, "mode": "affine"}),
    );
    for layer in 0..2 {
        for name in [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "mlp.up_proj",
        ] {
            joint
                .formats
                .insert(format!("model.layers.{layer}.{name}"), format);
        }
    }
    // The same numbers with k and up written out as floats.
    let mut mixed = joint.clone();
    for layer in 0..2 {
        for name in ["self_attn.k_proj", "mlp.up_proj"] {
            let path = format!("model.layers.{layer}.{name}");
            mixed.formats.remove(&path);
            let (shape, values) = mixed.floats.get_mut(&format!("{path}.weight")).unwrap();
            let q = kiln_convert::quantise(values, shape[1], format, DType::F32).unwrap();
            let rows = values.chunks_mut(shape[1]).enumerate();
            for (r, row) in rows {
                let (c, s) = (format.code_row(shape[1]), format.scale_row(shape[1]));
                let part = |bytes: &[u8], n: usize| bytes[r * n..][..n].to_vec();
                let [codes, scales, biases] =
                    [part(&q.codes, c), part(&q.scales, s), part(&q.biases, s)];
                format.dequantise(&codes, &scales, &biases, 0, row);
            }
        }
    }
    let (_a, joint) = load(&joint, DType::F32, device);
    let (_b, mixed) = load(&mixed, DType::F32, device);
    close(
        &at_once(&joint, &ids(20)),
        &at_once(&mixed, &ids(20)),
        F32,
        "separate layers",
    );
    let step = |model: &Model| {
        let mut cache = model.cache(8).unwrap();
        model.forward(&ids(5), &mut cache).unwrap();
        values(&model.forward(&[9], &mut cache).unwrap())
    };
    close(&step(&joint), &step(&mixed), F32, "one token");
}

#[test]
fn a_tied_head_is_the_embedding_table() {
    let device = &devices::best()[0];
    for quantised in [false, true] {
        let mut untied = Llama::random(9);
        if quantised {
            let format = Format::affine(4, 32, DType::F32).unwrap();
            untied = untied.with("quantization", json!({"group_size": 32, "bits": 4}));
            untied.formats.insert("model.embed_tokens".into(), format);
            untied.formats.insert("lm_head".into(), format);
        }
        let table = untied.floats["model.embed_tokens.weight"].clone();
        untied.floats.insert("lm_head.weight".into(), table);
        let mut tied = untied.clone().with("tie_word_embeddings", json!(true));
        tied.floats.remove("lm_head.weight");
        let (_a, untied) = load(&untied, DType::F32, device);
        let (_b, tied) = load(&tied, DType::F32, device);
        assert_eq!(at_once(&untied, &ids(9)), at_once(&tied, &ids(9)));
    }
}

#[test]
fn biases_are_added() {
    let device = &devices::best()[0];
    let plain = Llama::random(10);
    let mut biased = plain.clone().with("attention_bias", json!(true));
    for layer in 0..2 {
        for (name, n) in [
            ("q_proj", 64),
            ("k_proj", 32),
            ("v_proj", 32),
            ("o_proj", 64),
        ] {
            let name = format!("model.layers.{layer}.self_attn.{name}.bias");
            biased.floats.insert(name, (vec![n], vec![0.0; n]));
        }
    }
    let (_a, plain) = load(&plain, DType::F32, device);
    let (_b, zero) = load(&biased, DType::F32, device);
    close(
        &at_once(&plain, &ids(9)),
        &at_once(&zero, &ids(9)),
        F32,
        "biases of zero",
    );
    // A bias on v passes attention unchanged: it is o's product with it, on every token.
    let bias: Vec<f32> = (0..32).map(|i| i as f32 * 0.01).collect();
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.self_attn.v_proj.bias");
        biased.floats.insert(name, (vec![32], bias.clone()));
        let rows = &biased.floats[&format!("model.layers.{layer}.self_attn.o_proj.weight")].1;
        let wide = |i: usize| bias[i / 32 * 16 + i % 16];
        let moved = rows
            .chunks(64)
            .map(|row| row.iter().enumerate().map(|(i, w)| w * wide(i)).sum());
        let moved: Vec<f32> = moved.collect();
        let name = format!("model.layers.{layer}.self_attn.o_proj.bias");
        biased
            .floats
            .insert(name, (vec![64], moved.iter().map(|m| -m).collect()));
    }
    let (_c, cancelled) = load(&biased, DType::F32, device);
    close(
        &at_once(&plain, &ids(9)),
        &at_once(&cancelled, &ids(9)),
        F32,
        "biases that cancel",
    );
}

fn refusal(llama: &Llama) -> String {
    let directory = tempfile::tempdir().unwrap();
    llama.write(directory.path(), DType::F32);
    let device = &devices::best()[0];
    Model::load(directory.path(), device)
        .expect_err("a refusal")
        .to_string()
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let llama = || Llama::random(11);
    let without = |name: &str| {
        let mut llama = llama();
        llama.floats.remove(name);
        llama
    };
    let with = |name: &str, shape: &[usize]| {
        let mut llama = llama();
        let values = vec![0.0; shape.iter().product()];
        llama.floats.insert(name.into(), (shape.to_vec(), values));
        llama
    };
    let up = "model.layers.1.mlp.up_proj.weight";
    let cases: [(Llama, &[&str]); 12] = [
        (without(up), &[up, "[96, 64]", "no such tensor"]),
        (with(up, &[96, 63]), &[up, "[96, 64]", "[96, 63]"]),
        (
            with("model.layers.0.extra", &[1]),
            &["1 tensors", "model.layers.0.extra"],
        ),
        (
            llama().with("model_type", json!("gpt2")),
            &["model_type", "gpt2", "llama"],
        ),
        (
            llama().with("rope_scaling", json!({"type": "su", "factor": 2})),
            &["rope_type", "su"],
        ),
        (
            llama().with("num_key_value_heads", json!(3)),
            &["num_key_value_heads", "3"],
        ),
        (
            llama().with("hidden_size", json!("x")),
            &["hidden_size", "\"x\""],
        ),
        (
            llama().with("hidden_act", json!("gelu")),
            &["hidden_act", "gelu"],
        ),
        (llama().with("head_dim", json!(15)), &["head_dim", "15"]),
        (
            llama().with("attention_bias", json!(true)),
            &["o_proj.bias", "no such tensor"],
        ),
        (
            llama().with("quantization_config", json!({"quant_method": "awq"})),
            &["quant_method", "awq"],
        ),
        (
            llama().with("layer_types", json!(["linear_attention", "x"])),
            &["linear_attention"],
        ),
    ];
    for (llama, parts) in cases {
        let message = refusal(&llama);
        for part in parts {
            assert!(message.contains(part), "{message:?} does not name {part:?}");
        }
    }
}

#[test]
fn a_placeholder_for_the_configuration_is_named() {
    let directory = tempfile::tempdir().unwrap();
    Llama::random(15).write(directory.path(), DType::F32);
    let text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    std::fs::write(directory.path().join("config.json"), text).unwrap();
    let device = &devices::best()[0];
    let message = Model::load(directory.path(), device)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("config.json") && message.contains("Git LFS"),
        "{message}"
    );
}

#[test]
fn too_many_tokens_are_refused_or_cut() {
    let device = &devices::best()[0];
    let llama = Llama::random(12).with("max_position_embeddings", json!(32));
    let (_directory, model) = load(&llama, DType::F32, device);
    let request = |truncate| Request {
        prompt: ids(30),
        max_tokens: 8,
        truncate,
        ..Default::default()
    };
    let message = model
        .generate(request(None))
        .err()
        .expect("a refusal")
        .to_string();
    assert!(
        message.contains("30 tokens and 8") && message.contains("context of 32"),
        "{message}"
    );
    for (truncate, kept) in [
        (Truncate::Head, &ids(30)[6..]),
        (Truncate::Tail, &ids(30)[..24]),
    ] {
        let mut generation = model.generate(request(Some(truncate))).unwrap();
        assert_eq!((generation.prompt(), generation.truncated()), (kept, 6));
        let tokens = generation
            .by_ref()
            .filter(|e| matches!(e, Ok(Event::Token { .. })))
            .count();
        assert_eq!((tokens, generation.finish()), (8, Some(Finish::Length)));
    }
    assert!(
        model
            .generate(Request {
                prompt: vec![],
                ..request(None)
            })
            .is_err()
    );
    let unknown = Request {
        prompt: vec![96],
        ..request(None)
    };
    let message = model
        .generate(unknown)
        .err()
        .expect("a refusal")
        .to_string();
    assert!(message.contains("id 96"), "{message}");
}

#[test]
fn the_same_seed_gives_the_same_tokens_on_any_number_of_threads() {
    let llama = Llama::random(13);
    let generate = |device: &Device, seed| {
        let (_directory, model) = load(&llama, DType::F32, device);
        let sampling = kiln_sample::Options {
            temperature: 1.0,
            seed,
            ..Default::default()
        };
        let request = Request {
            prompt: ids(7),
            max_tokens: 40,
            sampling,
            ..Default::default()
        };
        let mut generation = model.generate(request).unwrap();
        generation.by_ref().for_each(|event| drop(event.unwrap()));
        generation.tokens().to_vec()
    };
    let first = generate(&devices::threads(1), 0);
    for threads in [2, 3, 7] {
        assert_eq!(generate(&devices::threads(threads), 0), first);
    }
    assert_ne!(generate(&devices::threads(2), 1), first);
}

#[test]
fn the_end_token_ends_and_is_the_last() {
    let device = &devices::best()[0];
    let (_directory, model) = load(&Llama::random(14), DType::F32, device);
    let request = Request {
        prompt: ids(7),
        max_tokens: 20,
        ..Default::default()
    };
    let mut generation = model.generate(request.clone()).unwrap();
    generation.by_ref().for_each(|event| drop(event.unwrap()));
    let tokens = generation.tokens().to_vec();
    let eos = tokens[3];
    let first = tokens.iter().position(|t| *t == eos).unwrap();
    let mut generation = model
        .generate(Request {
            eos: vec![eos],
            ..request
        })
        .unwrap();
    generation.by_ref().for_each(|event| drop(event.unwrap()));
    assert_eq!(generation.finish(), Some(Finish::Stop));
    assert_eq!(generation.tokens(), &tokens[..=first]);
}
