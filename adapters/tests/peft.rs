//! Adapters survive the way to disk and back; what Graft does not compute is refused by name.
#![expect(clippy::disallowed_methods, reason = "the tests prepare plain files")]
#![allow(clippy::unwrap_used, reason = "a failing test is the place to panic")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use graft_adapters::peft::names::{LoraMatrix, tensor_name};
use graft_adapters::peft::{self, CONFIG_FILE, WEIGHTS_FILE};
use graft_adapters::{Beginning, Error, LoraConfig, PeftAdapter, Rank, Scaling, Size, Start};
use graft_kernels::FrozenMatrix;
use graft_model::checkpoint::{Dtype, TensorView, write_safetensors};
use graft_model::presets::llama3_2_1b;
use graft_model::{LlamaConfig, ProjectionKind, Site};
use serde_json::{Map, Value, json};

type Named = (String, Vec<usize>, Vec<f32>);

fn tiny() -> LlamaConfig {
    LlamaConfig { d_model: 64, d_ff: 128, layers: 3, heads: 2, kv_heads: 1, ..llama3_2_1b() }
}

fn config(sites: impl IntoIterator<Item = (usize, ProjectionKind)>) -> LoraConfig {
    let sites = sites.into_iter().map(|(layer, kind)| Site { layer, kind });
    LoraConfig::uniform(size(4, 6.0), Scaling::Standard, 0.05, sites)
}

fn size(rank: usize, alpha: f64) -> Size {
    Size { rank: Rank(NonZeroUsize::new(rank).unwrap()), alpha }
}

/// Values that name their place.
fn tensors(config: &LoraConfig) -> Vec<Named> {
    let named = |site: Site, matrix, shape: [usize; 2]| {
        let start = site.layer as f32 + if matrix == LoraMatrix::A { 0.25 } else { -0.5 };
        let values = (0..shape[0] * shape[1]).map(|i| start + i as f32 / 1024.0).collect();
        (tensor_name(site, matrix), shape.to_vec(), values)
    };
    let pairs = config.sites.iter().flat_map(|(&site, size)| {
        let rank = size.rank.get();
        let [out, inner] = site.weight_shape(&tiny());
        [named(site, LoraMatrix::B, [out, rank]), named(site, LoraMatrix::A, [rank, inner])]
    });
    pairs.collect()
}

fn save(folder: &Path, config: &LoraConfig) {
    let extra = BTreeMap::from([("graft".to_owned(), "1".to_owned())]);
    peft::save(folder, config, 3, "org/base", &tensors(config), extra).unwrap();
}

const Q: ProjectionKind = ProjectionKind::Q;
const DOWN: ProjectionKind = ProjectionKind::Down;

#[test]
fn what_is_saved_reads_back() {
    let root = tempfile::tempdir().unwrap();
    for scaling in [Scaling::Standard, Scaling::RankStabilised] {
        let config = LoraConfig { scaling, ..config([(0, Q), (2, DOWN)]) };
        let folder = root.path().join("adapter");
        save(&folder, &config);
        for path in [folder.clone(), folder.join(WEIGHTS_FILE)] {
            let read = PeftAdapter::open(&path).unwrap();
            assert_eq!(read.config(), &config);
            assert_eq!(read.base(), Some("org/base"));
            assert_eq!(read.metadata()["graft"], "1");
            read.check_model(&tiny()).unwrap();
            read.check_same(&config).unwrap();
            let written: BTreeMap<_, _> =
                tensors(&config).into_iter().map(|(name, _, values)| (name, values)).collect();
            for (&site, size) in &config.sites {
                let [out, inner] = site.weight_shape(&tiny());
                let weight = FrozenMatrix::from_f32(out, inner, &vec![0.5; out * inner]);
                let Beginning { a, b, weight, .. } = (&read).begin(site, size.rank.get(), weight);
                assert!(weight.to_f32().iter().all(|value| value.to_bits() == 0.5_f32.to_bits()));
                assert_eq!(a, written[&tensor_name(site, LoraMatrix::A)]);
                assert_eq!(b, written[&tensor_name(site, LoraMatrix::B)]);
            }
            assert_eq!(read.values(Site { layer: 1, kind: Q }), None);
        }
    }
}

