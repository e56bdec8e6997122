//! All cases on a device beside another one: what is wrong, and how far apart the two are.

use crate::case::{draw, lenient};
use crate::numbers::ulp;
use crate::{Case, numbers_of};
use kiln_array::{DType, Device};

/// What came of the cases of one operation with results of one dtype.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// The case's name in the list.
    pub case: &'static str,
    /// The results' dtype.
    pub dtype: DType,
    /// How many cases ran.
    pub cases: u64,
    /// The largest distance of an element to the reference's, in units of its last place.
    pub ulp: f64,
    /// The largest share of the squared differences in the reference's squares.
    pub nmse: f64,
    /// The first result that was not allowed.
    pub failure: Option<String>,
}

/// Runs the list on `device` and `reference`, `share` of a hundred of the usual cases, at least
/// one of each subject. `seen` is called after each case of the list, for progress.
pub fn selftest(
    device: &Device,
    reference: &Device,
    share: u32,
    seen: &mut dyn FnMut(&str),
) -> Vec<Finding> {
    let mut findings = Vec::new();
    macro_rules! all {
        ($($name:ident: $case:ty,)+) => { $(
            one::<$case>(stringify!($name), device, reference, share, &mut findings);
            seen(stringify!($name));
        )+ };
    }
    crate::every_case!(all);
    findings
}

fn one<C: Case>(
    name: &'static str,
    device: &Device,
    reference: &Device,
    share: u32,
    findings: &mut Vec<Finding>,
) {
    let count = (C::CASES * share).div_ceil(100).max(1);
    lenient(device, || {
        for subject in C::subjects() {
            for case in draw(&format!("{name} {subject:?}"), count, &C::any(subject)) {
                record(name, &case, device, reference, findings);
            }
        }
    });
}

fn record(
    name: &'static str,
    case: &impl Case,
    device: &Device,
    reference: &Device,
    findings: &mut Vec<Finding>,
) {
    let result = |device: &Device| {
        let array = case.build(device)?;
        Ok((array.dtype(), numbers_of(&array)?))
    };
    let found: kiln_array::Result<(DType, Vec<f64>)> = result(device);
    let wanted: kiln_array::Result<(DType, Vec<f64>)> = result(reference);
    let dtype = match (&found, &wanted) {
        (Ok((dtype, _)), _) | (_, Ok((dtype, _))) => *dtype,
        _ => DType::F32,
    };
    let position = findings
        .iter()
        .position(|f| f.case == name && f.dtype == dtype);
    let position = position.unwrap_or_else(|| {
        findings.push(Finding {
            case: name,
            dtype,
            cases: 0,
            ulp: 0.0,
            nmse: 0.0,
            failure: None,
        });
        findings.len() - 1
    });
    let finding = &mut findings[position];
    finding.cases += 1;
    let failure = match (&found, &wanted) {
        (Ok((_, found)), Ok((_, wanted))) => {
            let (ulp, nmse) = difference(dtype, found, wanted);
            finding.ulp = finding.ulp.max(ulp);
            finding.nmse = finding.nmse.max(nmse);
            crate::verify(case, device).err()
        }
        (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
    };
    if finding.failure.is_none() {
        finding.failure = failure.map(|failure| format!("{failure}; of {case:?}"));
    }
}

/// How far two results are apart, where the reference is finite: the largest distance in units of
/// the last place, and the squared differences as a share of the reference's squares.
pub fn difference(dtype: DType, found: &[f64], wanted: &[f64]) -> (f64, f64) {
    let (mut worst, mut squares, mut size) = (0f64, 0f64, 0f64);
    for (&found, &wanted) in found.iter().zip(wanted) {
        if !wanted.is_finite() {
            continue;
        }
        let distance = (found - wanted).abs();
        if distance == 0.0 {
            size += wanted * wanted;
            continue;
        }
        let step = if dtype.is_float() {
            ulp(dtype, wanted)
        } else {
            1.0
        };
        let distance = if distance.is_finite() {
            distance
        } else {
            f64::INFINITY
        };
        worst = worst.max(distance / step);
        squares += distance * distance;
        size += wanted * wanted;
    }
    let nmse = if squares == 0.0 { 0.0 } else { squares / size };
    (worst, nmse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_in_last_places() {
        let (worst, nmse) = difference(DType::F16, &[1.0, 2.002], &[1.0, 2.0]);
        assert!((worst - 1.024).abs() < 1e-9 && nmse > 0.0 && nmse < 1e-6);
        assert_eq!(
            difference(DType::F32, &[1.0, 5.0], &[1.0, f64::NAN]),
            (0.0, 0.0)
        );
        assert_eq!(difference(DType::U32, &[f64::NAN], &[1.0]).0, f64::INFINITY);
    }

    #[test]
    fn a_processor_agrees_with_itself() {
        let device = kiln_cpu::device(Default::default()).unwrap();
        let findings = selftest(&device, &device, 1, &mut |_| ());
        let names: std::collections::BTreeSet<_> = findings.iter().map(|f| f.case).collect();
        assert_eq!(names.len(), 29);
        for finding in findings {
            assert_eq!(
                (finding.ulp, finding.failure),
                (0.0, None),
                "{}",
                finding.case
            );
        }
    }
}
