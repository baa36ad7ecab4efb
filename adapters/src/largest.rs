//! The largest singular values of a matrix that is only multiplied with, and their vectors.
//!
//! A block Krylov space of `MᵀM`, Musco and Musco 2015, or for many values the last block of it, orthonormal throughout,
//! and the best approximation in it (Rayleigh and Ritz): products are f32, all else is f64. Each round multiplies there and back once; a matrix whose
//! smaller side the space reaches is known exactly. The first vectors are drawn alike each time, so that equal matrices
//! give equal bits.

use rayon::prelude::*;

/// Vectors drawn beyond those that are asked for.
const BEYOND: usize = 8;
/// A block of more vectors is iterated by itself, without those of the rounds before: finding the best of all of them
/// grows with the cube of their number.
const WIDE: usize = 32;
/// Rounds at most, where values fall so slowly that their vectors hardly matter.
const ROUNDS: usize = 8;
/// Rounds between looks at how far it is.
const LOOK: usize = 2;
/// How far `MᵀM·v` may be from `σ²·v`, in squares of the largest value. What is not exactly the largest part is a part
/// all the same, and the rest is taken of that one: nothing is lost of the weight.
const SETTLED: f64 = 1e-4;

/// A matrix `[out, in]`.
pub(crate) trait Map {
    /// `[in, out]`.
    fn sizes(&self) -> [usize; 2];

    /// `M·x` of each of the rows `[rows, in]`.
    fn there(&self, x: &[f32]) -> Vec<f32>;

    /// `Mᵀ·y` of each of the rows `[rows, out]`.
    fn back(&self, y: &[f32]) -> Vec<f32>;
}

/// The other way round.
struct Turned<'a, M>(&'a M);

impl<M: Map> Map for Turned<'_, M> {
    fn sizes(&self) -> [usize; 2] {
        let [inner, out] = self.0.sizes();
        [out, inner]
    }

    fn there(&self, x: &[f32]) -> Vec<f32> {
        self.0.back(x)
    }

    fn back(&self, y: &[f32]) -> Vec<f32> {
        self.0.there(y)
    }
}

/// A singular value with its vectors.
#[derive(Clone, Debug)]
pub(crate) struct Triple {
    pub(crate) value: f64,
    /// `[in]`, of length 1.
    pub(crate) right: Vec<f64>,
    /// `[out]`, of length 1.
    pub(crate) left: Vec<f64>,
}

/// The `count` largest, the largest first; fewer where the matrix has no more.
pub(crate) fn singular_triples(matrix: &impl Map, count: usize) -> Vec<Triple> {
    let [inner, out] = matrix.sizes();
    if inner <= out {
        return of_smaller(matrix, count.min(inner));
    }
    let turned = of_smaller(&Turned(matrix), count.min(out));
    let back = |Triple { value, right, left }| Triple { value, right: left, left: right };
    turned.into_iter().map(back).collect()
}

/// The `count` largest of a matrix with no more columns than rows: the space is in its smaller side.
fn of_smaller(matrix: &impl Map, count: usize) -> Vec<Triple> {
    let [inner, out] = matrix.sizes();
    let block = (count + BEYOND).min(inner);
    let mut space = Space::default();
    let mut next = orthonormal((0..block).map(|row| drawn(row, inner)).collect());
    for round in 1.. {
        if block > WIDE {
            space = Space::default();
        }
        let images = spread(&matrix.there(&joined(&next)), out);
        space.basis.append(&mut next);
        space.images.extend(images.iter().cloned());
        let back = spread(&matrix.back(&joined(&images)), inner);
        space.returned.extend(back.iter().cloned());
        let is_full = space.basis.len() >= inner;
        if !is_full && block > WIDE {
            next = orthonormal(back);
        } else if !is_full {
            next = orthonormal_to(&space.basis, back);
            next.truncate(inner - space.basis.len());
        }
        let is_last = is_full || round == ROUNDS || next.is_empty();
        // Looking costs more than a round.
        if is_last || round % LOOK == 0 {
            let best = space.best(count);
            if is_last || best.error <= SETTLED {
                return best.triples;
            }
        }
    }
    unreachable!("the last round returns")
}

/// An orthonormal basis with what the matrix makes of it, and its transpose of that.
#[derive(Default)]
struct Space {
    basis: Vec<Vec<f64>>,
    images: Vec<Vec<f64>>,
    returned: Vec<Vec<f64>>,
}

struct Best {
    triples: Vec<Triple>,
    error: f64,
}