#[test]
fn updates_of_different_sizes_read_back() {
    let root = tempfile::tempdir().unwrap();
    let mut config = config([(0, Q), (1, Q), (1, DOWN), (2, Q)]);
    config.sites.insert(Site { layer: 1, kind: Q }, size(2, 6.0));
    config.sites.insert(Site { layer: 1, kind: DOWN }, size(2, 0.5));
    assert_eq!((config.usual_size(), config.one_size()), (Some(size(4, 6.0)), None));
    save(root.path(), &config);
    let text = fs::read(root.path().join(CONFIG_FILE)).unwrap();
    let object: Map<String, Value> = serde_json::from_slice(&text).unwrap();
    let [q, down] = ["self_attn.q_proj", "mlp.down_proj"].map(|m| format!("model.layers.1.{m}"));
    assert_eq!(object["rank_pattern"], json!({&q: 2, &down: 2}));
    assert_eq!(object["alpha_pattern"], json!({&down: 0.5}));
    let read = PeftAdapter::open(root.path()).unwrap();
    assert_eq!(read.config(), &config);
    read.check_model(&tiny()).unwrap();
    read.check_same(&config).unwrap();
    let asked = LoraConfig::uniform(size(4, 6.0), Scaling::Standard, 0.0, config.sites.into_keys());
    let Err(Error::AdapterDiffers { problems, .. }) = read.check_same(&asked) else {
        panic!("must be refused")
    };
    let expected = "\
`model.layers.1.self_attn.q_proj`: its rank is 2, asked for is 4
`model.layers.1.mlp.down_proj`: its rank is 2, asked for is 4
`model.layers.1.mlp.down_proj`: its alpha is 0.5, asked for is 6";
    assert_eq!(problems.join("\n"), expected);
}

#[test]
fn equal_adapters_have_equal_bytes() {
    let root = tempfile::tempdir().unwrap();
    let config = config([(0, Q), (1, Q), (2, Q)]);
    let (one, two) = (root.path().join("1"), root.path().join("2"));
    save(&one, &config);
    let mut backwards = tensors(&config);
    backwards.reverse();
    let extra = BTreeMap::from([("graft".to_owned(), "1".to_owned())]);
    peft::save(&two, &config, 3, "org/base", &backwards, extra).unwrap();
    for file in [CONFIG_FILE, WEIGHTS_FILE] {
        assert_eq!(fs::read(one.join(file)).unwrap(), fs::read(two.join(file)).unwrap(), "{file}");
    }
    assert_eq!(fs::read_dir(&one).unwrap().count(), 2);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

/// The two keys that choose modules, for an adapter on these sites of a model of three layers.
fn targets(sites: &[(usize, ProjectionKind)]) -> Value {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("adapter");
    save(&folder, &config(sites.iter().copied()));
    let text = fs::read(folder.join(CONFIG_FILE)).unwrap();
    let object: Map<String, Value> = serde_json::from_slice(&text).unwrap();
    assert!(object.keys().is_sorted());
    assert_eq!((&object["lora_alpha"], &object["r"]), (&json!(6), &json!(4)));
    json!([object["target_modules"], object["layers_to_transform"]])
}

#[test]
fn the_description_selects_exactly_the_sites() {
    assert_eq!(targets(&[(0, Q), (1, Q), (2, Q)]), json!([["q_proj"], null]));
    let last = [(2, Q), (2, DOWN), (1, DOWN), (1, Q)];
    assert_eq!(targets(&last), json!([["down_proj", "q_proj"], [1, 2]]));
    let names = ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"];
    assert_eq!(targets(&[(1, Q), (0, DOWN)]), json!([names, null]));
}

/// A saved adapter with some keys of its description changed; null removes one.
fn with_keys(keys: &Value) -> Result<PeftAdapter, String> {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("adapter");
    save(&folder, &config([(0, Q)]));
    let path = folder.join(CONFIG_FILE);
    let mut object: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        match value {
            Value::Null => _ = object.shift_remove(key),
            value => _ = object.insert(key.clone(), value.clone()),
        }
    }
    fs::write(&path, Value::from(object).to_string()).unwrap();
    PeftAdapter::open(&folder)
        .map_err(|error| error.to_string().replace(&root.path().display().to_string(), "ROOT"))
}

