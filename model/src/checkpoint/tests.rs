//! What is written reads back; what is broken is refused by name; nothing panics.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use graft_kernels::nf4::BLOCK;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::LlamaConfig;
use crate::presets::llama3_2_1b;
use graft_files::atomic::write_bytes;

mod nf4;

use nf4::quantised;

/// Two blocks of the smallest sizes that NF4 allows.
fn tiny(tied: bool) -> LlamaConfig {
    let base = llama3_2_1b();
    let (heads, kv_heads) = (2, 1);
    LlamaConfig { d_model: 64, d_ff: 128, layers: 2, heads, kv_heads, vocab_size: 96, tied, ..base }
}

fn bf16(name: &str, shape: &[usize]) -> TensorView {
    let count: usize = shape.iter().product();
    let values = (0..count).flat_map(|i| half::bf16::from_f32(i as f32 - 7.5).to_le_bytes());
    let bytes: Vec<u8> = values.collect();
    TensorView {
        name: name.to_owned(),
        dtype: Dtype::BF16,
        shape: shape.to_vec(),
        bytes: bytes.into(),
    }
}

fn dense(config: &LlamaConfig) -> Vec<TensorView> {
    expected(config).iter().map(|tensor| bf16(&tensor.name, &tensor.shape)).collect()
}

fn spec(tensor: &TensorView) -> TensorSpec {
    let TensorView { name, dtype, shape, bytes: _ } = tensor.clone();
    TensorSpec { name, dtype, shape }
}

fn write(folder: &Path, tensors: &[TensorView], max_shard_bytes: u64) -> ShardedWriter {
    let writer = ShardedWriter::new(tensors.iter().map(spec).collect(), max_shard_bytes).unwrap();
    let by_name: BTreeMap<_, _> = tensors.iter().map(|t| (t.name.as_str(), &t.bytes)).collect();
    writer
        .write(folder, |spec, file| -> Result<(), Error> {
            Ok(file.write_all(by_name[spec.name.as_str()])?)
        })
        .unwrap();
    writer
}

fn open(folder: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(&ModelFolder::at(folder).unwrap())
}

/// The error's text with the temporary folder's name taken out.
fn refusal(folder: &Path, result: Result<impl Sized, Error>) -> String {
    let error = result.err().expect("must be refused");
    error.to_string().replace(&folder.display().to_string(), "ROOT")
}

/// A file of this header and that many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn shards_read_back_as_written() {
    let config = tiny(false);
    let tensors = dense(&config);
    for (max_shard_bytes, count) in [(u64::MAX, 1), (60_000, 5), (1, tensors.len())] {
        let root = tempfile::tempdir().unwrap();
        let writer = write(root.path(), &tensors, max_shard_bytes);
        assert_eq!(writer.file_names().count(), count);
        let sizes =
            writer.file_names().map(|name| root.path().join(name).metadata().unwrap().len());
        assert_eq!(sizes.sum::<u64>(), writer.file_bytes());
        let checkpoint = open(root.path()).unwrap();
        checkpoint.verify(&config).unwrap();
        assert_eq!(checkpoint.len(), tensors.len());
        assert_eq!(checkpoint.total_bytes(), writer.total_bytes());
        for tensor in &tensors {
            assert_eq!(checkpoint.tensor(&tensor.name).as_ref(), Some(tensor));
        }
        assert!(checkpoint.names().is_sorted());
        assert_eq!(root.path().join(INDEX_FILE).exists(), count > 1);
    }
}

#[test]
fn the_safetensors_crate_reads_what_is_written_and_bytes_repeat() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (root.path().join("1"), root.path().join("2"));
    let wide = TensorView {
        name: "z".to_owned(),
        dtype: Dtype::F32,
        shape: vec![],
        bytes: Bytes::from_static(&[0, 0, 128, 63]),
    };
    let metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        ("hash".to_owned(), "é".to_owned()),
    ]);
    write_safetensors(&one, &[bf16("a", &[3]), wide.clone(), bf16("b", &[0, 4])], &metadata)
        .unwrap();
    write_safetensors(&two, &[wide, bf16("b", &[0, 4]), bf16("a", &[3])], &metadata).unwrap();
    let bytes = std::fs::read(&one).unwrap();
    assert_eq!(bytes, std::fs::read(&two).unwrap());
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.tensor("z").unwrap().data(), [0, 0, 128, 63]);
    let checkpoint = Checkpoint::open_file(&ModelFolder::at(root.path()).unwrap(), "1").unwrap();
    assert_eq!(checkpoint.metadata(), &metadata);
    assert_eq!(checkpoint.tensor("z").unwrap().to_f32().unwrap(), [1.0]);
    assert_eq!(checkpoint.tensor("a").unwrap().to_f32().unwrap(), [-7.5, -6.5, -5.5]);
}

