//! NF4 groups as bitsandbytes lays them out, whole and broken.

use serde_json::{Value, json};

use super::*;
use crate::config::BnbConfig;

fn raw(name: String, dtype: Dtype, count: usize, bytes: Vec<u8>) -> TensorView {
    TensorView { name, dtype, shape: vec![count], bytes: bytes.into() }
}

/// The group of tensors that stands for a quantised `[out, in]` weight; contents are counters.
pub(super) fn quantised(name: &str, shape: [usize; 2], double: bool) -> Vec<TensorView> {
    let [out, input] = shape;
    let blocks = out * input / 64;
    let floats = |count: usize| (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let mut state =
        json!({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": shape});
    let part = |part: &str| format!("{name}.{part}");
    let mut group = vec![raw(part("quant_map"), Dtype::F32, 16, floats(16))];
    if double {
        state["nested_blocksize"] = json!(256);
        state["nested_dtype"] = json!("float32");
        state["nested_offset"] = json!(0.5);
        let bytes: Vec<u8> = (0..blocks).map(|block| block as u8).collect();
        group.push(raw(part("absmax"), Dtype::U8, blocks, bytes));
        let scales = blocks.div_ceil(256);
        group.push(raw(part("nested_absmax"), Dtype::F32, scales, floats(scales)));
        group.push(raw(part("nested_quant_map"), Dtype::F32, 256, floats(256)));
    } else {
        group.push(raw(part("absmax"), Dtype::F32, blocks, floats(blocks)));
    }
    let state = state.to_string().into_bytes();
    group.push(raw(part("quant_state.bitsandbytes__nf4"), Dtype::U8, state.len(), state));
    let mut codes = raw(name.to_owned(), Dtype::U8, blocks * 32, vec![0x1F; blocks * 32]);
    codes.shape.push(1);
    group.push(codes);
    group
}

fn quantised_model(config: &LlamaConfig, double: bool) -> Vec<TensorView> {
    let tensors = expected(config).into_iter().flat_map(|tensor| match tensor.site {
        Some(site) => quantised(&tensor.name, site.weight_shape(config), double),
        None => vec![bf16(&tensor.name, &tensor.shape)],
    });
    tensors.collect()
}

#[test]
fn nf4_groups_read_as_one_weight() {
    let config = LlamaConfig { quantization: Some(BnbConfig::nf4(true)), ..tiny(false) };
    for double in [false, true] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &quantised_model(&config, double), u64::MAX);
        let checkpoint = open(root.path()).unwrap();
        checkpoint.verify(&config).unwrap();
        let down = checkpoint.nf4("model.layers.1.mlp.down_proj.weight").unwrap().unwrap();
        assert_eq!((down.shape, down.codes.len()), ([64, 128], 64 * 128 / 2));
        assert_eq!(down.dtype, crate::config::FloatType::Bf16);
        assert_eq!(down.quant_map.map(|value| value as u32), std::array::from_fn(|i| i as u32));
        let absmax = down.absmax.decode();
        assert_eq!(absmax.len(), 128);
        assert_eq!(absmax[3..4], if double { [0.5] } else { [3.0] });
        assert!(checkpoint.nf4("model.norm.weight").unwrap().is_none());
        assert!(checkpoint.nf4("nothing").unwrap().is_none());
        let plain = LlamaConfig { quantization: None, ..config.clone() };
        assert!(matches!(checkpoint.verify(&plain), Err(Error::Tensors { .. })));
    }
}

#[test]
fn double_quantised_scales_add_the_offset_after_the_product() {
    let shape = [640, 64];
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &quantised("w", shape, true), u64::MAX);
    let absmax = open(root.path()).unwrap().nf4("w").unwrap().unwrap().absmax.decode();
    let expected: Vec<f32> =
        (0..640).map(|b: usize| (b % 256) as f32 * (b / 256) as f32 + 0.5).collect();
    assert_eq!(absmax, expected);
}