#[test]
fn descriptions_of_old_and_new_releases_are_understood() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("adapter");
    let expected = config([(0, Q)]);
    save(&folder, &expected);
    let smallest =
        json!({"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": "all-linear"});
    fs::write(folder.join(CONFIG_FILE), smallest.to_string()).unwrap();
    let read = PeftAdapter::open(&folder).unwrap();
    assert_eq!(read.config(), &LoraConfig { dropout: 0.0, ..expected.clone() });
    let pattern = json!({"rank_pattern": {"^k_proj": 8, "self_attn.q_proj": 4, "q_proj": 9},
        "alpha_pattern": {"k_proj": 1, "q_proj|v_proj": 6}, "r": 16, "lora_alpha": 16,
        "target_modules": r".*\.(q|v)_proj", "exclude_modules": ["v_proj"]});
    assert_eq!(with_keys(&pattern).unwrap().config(), &expected);
    let newer = json!({ "fan_in_fan_out": true, "modules_to_save": [], "layers_to_transform": [0],
        "alora_invocation_tokens": [], "qalora_group_size": 16, "peft_version": "0.21.2",
        "use_qalora": false, "lora_alpha": 6.0, "init_lora_weights": "gaussian", "of_2031": false,
        "auto_mapping": {"base_model_class": "LlamaForCausalLM"}, "bias": "none",
    });
    assert_eq!(with_keys(&newer).unwrap().config(), &expected);
}