#[test]
fn a_source_that_gives_other_bytes_than_promised_leaves_no_file() {
    let root = tempfile::tempdir().unwrap();
    let tensor = bf16("a", &[3]);
    for bytes in [&[0_u8; 5][..], &[0_u8; 7][..]] {
        let writer = ShardedWriter::new(vec![spec(&tensor)], u64::MAX).unwrap();
        let result = writer
            .write(root.path(), |_, file| -> Result<(), Error> { Ok(file.write_all(bytes)?) });
        assert!(result.is_err());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
    let twice = vec![spec(&tensor), spec(&tensor)];
    assert!(matches!(ShardedWriter::new(twice, u64::MAX), Err(Error::Layout { .. })));
    let short = TensorView { bytes: Bytes::new(), ..tensor };
    let path = root.path().join("a");
    assert!(matches!(
        write_safetensors(&path, &[short], &BTreeMap::new()),
        Err(Error::Layout { .. })
    ));
}

#[test]
fn hostile_headers_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let folder = ModelFolder::at(root.path()).unwrap();
    let a = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let cases = [
        vec![1, 2, 3],
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(),
        u64::MAX.to_le_bytes().to_vec(),
        1_000_u64.to_le_bytes().to_vec(),
        file("[]", 0),
        file("{\"a\":1}", 0),
        file(r#"{"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}}"#, 8),
        file(r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8),
        file(&format!(r#"{a},"a":{{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}}}"#), 16),
        file(&format!("{a}}}"), 5),
        file(&format!("{a}}}"), 9),
        file(&format!(r#"{a},"b":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}}}"#), 12),
        file(&format!(r#"{a},"b":{{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}}}"#), 20),
        file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,12]}}"#, 12),
        file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 12),
        file(r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,-1]}}"#, 12),
        file(r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1),
        file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0),
        file(
            r#"{"a":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#,
            0,
        ),
        file("{\"\u{0}", 0),
    ];
    let texts = cases.map(|bytes| {
        write_bytes(root.path().join("x"), &bytes).unwrap();
        refusal(root.path(), Checkpoint::open_file(&folder, "x"))
    });
    insta::assert_snapshot!(texts.join("\n"), @r#"
    `ROOT/x` is not a usable safetensors file: it has 3 bytes, and the header's length alone takes 8
    `ROOT/x` is not a usable safetensors file: it is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder
    `ROOT/x` is not a usable safetensors file: its header claims 18446744073709551615 bytes; the format allows 100000000
    `ROOT/x` is not a usable safetensors file: its header claims 1000 bytes, but 0 follow: the copy is cut off
    `ROOT/x` is not a usable safetensors file: its header is not valid: invalid type: sequence, expected an object of tensors at line 1 column 0
    `ROOT/x` is not a usable safetensors file: its header is not valid: tensor `a`: invalid type: integer `1`, expected struct TensorInfo at line 1 column 6
    `ROOT/x` is not a usable safetensors file: its header is not valid: tensor `a`: unknown variant `Q4`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 18
    `ROOT/x` is not a usable safetensors file: its header is not valid: tensor `a`: invalid value: integer `-2`, expected usize at line 1 column 31
    `ROOT/x` is not a usable safetensors file: its header is not valid: tensor `a` occurs twice at line 1 column 108
    `ROOT/x` is not a usable safetensors file: its tensors take 8 bytes, but 5 follow the header: the copy is cut off
    `ROOT/x` is not a usable safetensors file: its tensors take 8 bytes, but 9 follow the header
    `ROOT/x` is not a usable safetensors file: tensor `b` begins at offset 4, but the one before it ends at 8
    `ROOT/x` is not a usable safetensors file: tensor `b` begins at offset 12, but the one before it ends at 8
    `ROOT/x` is not a usable safetensors file: tensor `a` of type F32 and shape [2] takes 8 bytes, but its offsets 0..12 do not span as many
    `ROOT/x` is not a usable safetensors file: tensor `a` begins at offset 8, but the one before it ends at 0
    `ROOT/x` is not a usable safetensors file: its header is not valid: tensor `a`: invalid value: integer `-1`, expected usize at line 1 column 52
    `ROOT/x` is not a usable safetensors file: tensor `a` of type F4 and shape [3] does not fill whole bytes
    `ROOT/x` is not a usable safetensors file: tensor `a` claims the shape [4294967296, 4294967296], more bytes than can be addressed
    `ROOT/x` is not a usable safetensors file: its tensors take 2305843009213693951 bytes, but 0 follow the header: the copy is cut off
    `ROOT/x` is not a usable safetensors file: its header is not valid: control character (\u0000-\u001F) found while parsing a string at line 1 column 3
    "#);
}

#[test]
fn data_that_begins_at_any_address_reads_the_same() {
    let root = tempfile::tempdir().unwrap();
    let folder = ModelFolder::at(root.path()).unwrap();
    let header = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[3,11]},"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
    for padding in 0..9 {
        let mut bytes = file(&format!("{header}{}", " ".repeat(padding)), 3);
        bytes.extend([1.5_f32, -2.25].map(f32::to_le_bytes).concat());
        write_bytes(root.path().join("x"), &bytes).unwrap();
        let checkpoint = Checkpoint::open_file(&folder, "x").unwrap();
        assert_eq!(checkpoint.tensor("b").unwrap().to_f32().unwrap(), [1.5, -2.25], "{padding}");
    }
}

