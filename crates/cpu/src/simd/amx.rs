//! The table for AMX: its register tiles of bf16 and of bytes. The rest is that of AVX-512 with
//! VNNI, which is faster here than its bf16.
//!
//! A matrix register holds 16 rows of 64 bytes; four of them take sums of 32 × 32 products, two the
//! rows and two the panel. What uses them is in assembly, because their intrinsics are not stable,
//! between a load of their shapes and a release.

#![allow(clippy::needless_range_loop)]

use super::Isa;
use super::avx512_pairs::{codes, split};
use super::avx512_scaled::{COLUMNS, Sums, finish};
use super::pairs::{PairBlock, Pairs};
use super::quads::Quads;
use super::{avx512_bf16, avx512_quads, avx512_vnni};
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

const ROWS: usize = 32;

/// What a processor says of its matrix registers: products of bf16, of bytes, the registers.
const BF16: u32 = 1 << 22;
const BYTES: u32 = 1 << 25;
const TILES: u32 = 1 << 24;

pub(super) static TABLE: Isa = Isa {
    name: "amx",
    available,
    pairs: Some(Pairs {
        tile: (ROWS, COLUMNS),
        terms: 3,
        codes,
        split,
        multiply,
    }),
    quads: Some(Quads {
        tile: (ROWS, COLUMNS),
        available: || described(BF16 | BYTES | TILES),
        codes: avx512_quads::codes,
        whole: avx512_quads::whole,
        multiply: multiply_bytes,
    }),
    preferred: || true,
    ..avx512_vnni::TABLE
};

/// Linux gives a process the matrix registers when it asks for them.
fn available() -> bool {
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| {
        avx512_bf16::available() && avx512_vnni::available() && described(BF16 | TILES) && granted()
    })
}

/// Whether the processor says that it has all of these.
fn described(parts: u32) -> bool {
    let highest = __cpuid(0).eax;
    highest >= 7 && __cpuid_count(7, 0).edx & parts == parts
}

#[cfg(target_os = "linux")]
fn granted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that reads and writes no memory; the kernel overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        )
    };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
}

/// The shapes of all eight registers: 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes([u8; 64]);

static SHAPES: Shapes = {
    let mut shapes = [0; 64];
    shapes[0] = 1;
    let mut register = 0;
    while register < 8 {
        shapes[16 + 2 * register] = 64;
        shapes[48 + register] = 16;
        register += 1;
    }
    Shapes(shapes)
};

/// The sums of a tile and a panel.
#[repr(C, align(64))]
struct Block([Sums; ROWS]);

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn multiply(block: PairBlock<'_>, out: &mut [f32]) {
    all::<false>(block, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn multiply_bytes(block: PairBlock<'_>, out: &mut [f32]) {
    all::<true>(block, out);
}

/// The products of all tiles and panels, of bf16 or of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn all<const BYTES: bool>(block: PairBlock<'_>, out: &mut [f32]) {
    // SAFETY: the process may use matrix registers, or there would be no table; 64 bytes are read.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &SHAPES, options(nostack, readonly)) };
    // What has just been stored from matrix registers can be loaded only much later: sums are
    // finished when those after them have begun.
    let mut sums = [const { Block([[[0.0; 16]; 2]; ROWS]) }; 2];
    let mut odd = 0;
    let mut begun: Option<[usize; 3]> = None;
    for tile in 0..block.tiles {
        for panel in 0..block.panels {
            for part in 0..block.parts().1 {
                let place = [tile, panel, part];
                accumulate::<BYTES>(block, place, &mut sums[odd]);
                odd = 1 - odd;
                if let Some(place) = begun.replace(place) {
                    finish(block, place, &sums[odd].0, out);
                }
            }
        }
    }
    if let Some(place) = begun {
        finish(block, place, &sums[1 - odd].0, out);
    }
    // SAFETY: nothing else uses the registers.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// The products of a tile, a panel and a part.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn accumulate<const BYTES: bool>(
    block: PairBlock<'_>,
    [tile, panel, part]: [usize; 3],
    sums: &mut Block,
) {
    let count = block.parts().0;
    let from = tile * block.tile + 2 * part * count;
    let reach = (block.terms - 1) * block.term + (ROWS - 1) * block.stride + 2 * count;
    let x = &block.x[from..from + reach];
    let from = panel * block.panel_stride + part * count * COLUMNS;
    let panel = &block.panel[from..from + count * COLUMNS];
    // SAFETY: the shapes are loaded, and nothing but this file's assembly changes them. `count` is a
    // multiple of 16: for each 16 pairs of each term 64 bytes of 32 rows are read, which lie in `x`,
    // and 16 lines of the panel. 32 lines of 128 bytes are written, which is what `sums` is.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "mov {low}, {x}",
            "lea {high}, [{low} + {stride}*8]",
            "lea {high}, [{high} + {stride}*8]",
            "mov {pairs}, {panel}",
            "mov {left}, {steps}",
            "3:",
            "tileloadd tmm4, [{low} + {stride}*1]",
            "tileloadd tmm6, [{pairs} + {line}*1]",
            "tileloadd tmm7, [{pairs} + {line}*1 + 64]",
            "tileloadd tmm5, [{high} + {stride}*1]",
            "add {low}, 64",
            "add {high}, 64",
            "add {pairs}, 2048",
            // One statement for both kinds, so that their loads are written once.
            ".if {bytes}",
            "tdpbsud tmm0, tmm4, tmm6",
            "tdpbsud tmm1, tmm4, tmm7",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            ".else",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            ".endif",
            "dec {left}",
            "jnz 3b",
            "add {x}, {term}",
            "dec {terms}",
            "jnz 2b",
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 64], tmm1",
            "tilestored [{sums} + {line}*1 + 2048], tmm2",
            "tilestored [{sums} + {line}*1 + 2112], tmm3",
            x = inout(reg) x.as_ptr() => _,
            terms = inout(reg) block.terms => _,
            term = in(reg) 2 * block.term,
            stride = in(reg) 2 * block.stride,
            panel = in(reg) panel.as_ptr(),
            steps = in(reg) count / 16,
            line = in(reg) 4 * COLUMNS,
            bytes = const BYTES as usize,
            sums = in(reg) sums.0.as_mut_ptr(),
            low = out(reg) _,
            high = out(reg) _,
            pairs = out(reg) _,
            left = out(reg) _,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack)
        )
    };
}