#[test]
fn other_kinds_of_adapters_are_refused_by_name() {
    let one = |key: &str, value: Value| {
        let error = with_keys(&json!({ key: value })).unwrap_err();
        error.lines().nth(1).unwrap_or(&error).trim().to_owned()
    };
    let texts = [
        one("peft_type", json!("IA3")),
        one("peft_type", json!("ADALORA")),
        one("peft_type", json!("LOHA")),
        one("use_dora", json!(true)),
        one("bias", json!("lora_only")),
        one("lora_bias", json!(true)),
        one("modules_to_save", json!(["lm_head"])),
        one("modules_to_save", json!(["norm", "lm_head"])),
        one("init_lora_weights", json!("pissa_niter_4")),
        one("init_lora_weights", json!("olora")),
        one("init_lora_weights", json!("corda")),
        one("init_lora_weights", json!("loftq")),
        one("init_lora_weights", json!("lora_ga")),
        one("init_lora_weights", json!("mica")),
        one("target_parameters", json!(["experts"])),
        one("trainable_token_indices", json!([128_002])),
        one("layer_replication", json!([[0, 2]])),
        one("rank_pattern", json!({"q_proj": 8})),
        one("rank_pattern", json!({"q_proj": 0})),
        one("rank_pattern", json!({"(?=q)": 8})),
        one("alpha_pattern", json!({"q_proj": "8"})),
        one("alpha_pattern", json!(["q_proj"])),
        one("target_modules", json!(["k_proj", "v_proj"])),
        one("layers_to_transform", json!([1, 2])),
        one("layers_to_transform", json!("1")),
        one("alora_invocation_tokens", json!([128_006])),
        one("use_qalora", json!(true)),
        one("kasa_config", json!({"beta": 0.1})),
        one("of_2031", json!("on")),
        one("r", json!(0)),
        one("r", json!(null)),
        one("lora_alpha", json!("16")),
        one("lora_dropout", json!(1.0)),
        one("use_rslora", json!("yes")),
    ];
    let expected = r#"`peft_type` is "IA3", but must be "LORA"
`peft_type` is "ADALORA", but must be "LORA"
`peft_type` is "LOHA", but must be "LORA"
`use_dora` in adapter_config.json needs `base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector`, which is missing
`bias` is "lora_only", but must be "none"
`lora_bias` is true, but must be unset: Graft runs LoRA and DoRA
`modules_to_save` needs `base_model.model.lm_head.weight`, which is missing
`modules_to_save` names "norm", but Graft takes over "lm_head" and "embed_tokens" only
`init_lora_weights` is "pissa_niter_4", but must be true: such a start changes the base too; convert the adapter when saving (PEFT: `path_initial_model_for_weight_conversion`)
`init_lora_weights` is "olora", but must be true: such a start changes the base too; convert the adapter when saving (PEFT: `path_initial_model_for_weight_conversion`)
`init_lora_weights` is "corda", but must be true: such a start changes the base too; convert the adapter when saving (PEFT: `path_initial_model_for_weight_conversion`)
`init_lora_weights` is "loftq", but must be true: such a start changes the base too; convert the adapter when saving (PEFT: `path_initial_model_for_weight_conversion`)
`init_lora_weights` is "lora_ga", but must be true: such a start changes the base too; convert the adapter when saving (PEFT: `path_initial_model_for_weight_conversion`)
`init_lora_weights` is "mica", but must be true: such a start changes the base too; convert the adapter when saving (PEFT: `path_initial_model_for_weight_conversion`)
`target_parameters` is ["experts"], but must be unset: Graft runs LoRA and DoRA
`trainable_token_indices` needs `base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta`, which is missing
`layer_replication` is [[0,2]], but must be unset: Graft runs LoRA and DoRA
`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` is [4, 64], but `rank_pattern` in adapter_config.json needs [8, in]
`rank_pattern` gives "q_proj" 0, but must give a whole number above 0
`rank_pattern` has the pattern "(?=q)", of which Graft does not read `(?=q…`, which looks around or refers back
`alpha_pattern` gives "q_proj" "8", but must give a number above 0
`alpha_pattern` is ["q_proj"], but must be an object `{…}`
`model.layers.0.self_attn.q_proj` is adapted, but adapter_config.json does not choose it, so PEFT would leave it out
`model.layers.0.self_attn.q_proj` is adapted, but adapter_config.json does not choose it, so PEFT would leave it out
`layers_to_transform` is "1", but must be a block's number or a list of them
`alora_invocation_tokens` is [128006], but must be unset: Graft runs LoRA and DoRA
`use_qalora` is true, but must be unset: Graft runs LoRA and DoRA
`kasa_config` is {"beta":0.1}, but must be unset: Graft runs LoRA and DoRA
`of_2031` is "on", but must be unset: Graft runs LoRA and DoRA
`r` is 0, but must be a whole number above 0
`r` is missing, but must be a whole number above 0
`lora_alpha` is "16", but must be a number above 0
`lora_dropout` is 1.0, but must be from 0 to below 1
`use_rslora` is "yes", but must be true or false"#;
    assert_eq!(texts.join("\n"), expected);
}

#[test]
fn all_problems_of_a_description_come_at_once() {
    let error = with_keys(&json!({"use_qalora": true, "r": 8.5, "bias": "all"})).unwrap_err();
    let expected = "`ROOT/adapter/adapter_config.json` does not describe an adapter that Graft can run:
  `bias` is \"all\", but must be \"none\"
  `use_qalora` is true, but must be unset: Graft runs LoRA and DoRA
  `r` is 8.5, but must be a whole number above 0
Merge it into its base with PEFT (`merge_and_unload`) and use the merged model, or train it as plain LoRA";
    assert_eq!(error, expected);
}

fn view(key: &str, shape: &[usize], value: f32) -> TensorView {
    let values = std::iter::repeat_n(value, shape.iter().product());
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    TensorView {
        name: format!("base_model.model.{key}"),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: bytes.into(),
    }
}

