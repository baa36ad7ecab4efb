//! AdamW on a device: one kernel a tensor clips, decays, remembers and steps; moments stay beside it.
//!
//! The formulas are those of [`crate::flex`]; what differs is what a device makes of a quotient, a root
//! and of a sum with a product in it. Moments in 8 bits are decoded, changed and quantised again by one
//! cube for each block.

use std::borrow::Cow;

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{OnDevice, max_of_cube, owned};
use super::sums::DeviceSums;
use crate::adamw::blockwise::{BLOCK, Blocks, SIGNED, UNSIGNED};
use crate::adamw::{self, AdamWState, Moments, StateFormat, Trained, check_sizes};

/// Codes in a 32-bit word, and values of a unit.
const SHARE: usize = 4;

/// Units of a block's cube, and words of its codes.
const BLOCK_UNITS: usize = BLOCK / SHARE;

/// Entries of a map.
const CODES: usize = 256;

/// [`adamw::Rule`] for one tensor.
#[derive(CubeType, CubeLaunch)]
struct Rule {
    clip: f32,
    beta1: f32,
    beta2: f32,
    keep1: f32,
    keep2: f32,
    correction2: f32,
    eps: f32,
    step_size: f32,
    shrink: f32,
}

#[cube]
impl Rule {
    fn remember_square(&self, second: f32, gradient: f32) -> f32 {
        second * self.beta2 + self.keep2 * gradient * gradient
    }

    fn stepped(&self, value: f32, first: f32, second: f32) -> f32 {
        let denominator = f32::sqrt(second) / self.correction2 + self.eps;
        value * self.shrink - self.step_size * (first / denominator)
    }
}

#[cube(launch)]
fn step_kernel(
    values: &mut Array<f32>,
    gradient: &Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    rule: &Rule,
    start: u32,
) {
    let i = ABSOLUTE_POS;
    if i < values.len() {
        let gradient = gradient[start as usize + i] * rule.clip;
        // PyTorch's `lerp_`.
        let mean = first[i] + rule.keep1 * (gradient - first[i]);
        let square = rule.remember_square(second[i], gradient);
        first[i] = mean;
        second[i] = square;
        values[i] = rule.stepped(values[i], mean, square);
    }
}

/// Number of the 255 `midpoints` from `start` on, ascending, that lie below `value`: the nearest code.
#[cube]
fn nearest(tables: &Array<f32>, start: usize, value: f32) -> u32 {
    let mut code = 0usize;
    #[unroll]
    for halving in 0..8u32 {
        let half = comptime!((CODES / 2) >> halving as usize);
        if tables[start + code + half - 1] < value {
            code += half;
        }
    }
    code as u32
}

/// A cube a block: codes are the words of the first moment, then of the second; so are scales.
#[cube(launch)]
fn step_blocks_kernel(
    values: &mut Array<f32>,
    gradient: &Array<f32>,
    codes: &mut Array<u32>,
    scales: &mut Array<f32>,
    tables: &Array<f32>,
    rule: &Rule,
    start: u32,
) {
    let mut shared = SharedMemory::<f32>::new(BLOCK_UNITS);
    let (block, blocks) = (CUBE_POS, scales.len() / 2);
    if block >= blocks {
        terminate!();
    }
    let word = block * BLOCK_UNITS + UNIT_POS as usize;
    let words = codes.len() / 2;
    let (word1, word2) = (codes[word], codes[words + word]);
    let (scale1, scale2) = (scales[block], scales[blocks + block]);
    let mut first = Array::<f32>::new(SHARE);
    let mut second = Array::<f32>::new(SHARE);
    let mut most1 = 0.0f32;
    let mut most2 = 0.0f32;
    #[unroll]
    for place in 0..SHARE {
        let i = word * SHARE + place;
        let shift = comptime!(8 * place as u32);
        first[place] = 0.0f32;
        second[place] = 0.0f32;
        if i < values.len() {
            let gradient = gradient[start as usize + i] * rule.clip;
            let mean = tables[((word1 >> shift) & 255u32) as usize] * scale1;
            let square = tables[CODES + ((word2 >> shift) & 255u32) as usize] * scale2;
            let mean = mean * rule.beta1 + rule.keep1 * gradient;
            let square = rule.remember_square(square, gradient);
            values[i] = rule.stepped(values[i], mean, square);
            first[place] = mean;
            second[place] = square;
            most1 = max(most1, f32::abs(mean));
            most2 = max(most2, square);
        }
    }
    let most1 = max_of_cube(most1, &mut shared);
    let most2 = max_of_cube(most2, &mut shared);
    // Below it devices take numbers for zero, whose inverse is infinite.
    let inverse1 = 1.0f32 / max(most1, f32::new(f32::MIN_POSITIVE));
    let inverse2 = 1.0f32 / max(most2, f32::new(f32::MIN_POSITIVE));
    let mut word1 = 0u32;
    let mut word2 = 0u32;
    #[unroll]
    for place in 0..SHARE {
        let shift = comptime!(8 * place as u32);
        word1 |= nearest(tables, 2 * CODES, first[place] * inverse1) << shift;
        word2 |= nearest(tables, 3 * CODES, second[place] * inverse2) << shift;
    }
    codes[word] = word1;
    codes[words + word] = word2;
    if UNIT_POS == 0 {
        scales[block] = most1;
        scales[blocks + block] = most2;
    }
}

