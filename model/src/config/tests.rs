//! Every spelling of a config.json in the wild, and every refusal.

use super::*;

const BASE: &str = r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,
    "bos_token_id":128000,"eos_token_id":[128001,128008,128009],"hidden_act":"silu",
    "hidden_size":4096,"initializer_range":0.02,"intermediate_size":14336,
    "max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama",
    "num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,"pretraining_tp":1,
    "rms_norm_eps":1e-05,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,
    "high_freq_factor":4.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},
    "rope_theta":500000.0,"tie_word_embeddings":false,"torch_dtype":"bfloat16",
    "transformers_version":"4.42.3","use_cache":true,"vocab_size":128256}"#;

const LLAMA3: &str = r#"{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
    "original_max_position_embeddings":8192,"rope_type":"llama3","rope_theta":500000.0}"#;

const NF4: &str = r#"{"_load_in_4bit":true,"_load_in_8bit":false,
    "bnb_4bit_compute_dtype":"bfloat16","bnb_4bit_quant_storage":"uint8",
    "bnb_4bit_quant_type":"nf4","bnb_4bit_use_double_quant":true,
    "llm_int8_enable_fp32_cpu_offload":false,"llm_int8_has_fp16_weight":false,
    "llm_int8_skip_modules":null,"llm_int8_threshold":6.0,"load_in_4bit":true,
    "load_in_8bit":false,"quant_method":"bitsandbytes"}"#;

/// `BASE` with keys replaced; an empty text removes the key.
fn edited(edits: &[(&str, &str)]) -> Vec<u8> {
    let mut object: Map<String, Value> = serde_json::from_str(BASE).unwrap();
    for (key, value) in edits {
        if value.is_empty() {
            object.shift_remove(*key);
        } else {
            object.insert((*key).to_owned(), serde_json::from_str(value).unwrap());
        }
    }
    serde_json::to_vec(&object).unwrap()
}

fn parsed(edits: &[(&str, &str)]) -> LlamaConfig {
    LlamaConfig::from_json(&edited(edits), "config.json").unwrap()
}

fn refused(edits: &[(&str, &str)]) -> String {
    LlamaConfig::from_json(&edited(edits), "config.json").unwrap_err().to_string()
}

/// Equal in everything that is computed with.
fn same(mut left: LlamaConfig, mut right: LlamaConfig) -> bool {
    left.raw.clear();
    right.raw.clear();
    left == right
}

#[test]
fn every_spelling_means_the_same_model() {
    let base = parsed(&[]);
    assert_eq!((base.head_dim, base.kv_heads, base.tied), (128, 8, false));
    assert_eq!(base.dtype, Some(FloatType::Bf16));
    assert_eq!(base.rope_scaling.unwrap().original_max_position_embeddings, 8_192);
    let older = LLAMA3.replace("rope_type", "type");
    for edits in [
        vec![("head_dim", "128")],
        vec![("head_dim", "null")],
        vec![("quantization_config", "null")],
        vec![("tie_word_embeddings", "")],
        vec![("model_type", "")],
        vec![("architectures", "null")],
        vec![("torch_dtype", ""), ("dtype", "\"bfloat16\"")],
        vec![("torch_dtype", "\"torch.bfloat16\"")],
        vec![("rope_scaling", older.as_str())],
        vec![("rope_scaling", ""), ("rope_theta", ""), ("rope_parameters", LLAMA3)],
        vec![("rope_scaling", "null"), ("rope_parameters", LLAMA3)],
        vec![("rope_parameters", LLAMA3)],
        vec![("rope_parameters", "null")],
        vec![("hidden_act", ""), ("attention_bias", ""), ("mlp_bias", "null")],
        vec![("some_future_key", "[1,2]")],
    ] {
        assert!(same(parsed(&edits), base.clone()), "{edits:?}");
    }
}