#[test]
fn tensors_that_do_not_belong_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    save(root.path(), &config([(0, Q)]));
    let q = "model.layers.0.self_attn.q_proj.lora_A";
    let tensors = [
        view("lm_head.weight", &[2, 2], f32::INFINITY),
        view("lm_head.lora_A.weight", &[4, 64], 0.0),
        view("model.layers.0.self_attn.q_proj.lora_magnitude_vector", &[64], 0.0),
        view("model.embed_tokens.token_adapter.trainable_tokens_delta", &[1, 64], 0.0),
        view(&format!("{q}.weight"), &[8, 64], 0.0),
        view(&format!("{q}.default.weight"), &[4, 64], 0.0),
        view("model.layers.0.self_attn.q_proj.lora_B.weight", &[64, 4], f32::NAN),
        view("model.layers.1.self_attn.q_proj.lora_B.weight", &[64, 4], 0.0),
        view("model.layers.1.mlp.up_proj.lora_A.weight", &[4], 0.0),
    ];
    write_safetensors(&root.path().join(WEIGHTS_FILE), &tensors, &BTreeMap::new()).unwrap();
    let Err(Error::AdapterTensors { problems, .. }) = PeftAdapter::open(root.path()) else {
        panic!("must be refused")
    };
    let expected = "\
`base_model.model.lm_head.weight`: value 0 is inf, but must be finite
`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` is [8, 64], but `r` in adapter_config.json needs [4, in]
`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` and `base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight` are the same matrix
`base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight`: value 0 is NaN, but must be finite
`base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector` is no update of one of the seven projections
`base_model.model.model.layers.1.mlp.up_proj.lora_A.weight` is [4], but `r` in adapter_config.json needs [4, in]
`model.layers.1.self_attn.q_proj` is adapted, but adapter_config.json does not choose it, so PEFT would leave it out
`base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight` lacks its `base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight`
`model.layers.1.mlp.up_proj` is adapted, but adapter_config.json does not choose it, so PEFT would leave it out
`base_model.model.model.layers.1.mlp.up_proj.lora_A.weight` lacks its `base_model.model.model.layers.1.mlp.up_proj.lora_B.weight`
`base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta` is [1, 64], but `trainable_token_indices` in adapter_config.json names 0 tokens of it
`base_model.model.lm_head.lora_A.weight` lacks its `base_model.model.lm_head.lora_B.weight`";
    assert_eq!(problems.join("\n"), expected);
    write_safetensors(&root.path().join(WEIGHTS_FILE), &[], &BTreeMap::new()).unwrap();
    assert!(matches!(PeftAdapter::open(root.path()), Err(Error::AdapterTensors { .. })));
}

#[test]
fn an_adapter_of_another_model_or_kind_is_refused_with_both_values() {
    let root = tempfile::tempdir().unwrap();
    let saved = config([(0, Q), (2, DOWN)]);
    save(root.path(), &saved);
    let adapter = PeftAdapter::open(root.path()).unwrap();
    let other = LlamaConfig { d_model: 96, layers: 2, ..tiny() };
    let Err(Error::AdapterMisfit { problems, .. }) = adapter.check_model(&other) else {
        panic!("must be refused")
    };
    let expected = "\
`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` is [4, 64], but the model needs [4, 96]
`model.layers.2.mlp.down_proj` is adapted, but the model has 2 layers";
    assert_eq!(problems.join("\n"), expected);
    let asked = LoraConfig {
        scaling: Scaling::RankStabilised,
        dropout: 0.0,
        sites: [0, 1].map(|layer| (Site { layer, kind: Q }, size(8, 16.0))).into(),
        dora: true,
        ..LoraConfig::default()
    };
    let Err(Error::AdapterDiffers { problems, .. }) = adapter.check_same(&asked) else {
        panic!("must be refused")
    };
    let expected = "\
it is plain LoRA, asked for is DoRA
its scaling is Standard, asked for is RankStabilised
its rank is 4, asked for is 8
its alpha is 6, asked for is 16
it adapts `model.layers.2.mlp.down_proj`, which is not asked for
`model.layers.1.self_attn.q_proj` is asked for, it does not adapt it";
    assert_eq!(problems.join("\n"), expected);
}