#[test]
fn packed_codes_may_be_stored_as_wider_elements() {
    let root = tempfile::tempdir().unwrap();
    let mut group = quantised("w", [64, 64], false);
    let codes = group.last_mut().unwrap();
    (codes.dtype, codes.shape) = (Dtype::BF16, vec![64 * 64 / 4, 1]);
    write(root.path(), &group, u64::MAX);
    let weight = open(root.path()).unwrap().nf4("w").unwrap().unwrap();
    assert_eq!(weight.codes, vec![0x1F; 64 * 64 / 2]);
}

#[test]
fn broken_nf4_groups_are_refused_by_name() {
    let state = |group: &mut Vec<TensorView>, key: &str, value: Value| {
        let at = part_of(group, ".quant_state.bitsandbytes__nf4");
        let mut state: Value = serde_json::from_slice(&group[at].bytes).unwrap();
        state[key] = value;
        let bytes = state.to_string().into_bytes();
        group[at].shape = vec![bytes.len()];
        group[at].bytes = bytes.into();
    };
    let cases: [Edit<'_>; 15] = [
        &|group| {
            let at = part_of(group, ".quant_state.bitsandbytes__nf4");
            group[at].name = "w.quant_state.bitsandbytes__fp4".to_owned();
        },
        &|group| drop(group.remove(part_of(group, ".quant_state.bitsandbytes__nf4"))),
        &|group| drop(group.remove(part_of(group, ".absmax"))),
        &|group| drop(group.remove(part_of(group, ".nested_absmax"))),
        &|group| drop(group.remove(part_of(group, ".quant_map"))),
        &|group| state(group, "quant_type", json!("fp4")),
        &|group| state(group, "blocksize", json!(128)),
        &|group| state(group, "shape", json!([64, 128])),
        &|group| state(group, "shape", json!([18_446_744_073_709_551_615_u64, 64])),
        &|group| state(group, "nested_offset", Value::Null),
        &|group| state(group, "nested_blocksize", Value::Null),
        &|group| state(group, "dtype", json!("int8")),
        &|group| resize(group, ".absmax", 63),
        &|group| resize(group, ".nested_absmax", 2),
        &|group| resize(group, "", 2_047),
    ];
    let texts = cases.map(|edit| {
        let root = tempfile::tempdir().unwrap();
        let mut group = quantised("w", [64, 64], true);
        edit(&mut group);
        write(root.path(), &group, u64::MAX);
        refusal(root.path(), open(root.path()).unwrap().nf4("w"))
    });
    insta::assert_snapshot!(texts.join("\n"), @r#"
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: it is in "fp4"; Graft reads nf4: take the unquantised release and `graft quantize`
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w.quant_state.bitsandbytes__nf4` is missing
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w.absmax` is missing
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w.nested_absmax` is missing
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w.quant_map` is missing
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: it is in "fp4"; Graft reads nf4: take the unquantised release and `graft quantize`
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: its blocksize is 128, but must be 64
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w` is U8 with 2048 elements, but must be bytes (U8, or BF16, F16, F32 as storage) with 4096
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: its shape is [18446744073709551615, 64], but must be [out, in] with a product divisible by 64
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: its nested_offset is None, but must be a finite number
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w.absmax` is U8 with 64 elements, but must be F32 with 64
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: its dtype is int8, but must be bfloat16, float16 or float32
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w.absmax` is U8 with 63 elements, but must be U8 with 64
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w.nested_absmax` is F32 with 2 elements, but must be F32 with 1
    `ROOT/model.safetensors`: quantised weight `w` cannot be read: `w` is U8 with 2047 elements, but must be bytes (U8, or BF16, F16, F32 as storage) with 2048
    "#);
}

fn resize(group: &mut [TensorView], name: &str, elements: usize) {
    let at = part_of(group, name);
    let bytes = elements * group[at].dtype.bitsize() / 8;
    group[at].shape = vec![elements];
    group[at].bytes = vec![0; bytes].into();
}

type Edit<'a> = &'a dyn Fn(&mut Vec<TensorView>);

fn part_of(group: &[TensorView], name: &str) -> usize {
    let full = format!("w{name}");
    group.iter().position(|tensor| tensor.name == full).unwrap()
}