#[test]
fn hostile_indexes_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let one = |name: &str, tensors: &[TensorView]| {
        write_safetensors(&root.path().join(name), tensors, &BTreeMap::new()).unwrap();
    };
    one("s1.safetensors", &[bf16("a", &[2])]);
    one("s2.safetensors", &[bf16("b", &[2])]);
    one("stale.safetensors", &[bf16("a", &[2])]);
    let mut texts = vec![refusal(root.path(), open(root.path()))];
    for weight_map in [
        json!({"a": "s1.safetensors", "b": "s3.safetensors", "c": "s4.safetensors"}),
        json!({"a": "s2.safetensors", "b": "s1.safetensors"}),
        json!({"a": "s1.safetensors", "c": "s2.safetensors"}),
        json!({"a": "s1.safetensors", "d": "stale.safetensors"}),
        json!({"a": "../s1.safetensors"}),
        json!({"a": 3}),
        Value::Null,
    ] {
        let index = json!({"metadata": {"total_size": 8}, "weight_map": weight_map}).to_string();
        write_bytes(root.path().join(INDEX_FILE), index.as_bytes()).unwrap();
        texts.push(refusal(root.path(), open(root.path())));
    }
    insta::assert_snapshot!(texts.join("\n"), @"
    `model.safetensors` or `model.safetensors.index.json` is not in the model folder `ROOT`. Graft downloads nothing: copy the file there from where the model comes from
    `ROOT/model.safetensors.index.json` names shards that are not there: s3.safetensors, s4.safetensors. Copy them from where the model comes from
    `ROOT/model.safetensors.index.json` places `a` in `s2.safetensors`, which does not hold it (and 1 more like it)
    `ROOT/model.safetensors.index.json` places `c` in `s2.safetensors`, which does not hold it
    tensor `a` is in both `ROOT/s1.safetensors` and `ROOT/stale.safetensors`: remove the stale file
    `../s1.safetensors` is refused: a file of the model folder `ROOT` is a name without a path
    `ROOT/model.safetensors.index.json` is not valid JSON: invalid type: integer `3`, expected a string at line 1 column 48
    `ROOT/model.safetensors.index.json` is not valid JSON: invalid type: null, expected a map at line 1 column 46
    ");
}

