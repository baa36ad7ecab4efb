//! Lets the compiler use wide registers where the machine has them, without a build for one machine.

#[cfg(target_arch = "x86_64")]
use super::isa::Isa;

/// Runs `work` compiled for the widest registers of this machine.
///
/// The closure must be marked `#[inline(always)]` to be compiled into each variant. None of them
/// fuses or reorders floating-point operations, so the result is the same bits everywhere.
#[expect(unsafe_code, reason = "calls functions whose target features were detected")]
#[inline(always)]
pub(super) fn vectorize<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    match Isa::get() {
        // SAFETY: the processor has the features of its level.
        Isa::Avx512 | Isa::Avx512Bf16 => return unsafe { with_avx512(work) },
        // SAFETY: the same.
        Isa::Avx2 => return unsafe { with_avx2(work) },
        Isa::Portable => {}
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
#[expect(unsafe_code, reason = "the target features are the caller's promise")]
unsafe fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "the target features are the caller's promise")]
unsafe fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Tells that values will be wanted soon.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks((64 / size_of::<T>()).max(1)) {
        #[expect(unsafe_code, reason = "a hint; it reads nothing")]
        // SAFETY: a hint to any address is allowed.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                line.as_ptr().cast(),
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Lanes of the sums below: fixed, so that every machine adds in the same order.
const LANES: usize = 16;

/// `Σ f(x, y, z)` over three slices of one length, in 16 interleaved partial sums.
#[inline(always)]
pub(super) fn sum3(x: &[f32], y: &[f32], z: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let ((x, x_rest), (y, y_rest), (z, z_rest)) =
        (x.as_chunks::<LANES>(), y.as_chunks::<LANES>(), z.as_chunks::<LANES>());
    let mut partial = [0.0_f32; LANES];
    for ((x, y), z) in x.iter().zip(y).zip(z) {
        for lane in 0..LANES {
            partial[lane] += f(x[lane], y[lane], z[lane]);
        }
    }
    let mut total = 0.0;
    for partial in partial {
        total += partial;
    }
    for ((&x, &y), &z) in x_rest.iter().zip(y_rest).zip(z_rest) {
        total += f(x, y, z);
    }
    total
}

/// `Σ x`.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    sum3(x, x, x, |x, _, _| x)
}

/// `Σ x·y`.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    sum3(x, y, y, |x, y, _| x * y)
}

/// The largest value, or minus infinity of nothing. A NaN among others may be passed over.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let mut partial = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (partial, &value) in partial.iter_mut().zip(chunk) {
            *partial = if *partial > value { *partial } else { value };
        }
    }
    partial.iter().chain(rest).fold(
        f32::NEG_INFINITY,
        |max, &value| {
            if max > value { max } else { value }
        },
    )
}

/// `e^x` without branches, within 2 units in the last place for finite results.
///
/// `x = n·ln 2 + r`, a polynomial in `r` (Cephes `expf`), then `2^n` by its bits. Below −87.3 the
/// result is zero, above 88.7 it grows no further.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.336_54, 88.722_83);
    // Adding 1.5 · 2^23 leaves no bit for a fraction: the lowest bits are the integer. A conversion to
    // one would be done lane by lane, for it has to look for NaN.
    let shifted = clamped * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let integer = (shifted.to_bits() as i32).wrapping_sub(0x4b40_0000);
    // ln 2 in two parts, so that n·ln 2 is exact enough.
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    // Two factors, since 2^128 itself has no bits.
    let half = integer >> 1;
    let rest = integer.wrapping_sub(half);
    let pow = |e: i32| f32::from_bits((e.wrapping_add(127) as u32) << 23);
    let result = value * pow(half) * pow(rest);
    let result = if x < -87.336_54 { 0.0 } else { result };
    if x.is_nan() { x } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place_on_every_processor() {
        let found = |x: f32| {
            vectorize(
                #[inline(always)]
                || exp(x),
            )
        };
        for i in -873_000..887_000 {
            let x = i as f32 * 1e-4;
            let (found, expected) = (found(x), f64::from(x).exp());
            let unit = f64::from((expected as f32).next_up() - expected as f32);
            assert!((f64::from(found) - expected).abs() <= 2.0 * unit, "{x}: {found}, {expected}");
        }
        assert_eq!(found(f32::NEG_INFINITY).to_bits(), 0.0_f32.to_bits());
        assert_eq!(found(-88.0).to_bits(), 0.0_f32.to_bits());
        assert_eq!(found(0.0).to_bits(), 1.0_f32.to_bits());
        assert!(found(f32::NAN).is_nan());
        assert_eq!(found(f32::INFINITY).to_bits(), found(89.0).to_bits());
        assert!(found(f32::INFINITY) > 3.4e38);
    }

    #[test]
    fn sums_and_the_largest_are_those_of_plain_loops_at_every_length() {
        for len in [0, 1, 15, 16, 17, 33, 100] {
            let x: Vec<f32> = (0..len).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
            let y: Vec<f32> = (0..len).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
            // Whole numbers: no sum is rounded, in whatever order.
            let expected: f32 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            assert_eq!(dot(&x, &y).to_bits(), (expected + 0.0).to_bits(), "{len} products");
            assert_eq!(sum(&x).to_bits(), (x.iter().sum::<f32>() + 0.0).to_bits(), "{len} terms");
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&x).to_bits(), largest.to_bits(), "the largest of {len}");
        }
    }
}
