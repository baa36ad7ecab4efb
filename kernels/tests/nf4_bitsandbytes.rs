//! NF4 against bitsandbytes 0.50.2, to the bit. The fixtures, how they were made and their layout
//! are in `fixtures/nf4/generate.py`.

use std::io::Write;
use std::path::PathBuf;

use graft_kernels::nf4::{
    self, Absmax, AbsmaxFormat, CODE, DYNAMIC_MAP, Element, NESTED_BLOCK, Nf4Error, decode_run,
    quantize,
};
use half::{bf16, f16};
use proptest::prelude::*;

const TYPES: [&str; 3] = ["f32", "f16", "bf16"];
const KINDS: [&str; 6] = ["normal", "heavy", "constant", "zero", "subnormal", "huge"];
const OTHERS: [&str; 3] = ["ties_f32", "many_blocks_bf16", "nested_ends_bf16"];

/// Reads a fixture from front to back.
struct Reader {
    name: String,
    bytes: std::vec::IntoIter<u8>,
}

impl Reader {
    fn open(name: &str) -> Self {
        // The live comparison draws fresh cases into a folder of its own.
        let drawn = std::env::var_os("GRAFT_PARITY_CASES").map(PathBuf::from);
        let committed = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let folder = drawn.unwrap_or_else(committed).join("nf4");
        let path = folder.join(format!("{name}.bin"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { name: name.to_owned(), bytes: bytes.into_iter() }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        assert!(self.bytes.len() >= count, "{} is cut short", self.name);
        self.bytes.by_ref().take(count).collect()
    }

    fn values<E: Bits>(&mut self, count: usize) -> Vec<E> {
        self.bytes(count * E::SIZE).chunks_exact(E::SIZE).map(E::from_le).collect()
    }

    fn number(&mut self) -> usize {
        u32::from_le_bytes(self.bytes(4).try_into().expect("4 bytes")) as usize
    }

    fn finish(mut self) {
        assert_eq!(self.bytes.next(), None, "{} has bytes left over", self.name);
    }
}

/// Adds a row to the live comparison's table where one is wanted, after all of it was the same.
fn all_the_same(comparison: &str, compared: usize) {
    let Some(path) = std::env::var_os("GRAFT_PARITY_TABLE") else { return };
    let row = format!(
        "{{\"part\":\"NF4\",\"comparison\":\"{comparison}\",\"compared\":{compared},\
         \"worst\":0.0,\"tolerance\":0.0}}\n"
    );
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(row.as_bytes()));
    written.expect("the table takes a row");
}

/// Comparison by bits, so that -0 is not 0.
trait Bits: Element + std::fmt::Debug {
    const SIZE: usize;
    fn from_le(bytes: &[u8]) -> Self;
    fn bits(self) -> u32;
}

impl Bits for f32 {
    const SIZE: usize = 4;
    fn from_le(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes.try_into().expect("SIZE bytes"))
    }
    fn bits(self) -> u32 {
        self.to_bits()
    }
}

impl Bits for f16 {
    const SIZE: usize = 2;
    fn from_le(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes.try_into().expect("SIZE bytes"))
    }
    fn bits(self) -> u32 {
        self.to_bits().into()
    }
}

impl Bits for bf16 {
    const SIZE: usize = 2;
    fn from_le(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes.try_into().expect("SIZE bytes"))
    }
    fn bits(self) -> u32 {
        self.to_bits().into()
    }
}

fn assert_same<E: Bits>(case: &str, what: &str, ours: &[E], theirs: &[E]) {
    assert_eq!(ours.len(), theirs.len(), "{case}: length of {what}");
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!(
            ours.bits() == theirs.bits(),
            "{case}: {what} {index} is {ours:?}, reference {theirs:?}"
        );
    }
}

