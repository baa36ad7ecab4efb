//! A product `B·A` of two narrow matrices, and its singular values without ever making it.
//!
//! With orthonormal bases `P` of the columns of `B` and `Q` of the rows of `A` the product is `P·C·Qᵀ`, `C = (PᵀB)·(A·Q)` as
//! small as the rank; one-sided Jacobi (Hestenes 1958) finds the singular values of `C` to the last digits of f64.

use crate::largest::{dot, orthonormal};

/// `B·A`, `A` `[rank, in]` and `B` `[out, rank]`.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    a: Vec<f32>,
    b: Vec<f32>,
    /// `[out, in]`.
    shape: [usize; 2],
}

impl Product {
    /// Of rank 0.
    pub(crate) fn nothing(shape: [usize; 2]) -> Self {
        Self { a: Vec::new(), b: Vec::new(), shape }
    }

    /// Of these matrices.
    pub(crate) fn of(a: Vec<f32>, b: Vec<f32>, shape: [usize; 2]) -> Self {
        Self { a, b, shape }
    }

    fn rank(&self) -> usize {
        self.a.len() / self.shape[1].max(1)
    }

    /// The sum of both: their matrices side by side.
    pub(crate) fn beside(mut self, a: Vec<f32>, b: &[f32]) -> Self {
        let [rows, columns] = self.shape;
        let (own, more) = (self.rank(), a.len() / columns.max(1));
        if own == 0 {
            return Self { a, b: b.to_vec(), ..self };
        }
        let mut joined = Vec::with_capacity(rows * (own + more));
        for (own, more) in self.b.chunks_exact(own).zip(b.chunks_exact(more)) {
            joined.extend_from_slice(own);
            joined.extend_from_slice(more);
        }
        self.a.extend(a);
        Self { b: joined, ..self }
    }

    /// `A` and `B`.
    pub(crate) fn into_pair(self) -> [Vec<f32>; 2] {
        [self.a, self.b]
    }

    /// The sum of the squares of its values: `tr(BᵀB·AAᵀ)`.
    pub(crate) fn square(&self) -> f64 {
        let (a, b) = (self.rows_of_a(), self.columns_of_b());
        let mut sum = 0.0;
        for i in 0..a.len() {
            for j in 0..=i {
                let twice = if i == j { 1.0 } else { 2.0 };
                sum += twice * dot(&a[i], &a[j]) * dot(&b[i], &b[j]);
            }
        }
        sum.max(0.0)
    }

    fn rows_of_a(&self) -> Vec<Vec<f64>> {
        let wide = |row: &[f32]| row.iter().map(|&value| value.into()).collect();
        self.a.chunks_exact(self.shape[1].max(1)).map(wide).collect()
    }

    fn columns_of_b(&self) -> Vec<Vec<f64>> {
        let rank = self.rank();
        let column = |at: usize| self.b.iter().skip(at).step_by(rank).map(|&v| v.into()).collect();
        (0..rank).map(column).collect()
    }
}

/// The best product of this rank, `A` and `B`: `Vᵀ` and `U·S` of the largest singular values, as PEFT's `svd` has them. A
/// rank beyond that of the product is filled with zeros.
pub(crate) fn truncated(product: &Product, [out, inner]: [usize; 2], rank: usize) -> [Vec<f32>; 2] {
    let (rows, columns) = (product.rows_of_a(), product.columns_of_b());
    let (left, right) = (orthonormal(columns.clone()), orthonormal(rows.clone()));
    let width = left.len();
    // `C` by columns: `C[k][i] = Σ_j (P_i·B_j)·(Q_k·A_j)`.
    let within = |basis: &[Vec<f64>], of: &[Vec<f64>]| -> Vec<Vec<f64>> {
        basis.iter().map(|basis| of.iter().map(|of| dot(basis, of)).collect()).collect()
    };
    let (of_b, of_a) = (within(&left, &columns), within(&right, &rows));
    let mut core: Vec<Vec<f64>> =
        of_a.iter().map(|of_a| of_b.iter().map(|of_b| dot(of_b, of_a)).collect()).collect();
    let turned = diagonalise(&mut core);
    let lengths: Vec<f64> = core.iter().map(|column| dot(column, column)).collect();
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&i, &j| lengths[j].total_cmp(&lengths[i]));
    let (mut a, mut b) = (vec![0.0; rank * inner], vec![0.0; out * rank]);
    for (index, &from) in order.iter().take(rank).enumerate() {
        let (row, column) = (spread(&right, &turned[from], inner), spread(&left, &core[from], out));
        for (a, value) in a[index * inner..][..inner].iter_mut().zip(row) {
            *a = value as f32;
        }
        for (b, value) in b.chunks_exact_mut(rank).zip(column) {
            b[index] = value as f32;
        }
    }
    [a, b]
}

