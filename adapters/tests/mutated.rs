//! Files of adapters from strangers: whatever they hold, they are read or refused, never a panic, and within
//! a second each.
//!
//! `GRAFT_MUTATIONS` says how many files each law tries; some thousand without it.
#![expect(clippy::disallowed_methods, reason = "the tests prepare plain files")]
#![allow(clippy::unwrap_used, reason = "a failing test is the place to panic")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use graft_adapters::peft::{self, CONFIG_FILE, WEIGHTS_FILE};
use graft_adapters::{Error, LoraConfig, PeftAdapter, Rank, Scaling, Size};
use graft_model::presets::llama3_2_1b;
use graft_model::{LlamaConfig, Site};
use serde_json::json;

fn count(usual: u64) -> u64 {
    let asked = std::env::var("GRAFT_MUTATIONS").ok();
    asked.map_or(usual, |asked| asked.parse().expect("GRAFT_MUTATIONS is a number"))
}

fn tiny() -> LlamaConfig {
    LlamaConfig { d_model: 8, d_ff: 8, layers: 2, heads: 1, kv_heads: 1, ..llama3_2_1b() }
}

/// A small adapter of every projection.
fn save(folder: &Path) {
    let size = Size { rank: Rank(NonZeroUsize::new(2).unwrap()), alpha: 4.0 };
    let config = LoraConfig::uniform(size, Scaling::Standard, 0.05, Site::all(&tiny()));
    let tensors: Vec<_> = config
        .sites
        .keys()
        .flat_map(|&site| {
            let [out, inner] = site.weight_shape(&tiny());
            let shapes = [("lora_A", [2, inner]), ("lora_B", [out, 2])];
            shapes.map(|(matrix, shape)| {
                let name = format!("{}.{matrix}.weight", site.module_name());
                (name, shape.to_vec(), vec![0.5; shape[0] * shape[1]])
            })
        })
        .collect();
    peft::save(folder, &config, 2, "org/base", &tensors, BTreeMap::new()).unwrap();
}

/// Bytes with some of them changed, cut out or doubled: like those of the corpus, but broken.
fn mutated(corpus: &[Vec<u8>], case: u64) -> Vec<u8> {
    let mut state = case;
    let mut below = |n: usize| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    };
    let mut bytes = corpus[below(corpus.len())].clone();
    for _ in 0..=below(4) {
        let (first, second) = (below(bytes.len().max(1)), below(bytes.len().max(1)));
        let range = first.min(second)..first.max(second).min(first.min(second) + 40);
        match below(6) {
            _ if bytes.is_empty() => bytes.push(b'{'),
            0 => bytes[first] = below(256) as u8,
            1 => bytes[first] ^= 1 << below(8),
            2 => _ = bytes.drain(range),
            3 => bytes.truncate(first),
            4 => {
                let copy = bytes[range].to_vec();
                bytes.splice(second..second, copy);
            }
            _ => bytes[first] = b"(){}[]*+?|^$\\\"0,:-9"[below(19)],
        }
    }
    bytes
}

#[test]
fn a_broken_description_is_refused_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("adapter");
    save(&folder);
    let saved = fs::read(folder.join(CONFIG_FILE)).unwrap();
    let with = |keys: serde_json::Value| {
        let mut object: serde_json::Map<_, _> = serde_json::from_slice(&saved).unwrap();
        object.extend(keys.as_object().unwrap().clone());
        serde_json::to_vec(&object).unwrap()
    };
    let corpus = [
        saved.clone(),
        with(
            json!({"target_modules": r"model\.layers\.\d+\.(?:self_attn|mlp)\.(?:[qkvo]|gate|up|down)_proj"}),
        ),
        with(
            json!({"rank_pattern": {"(.*(a|b)*)*q_proj": 2}, "alpha_pattern": {"[^k]{1,9}": 1.5}}),
        ),
        with(json!({"layers_to_transform": [0, 1], "layers_pattern": "layers"})),
        with(json!({"modules_to_save": ["lm_head"], "exclude_modules": ["up_proj"]})),
    ];
    let mut read = 0;
    for case in 0..count(4_000) {
        fs::write(folder.join(CONFIG_FILE), mutated(&corpus, case)).unwrap();
        read += u64::from(PeftAdapter::open(&folder).is_ok());
    }
    // Some changes mean nothing: else this would test the first check alone.
    assert!(read > 0, "every description was refused");
}

#[test]
fn broken_weights_are_refused_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("adapter");
    save(&folder);
    let corpus = [fs::read(folder.join(WEIGHTS_FILE)).unwrap()];
    let mut read = 0;
    for case in 0..count(4_000) {
        fs::write(folder.join(WEIGHTS_FILE), mutated(&corpus, case)).unwrap();
        read += u64::from(PeftAdapter::open(&folder).is_ok());
    }
    assert!(read > 0, "every file was refused");
}

#[test]
fn patterns_without_end_are_refused_by_what_they_take() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("adapter");
    save(&folder);
    let saved = fs::read(folder.join(CONFIG_FILE)).unwrap();
    let refusal = |patterns: Vec<String>| {
        let mut object: serde_json::Map<_, _> = serde_json::from_slice(&saved).unwrap();
        let patterns = patterns.into_iter().map(|pattern| (pattern, json!(2))).collect();
        object.insert("rank_pattern".to_owned(), serde_json::Value::Object(patterns));
        fs::write(folder.join(CONFIG_FILE), serde_json::to_vec(&object).unwrap()).unwrap();
        match PeftAdapter::open(&folder) {
            Err(Error::AdapterConfig { problems, .. } | Error::AdapterTensors { problems, .. }) => {
                problems.join("\n")
            }
            other => panic!("{other:?}"),
        }
    };
    let deep = "(".repeat(100_000) + &")".repeat(100_000);
    let said = refusal(vec![deep]);
    assert!(
        said.contains("does not read more than 2000 characters: it has 200000"),
        "{}",
        &said[said.len() - 200..]
    );
    let said = refusal(vec!["(".repeat(40) + "q" + &")".repeat(40)]);
    assert!(said.ends_with("does not read more than 32 groups inside each other"), "{said}");
    let many = (0..20_000).map(|number| format!("((.*)*x{number})*")).collect();
    let said = refusal(many);
    assert!(said.contains("take too long for 28 tensors"), "{said}");
    assert!(said.ends_with("Name the modules themselves"), "{said}");
}
