//! Cross-entropy over logits that come in bands of the vocabulary, and its gradient in their place.
//!
//! The largest logit and the sum of exponentials of every row are carried from band to band (Milakov and
//! Gimelshein 2018), so that no band waits for another.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{OnDevice, UNITS, max_of_cube, owned, rows_cols, sum_of_cube};

/// Below every logit.
const LEAST: f32 = -3.0e38;

/// Values of a row's state: the largest logit so far, the sum of exponentials, the target's logit, and the
/// factor on its gradient.
const STATE: usize = 4;

#[cube(launch)]
fn gather_kernel(
    logits: &Array<f32>,
    targets: &Array<u32>,
    state: &mut Array<f32>,
    band: u32,
    first: u32,
) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let row = CUBE_POS;
    if row >= targets.len() {
        terminate!();
    }
    let width = band as usize;
    let start = row * width;
    let mut most = f32::new(LEAST);
    let mut i = UNIT_POS as usize;
    while i < width {
        most = max(most, logits[start + i]);
        i += UNITS as usize;
    }
    let before = state[row * STATE];
    let most = max(max_of_cube(most, &mut shared), before);
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        sum += f32::exp(logits[start + i] - most);
        i += UNITS as usize;
    }
    let sum = sum_of_cube(sum, &mut shared);
    if UNIT_POS == 0 {
        let earlier = state[row * STATE + 1] * f32::exp(before - most);
        state[row * STATE] = most;
        state[row * STATE + 1] = earlier + sum;
        let target = targets[row];
        if target >= first && target < first + band {
            state[row * STATE + 2] = logits[start + (target - first) as usize];
        }
    }
}

#[cube(launch)]
fn gradient_kernel(
    logits: &mut Array<f32>,
    targets: &Array<u32>,
    state: &Array<f32>,
    band: u32,
    first: u32,
) {
    if ABSOLUTE_POS < logits.len() {
        let width = band as usize;
        let (row, col) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let exponential = f32::exp(logits[ABSOLUTE_POS] - state[row * STATE]);
        let mut share = exponential / state[row * STATE + 1];
        if first + col as u32 == targets[row] {
            share -= 1.0f32;
        }
        logits[ABSOLUTE_POS] = share * state[row * STATE + 3];
    }
}

/// Negative log-likelihoods of `targets`, and `(softmax − one-hot) · factor` in the memory of the logits.
pub(super) fn in_place<R: CubeRuntime>(
    bands: Vec<CubeTensor<R>>,
    targets: &[u32],
    factors: &[f32],
) -> (Vec<f32>, Vec<CubeTensor<R>>) {
    let Some(place) = bands.first().map(OnDevice::of).filter(|_| !targets.is_empty()) else {
        return (Vec::new(), bands);
    };
    let bands: Vec<_> = bands.into_iter().map(owned).collect();
    let rows = targets.len();
    assert_eq!(factors.len(), rows, "one factor a row");
    let targets = place.upload_u32(targets);
    let fresh: Vec<f32> = factors.iter().flat_map(|&factor| [LEAST, 0.0, 0.0, factor]).collect();
    let state = place.upload_f32(&fresh);
    let each = |work: &mut dyn FnMut(&CubeTensor<R>, u32, u32)| {
        let mut first = 0;
        for band in &bands {
            let [of, width] = rows_cols(band);
            assert_eq!(of, rows, "one target a row");
            work(band, width as u32, first);
            first += width as u32;
        }
    };
    each(&mut |band, width, first| {
        let (count, dim) = place.rows(rows);
        gather_kernel::launch(
            &place.client,
            count,
            dim,
            band.clone().into_array_arg(),
            targets.clone().into_array_arg(),
            state.clone().into_array_arg(),
            width,
            first,
        );
    });
    each(&mut |band, width, first| {
        let (count, dim) = place.each(rows * width as usize);
        gradient_kernel::launch(
            &place.client,
            count,
            dim,
            band.clone().into_array_arg(),
            targets.clone().into_array_arg(),
            state.clone().into_array_arg(),
            width,
            first,
        );
    });
    let state: Vec<f32> = place.download(&state);
    let loss = |row: &[f32; STATE]| row[1].ln() + row[0] - row[2];
    (state.as_chunks::<STATE>().0.iter().map(loss).collect(), bands)
}
