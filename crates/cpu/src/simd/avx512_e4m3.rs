//! AVX-512 with VBMI: mat-vec of E4M3 codes, whose upper halves as floats are looked up a byte at a
//! time. Loops count indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx2_scales::{AHEAD, Groups, fetch_ahead};
use super::avx512::{codes, first_floats, floats, floats_at, totals};
use super::{E4M3, Weights};
use std::arch::x86_64::*;

pub(super) fn available() -> bool {
    super::avx512::available() && is_x86_feature_detected!("avx512vbmi")
}

/// Byte `byte` of the floats of the codes without a sign, NaN among them.
///
/// By way of f16, subnormal codes would be subnormal, which Granite Rapids converts by microcode.
const fn bytes_of(byte: usize) -> [[u8; 64]; 2] {
    let mut bytes = [[0; 64]; 2];
    let mut code = 0;
    while code < 128 {
        bytes[code / 64][code % 64] = E4M3[code].to_bits().to_le_bytes()[byte];
        code += 1;
    }
    bytes
}

static LOW: [[u8; 64]; 2] = bytes_of(2);
static HIGH: [[u8; 64]; 2] = bytes_of(3);

/// Where in sixteen codes those are that, once each eight of them are spread, lie at code 0, 1, 2
/// and 3 of each lane: two and two of them side by side.
const SPREAD: [u8; 16] = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15];

struct Tables {
    low: [__m512i; 2],
    high: [__m512i; 2],
    spread: __m512i,
}

impl Tables {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
    fn new() -> Tables {
        // SAFETY: sixteen bytes.
        let spread = unsafe { _mm_loadu_si128(SPREAD.as_ptr().cast()) };
        Tables {
            low: [codes(&LOW[0]), codes(&LOW[1])],
            high: [codes(&HIGH[0]), codes(&HIGH[1])],
            spread: _mm512_broadcast_i32x4(spread),
        }
    }
}

/// Codes 0, 1, 2 and 3 of sixteen lanes as floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
fn values(lanes: __m512i, tables: &Tables) -> [__m512; 4] {
    // Where the first has bits, those of the second, elsewhere those of the third.
    const SELECT: i32 = 0b1100_1010;
    let lanes = _mm512_shuffle_epi8(lanes, tables.spread);
    let low = _mm512_permutex2var_epi8(tables.low[0], lanes, tables.low[1]);
    let high = _mm512_permutex2var_epi8(tables.high[0], lanes, tables.high[1]);
    let signs = _mm512_set1_epi8(i8::MIN);
    let high = _mm512_ternarylogic_epi32::<SELECT>(signs, lanes, high);
    let tops = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let mut values = [_mm512_setzero_ps(); 4];
    for half in 0..2 {
        let pairs = if half == 0 {
            _mm512_unpacklo_epi8(low, high)
        } else {
            _mm512_unpackhi_epi8(low, high)
        };
        values[2 * half] = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
        values[2 * half + 1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, tops));
    }
    values
}

/// `sum` plus the products of sixteen lanes of codes: two groups, whose scales come first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
fn piece(
    lanes: __m512i,
    x: &[[f32; 16]; 4],
    scales: __m512,
    tables: &Tables,
    sum: __m512,
) -> __m512 {
    let values = values(lanes, tables);
    let even = _mm512_mul_ps(values[0], floats(&x[0]));
    let odd = _mm512_mul_ps(values[1], floats(&x[1]));
    let even = _mm512_fmadd_ps(values[2], floats(&x[2]), even);
    let odd = _mm512_fmadd_ps(values[3], floats(&x[3]), odd);
    let group = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let scale = _mm512_permutexvar_ps(group, scales);
    _mm512_fmadd_ps(scale, _mm512_add_ps(even, odd), sum)
}

/// Rows of E4M3 in groups of 32, times a vector in lanes of four elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
pub(super) fn matvec(w: Weights<'_>, x: &[f32], groups: Groups<'_>, out: &mut [f32]) {
    let tables = Tables::new();
    let x = &x.as_chunks::<16>().0.as_chunks::<4>().0[..w.k.div_ceil(64)];
    let mut sums = [_mm512_setzero_ps(); 4];
    for i in 0..out.len() {
        let (pieces, rest) = w.data[i * w.k..(i + 1) * w.k].as_chunks::<64>();
        let scales = &groups.scales[i * groups.count..];
        let mut sum = _mm512_setzero_ps();
        for number in 0..pieces.len() {
            fetch_ahead(&pieces[number], AHEAD);
            // Lanes whose groups are another piece's or row's are not looked at.
            let scales = floats_at(scales, 2 * number);
            sum = piece(codes(&pieces[number]), &x[number], scales, &tables, sum);
        }
        if !rest.is_empty() {
            let scales = first_floats(&scales[2 * pieces.len()..groups.count]);
            sum = piece(codes(rest), &x[pieces.len()], scales, &tables, sum);
        }
        sums[i % 4] = sum;
        if i % 4 == 3 || i + 1 == out.len() {
            let four = &mut out[i / 4 * 4..=i];
            four.copy_from_slice(&totals(sums)[..four.len()]);
        }
    }
}
