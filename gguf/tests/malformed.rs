//! Files that lie: none is believed, none panics, and none takes memory that it does not fill.

use bytes::Bytes;
use graft_gguf::{Array, File, Problem, TensorSpec, TensorType, Value, Writer};
use proptest::prelude::*;

fn file() -> Vec<u8> {
    let metadata = [
        ("general.architecture".to_owned(), Value::text("llama")),
        ("list".to_owned(), Value::Array(Array::of_texts(["one", "two"]))),
        ("count".to_owned(), Value::u32(7)),
    ];
    let spec = |name: &str, kind, shape: &[usize]| TensorSpec {
        name: name.to_owned(),
        kind,
        shape: shape.to_vec(),
    };
    let tensors =
        vec![spec("first", TensorType::F32, &[2, 3]), spec("second", TensorType::Q8_0, &[2, 32])];
    let writer = Writer::new(&metadata, tensors);
    let mut out = Vec::new();
    let fill =
        |tensor: &TensorSpec, out: &mut dyn std::io::Write| out.write_all(&vec![1; tensor.bytes()]);
    writer.write(&mut out, fill).expect("memory takes them");
    assert_eq!(out.len() as u64, writer.file_bytes());
    out
}

fn read(bytes: Vec<u8>) -> Result<File, Problem> {
    File::read(&Bytes::from(bytes))
}

/// Where `what` begins in `bytes`.
fn place(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).expect("it is there")
}

#[test]
fn what_is_written_is_read() {
    let file = read(file()).unwrap();
    assert_eq!(file.version(), 3);
    assert_eq!(file.value("count"), Some(&Value::u32(7)));
    let texts: Vec<_> = file.value("list").unwrap().as_array().unwrap().texts().unwrap().collect();
    assert_eq!(texts, ["one", "two"]);
    let [first, second] = file.tensors() else { panic!("two tensors") };
    assert_eq!((first.shape.as_slice(), first.bytes.len()), (&[2, 3][..], 24));
    assert_eq!((second.kind, second.bytes.len()), (TensorType::Q8_0, 68));
    assert!(second.bytes.iter().all(|byte| *byte == 1));
}

#[test]
fn every_lie_is_named_with_its_place() {
    let whole = file();
    let at = |what: &str, after: usize| place(&whole, what.as_bytes()) + what.len() + after;
    let with = |place: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[place..place + bytes.len()].copy_from_slice(bytes);
        read(file).expect_err("a lie").to_string()
    };
    let huge = u64::MAX.to_le_bytes();
    let many = (1u64 << 40).to_le_bytes();
    let lies = [
        ("magic", with(0, b"GGML")),
        ("version 1", with(4, &1u32.to_le_bytes())),
        ("big-endian", with(4, &3u32.to_be_bytes())),
        ("tensors", with(8, &many)),
        ("one tensor more", with(8, &3u64.to_le_bytes())),
        ("keys", with(16, &huge)),
        ("a key's length", with(24, &huge)),
        ("a key's text", with(32, &[0xff])),
        ("a key's type", with(at("general.architecture", 0), &[13])),
        ("a text's length", with(at("general.architecture", 4), &many)),
        ("a list of lists", with(at("list", 4), &9u32.to_le_bytes())),
        ("a list's length", with(at("list", 8), &many)),
        ("an entry's length", with(at("list", 16), &many)),
        ("no sizes", with(at("first", 0), &[0])),
        ("many sizes", with(at("first", 0), &[5])),
        ("a shape beyond all", with(at("first", 4), &(u64::MAX / 2).to_le_bytes())),
        ("a shape beyond the file", with(at("first", 4), &1_000u64.to_le_bytes())),
        ("rows of part of a block", with(at("second", 4), &33u64.to_le_bytes())),
        ("a type that is not read", with(at("second", 20), &10u32.to_le_bytes())),
        ("a type that nobody knows", with(at("second", 20), &77u32.to_le_bytes())),
        ("a place beyond the file", with(at("second", 24), &64_000u64.to_le_bytes())),
        ("a place inside another", with(at("second", 24), &0u64.to_le_bytes())),
        ("a place that is not aligned", with(at("second", 24), &33u64.to_le_bytes())),
    ];
    let shown: Vec<String> = lies.iter().map(|(what, said)| format!("{what}: {said}")).collect();
    insta::assert_snapshot!(shown.join("\n"), @"
    magic: it begins with `GGML`, not with `GGUF`: it is no GGUF file, or an empty one
    version 1: it is of GGUF version 1; versions 2 and 3 are read: convert the model again
    big-endian: its numbers are big-endian; only little-endian files are read
    tensors: the number of tensors is 1099511627776, but must be at most 65536
    one tensor more: the number of sizes of tensor `` is 0, but must be from 1 to 4
    keys: the number of metadata keys is 18446744073709551615, but must be at most 65536
    a key's length: the name of metadata key 0 at byte 32 takes 18446744073709551615 bytes, but only 352 follow: the copy is cut off
    a key's text: the name of metadata key 0 at byte 32 is not UTF-8
    a key's type: the type of `general.architecture` is 13, but must be from 0 to 12
    a text's length: the value of `general.architecture` at byte 64 takes 1099511627776 bytes, but only 320 follow: the copy is cut off
    a list of lists: `list` is a list of lists, but must be a list of numbers or texts
    a list's length: entry 3 of the list `list` at byte 140 takes 30064771076 bytes, but only 244 follow: the copy is cut off
    an entry's length: entry 0 of the list `list` at byte 105 takes 1099511627776 bytes, but only 279 follow: the copy is cut off
    no sizes: the number of sizes of tensor `first` is 0, but must be from 1 to 4
    many sizes: the number of sizes of tensor `first` is 5, but must be from 1 to 4
    a shape beyond all: tensor `first` of type F32 claims the shape [2, 9223372036854775807]: more bytes than can be addressed
    a shape beyond the file: tensor `first` claims the bytes 0..8000 after the list of tensors, but 128 follow it: the copy is cut off, or the file lies
    rows of part of a block: tensor `second` of type Q8_0 claims the shape [2, 33]: rows of 33 are no whole number of blocks of 32
    a type that is not read: tensor `second` is of type Q2_K, which is not read; read are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K. Take the model in one of these
    a type that nobody knows: tensor `second` is of type number 77, which is not read; read are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K. Take the model in one of these
    a place beyond the file: tensor `second` claims the bytes 64000..64068 after the list of tensors, but 128 follow it: the copy is cut off, or the file lies
    a place inside another: tensor `second` begins at byte 0 of the data, inside of `first`, which ends at 24
    a place that is not aligned: the place of tensor `second` is 33, but must be a multiple of the alignment, 32
    ");
}