impl Space {
    /// The best triples of the space, and how far the worst of them is from being one.
    fn best(&self, count: usize) -> Best {
        let size = self.basis.len();
        let images = &self.images;
        let gram: Vec<Vec<f64>> = (0..size)
            .into_par_iter()
            .map(|i| images.iter().map(|other| dot(&images[i], other)).collect())
            .collect();
        let (values, vectors) = eigen(gram);
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
        let largest = order.first().map_or(0.0, |&i| values[i].max(0.0).sqrt());
        let mut error: f64 = 0.0;
        let mut triples = Vec::with_capacity(count);
        for &index in order.iter().take(count) {
            let value = values[index].max(0.0).sqrt();
            let right = combined(&self.basis, &vectors[index]);
            let mut left = combined(&self.images, &vectors[index]);
            // Of a value of nothing the left vector is nothing, too, and takes no part.
            if value > largest * 1e-12 {
                for left in &mut left {
                    *left /= value;
                }
            }
            let back = combined(&self.returned, &vectors[index]);
            let off = back.iter().zip(&right).map(|(back, right)| {
                let off = back - value * value * right;
                off * off
            });
            // `MᵀM·v − σ²·v`, in σ of the largest squared.
            let off = off.sum::<f64>().sqrt() / (largest * largest).max(f64::MIN_POSITIVE);
            error = error.max(off);
            triples.push(Triple { value, right, left });
        }
        Best { triples, error }
    }
}

/// The vectors made orthonormal, in their order, twice; those that add nothing are left out as zeros.
pub(crate) fn orthonormal(vectors: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(vectors.len());
    for mut vector in vectors {
        if !make_orthonormal(&mut vector, &[&done]) {
            vector.fill(0.0);
        }
        done.push(vector);
    }
    done
}

/// What these vectors add to a basis, orthonormal.
fn orthonormal_to(basis: &[Vec<f64>], vectors: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(vectors.len());
    for mut vector in vectors {
        if make_orthonormal(&mut vector, &[basis, &done]) {
            done.push(vector);
        }
    }
    done
}

/// Takes from a vector what others have of it, and gives it length 1; `false` where nothing is left.
fn make_orthonormal(vector: &mut [f64], others: &[&[Vec<f64>]]) -> bool {
    let before = dot(vector, vector).sqrt();
    for _ in 0..2 {
        for other in others.iter().copied().flatten() {
            let share = dot(vector, other);
            vector.iter_mut().zip(other).for_each(|(value, other)| *value -= share * other);
        }
    }
    let length = dot(vector, vector).sqrt();
    // Below the roundings of f32 products there is only noise.
    if length <= before * 1e-9 || length == 0.0 {
        return false;
    }
    for value in vector {
        *value /= length;
    }
    true
}

/// In eight sums side by side, one order whatever computes them.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.0.iter().zip(b.0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

fn combined(vectors: &[Vec<f64>], factors: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; vectors.first().map_or(0, Vec::len)];
    for (vector, factor) in vectors.iter().zip(factors) {
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += factor * value);
    }
    sum
}

fn joined(rows: &[Vec<f64>]) -> Vec<f32> {
    rows.iter().flatten().map(|&value| value as f32).collect()
}

fn spread(values: &[f32], width: usize) -> Vec<Vec<f64>> {
    values.chunks_exact(width).map(|row| row.iter().map(|&value| value.into()).collect()).collect()
}

/// Values in `[-1, 1)`, a function of the place alone (`SplitMix64`).
fn drawn(row: usize, len: usize) -> Vec<f64> {
    let mut state = (row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// What is left beside the diagonal, of the sum of all squares: its products were f32.
const ROUNDED: f64 = 1e-22;

/// Eigenvalues of a symmetric matrix and the vectors of each, by Jacobi's rotations.
fn eigen(mut matrix: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.len();
    let mut vectors = vec![vec![0.0; size]; size];
    for (i, row) in vectors.iter_mut().enumerate() {
        row[i] = 1.0;
    }
    let total: f64 = matrix.iter().map(|row| dot(row, row)).sum();
    for _ in 0..30 {
        let apart = |i: usize, row: &Vec<f64>| dot(&row[..i], &row[..i]);
        let off: f64 = matrix.iter().enumerate().map(|(i, row)| apart(i, row)).sum();
        if off <= total * ROUNDED {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                if matrix[p][q] * matrix[p][q] > total * ROUNDED / (size * size) as f64 {
                    rotate(&mut matrix, &mut vectors, p, q);
                }
            }
        }
    }
    ((0..size).map(|i| matrix[i][i]).collect(), vectors)
}

/// Turns two dimensions so that nothing is left between them.
fn rotate(matrix: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    let between = matrix[p][q];
    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * between);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for row in matrix.iter_mut() {
        let (a, b) = (row[p], row[q]);
        row[p] = c * a - s * b;
        row[q] = s * a + c * b;
    }
    turn(matrix, p, q, c, s);
    turn(vectors, p, q, c, s);
}