fn check<E: Bits>(case: &str, mut file: Reader) {
    let elements = file.number();
    let decoded = file.number() == 1;
    let input = file.values::<E>(elements);
    let blocks = nf4::blocks(elements);
    let codes = file.bytes(elements.div_ceil(2));
    let absmax = file.values::<f32>(blocks);
    let double_codes = file.bytes(blocks);
    let nested_absmax = file.values::<f32>(blocks.div_ceil(NESTED_BLOCK));
    let offset = file.values::<f32>(1);
    let absmax_again = file.values::<f32>(blocks);

    let plain = quantize(&input, AbsmaxFormat::Plain).expect("finite");
    let double = quantize(&input, AbsmaxFormat::Double).expect("finite");
    assert_eq!((plain.elements, double.elements), (elements, elements), "{case}");
    assert_eq!(plain.codes, codes, "{case}: codes");
    assert_eq!(double.codes, codes, "{case}: codes beside double quantisation");
    assert_same(case, "absmax", &plain.absmax.decode(), &absmax);
    let Absmax::Double { codes: ours, nested, map, offset: mean } = &double.absmax else {
        panic!("{case}: plain absmax")
    };
    assert_eq!(*ours, double_codes, "{case}: codes of absmax");
    assert_same(case, "nested absmax", nested, &nested_absmax);
    assert_same(case, "map", map, &DYNAMIC_MAP);
    assert_same(case, "offset", &[*mean], &offset);
    assert_same(case, "decoded absmax", &double.absmax.decode(), &absmax_again);

    if decoded {
        for (what, absmax) in [("value", plain.absmax), ("value from double", double.absmax)] {
            let mut out = vec![E::round(9.0); elements];
            decode_run(&codes, &absmax, 0, &mut out);
            assert_same(case, what, &out, &file.values::<E>(elements));
        }
    }
    file.finish();
}

fn check_case(case: &str) {
    let mut file = Reader::open(case);
    match file.number() {
        0 => check::<f32>(case, file),
        1 => check::<f16>(case, file),
        2 => check::<bf16>(case, file),
        other => panic!("{case}: type {other}"),
    }
}

#[test]
fn every_fixture_is_reproduced_to_the_bit() {
    for kind in KINDS {
        for dtype in TYPES {
            check_case(&format!("{kind}_{dtype}"));
        }
    }
    OTHERS.iter().copied().for_each(check_case);
    all_the_same(
        "codes, absmax, nested absmax, offset, decoded values",
        KINDS.len() * TYPES.len() + OTHERS.len(),
    );
}

#[test]
fn the_maps_are_those_of_the_reference() {
    let mut file = Reader::open("maps");
    assert_same("maps", "code", &CODE, &file.values::<f32>(16));
    assert_same("maps", "dynamic map", &DYNAMIC_MAP, &file.values::<f32>(256));
    file.finish();
    all_the_same("code and dynamic map", 2);
}

#[test]
fn the_mean_is_that_of_one_torch_thread_at_every_size() {
    let value = |index: u64| ((index * 2_654_435_761) as u32 >> 8) as f32 / (1 << 24) as f32;
    let values: Vec<f32> = (1..=4_000_003).map(value).collect();
    let mut file = Reader::open("means");
    let mut compared = 0;
    while file.bytes.len() > 0 {
        let (count, mean) = (file.number(), file.values::<f32>(1));
        let ours = Absmax::keep(&values[..count], AbsmaxFormat::Double).unwrap();
        let Absmax::Double { offset, .. } = ours else { panic!("double was asked for") };
        assert_same("means", &format!("mean of {count}"), &[offset], &mean);
        compared += 1;
    }
    all_the_same("means that become offsets", compared);
}

#[test]
fn a_tensor_longer_than_a_task_equals_its_pieces() {
    let count = 64 * 9_000 + 11;
    let value = |index: usize| ((index * 40_503) as u16 as f32 - 32_768.0) * 1e-5;
    let values: Vec<f32> = (0..count).map(value).collect();
    let whole = quantize(&values, AbsmaxFormat::Plain).unwrap();
    let pieces = values.chunks(64 * 7).map(|piece| quantize(piece, AbsmaxFormat::Plain).unwrap());
    let (codes, absmax): (Vec<_>, Vec<_>) =
        pieces.map(|piece| (piece.codes, piece.absmax.decode())).unzip();
    assert_eq!(whole.codes, codes.concat());
    assert_eq!(whole.absmax.decode(), absmax.concat());
}