fn spread(basis: &[Vec<f64>], factors: &[f64], len: usize) -> Vec<f64> {
    let mut sum = vec![0.0; len];
    for (vector, factor) in basis.iter().zip(factors) {
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += factor * value);
    }
    sum
}

/// Turns the columns of a matrix until they are orthogonal, and gives the turned unit vectors: the matrix is now `M·V`.
fn diagonalise(columns: &mut [Vec<f64>]) -> Vec<Vec<f64>> {
    const SWEEPS: usize = 60;
    const APART: f64 = 1e-15;
    let size = columns.len();
    let mut turned = vec![vec![0.0; size]; size];
    for (i, vector) in turned.iter_mut().enumerate() {
        vector[i] = 1.0;
    }
    for _ in 0..SWEEPS {
        let mut is_done = true;
        for p in 0..size {
            for q in p + 1..size {
                let (one, other) = (dot(&columns[p], &columns[p]), dot(&columns[q], &columns[q]));
                let between = dot(&columns[p], &columns[q]);
                if between.abs() <= APART * (one * other).sqrt() || between == 0.0 {
                    continue;
                }
                is_done = false;
                let zeta = (other - one) / (2.0 * between);
                let tangent = zeta.signum() / (zeta.abs() + (zeta * zeta + 1.0).sqrt());
                let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
                turn(columns, p, q, cosine, cosine * tangent);
                turn(&mut turned, p, q, cosine, cosine * tangent);
            }
        }
        if is_done {
            break;
        }
    }
    turned
}

fn turn(vectors: &mut [Vec<f64>], p: usize, q: usize, cosine: f64, sine: f64) {
    let (before, after) = vectors.split_at_mut(q);
    for (a, b) in before[p].iter_mut().zip(&mut after[0]) {
        (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values in `[-1, 1)` that do not repeat.
    fn drawn(seed: usize, len: usize) -> Vec<f32> {
        let value = |i: usize| (i * 7_919 + seed * 104_729) % 2_003;
        (0..len).map(|i| value(i) as f32 / 1_001.5 - 1.0).collect()
    }

    fn product(seed: usize, shape: [usize; 2], rank: usize) -> Product {
        let [out, inner] = shape;
        Product::of(drawn(seed, rank * inner), drawn(seed + 50, out * rank), shape)
    }

    /// How far a pair is from a product, as a share of it.
    fn off(product: &Product, [mut a, b]: [Vec<f32>; 2]) -> f64 {
        for value in &mut a {
            *value = -*value;
        }
        (product.clone().beside(a, &b).square() / product.square()).sqrt()
    }

    #[test]
    fn of_its_own_rank_a_product_is_itself_and_of_less_it_loses_the_smallest_part() {
        for (shape, rank) in [([40, 30], 6), ([8, 50], 8), ([5, 4], 7), ([1, 9], 2), ([30, 1], 3)] {
            let product = product(1, shape, rank);
            let own = off(&product, truncated(&product, shape, rank));
            assert!(own < 1e-6, "{shape:?} of rank {rank}: {own}");
            let lost: Vec<f64> =
                (1..=rank).map(|less| off(&product, truncated(&product, shape, less))).collect();
            assert!(lost.is_sorted_by(|one, next| *next <= one + 1e-7), "{shape:?}: {lost:?}");
        }
    }

    #[test]
    fn the_part_that_is_kept_is_as_long_as_its_singular_values() {
        // Two orthogonal directions of known lengths, given as four that are not.
        let (one, other) = ([3.0, 0.0, 0.0], [0.0, 0.5, 0.0]);
        let a = [one, other, one, other].concat();
        let b = vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        let product = Product::of(a, b, [2, 3]);
        assert!((product.square() - 37.0).abs() < 1e-9, "{}", product.square());
        let [a, b] = truncated(&product, [2, 3], 1);
        let kept = Product::of(a, b, [2, 3]).square();
        assert!((kept - 36.0).abs() < 1e-5, "{kept}");
    }

    #[test]
    fn nothing_stays_nothing_and_a_wider_rank_is_filled_with_zeros() {
        let nothing = Product::of(vec![0.0; 6], drawn(3, 8), [4, 3]);
        assert!(truncated(&nothing, [4, 3], 2).concat().iter().all(|value| *value == 0.0));
        let narrow = product(2, [6, 5], 2);
        let [a, b] = truncated(&narrow, [6, 5], 4);
        assert!(off(&narrow, [a.clone(), b]) < 1e-6);
        assert!(a[2 * 5..].iter().all(|value| *value == 0.0), "{a:?}");
    }
}