/// The moments of a tensor.
#[derive(Debug)]
enum Held<R: CubeRuntime> {
    F32([CubeTensor<R>; 2]),
    /// Codes of whole blocks as 32-bit words, and scales: of the first moment, then of the second.
    Blockwise8 {
        codes: CubeTensor<R>,
        scales: CubeTensor<R>,
    },
}

/// The moments of every tensor.
#[derive(Debug)]
pub struct DeviceAdamW<R: CubeRuntime> {
    place: OnDevice<R>,
    format: StateFormat,
    tensors: Vec<Trained>,
    /// `None` until there is something to remember: what a checkpoint gives takes no memory twice.
    held: Vec<Option<Held<R>>>,
    /// What codes stand for and what lies between them: values signed, unsigned, midpoints the same.
    tables: CubeTensor<R>,
}

/// Something that lives as long as the optimizer, apart from what comes and goes.
fn lasting<R: CubeRuntime, T: Send>(place: &OnDevice<R>, make: impl FnOnce() -> T + Send) -> T {
    let made = place.client.memory_persistent_allocation((), |()| make());
    made.unwrap_or_else(|error| panic!("moments for the device: {error:?}"))
}

impl<R: CubeRuntime> Held<R> {
    fn zeros(place: &OnDevice<R>, format: StateFormat, len: usize) -> Self {
        let (blocks, cleared) = (len.div_ceil(BLOCK), |tensor| place.cleared(tensor));
        if format.is_blockwise(len) {
            let [codes, scales] = lasting(place, || {
                [(2 * blocks * BLOCK_UNITS, DType::U32), (2 * blocks, DType::F32)]
                    .map(|(len, dtype)| place.empty([len], dtype))
            });
            Self::Blockwise8 { codes: cleared(codes), scales: cleared(scales) }
        } else {
            let both = lasting(place, || [(); 2].map(|()| place.empty([len], DType::F32)));
            Self::F32(both.map(cleared))
        }
    }

    fn upload(place: &OnDevice<R>, moments: &Moments) -> Self {
        lasting(place, || match moments {
            Moments::F32(both) => Self::F32(both.each_ref().map(|values| place.upload_f32(values))),
            Moments::Blockwise8(both) => {
                let whole = |blocks: &Blocks| {
                    let mut codes = blocks.codes.clone();
                    codes.resize(blocks.absmax.len() * BLOCK, 0);
                    codes
                };
                let codes = both.each_ref().map(whole).concat();
                let scales = both.each_ref().map(|blocks| &blocks.absmax[..]).concat();
                Self::Blockwise8 {
                    codes: place.upload(&codes, DType::U32),
                    scales: place.upload_f32(&scales),
                }
            }
        })
    }