fn turn(rows: &mut [Vec<f64>], p: usize, q: usize, c: f64, s: f64) {
    let (above, below) = rows.split_at_mut(q);
    for (a, b) in above[p].iter_mut().zip(&mut below[0]) {
        (*a, *b) = (c * *a - s * *b, s * *a + c * *b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix in memory, row-major.
    struct Plain([usize; 2], Vec<f32>);

    impl Map for Plain {
        fn sizes(&self) -> [usize; 2] {
            self.0
        }

        fn there(&self, x: &[f32]) -> Vec<f32> {
            let [inner, _] = self.0;
            let row = |x: &[f32], row: &[f32]| {
                x.iter().zip(row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32
            };
            let of = |x| self.1.chunks_exact(inner).map(move |w| row(x, w));
            x.chunks_exact(inner).flat_map(of).collect()
        }

        fn back(&self, y: &[f32]) -> Vec<f32> {
            let [inner, out] = self.0;
            let column = |y: &[f32], j: usize| {
                (0..out).map(|i| f64::from(y[i]) * f64::from(self.1[i * inner + j])).sum::<f64>()
                    as f32
            };
            y.chunks_exact(out).flat_map(|y| (0..inner).map(move |j| column(y, j))).collect()
        }
    }

    /// `Σ value · left · rightᵀ` with orthonormal vectors that are known.
    fn made(inner: usize, out: usize, values: &[f64]) -> (Plain, Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let right = orthonormal((0..values.len()).map(|i| drawn(100 + i, inner)).collect());
        let left = orthonormal((0..values.len()).map(|i| drawn(200 + i, out)).collect());
        let mut matrix = vec![0.0_f64; out * inner];
        for ((value, right), left) in values.iter().zip(&right).zip(&left) {
            for (row, left) in matrix.chunks_exact_mut(inner).zip(left) {
                row.iter_mut().zip(right).for_each(|(sum, right)| *sum += value * left * right);
            }
        }
        (Plain([inner, out], matrix.into_iter().map(|v| v as f32).collect()), right, left)
    }

    #[test]
    fn the_largest_values_and_their_vectors_are_found_at_every_shape() {
        let falling: Vec<f64> = (0..40).map(|i| 3.0 * 0.9_f64.powi(i)).collect();
        for (inner, out, values, count) in [
            (64, 48, &falling[..], 8),
            (48, 200, &falling[..], 4),
            (300, 120, &falling[..], 16),
            (7, 5, &[2.0, 1.0, 0.5][..], 5),
            (1, 3, &[2.0][..], 1),
        ] {
            let (matrix, right, left) = made(inner, out, values);
            let found = singular_triples(&matrix, count);
            assert_eq!(found.len(), count.min(inner).min(out), "{inner} x {out}");
            for (index, triple) in found.iter().enumerate() {
                let expected = values.get(index).copied().unwrap_or(0.0);
                let near = (triple.value - expected).abs() <= 2e-3 * values[0];
                assert!(near, "{inner} x {out}, value {index}: {} is not {expected}", triple.value);
                if index < values.len() {
                    let along = dot(&triple.right, &right[index]);
                    let beside = dot(&triple.left, &left[index]);
                    let off = (along.abs() - 1.0).abs().max((beside.abs() - 1.0).abs());
                    assert!(off < 1e-4, "{inner} x {out}, vectors {index}: {along} and {beside}");
                    assert!(along * beside > 0.0, "{inner} x {out}, vectors {index}: of one sign");
                }
            }
        }
    }

    #[test]
    fn equal_values_and_nothing_at_all_are_matrices_too() {
        let (matrix, ..) = made(30, 20, &[1.0, 1.0, 1.0, 0.5]);
        for triple in singular_triples(&matrix, 3) {
            assert!((triple.value - 1.0).abs() < 1e-5, "{}", triple.value);
        }
        let nothing = singular_triples(&Plain([9, 6], vec![0.0; 54]), 3);
        assert_eq!(nothing.len(), 3);
        for triple in nothing {
            assert_eq!(triple.value.to_bits(), 0, "of nothing");
            assert!(triple.left.iter().chain(&triple.right).all(|value| value.is_finite()));
        }
    }
}
