//! Blocks beside those of the reference implementations: `fixtures/make.py`.

use bytes::Bytes;
use graft_gguf::blocks::{NotFinite, decode, encode, encode_rows};
use graft_gguf::{File, TensorType, Value};

fn fixture() -> File {
    let bytes = Bytes::from_static(include_bytes!("fixtures/blocks.gguf"));
    File::read(&bytes).expect("the fixture")
}

fn tensor(file: &File, name: &str) -> (Vec<usize>, Bytes) {
    let found = file.tensors().iter().find(|tensor| tensor.name == name);
    let found = found.unwrap_or_else(|| panic!("no `{name}`"));
    (found.shape.clone(), found.bytes.clone())
}

fn numbers(file: &File, name: &str) -> Vec<f32> {
    let (shape, bytes) = tensor(file, name);
    let mut values = vec![0.0; shape.iter().product()];
    decode(TensorType::F32, &bytes, &mut values);
    values
}

#[test]
fn every_type_is_read_to_the_numbers_of_the_reference() {
    let file = fixture();
    for kind in TensorType::ALL.into_iter().filter(|kind| *kind != TensorType::F32) {
        let (shape, bytes) = tensor(&file, kind.name());
        let expected = numbers(&file, &format!("{kind}.numbers"));
        let mut values = vec![0.0; shape.iter().product()];
        decode(kind, &bytes, &mut values);
        let differs = values.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits());
        let at = differs.map(|at| (at, values[at], expected[at]));
        assert_eq!(at, None, "{kind}: the first number that differs");
    }
}

#[test]
fn every_type_is_written_to_the_bytes_of_the_reference() {
    let file = fixture();
    let values = numbers(&file, "values");
    for kind in TensorType::ALL {
        if matches!(kind, TensorType::F32 | TensorType::Q4_0 | TensorType::Q4_1) {
            continue;
        }
        let (_, expected) = tensor(&file, kind.name());
        let mut bytes = vec![0; expected.len()];
        encode(kind, &values, &mut bytes).expect("finite");
        let differs = bytes.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{kind}: the first byte that differs");
    }
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let values = numbers(&fixture(), "values");
    let written = |threads: usize, rows_at_once: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let mut bytes = Vec::new();
        for first in (0..7).step_by(rows_at_once) {
            let mut some = vec![0; rows_at_once.min(7 - first) * 144];
            let fill = |row: usize, into: &mut [f32], _: &mut [f32]| {
                into.copy_from_slice(&values[row * 256..][..256]);
            };
            pool.install(|| encode_rows(TensorType::Q4K, 256, first, &mut some, fill)).unwrap();
            bytes.extend(some);
        }
        bytes
    };
    assert_eq!(written(1, 7), written(3, 2));
}

#[test]
fn numbers_that_a_type_cannot_hold_are_named() {
    let mut values = vec![0.5; 512];
    values[300] = 1e6;
    let fill = |row: usize, into: &mut [f32], _: &mut [f32]| {
        into.copy_from_slice(&values[row * 256..][..256]);
    };
    let mut bytes = vec![0; 288];
    let failed = encode_rows(TensorType::Q4K, 256, 0, &mut bytes, fill);
    assert_eq!(failed, Err(NotFinite { index: 300, value: 1e6 }));
    values[300] = f32::NAN;
    let failed = encode(TensorType::F32, &values, &mut [0; 2_048]).unwrap_err();
    assert!(failed.index == 300 && failed.value.is_nan(), "{failed:?}");
    assert_eq!(encode(TensorType::Bf16, &[1e6, 3e38], &mut [0; 4]), Ok(()));
}

#[test]
fn metadata_of_every_type_is_read() {
    let file = fixture();
    let value = |key: &str| file.value(key).unwrap_or_else(|| panic!("no {key}"));
    let texts: Vec<&str> = value("a.list.of.texts").as_array().unwrap().texts().unwrap().collect();
    assert_eq!(texts, ["a", "", "Grüße"]);
    let numbers = value("a.list.of.numbers").as_array().unwrap().numbers().unwrap();
    assert_eq!(numbers.collect::<Vec<_>>(), [1, -2, 3]);
    // The decimals that were meant, not the f32 next to them.
    assert_eq!(value("a.float").as_f64().map(f64::to_bits), Some(1e-5f64.to_bits()));
    assert_eq!(value("a.bool"), &Value::Bool(true));
    assert_eq!(value("a.large").as_u64(), Some(1 << 63));
    assert_eq!((value("a.small").as_u64(), value("a.small").to_string()), (None, "-3".to_owned()));
}