#[test]
fn a_value_that_is_not_finite_is_refused_with_its_place() {
    for (index, value) in [(0, f32::NAN), (70, f32::INFINITY), (130, f32::NEG_INFINITY)] {
        let mut values = vec![0.5; 131];
        values[index] = value;
        let Err(Nf4Error::NonFinite { index: at, value: found }) =
            quantize(&values, AbsmaxFormat::Plain)
        else {
            panic!("{value} passed")
        };
        assert_eq!((at, found.to_bits()), (index, value.to_bits()));
    }
}

#[test]
fn absmax_that_sum_beyond_f32_are_refused_for_double_only() {
    let values = vec![bf16::MAX; 64 * 3];
    assert!(quantize(&values, AbsmaxFormat::Plain).is_ok());
    let error = quantize(&values, AbsmaxFormat::Double).unwrap_err();
    assert_eq!(error, Nf4Error::Overflow { blocks: 3, sum: f32::INFINITY });
}

#[test]
fn nothing_becomes_nothing() {
    for format in [AbsmaxFormat::Plain, AbsmaxFormat::Double] {
        let empty = quantize::<f32>(&[], format).unwrap();
        assert_eq!((empty.codes.len(), empty.absmax.blocks(), empty.elements), (0, 0, 0));
        assert!(empty.absmax.decode().is_empty());
    }
}

/// Weights of several sizes of block, from tiny to large, none below the smallest divisor.
fn weights() -> impl Strategy<Value = Vec<f32>> {
    (proptest::collection::vec(-1.0_f32..1.0, 1..400), -30_i32..30)
        .prop_map(|(values, power)| values.iter().map(|v| v * 2.0_f32.powi(power)).collect())
}

proptest! {
    #[test]
    fn quantising_decoded_weights_gives_the_same_codes(values in weights()) {
        let once = quantize(&values, AbsmaxFormat::Plain).unwrap();
        let absmax = once.absmax.decode();
        prop_assume!(absmax.iter().all(|absmax| *absmax > 0.0));
        let mut decoded = vec![0.0_f32; values.len()];
        decode_run(&once.codes, &once.absmax, 0, &mut decoded);
        prop_assert_eq!(&quantize(&decoded, AbsmaxFormat::Plain).unwrap(), &once);
    }

    #[test]
    fn a_value_moves_at_most_half_the_widest_gap_of_the_code(values in weights()) {
        // The widest gap is CODE[1] - CODE[0]; the rest is f32 rounding of scale and product.
        let bound = (CODE[1] - CODE[0]) / 2.0 + 1e-6;
        let once = quantize(&values, AbsmaxFormat::Plain).unwrap();
        let absmax = once.absmax.decode();
        let mut decoded = vec![0.0_f32; values.len()];
        decode_run(&once.codes, &once.absmax, 0, &mut decoded);
        for (index, (value, decoded)) in values.iter().zip(&decoded).enumerate() {
            let most = bound * absmax[index / nf4::BLOCK];
            prop_assert!((value - decoded).abs() <= most, "{index}: {value} became {decoded}");
        }
    }

    #[test]
    fn the_absmax_moves_at_most_half_the_widest_gap_of_the_map(
        absmax in proptest::collection::vec(0.0_f32..4.0, 1..700)
    ) {
        // Half the widest gap, 0.0140625, is also the way from -1 to the lowest code; the bins of
        // the reference add one part in 65536.
        let double = Absmax::keep(&absmax, AbsmaxFormat::Double).unwrap();
        let Absmax::Double { nested, .. } = &double else { panic!("double was asked for") };
        for (block, (before, after)) in absmax.iter().zip(double.decode()).enumerate() {
            let most = nested[block / NESTED_BLOCK] * 0.0072 + 1e-6;
            prop_assert!((before - after).abs() <= most, "{block}: {before} became {after}");
        }
    }
}