#[test]
fn bytes_between_tensors_that_are_nobody_s_are_refused() {
    let mut holes = file();
    let at = place(&holes, b"second") + b"second".len() + 24;
    // `second` moves one step of the alignment on.
    holes[at..at + 8].copy_from_slice(&64u64.to_le_bytes());
    holes.extend_from_slice(&[0; 32]);
    insta::assert_snapshot!(read(holes).unwrap_err().to_string(), @"tensor `second` begins at byte 64 of the data, but what is before it ends at 32: 32 bytes between belong to no tensor, and llama.cpp reads no such file either");
}

#[test]
fn keys_that_change_the_layout_are_checked() {
    let said = |key: &str, value: Value| {
        let writer = Writer::new(&[(key.to_owned(), value)], Vec::new());
        let mut out = Vec::new();
        writer.write(&mut out, |_, _| std::io::Result::Ok(())).unwrap();
        read(out).map(|_| ()).map_err(|problem| problem.to_string())
    };
    assert_eq!(said("general.alignment", Value::u32(64)), Ok(()));
    insta::assert_snapshot!(said("general.alignment", Value::u32(0)).unwrap_err(), @"`general.alignment` is 0, but must be a power of two from 8 to 1048576");
    insta::assert_snapshot!(said("general.alignment", Value::text("32")).unwrap_err(), @r#"`general.alignment` is "32", but must be a power of two from 8 to 1048576"#);
    insta::assert_snapshot!(said("split.count", Value::u32(3)).unwrap_err(), @"it is part 1 of a model in 3 files: join them with llama.cpp's `llama-gguf-split --merge`");
    let twice = Writer::new(
        &[("a".to_owned(), Value::u32(1)), ("a".to_owned(), Value::u32(2))],
        Vec::new(),
    );
    let mut out = Vec::new();
    twice.write(&mut out, |_, _| std::io::Result::Ok(())).unwrap();
    insta::assert_snapshot!(read(out).unwrap_err().to_string(), @"the metadata key `a` occurs twice");
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let whole = file();
    // The last tensor ends before the padding.
    for length in 0..whole.len() - 28 {
        assert!(read(whole[..length].to_vec()).is_err(), "{length} of {} bytes", whole.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..6)) {
        let mut bytes = file();
        for (place, byte) in changes {
            let length = bytes.len();
            bytes[place % length] = byte;
        }
        if let Ok(file) = read(bytes) {
            for tensor in file.tensors() {
                let mut values = vec![0.0; tensor.shape.iter().product()];
                graft_gguf::blocks::decode(tensor.kind, &tensor.bytes, &mut values);
            }
            let _ = graft_gguf::hugging_face::config(&file);
            let _ = graft_gguf::tokenizer::tokenizer_json(file.metadata());
        }
    }
}
