//! Encodes raw little-endian f32 from stdin as blocks on stdout, to be compared with another implementation:
//! `encode TYPE ROW_LENGTH`.

use std::io::{Read, Write};

use graft_gguf::TensorType;
use graft_gguf::blocks::{decode, encode_rows};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let kind = TensorType::ALL.into_iter().find(|kind| kind.name() == arguments[1]);
    let kind = kind.expect("a type's name");
    let inner: usize = arguments[2].parse().expect("the length of a row");
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).expect("stdin is read");
    let mut values = vec![0.0; input.len() / 4];
    decode(TensorType::F32, &input, &mut values);
    let mut out = vec![0; kind.bytes(&[values.len() / inner, inner]).expect("whole blocks")];
    let row = |row: usize, into: &mut [f32], _: &mut [f32]| {
        into.copy_from_slice(&values[row * inner..(row + 1) * inner]);
    };
    encode_rows(kind, inner, 0, &mut out, row).expect("finite numbers");
    std::io::stdout().write_all(&out).expect("stdout takes them");
}
