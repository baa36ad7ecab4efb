//! `quantization_config` of a folder that transformers saved with bitsandbytes
//! (`transformers/utils/quantization_config.py`, `BitsAndBytesConfig`).

use serde_json::{Map, Value, json};

use super::reader::{Reader, shown};

/// A floating-point type of weights or of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    /// `float32`.
    F32,
    /// `float16`.
    F16,
    /// `bfloat16`.
    Bf16,
}

impl FloatType {
    /// PyTorch's name: `bfloat16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Accepts PyTorch's name with or without `torch.` in front.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix("torch.").unwrap_or(name);
        [Self::F32, Self::F16, Self::Bf16].into_iter().find(|kind| kind.name() == name)
    }
}

/// Element type that a file gives to packed 4-bit codes. The bytes are the same for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageType {
    /// One byte an element: two codes.
    U8,
    /// Two bytes (`float16`, `bfloat16`) or four (`float32`) an element.
    Float(FloatType),
}

impl StorageType {
    /// PyTorch's name: `uint8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::Float(kind) => kind.name(),
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        if name.strip_prefix("torch.").unwrap_or(name) == "uint8" {
            return Some(Self::U8);
        }
        FloatType::from_name(name).map(Self::Float)
    }
}

/// A bitsandbytes NF4 folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BnbConfig {
    /// The blocks' scales are quantised to 8 bits themselves.
    pub double: bool,
    /// Element type of the packed codes in the files.
    pub storage: StorageType,
    /// Type that transformers computes in.
    pub compute: FloatType,
    /// Modules left dense (`llm_int8_skip_modules`).
    pub skip_modules: Vec<String>,
}

impl BnbConfig {
    /// What `graft quantize` writes: bytes, computed in bf16, nothing skipped.
    pub fn nf4(double: bool) -> Self {
        let compute = FloatType::Bf16;
        Self { double, storage: StorageType::U8, compute, skip_modules: Vec::new() }
    }

    pub(super) fn to_json(&self) -> Value {
        let Self { double, storage, compute, skip_modules } = self;
        let skip_modules = if skip_modules.is_empty() { Value::Null } else { json!(skip_modules) };
        json!({
            "_load_in_4bit": true,
            "_load_in_8bit": false,
            "bnb_4bit_compute_dtype": compute.name(),
            "bnb_4bit_quant_storage": storage.name(),
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": double,
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": skip_modules,
            "llm_int8_threshold": 6.0,
            "load_in_4bit": true,
            "load_in_8bit": false,
            "quant_method": "bitsandbytes",
        })
    }
}

/// `torch_dtype`, called `dtype` by newer releases.
pub(super) fn read_dtype(reader: &mut Reader<'_>) -> Option<FloatType> {
    let key = if reader.value("dtype").is_some() { "dtype" } else { "torch_dtype" };
    let name = reader.text(key).filter(|name| *name != "auto")?;
    let dtype = FloatType::from_name(name);
    if dtype.is_none() {
        reader.problem(key, format!("{name:?}"), "bfloat16, float16 or float32");
    }
    dtype
}

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BnbConfig> {
    let value = reader.value("quantization_config")?;
    let Some(object) = value.as_object() else {
        reader.problem("quantization_config", shown(value), "an object `{…}` or null");
        return None;
    };
    reader.nested("quantization_config", object, |inner| read_bnb(inner, object))
}

fn read_bnb(reader: &mut Reader<'_>, object: &Map<String, Value>) -> Option<BnbConfig> {
    const WAY_OUT: &str =
        "bitsandbytes nf4: take the unquantised release, `graft quantize` makes NF4 of it";
    let method = reader.text("quant_method");
    if let Some(other) = method.filter(|method| *method != "bitsandbytes") {
        reader.problem("quant_method", format!("{other:?}"), WAY_OUT);
        return None;
    }
    if reader.flag("load_in_8bit") || reader.flag("_load_in_8bit") {
        reader.problem("load_in_8bit", "true (LLM.int8)", WAY_OUT);
        return None;
    }
    if !(reader.flag("load_in_4bit") || reader.flag("_load_in_4bit")) {
        reader.problem("load_in_4bit", "false or missing", WAY_OUT);
        return None;
    }
    // bitsandbytes' own default is fp4, hence a missing key is refused like fp4 itself.
    let kind = reader.text("bnb_4bit_quant_type").unwrap_or("fp4");
    if kind != "nf4" {
        reader.problem("bnb_4bit_quant_type", format!("{kind:?}"), WAY_OUT);
        return None;
    }
    let storage = named(reader, "bnb_4bit_quant_storage", StorageType::U8, StorageType::from_name);
    let compute = named(reader, "bnb_4bit_compute_dtype", FloatType::F32, FloatType::from_name);
    let skip_modules = match object.get("llm_int8_skip_modules") {
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    let double = reader.flag("bnb_4bit_use_double_quant");
    Some(BnbConfig { double, storage, compute, skip_modules })
}

fn named<T>(
    reader: &mut Reader<'_>,
    key: &str,
    default: T,
    from_name: impl Fn(&str) -> Option<T>,
) -> T {
    let Some(name) = reader.text(key) else { return default };
    from_name(name).unwrap_or_else(|| {
        reader.problem(key, format!("{name:?}"), "uint8, bfloat16, float16 or float32");
        default
    })
}