#[test]
fn half_an_adapter_is_refused_and_a_choice_of_layers_is_not() {
    let root = tempfile::tempdir().unwrap();
    save(root.path(), &config([(0, Q), (1, Q), (1, DOWN), (0, DOWN)]));
    let path = root.path().join(CONFIG_FILE);
    let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let check = |change: &Value| {
        let mut keys = written.clone();
        for (key, value) in change.as_object().unwrap() {
            keys[key] = value.clone();
        }
        fs::write(&path, keys.to_string()).unwrap();
        PeftAdapter::open(root.path()).unwrap().check_model(&tiny()).map_err(|e| e.to_string())
    };
    // What was saved says that it is of the first two layers.
    assert_eq!(check(&json!({})), Ok(()));
    let half = check(&json!({"layers_to_transform": null})).unwrap_err();
    let half = half.replace(&root.path().display().to_string(), "ROOT");
    let expected = "\
`ROOT/adapter_model.safetensors` holds 4 updates, but its adapter_config.json chooses 2 more of this model's projections:
  `model.layers.2.self_attn.q_proj`
  `model.layers.2.mlp.down_proj`
Half an adapter is another model: copy or save it whole again, or choose only what is there (target_modules, layers_to_transform)";
    assert_eq!(half, expected);
    assert!(check(&json!({"target_modules": ["q_proj", "down_proj", "up_proj"]})).is_err());
    // What is left out in words that are not read may be all that is missing.
    let unread = json!({"layers_to_transform": null, "exclude_modules": "(?!.*layers.[01]).*"});
    assert_eq!(check(&unread), Ok(()));
    let excluded = json!({"layers_to_transform": null, "exclude_modules": r".*layers\.2\..*"});
    assert_eq!(check(&excluded), Ok(()));
}

#[test]
fn an_adapter_of_zeros_is_known_to_change_nothing() {
    let root = tempfile::tempdir().unwrap();
    let config = config([(0, Q), (1, Q), (2, Q)]);
    let save_with = |change: &dyn Fn(&mut Named)| {
        let mut tensors = tensors(&config);
        tensors.iter_mut().for_each(change);
        peft::save(root.path(), &config, 3, "org/base", &tensors, BTreeMap::new()).unwrap();
        PeftAdapter::open(root.path()).unwrap().changes_nothing()
    };
    let zero = |(name, _, values): &mut Named, which: &str| {
        if name.contains(which) {
            values.fill(-0.0);
        }
    };
    assert!(!save_with(&|_| ()));
    assert!(save_with(&|tensor| zero(tensor, "lora_B")));
    assert!(save_with(&|tensor| zero(tensor, "lora_A")));
    assert!(!save_with(&|tensor| zero(tensor, "layers.1.self_attn.q_proj.lora_B")));
}

#[test]
fn missing_files_are_said_with_the_way_out() {
    let root = tempfile::tempdir().unwrap();
    let refusal = || PeftAdapter::open(root.path()).unwrap_err().to_string();
    assert!(refusal().contains("`adapter_config.json` is missing"));
    fs::write(root.path().join(CONFIG_FILE), "{").unwrap();
    assert!(refusal().contains("`adapter_model.safetensors` is missing"));
    fs::write(root.path().join("adapter_model.bin"), "").unwrap();
    assert!(refusal().contains("Load the pickled adapter_model.bin with PEFT"));
    fs::write(root.path().join(WEIGHTS_FILE), "").unwrap();
    assert!(refusal().contains("is not valid JSON"));
    // What the system gives no answer about is not missing.
    let turning = root.path().join("turning");
    std::os::unix::fs::symlink(&turning, &turning).unwrap();
    let error = PeftAdapter::open(&turning).unwrap_err().to_string();
    assert!(error.contains("cannot read") && !error.contains("is missing"), "{error}");
    let nowhere = root.path().join("nowhere");
    assert!(PeftAdapter::open(&nowhere).unwrap_err().to_string().contains("nowhere"));
}