    fn download(&self, place: &OnDevice<R>, len: usize) -> Moments {
        match self {
            Self::F32(both) => Moments::F32(both.each_ref().map(|values| place.download(values))),
            Self::Blockwise8 { codes, scales } => {
                let (codes, scales): (Vec<u8>, Vec<f32>) =
                    (place.download(codes), place.download(scales));
                let blocks = scales.len() / 2;
                let of = |moment: usize| Blocks {
                    codes: codes[moment * blocks * BLOCK..][..len].to_vec(),
                    absmax: scales[moment * blocks..][..blocks].to_vec(),
                };
                Moments::Blockwise8([of(0), of(1)])
            }
        }
    }
}

impl<R: CubeRuntime> AdamWState for DeviceAdamW<R> {
    type Device = R::Device;

    type Tensor = CubeTensor<R>;

    type Sums = DeviceSums<R>;

    fn new(format: StateFormat, tensors: Vec<Trained>, device: &R::Device) -> Self {
        let place = OnDevice::on(device);
        let maps = [&*SIGNED, &*UNSIGNED];
        let tables = [maps.map(|map| *map.values()), maps.map(|map| *map.midpoints())];
        let tables = place.upload_f32(tables.as_flattened().as_flattened());
        let held = tensors.iter().map(|_| None).collect();
        Self { place, format, tensors, held, tables }
    }

    fn moments(&self, index: usize) -> Cow<'_, Moments> {
        let len = self.tensors[index].range.len();
        Cow::Owned(match &self.held[index] {
            Some(held) => held.download(&self.place, len),
            None => Moments::zeros(self.format, len),
        })
    }

    fn set_moments(&mut self, index: usize, moments: Moments) {
        moments.check(self.format, self.tensors[index].range.len());
        self.held[index] = Some(Held::upload(&self.place, &moments));
    }

    fn step(
        &mut self,
        values: Vec<CubeTensor<R>>,
        gradient: &DeviceSums<R>,
        rule: &adamw::Rule,
    ) -> Vec<CubeTensor<R>> {
        check_sizes(&self.tensors, values.iter().map(|values| values.meta.num_elements()));
        let step = |(index, values)| self.step_tensor(index, owned(values), gradient, rule);
        values.into_iter().enumerate().map(step).collect()
    }
}

impl<R: CubeRuntime> DeviceAdamW<R> {
    fn step_tensor(
        &mut self,
        index: usize,
        values: CubeTensor<R>,
        gradient: &DeviceSums<R>,
        rule: &adamw::Rule,
    ) -> CubeTensor<R> {
        let tensor = &self.tensors[index];
        if tensor.range.is_empty() {
            return values;
        }
        let OnDevice { client, .. } = &self.place;
        let (gradient, start) = gradient.of(index);
        let [shrink, step] = rule.shrink_and_step(tensor);
        let rule = RuleLaunch::new(
            rule.clip,
            rule.beta1,
            rule.beta2,
            rule.keep1,
            rule.keep2,
            rule.correction2,
            rule.eps,
            step,
            shrink,
        );
        let changed = values.clone().into_array_arg();
        let zeros = || Held::zeros(&self.place, self.format, tensor.range.len());
        match self.held[index].get_or_insert_with(zeros) {
            Held::F32([first, second]) => {
                let (count, dim) = self.place.each(tensor.range.len());
                step_kernel::launch(
                    client,
                    count,
                    dim,
                    changed,
                    gradient.into_array_arg(),
                    first.clone().into_array_arg(),
                    second.clone().into_array_arg(),
                    rule,
                    start as u32,
                );
            }
            Held::Blockwise8 { codes, scales } => {
                let blocks = scales.meta.num_elements() / 2;
                let (count, dim) = self.place.cubes(blocks, BLOCK_UNITS as u32);
                step_blocks_kernel::launch(
                    client,
                    count,
                    dim,
                    changed,
                    gradient.into_array_arg(),
                    codes.clone().into_array_arg(),
                    scales.clone().into_array_arg(),
                    self.tables.clone().into_array_arg(),
                    rule,
                    start as u32,
                );
            }
        }
        values
    }
}
