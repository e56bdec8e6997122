//! Rotary position embedding: the frequencies that a configuration asks for.

use crate::config::Keys;
use crate::{Error, Result};
use kiln_array::{Array, Device, Pairing, Rope};
use std::f64::consts::TAU;

/// How positions turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Which elements of a head turn together.
    pub pairing: Pairing,
    /// Wavelengths grow from 2π by powers of this.
    pub theta: f64,
    /// How the wavelengths are stretched for longer contexts.
    pub scaling: Scaling,
}

/// How wavelengths are stretched.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: long ones by a factor, short ones not, with a ramp between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `original / low` are long.
        low: f64,
        /// Wavelengths below `original / high` are short.
        high: f64,
        /// The context the model was trained on.
        original: f64,
    },
    /// YaRN: a ramp over the pairs, and a factor on the turned vectors.
    Yarn {
        /// The factor.
        factor: f64,
        /// The context the model was trained on.
        original: f64,
        /// Turns over that context above which a pair is not stretched.
        fast: f64,
        /// Turns below which it is stretched fully.
        slow: f64,
        /// Factor on what turns.
        attention: f64,
    },
}

const SUPPORTED: &str = "default, linear, llama3, yarn";

/// Reads either spelling: `rope_theta` with `rope_scaling`, or `rope_parameters`.
pub(crate) fn parse(keys: &Keys<'_>, context: usize) -> Result<RopeConfig> {
    whole_heads(keys)?;
    let traditional = keys.flag("rope_traditional")?.unwrap_or(false);
    let pairing = if traditional {
        Pairing::Neighbours
    } else {
        Pairing::Halves
    };
    let read = |key: &str| -> Result<Option<(Option<f64>, Scaling)>> {
        let Some(map) = keys.object(key)? else {
            return Ok(None);
        };
        let prefix = format!("{key}.");
        let inner = Keys {
            path: keys.path,
            map,
            prefix: &prefix,
        };
        Ok(Some((
            inner.number("rope_theta")?,
            scaling(&inner, context)?,
        )))
    };
    let outer = keys.number("rope_theta")?;
    let (new, old) = (read("rope_parameters")?, read("rope_scaling")?);
    let inner = new.as_ref().and_then(|(theta, _)| *theta);
    if let (Some(a), Some(b)) = (outer, inner)
        && a != b
    {
        return Err(keys.error("rope_theta", format!("{b} as in rope_parameters")));
    }
    if let (Some((_, a)), Some((_, b))) = (&new, &old)
        && a != b
    {
        return Err(keys.error("rope_scaling", "the same as in rope_parameters"));
    }
    let scaling = new.or(old).map_or(Scaling::None, |(_, scaling)| scaling);
    let theta = inner.or(outer).unwrap_or(10_000.0);
    Ok(RopeConfig {
        pairing,
        theta,
        scaling,
    })
}

/// Only models that turn whole heads are of this family.
fn whole_heads(keys: &Keys<'_>) -> Result<()> {
    match keys.number("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(Error::Unsupported {
            path: keys.path.to_path_buf(),
            what: "partial_rotary_factor",
            found: factor.to_string(),
            supported: "1",
        }),
        _ => Ok(()),
    }
}

fn scaling(keys: &Keys<'_>, context: usize) -> Result<Scaling> {
    whole_heads(keys)?;
    let kind = match keys.text("type")? {
        Some(kind) => kind,
        None => keys.text("rope_type")?.unwrap_or("default"),
    };
    let factor = || {
        let factor = keys.number("factor")?.filter(|f| *f >= 1.0);
        factor.ok_or_else(|| keys.error("factor", "a number of at least 1"))
    };
    let original = |default: f64| -> Result<f64> {
        Ok(keys
            .number("original_max_position_embeddings")?
            .unwrap_or(default))
    };
    Ok(match kind {
        "default" => Scaling::None,
        "linear" => Scaling::Linear { factor: factor()? },
        "llama3" => {
            let low = keys.number("low_freq_factor")?.unwrap_or(1.0);
            let high = keys.number("high_freq_factor")?.unwrap_or(4.0);
            if high <= low {
                return Err(keys.error("high_freq_factor", format!("a number above {low}")));
            }
            Scaling::Llama3 {
                factor: factor()?,
                low,
                high,
                original: original(8192.0)?,
            }
        }
        "yarn" => {
            let factor = factor()?;
            Scaling::Yarn {
                factor,
                original: original(context as f64)?,
                fast: keys.number("beta_fast")?.unwrap_or(32.0),
                slow: keys.number("beta_slow")?.unwrap_or(1.0),
                attention: yarn_attention(keys, factor)?,
            }
        }
        other => {
            return Err(Error::Unsupported {
                path: keys.path.to_path_buf(),
                what: "rope_type",
                found: other.into(),
                supported: SUPPORTED,
            });
        }
    })
}

