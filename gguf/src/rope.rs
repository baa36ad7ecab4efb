//! Rotary positions as a GGUF file keeps them. Llama 3's stretched frequencies are `rope_freqs.weight`, by what each is
//! divided; and llama.cpp turns neighbouring pairs of a head where transformers turns its halves, so that the rows of
//! `attn_q` and `attn_k` stand in another order. Follows `generate_extra_tensors` and `permute` of `LlamaModel` in
//! llama.cpp's converter.

/// Which row of a file is row `row` of a checkpoint, with heads of `head` rows: number `i` of half `h` stands at
/// `2·i + h`.
pub fn row_in_file(row: usize, head: usize) -> usize {
    let (first, within) = (row / head * head, row % head);
    let half = head / 2;
    first + 2 * (within % half) + within / half
}

/// The inverse of [`row_in_file`].
pub fn row_in_checkpoint(row: usize, head: usize) -> usize {
    let (first, within) = (row / head * head, row % head);
    first + within % 2 * (head / 2) + within / 2
}

/// Llama 3's scaling, as a config.json has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Low frequencies are divided by this.
    pub factor: f64,
    /// Wavelengths above `original / low` are divided fully.
    pub low: f64,
    /// Wavelengths below `original / high` stay.
    pub high: f64,
    /// Context length before the stretching.
    pub original: f64,
}

/// The wavelength of pair `pair` of a head.
fn wavelength(theta: f64, head_dim: usize, pair: usize) -> f64 {
    let exponent = (2 * pair) as f32 / head_dim as f32;
    2.0 * std::f64::consts::PI / f64::from(1.0 / (theta as f32).powf(exponent))
}

impl Scaling {
    /// How much of a wavelength's own frequency is kept, from 0 to 1.
    fn kept(self, wavelength: f64) -> f64 {
        let Self { low, high, original, .. } = self;
        ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// What the frequencies are divided by, `[head_dim / 2]`.
    pub fn divisors(self, theta: f64, head_dim: usize) -> Vec<f32> {
        let divisor = |pair| {
            let kept = self.kept(wavelength(theta, head_dim, pair));
            (1.0 / ((1.0 - kept) / self.factor + kept)) as f32
        };
        (0..head_dim / 2).map(divisor).collect()
    }

    /// The scaling that gives these divisors, of those that Llama 3 has: `low` 1 and `high` 4, from a context that is a
    /// power of two. `None` where none does.
    pub fn of_divisors(divisors: &[f32], theta: f64) -> Option<Self> {
        let head_dim = 2 * divisors.len();
        let last = divisors.len().checked_sub(1)?;
        let longest = wavelength(theta, head_dim, last);
        (7..=20).map(|power| f64::from(1u32 << power)).find_map(|original| {
            let unknown = Self { factor: 1.0, low: 1.0, high: 4.0, original };
            let kept = unknown.kept(longest);
            let divided = 1.0 / f64::from(divisors[last]) - kept;
            if kept >= 1.0 || divided <= 0.0 {
                return None;
            }
            let factor = (1.0 - kept) / divided;
            let whole = factor.round();
            let factor = if (factor - whole).abs() < 1e-3 * whole { whole } else { factor };
            let found = Self { factor, ..unknown };
            let close = |(found, given): (f32, &f32)| (found - given).abs() <= 1e-5 * given.abs();
            let same = found.divisors(theta, head_dim).into_iter().zip(divisors).all(close);
            (same && factor >= 1.0 && factor.is_finite()).then_some(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_head_go_to_neighbours_and_back() {
        let rows: Vec<usize> = (0..16).map(|row| row_in_file(row, 8)).collect();
        assert_eq!(rows, [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]);
        assert!((0..96).all(|row| row_in_checkpoint(row_in_file(row, 32), 32) == row));
    }

    #[test]
    fn every_scaling_of_llama_3_is_found_again_by_its_divisors() {
        for (theta, head_dim, factor, original) in [
            (500_000.0, 128, 8.0, 8_192.0),
            (500_000.0, 64, 32.0, 8_192.0),
            (500_000.0, 64, 8.0, 512.0),
            (10_000.0, 32, 4.0, 2_048.0),
        ] {
            let scaling = Scaling { factor, low: 1.0, high: 4.0, original };
            let divisors = scaling.divisors(theta, head_dim);
            assert_eq!(divisors[0].to_bits(), 1.0f32.to_bits());
            assert_eq!(Scaling::of_divisors(&divisors, theta), Some(scaling));
            let mut other = divisors;
            other[head_dim / 4] *= 1.01;
            assert_eq!(Scaling::of_divisors(&other, theta), None);
        }
        assert_eq!(Scaling::of_divisors(&[], 10_000.0), None);
        assert_eq!(Scaling::of_divisors(&[1.0, f32::NAN], 10_000.0), None);
        assert_eq!(Scaling::of_divisors(&[1.0, 0.0], 10_000.0), None);
    }
}