#[test]
fn missing_extra_and_misshapen_tensors_are_named_together() {
    let root = tempfile::tempdir().unwrap();
    let mut tensors = dense(&tiny(false));
    tensors.retain(|tensor| tensor.name != "model.norm.weight");
    let named = |tensors: &mut Vec<TensorView>, name: &str, new: TensorView| {
        *tensors.iter_mut().find(|tensor| tensor.name == name).unwrap() = new;
    };
    let q = "model.layers.1.self_attn.q_proj.weight";
    named(&mut tensors, q, bf16(q, &[32, 64]));
    let up = "model.layers.0.mlp.up_proj.weight";
    let bytes = Bytes::from(vec![0; 128 * 64]);
    let name = up.to_owned();
    named(&mut tensors, up, TensorView { name, dtype: Dtype::I8, shape: vec![128, 64], bytes });
    tensors.push(bf16("model.layers.0.self_attn.q_proj.bias", &[64]));
    tensors.push(bf16("model.layers.0.self_attn.rotary_emb.inv_freq", &[16]));
    write(root.path(), &tensors, u64::MAX);
    let checkpoint = open(root.path()).unwrap();
    let text = refusal(root.path(), checkpoint.verify(&tiny(false)));
    insta::assert_snapshot!(text, @"
    the tensors of `ROOT` are not those of its config.json:
      `model.layers.0.mlp.up_proj.weight` holds I8, but must hold F32, F16 or BF16
      `model.layers.1.self_attn.q_proj.weight` is [32, 64], but the model needs [128, 64]
      `model.norm.weight` is missing; the model needs it as [64]
      `model.layers.0.self_attn.q_proj.bias` (BF16 [64]) is not of this model
    ");
}

#[test]
fn a_tied_model_may_store_a_copy_of_its_head() {
    let root = tempfile::tempdir().unwrap();
    let config = tiny(true);
    let mut tensors = dense(&config);
    write(root.path(), &tensors, u64::MAX);
    open(root.path()).unwrap().verify(&config).unwrap();
    tensors.push(bf16("lm_head.weight", &[96, 64]));
    write(root.path(), &tensors, u64::MAX);
    open(root.path()).unwrap().verify(&config).unwrap();
    assert!(
        open(root.path()).unwrap().verify(&LlamaConfig { tied: false, ..config.clone() }).is_ok()
    );
    tensors.pop();
    let mut other = bf16("lm_head.weight", &[96, 64]);
    let mut bytes = other.bytes.to_vec();
    // A row for one new token.
    bytes[95 * 64 * 2 + 7] ^= 1;
    other.bytes = bytes.into();
    tensors.push(other);
    write(root.path(), &tensors, u64::MAX);
    let error = open(root.path()).unwrap().verify(&config).unwrap_err().to_string();
    let (_, problem) = error.split_once('\n').unwrap();
    insta::assert_snapshot!(problem.trim(), @"`lm_head.weight` differs from `model.embed_tokens.weight` from byte 12167 on, but config.json says that the embedding is the head: set tie_word_embeddings to false there, or leave the tensor out of the files");
    let untied = LlamaConfig { tied: false, ..config.clone() };
    assert!(open(root.path()).unwrap().verify(&untied).is_ok());
    tensors.pop();
    tensors.push(bf16("lm_head.weight", &[95, 64]));
    write(root.path(), &tensors, u64::MAX);
    assert!(open(root.path()).unwrap().verify(&config).is_err());
}

/// A file that holds one quantised weight.
fn quantised_file() -> &'static [u8] {
    static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    FILE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &quantised("w", [4, 64], true), u64::MAX);
        std::fs::read(root.path().join(SINGLE_FILE)).unwrap()
    })
}

/// Reads every tensor of a file that may be anything.
fn read_all(bytes: &[u8]) {
    let root = tempfile::tempdir().unwrap();
    // Not `atomic`: syncing a thousand files takes longer than reading them.
    let mut plain = std::fs::File::create(root.path().join(SINGLE_FILE)).unwrap();
    std::io::Write::write_all(&mut plain, bytes).unwrap();
    let Ok(checkpoint) = open(root.path()) else { return };
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name).unwrap();
        let elements: usize = tensor.shape.iter().product();
        assert_eq!(tensor.bytes.len() * 8, elements * tensor.dtype.bitsize(), "{name}");
        let _ = tensor.to_f32();
        if let Ok(Some(weight)) = checkpoint.nf4(name) {
            let absmax = weight.absmax.decode();
            assert_eq!(absmax.len() * BLOCK, weight.codes.len() * 2);
        }
    }
    let _ = checkpoint.verify(&tiny(true));
}

/// Files that each law of strangers' files tries; `GRAFT_MUTATIONS` says it otherwise.
fn mutations() -> u32 {
    let asked = std::env::var("GRAFT_MUTATIONS").ok();
    asked.map_or(2_000, |asked| asked.parse().expect("GRAFT_MUTATIONS is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(mutations()))]

    #[test]
    fn random_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
        read_all(&file(&String::from_utf8_lossy(&bytes), 8));
    }

    #[test]
    fn mutated_files_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = quantised_file().to_vec();
        for (at, byte) in changes {
            // Digits and brackets break more laws than random bytes do.
            let at = at.index(bytes.len());
            bytes[at] = if byte < 128 { b"0123456789,[]{}\"-"[usize::from(byte) % 17] } else { byte };
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_all(&bytes);
    }

    #[test]
    fn headers_of_any_shape_and_place_never_panic(
        tensors in proptest::collection::vec(
            (proptest::collection::vec(0_u64..5, 0..3), any::<u64>(), any::<u64>(), 0_u8..3), 0..4,
        ),
    ) {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (number, (shape, begin, length, kind)) in tensors.iter().enumerate() {
            let right = end..end + shape.iter().product::<u64>() * 2;
            let place = match kind {
                0 => *begin..begin.wrapping_add(*length),
                1 => begin % 50..length % 50,
                _ => right.clone(),
            };
            end = right.end;
            header.insert(number.to_string(), json!({
                "dtype": "F16", "shape": shape, "data_offsets": [place.start, place.end],
            }));
        }
        read_all(&file(&Value::Object(header).to_string(), end as usize));
    }
}