/// `attention_factor` if given; else the quotient of the two `mscale` terms `0.1·m·ln(factor) + 1`.
fn yarn_attention(keys: &Keys<'_>, factor: f64) -> Result<f64> {
    if let Some(given) = keys.number("attention_factor")? {
        return Ok(given);
    }
    let term = |m: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * m * factor.ln() + 1.0
        }
    };
    let whole = keys.number("mscale_all_dim")?.unwrap_or(0.0);
    Ok(term(keys.number("mscale")?.unwrap_or(1.0)) / term(whole))
}

impl RopeConfig {
    /// Radians per position of each of `head_dim / 2` pairs.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let pairs = head_dim / 2;
        let plain = |i: usize| self.theta.powf(-(i as f64) / pairs as f64);
        (0..pairs)
            .map(|i| match self.scaling {
                Scaling::None => plain(i),
                Scaling::Linear { factor } => plain(i) / factor,
                Scaling::Llama3 {
                    factor,
                    low,
                    high,
                    original,
                } => {
                    let turns = original * plain(i) / TAU;
                    let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    plain(i) * ((1.0 - smooth) / factor + smooth)
                }
                Scaling::Yarn {
                    factor,
                    original,
                    fast,
                    slow,
                    ..
                } => {
                    let pair = |turns: f64| {
                        pairs as f64 * (original / (turns * TAU)).ln() / self.theta.ln()
                    };
                    let low = pair(fast).floor().max(0.0);
                    let high = pair(slow).ceil().min(head_dim as f64 - 1.0);
                    let high = if high == low { high + 0.001 } else { high };
                    let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    plain(i) * (ramp / factor + 1.0 - ramp)
                }
            })
            .collect()
    }

    /// The parameters of [`Array::rope`] on `device`.
    pub(crate) fn on(&self, head_dim: usize, device: &Device) -> Result<Rope> {
        let frequencies: Vec<f32> = self
            .frequencies(head_dim)
            .iter()
            .map(|f| *f as f32)
            .collect();
        let frequencies = Array::from_slice(&frequencies, &[frequencies.len()], device)?;
        let scale = match self.scaling {
            Scaling::Yarn { attention, .. } => attention as f32,
            _ => 1.0,
        };
        Ok(Rope {
            pairing: self.pairing,
            frequencies,
            scale,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(periods: &[f64], known: &[f64]) {
        assert_eq!(periods.len(), known.len());
        for (ours, known) in periods.iter().zip(known) {
            assert!((ours / known - 1.0).abs() < 2e-6, "{ours} is not {known}");
        }
    }

    fn periods(scaling: Scaling, theta: f64, head_dim: usize, step: usize) -> Vec<f64> {
        let rope = RopeConfig {
            pairing: Pairing::Halves,
            theta,
            scaling,
        };
        rope.frequencies(head_dim)
            .iter()
            .step_by(step)
            .map(|f| 1.0 / f)
            .collect()
    }

    // The known values are mlx-lm's.
    #[test]
    fn llama3_periods_are_known_ones() {
        let scaling = Scaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        let known = [
            1.0, 5.1566925, 26.59148, 137.12408, 1905.3204, 29170.658, 150424.125, 775691.0,
        ];
        close(&periods(scaling, 5e5, 128, 8), &known);
    }

    #[test]
    fn yarn_periods_are_known_ones() {
        let scaling = Scaling::Yarn {
            factor: 4.0,
            original: 32768.0,
            fast: 32.0,
            slow: 1.0,
            attention: 1.0,
        };
        let known = [
            1.0, 5.6234131, 31.622776, 193.99411, 1714.2857, 22493.652, 126491.11, 711311.75,
        ];
        close(&periods(scaling, 1e6, 64, 4), &known);
    }

    fn parsed(text: &str) -> Result<RopeConfig> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let map = value.as_object().unwrap();
        parse(
            &Keys {
                path: std::path::Path::new("config.json"),
                map,
                prefix: "",
            },
            32768,
        )
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let old = parsed(r#"{"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}}"#);
        let new = parsed(
            r#"{"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}}"#,
        );
        assert_eq!(old.as_ref().unwrap(), &new.unwrap());
        let Scaling::Yarn { attention, .. } = old.unwrap().scaling else {
            panic!()
        };
        assert!((attention - 1.1386294).abs() < 1e-6);
    }

    #[test]
    fn contradictions_and_unknown_types_are_errors() {
        let text = r#"{"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}"#;
        assert!(parsed(text).unwrap_err().to_string().contains("rope_theta"));
        let text = r#"{"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}"#;
        let message = parsed(text).unwrap_err().to_string();
        assert!(
            message.contains("\"longrope\" is not supported"),
            "{message}"
        );
        assert!(parsed(r#"{"rope_scaling": {"type": "linear"}}"#).is_err());
    }
}