#[test]
fn variants_that_change_the_model_are_read() {
    assert_eq!(parsed(&[("num_key_value_heads", "")]).kv_heads, 32);
    assert_eq!(parsed(&[("head_dim", "64")]).head_dim, 64);
    assert_eq!(parsed(&[("eos_token_id", "128001")]).eos_token_ids, [128_001]);
    assert!(parsed(&[("eos_token_id", "null")]).eos_token_ids.is_empty());
    assert_eq!(parsed(&[("bos_token_id", "null")]).bos_token_id, None);
    assert!(parsed(&[("tie_word_embeddings", "true")]).tied);
    assert_eq!(parsed(&[("torch_dtype", "null")]).dtype, None);
    for plain in ["null", r#"{"rope_type":"default"}"#, r#"{"type":"default"}"#] {
        assert_eq!(parsed(&[("rope_scaling", plain)]).rope_scaling, None);
    }
    let nested = parsed(&[
        ("rope_scaling", ""),
        ("rope_theta", ""),
        ("rope_parameters", r#"{"rope_theta":10000.0,"rope_type":"default"}"#),
    ]);
    assert_eq!((nested.rope_theta, nested.rope_scaling), (10_000.0, None));
}

#[test]
fn bitsandbytes_nf4_is_read() {
    assert_eq!(parsed(&[("quantization_config", NF4)]).quantization, Some(BnbConfig::nf4(true)));
    let packed = NF4.replace(r#"storage":"uint8"#, r#"storage":"bfloat16"#);
    let storage = parsed(&[("quantization_config", &packed)]).quantization.unwrap().storage;
    assert_eq!(storage, StorageType::Float(FloatType::Bf16));
    let skipping = NF4.replace("modules\":null", "modules\":[\"lm_head\"]");
    let bnb = parsed(&[("quantization_config", &skipping)]).quantization.unwrap();
    assert_eq!(bnb.skip_modules, ["lm_head"]);
}

#[test]
fn writing_back_keeps_unknown_keys_in_order() {
    let config = parsed(&[("quantization_config", NF4), ("some_future_key", "[1,2]")]);
    let dense = config.to_json(FloatType::F16, None);
    let again = LlamaConfig::from_json(dense.as_bytes(), "config.json").unwrap();
    let mut expected = config.raw.clone();
    expected.shift_remove("quantization_config");
    expected.insert("torch_dtype".to_owned(), Value::from("float16"));
    assert_eq!(again.raw, expected);
    assert!(again.raw.keys().eq(expected.keys()));
    let quantised = again.to_json(FloatType::Bf16, Some(&BnbConfig::nf4(true)));
    let quantised: Map<String, Value> = serde_json::from_str(&quantised).unwrap();
    let reference: Value = serde_json::from_str(NF4).unwrap();
    assert_eq!(quantised["quantization_config"], reference);
    let newer = parsed(&[("torch_dtype", ""), ("dtype", "\"bfloat16\"")]);
    assert!(newer.to_json(FloatType::F32, None).contains("\"dtype\": \"float32\""));
}

#[test]
fn other_models_are_refused_by_name_with_all_problems_at_once() {
    insta::assert_snapshot!(refused(&[
        ("architectures", r#"["Qwen2ForCausalLM"]"#),
        ("model_type", "\"qwen2\""),
        ("hidden_act", "\"gelu\""),
        ("attention_bias", "true"),
        ("partial_rotary_factor", "0.5"),
        ("mlp_bias", "true"),
        ("num_key_value_heads", "5"),
        ("head_dim", "63"),
        ("vocab_size", "0"),
        ("num_hidden_layers", "-1"),
        ("intermediate_size", "\"big\""),
        ("rms_norm_eps", "0"),
        ("torch_dtype", "\"float8_e4m3fn\""),
        ("rope_scaling", r#"{"type":"yarn","factor":4.0}"#),
    ]), @r#"
    `config.json` does not describe a model that Graft can run:
      `architectures` is ["Qwen2ForCausalLM"], but must be ["LlamaForCausalLM"]
      `model_type` is "qwen2", but must be "llama"
      `hidden_act` is "gelu", but must be "silu"
      `partial_rotary_factor` is 0.5, but must be 1: whole heads are rotated
      `attention_bias` is true, but must be false: Llama 3.x has no biases
      `mlp_bias` is true, but must be false: Llama 3.x has no biases
      `vocab_size` is 0, but must be a whole number from 1 to 4294967295
      `num_hidden_layers` is -1, but must be a whole number from 1 to 4294967295
      `num_key_value_heads` is 5, but must be a divisor of num_attention_heads = 32
      `head_dim` is 63, but must be an even number (rotary positions turn pairs)
      `rope_scaling.rope_type` is "yarn", but must be "llama3" or "default"
      `intermediate_size` is "big", but must be a whole number from 1 to 4294967295
      `rms_norm_eps` is 0, but must be a number above 0
      `torch_dtype` is "float8_e4m3fn", but must be bfloat16, float16 or float32
    "#);
}

#[test]
fn rope_problems_are_named() {
    let texts = [
        refused(&[("rope_theta", "")]),
        refused(&[("rope_scaling", r#"{"factor":2.0}"#)]),
        refused(&[(
            "rope_scaling",
            r#"{"rope_type":"llama3","factor":0.5,"low_freq_factor":4,
            "high_freq_factor":1,"original_max_position_embeddings":8192}"#,
        )]),
        refused(&[("rope_parameters", r#"{"rope_type":"default","rope_theta":10000.0}"#)]),
        refused(&[("rope_scaling", "7")]),
        refused(&[("num_hidden_layers", "4000000000")]),
        refused(&[("bos_token_id", "128256")]),
    ];
    insta::assert_snapshot!(texts.join("\n"), @r#"
    `config.json` does not describe a model that Graft can run:
      `rope_theta` is missing, but must be a number above 0
    `config.json` does not describe a model that Graft can run:
      `rope_scaling.rope_type` is missing, but must be "llama3" or "default"
    `config.json` does not describe a model that Graft can run:
      `rope_scaling.factor` is 0.5, but must be at least 1
      `rope_scaling.high_freq_factor` is 1, but must be above low_freq_factor = 4
    `config.json` does not describe a model that Graft can run:
      `rope_theta` is 500000, but must be rope_parameters.rope_theta = 10000
      `rope_scaling` is {"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_positio…, but must be the same as rope_parameters, or absent
    `config.json` does not describe a model that Graft can run:
      `rope_scaling` is 7, but must be an object `{…}` or null
    `config.json` does not describe a model that Graft can run:
      `num_hidden_layers` is 4000000000, but must be at most 4096
    `config.json` does not describe a model that Graft can run:
      `bos_token_id` is 128256, but must be a whole number below vocab_size = 128256
    "#);
}

#[test]
fn other_quantisations_are_refused_by_name() {
    let texts = [
        refused(&[("quantization_config", r#"{"quant_method":"gptq","bits":4}"#)]),
        refused(&[("quantization_config", r#"{"quant_method":"awq","bits":4}"#)]),
        refused(&[("quantization_config", r#"{"load_in_8bit":true}"#)]),
        refused(&[("quantization_config", r#"{"load_in_4bit":true}"#)]),
        refused(&[("quantization_config", "true")]),
    ];
    insta::assert_snapshot!(texts.join("\n"), @r#"
    `config.json` does not describe a model that Graft can run:
      `quantization_config.quant_method` is "gptq", but must be bitsandbytes nf4: take the unquantised release, `graft quantize` makes NF4 of it
    `config.json` does not describe a model that Graft can run:
      `quantization_config.quant_method` is "awq", but must be bitsandbytes nf4: take the unquantised release, `graft quantize` makes NF4 of it
    `config.json` does not describe a model that Graft can run:
      `quantization_config.load_in_8bit` is true (LLM.int8), but must be bitsandbytes nf4: take the unquantised release, `graft quantize` makes NF4 of it
    `config.json` does not describe a model that Graft can run:
      `quantization_config.bnb_4bit_quant_type` is "fp4", but must be bitsandbytes nf4: take the unquantised release, `graft quantize` makes NF4 of it
    `config.json` does not describe a model that Graft can run:
      `quantization_config` is true, but must be an object `{…}` or null
    "#);
}

#[test]
fn not_an_object_is_refused() {
    let error = |text: &str| {
        LlamaConfig::from_json(text.as_bytes(), "m/config.json").unwrap_err().to_string()
    };
    insta::assert_snapshot!([error("[]"), error("{\"a\":"), error("")].join("\n"), @"
    `m/config.json` does not describe a model that Graft can run:
      `config.json` is [], but must be an object `{…}`
    `m/config.json` is not valid JSON: EOF while parsing a value at line 1 column 5
    `m/config.json` is not valid JSON: EOF while parsing a value at line 1 column 0
    ");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(
        key in 0_usize..24,
        value in "(null|true|-1|0|1e300|3|\"x\"|\\[\\]|\\{\\}|\\[null\\]|99999999999999999999)",
    ) {
        let mut object: Map<String, Value> = serde_json::from_str(BASE).unwrap();
        let name = object.keys().nth(key % object.len()).unwrap().clone();
        object.insert(name, serde_json::from_str(&value).unwrap());
        let _ = LlamaConfig::from_json(&serde_json::to_vec(&object).unwrap(), "config.json");
    }
}

#[test]
fn what_is_wrong_is_shown_as_written_and_nothing_is_said_of_what_stands_in_for_it() {
    let edits: [&[(&str, &str)]; 6] = [
        &[("num_attention_heads", "0")],
        &[("head_dim", "0")],
        &[("num_key_value_heads", "0")],
        &[("hidden_size", "0")],
        &[("num_attention_heads", "-1"), ("num_key_value_heads", "")],
        &[("vocab_size", "0")],
    ];
    let said =
        |edits: &[_]| refused(edits).lines().skip(1).map(str::trim).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(edits.map(said).join("\n"), @"
    `num_attention_heads` is 0, but must be a whole number from 1 to 4294967295
    `head_dim` is 0, but must be a whole number from 1 to 4294967295
    `num_key_value_heads` is 0, but must be a whole number from 1 to 4294967295
    `hidden_size` is 0, but must be a whole number from 1 to 4294967295
    `num_attention_heads` is -1, but must be a whole number from 1 to 4294967295
    `vocab_size` is 0, but must be a whole number from 1 to 4294967295
    ");
}
