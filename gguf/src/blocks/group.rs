//! The scales of a group of numbers, found by trying: `make_qkx2_quants` and `make_qx_quants` of llama.cpp's
//! `ggml/src/ggml-quants.c`. Every sum runs in the order of the numbers and every product in the order that is written
//! there, in f32 without contraction, as rounding decides between neighbouring scales.

/// A group below this is all zeros.
pub(super) const NOTHING: f32 = 1e-15;

/// The whole number next to `value`, halves to the even one, by the way of an f32 whose last bit is worth 1. Beyond
/// ±2²² it is another number, as it is in the reference: what is far off is cut off by the caller.
pub(super) fn nearest(value: f32) -> i32 {
    ((value + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// How a scale and a least number are looked for.
#[derive(Clone, Copy)]
pub(super) struct Search {
    /// The largest code.
    pub(super) most: u8,
    /// The first scale that is tried makes the largest number this much more than `most` …
    pub(super) first: f32,
    /// … and each further one this much more, …
    pub(super) step: f32,
    /// … so often.
    pub(super) steps: u8,
}

/// What was found for a group.
#[derive(Clone, Copy)]
pub(super) struct Found<const N: usize> {
    /// What a code is multiplied by.
    pub(super) scale: f32,
    /// What is taken from the product; 0 where codes are signed.
    pub(super) least: f32,
    /// The codes with these two.
    pub(super) codes: [u8; N],
}

/// Scale and least number of 32 numbers of which each code is `(x + least) / scale`: those with the smallest weighted
/// square of errors.
pub(super) fn scale_and_least(values: &[f32; 32], search: Search) -> Found<32> {
    let squares = values.iter().fold(0.0, |sum, value| sum + value * value);
    let typical = f32::sqrt(squares / 32.0);
    let weights = values.map(|value| typical + value.abs());
    let (mut least, mut most) = (values[0], values[0]);
    let mut sum_weights = weights[0];
    let mut sum_values = sum_weights * values[0];
    for (&value, &weight) in values.iter().zip(&weights).skip(1) {
        least = if value < least { value } else { least };
        most = if value > most { value } else { most };
        sum_weights += weight;
        sum_values += weight * value;
    }
    least = if least > 0.0 { 0.0 } else { least };
    if most <= least {
        return Found { scale: 0.0, least: -least, codes: [0; 32] };
    }
    let highest = f32::from(search.most);
    let inverse = highest / (most - least);
    let mut scale = 1.0 / inverse;
    let mut codes = [0.0; 32];
    code(values, inverse, least, search.most, &mut codes);
    let mut smallest_error = error(values, &weights, &codes, scale, least);
    let mut best = codes;
    for step in 0..=search.steps {
        let inverse = (search.first + search.step * f32::from(step) + highest) / (most - least);
        code(values, inverse, least, search.most, &mut codes);
        let (mut sum_codes, mut sum_squares, mut sum_products) = (0.0, 0.0, 0.0);
        for ((&value, &weight), &code) in values.iter().zip(&weights).zip(&codes) {
            sum_codes += weight * code;
            sum_squares += weight * code * code;
            sum_products += weight * code * value;
        }
        let determinant = sum_weights * sum_squares - sum_codes * sum_codes;
        if determinant <= 0.0 || determinant.is_nan() {
            continue;
        }
        let mut this_scale = (sum_weights * sum_products - sum_values * sum_codes) / determinant;
        let mut this_least = (sum_squares * sum_values - sum_codes * sum_products) / determinant;
        if this_least > 0.0 {
            this_least = 0.0;
            this_scale = sum_products / sum_squares;
        }
        let this_error = error(values, &weights, &codes, this_scale, this_least);
        if this_error < smallest_error {
            smallest_error = this_error;
            best = codes;
            scale = this_scale;
            least = this_least;
        }
    }
    Found { scale, least: -least, codes: best.map(|code| code as u8) }
}

fn code(values: &[f32; 32], inverse: f32, least: f32, most: u8, codes: &mut [f32; 32]) {
    for (code, value) in codes.iter_mut().zip(values) {
        *code = nearest(inverse * (value - least)).clamp(0, i32::from(most)) as f32;
    }
}

fn error(
    values: &[f32; 32],
    weights: &[f32; 32],
    codes: &[f32; 32],
    scale: f32,
    least: f32,
) -> f32 {
    let mut sum = 0.0;
    for ((value, weight), code) in values.iter().zip(weights).zip(codes) {
        let difference = scale * code + least - value;
        sum += weight * (difference * difference);
    }
    sum
}

/// Half of the codes of Q6_K.
const HALF: i32 = 32;

/// The scale of 16 numbers of which each code is `x / scale + 32`, from 0 to 63, with the smallest error where large
/// numbers count by their squares.
pub(super) fn scale(values: &[f32; 16]) -> Found<16> {
    let farther = |far: f32, value: &f32| if value.abs() > far.abs() { *value } else { far };
    let farthest = values.iter().fold(0.0, farther);
    if farthest.abs() < NOTHING {
        return Found { scale: 0.0, least: 0.0, codes: [0; 16] };
    }
    let half = HALF as f32;
    let mut inverse = -half / farthest;
    let (products, squares) = fit(values, inverse);
    let mut scale = if squares == 0.0 { 0.0 } else { products / squares };
    let mut best = scale * products;
    for step in (-9..=9i8).filter(|&step| step != 0) {
        let tried = -(half + 0.1 * f32::from(step)) / farthest;
        let (products, squares) = fit(values, tried);
        if squares > 0.0 && products * products > best * squares {
            inverse = tried;
            scale = products / squares;
            best = scale * products;
        }
    }
    let codes = values.map(|value| (signed_code(inverse, value) + HALF) as u8);
    Found { scale, least: 0.0, codes }
}

fn signed_code(inverse: f32, value: f32) -> i32 {
    nearest(inverse * value).clamp(-HALF, HALF - 1)
}

/// The weighted sums of number times code, and of the codes' squares.
fn fit(values: &[f32; 16], inverse: f32) -> (f32, f32) {
    let (mut products, mut squares) = (0.0f32, 0.0f32);
    for &value in values {
        let code = signed_code(inverse, value) as f32;
        let weight = value * value;
        products += weight * value * code;
        squares += weight * code * code;
    }
    (products, squares)
}
