//! The logits of what was written, compared with those of the source.

use crate::made::*;
use kiln_convert::{Options, Quantise, Verified, Verify};
use kiln_model::Model;
use kiln_plan::{DType, Mode};

const TEXT: &str = "abbabaabbaababbaabbaabbaababba";

fn verified(place: &Place, bits: Option<usize>) -> Verified {
    let device = kiln_cpu::device(kiln_cpu::Options::default()).unwrap();
    let quantise = |bits| Quantise {
        mode: Mode::Affine,
        bits: Some(bits),
        group: Some(32),
    };
    let options = Options {
        quantise: bits.map(quantise),
        force: true,
        verify: Some(Verify {
            text: TEXT.into(),
            device,
        }),
        ..Options::default()
    };
    let report = place.convert(&options).unwrap();
    let receipt = json_of(&place.destination().join("conversion.json"));
    let verified = report.receipt.verified.unwrap();
    assert_eq!(receipt["verified"]["perplexity"], verified.perplexity);
    verified
}

/// The perplexity that the model in a directory has, computed with all of it in memory.
fn perplexity(directory: &std::path::Path) -> f64 {
    let device = kiln_cpu::device(kiln_cpu::Options::default()).unwrap();
    let model = Model::load(directory, &device).unwrap();
    let ids: Vec<u32> = TEXT.bytes().map(|byte| u32::from(byte - b'a')).collect();
    let mut cache = model.cache(ids.len()).unwrap();
    let logits = model.forward_all(&ids, &mut cache).unwrap();
    let logits = logits.cast(DType::F32).unwrap().to_vec::<f32>().unwrap();
    let places = logits.chunks(VOCAB).zip(&ids[1..]);
    let likely: f64 = places
        .map(|(logits, &next)| {
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            f64::from(logits[next as usize]) - sum.ln()
        })
        .sum();
    (-likely / (ids.len() - 1) as f64).exp()
}

#[test]
fn a_layer_at_a_time_gives_what_the_whole_model_gives() {
    for place in [
        hugging_face(&config(), DType::F32),
        with_layers(3, DType::BF16),
    ] {
        let same = verified(&place, None);
        assert_eq!((same.tokens, same.cut), (TEXT.len(), false));
        assert_eq!((same.divergence, same.agreement), (0.0, 1.0));
        assert_eq!(same.perplexity, same.source_perplexity);
        let expected = perplexity(&place.source());
        assert!(
            (same.perplexity / expected - 1.0).abs() < 1e-9,
            "{same:?}, {expected}"
        );

        let eight = verified(&place, Some(8));
        let expected = perplexity(&place.destination());
        assert!(
            (eight.perplexity / expected - 1.0).abs() < 1e-9,
            "{eight:?}, {expected}"
        );
        assert_eq!(eight.source_perplexity, same.perplexity);
        let two = verified(&place, Some(2));
        assert!(0.0 < eight.divergence && 4.0 * eight.divergence < two.divergence);
        assert!(two.divergence < two.most_divergence && two.agreement < 1.0);
    }
}

#[test]
fn a_text_that_is_too_short_is_an_error() {
    let place = hugging_face(&config(), DType::F32);
    let device = kiln_cpu::device(kiln_cpu::Options::default()).unwrap();
    let text = "a".into();
    let options = Options {
        verify: Some(Verify { text, device }),
        ..Options::default()
    };
    assert!(place.refused(&options).contains("less than two tokens"));
}
