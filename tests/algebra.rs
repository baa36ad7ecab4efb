//! Adapters that become one, beside what PEFT's `add_weighted_adapter` makes of the same ones.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use graft_adapters::algebra::{Combination, Draws, Method, Parent, Share, Sign};
use graft_adapters::peft::names::{LoraMatrix, key};
use graft_adapters::{Error, PeftAdapter, Rank};
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_model::{ProjectionKind, Site};
use graft_tests::parity::{Deviations, cases, is_live};
use serde_json::Value;

/// Sums of a few f32 products in another order; values are near 1.
const SUMS: f64 = 3e-6;
/// PEFT's singular vectors are LAPACK's in f32.
const VECTORS: f64 = 2e-5;

fn parent(name: &str) -> PeftAdapter {
    PeftAdapter::open(&cases("algebra").join("parents").join(name)).unwrap()
}

fn names(call: &Value) -> Vec<String> {
    let names = call["parents"].as_array().unwrap().iter();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn method(call: &Value) -> Method {
    let share = || Share::new(call["density"].as_f64().unwrap()).unwrap();
    let draws = || Draws(call["seed"].as_u64().unwrap());
    let sign = match call["majority_sign_method"].as_str() {
        Some("frequency") => Sign::Frequency,
        _ => Sign::Total,
    };
    match call["combination_type"].as_str().unwrap() {
        "linear" => Method::Linear,
        "cat" => Method::Cat,
        "svd" => Method::Svd(rank(call["svd_rank"].as_u64().unwrap() as usize)),
        "magnitude_prune" => Method::MagnitudePrune(share()),
        "ties" => Method::Ties(share(), sign),
        "dare_linear" => Method::DareLinear(share(), draws()),
        "dare_ties" => Method::DareTies(share(), draws(), sign),
        other => panic!("{other} is no method"),
    }
}

fn rank(rank: usize) -> Rank {
    Rank(NonZeroUsize::new(rank).unwrap())
}

/// The adapters of these names and weights as one, in a folder.
fn made(names: &[String], weights: &[f64], method: Method, out: &Path) -> (PeftAdapter, f64) {
    let adapters: Vec<PeftAdapter> = names.iter().map(|name| parent(name)).collect();
    let parents = adapters.iter().zip(weights);
    let parents = parents.map(|(adapter, &weight)| Parent { adapter, weight }).collect();
    let combination = Combination::of(parents, method).unwrap();
    let mut far = f64::NAN;
    let check = |folder: &Path| {
        far = combination.distance(&PeftAdapter::open(folder)?);
        Ok::<_, Error>(())
    };
    combination.write(out, "tiny", BTreeMap::new(), &mut |_, _| (), check).unwrap();
    (PeftAdapter::open(out).unwrap(), far)
}

/// `scale · B·A`, row-major.
fn delta(adapter: &PeftAdapter, site: Site) -> Vec<f32> {
    let [a, b] = adapter.values(site).unwrap();
    let (scale, [rows, columns]) =
        (adapter.config().scale(site).unwrap(), adapter.shape(site).unwrap());
    let rank = a.len() / columns;
    let sum = |at: usize| {
        let (row, column) = (at / columns, at % columns);
        let products =
            (0..rank).map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * columns + column]));
        (scale * products.sum::<f64>()) as f32
    };
    (0..rows * columns).map(sum).collect()
}

fn off(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let off =
        found.iter().zip(expected).map(|(found, expected)| f64::from((found - expected).abs()));
    off.fold(0.0, |max, value| if value <= max { max } else { value })
}

#[test]
fn every_method_gives_what_peft_gives() {
    let folder = ModelFolder::at(&cases("algebra")).unwrap();
    let calls: BTreeMap<String, Value> =
        serde_json::from_slice(&folder.required("results.json").unwrap()).unwrap();
    let expected = Checkpoint::open_file(&folder, "results.safetensors").unwrap();
    let room = tempfile::tempdir().unwrap();
    let mut deviations = Deviations::of("algebra");
    for (result, call) in &calls {
        let weights: Vec<f64> =
            call["weights"].as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect();
        let method = method(call);
        let (found, _) = made(&names(call), &weights, method, &room.path().join(result));
        for (&site, &size) in &found.config().sites {
            let scale = found.config().scaling.factor(size);
            assert!((scale - 1.0).abs() < 1e-12, "{result} {site}: a scale of {scale}");
            let of = |what: &str| {
                let view = expected.tensor(&format!("{result}.{}.{what}", site.module_name()));
                view.map(|view| view.to_f32().unwrap())
            };
            let what = format!("{result} {site}");
            let row = format!("adapters as one by `{}`", method.name());
            if let Some(expected) = of("delta") {
                deviations.note(&row, &what, off(&delta(&found, site), &expected), VECTORS);
            } else if let (Some(a), Some(b)) = (of("lora_A"), of("lora_B")) {
                let [found_a, found_b] = found.values(site).unwrap();
                let worst = off(&found_a, &a).max(off(&found_b, &b));
                deviations.note(&row, &what, worst, SUMS);
            } else {
                assert_eq!((result.as_str(), site.layer), ("linear_part", 0), "only in ours");
            }
        }
    }
    if !is_live() {
        assert_eq!(calls.len(), 9);
    }
    // Deltas are one tensor a projection, matrices two.
    let deltas =
        expected.names().filter(|name| name.rsplit_once('.').unwrap().1 == "delta").count();
    let compared = deltas + (expected.len() - deltas) / 2;
    deviations.finish(compared);
}

#[test]
fn what_comes_out_is_an_adapter_of_peft_s_files() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name);
    let both = ["one".to_owned(), "wide".to_owned()];
    let (cat, far) = made(&both, &[1.0, 2.0], Method::Cat, &at("cat"));
    assert!(far < 1e-6, "{far}");
    let q = Site { layer: 0, kind: ProjectionKind::Q };
    let v = Site { layer: 1, kind: ProjectionKind::V };
    let rank_of = |adapter: &PeftAdapter, site| adapter.config().sites[&site].rank.get();
    assert_eq!(
        [rank_of(&cat, q), rank_of(&cat, v)],
        [10, 6],
        "ranks are those of the parents together"
    );
    let bytes = |name: &str| std::fs::read(at(name).join("adapter_model.safetensors")).unwrap();
    made(&both, &[1.0, 2.0], Method::Cat, &at("again"));
    assert_eq!(bytes("cat"), bytes("again"));
    // Of the rank that the sum has nothing is lost, and of less what is told.
    let (whole, far) = made(&both, &[1.0, 2.0], Method::Svd(rank(10)), &at("svd"));
    assert!(far < 1e-6, "{far}");
    assert!(off(&delta(&whole, q), &delta(&cat, q)) < VECTORS);
    let (_, far) = made(&both, &[1.0, 2.0], Method::Svd(rank(3)), &at("narrow"));
    assert!(far > 0.05 && far < 0.8, "{far}");
    // A rank of every block stays one of every block, and of one block of that.
    let config = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(at(name).join("adapter_config.json")).unwrap())
            .unwrap()
    };
    assert_eq!(config("svd")["layers_to_transform"], Value::Null);
    made(&["part".to_owned()], &[1.0], Method::Svd(rank(2)), &at("part"));
    assert_eq!(config("part")["layers_to_transform"], serde_json::json!([1]));
    let key = key(v, LoraMatrix::A);
    let weights =
        Checkpoint::open_file(&ModelFolder::at(&at("part")).unwrap(), "adapter_model.safetensors");
    assert_eq!(weights.unwrap().tensor(&key).unwrap().shape, [2, 16]);
}

#[test]
fn what_cannot_be_added_is_refused_by_name() {
    let refused = |names: &[&str], weights: &[f64], method| {
        let adapters: Vec<PeftAdapter> = names.iter().map(|name| parent(name)).collect();
        let parents = adapters.iter().zip(weights);
        let parents = parents.map(|(adapter, &weight)| Parent { adapter, weight }).collect();
        let said = Combination::of(parents, method).unwrap_err().to_string();
        said.replace(&cases("algebra").display().to_string(), "CASES")
    };
    let share = Share::new(0.5).unwrap();
    let shown = [
        refused(&["one", "wide"], &[1.0, 1.0], Method::Ties(share, Sign::Total)),
        refused(&["one", "two"], &[0.0, f64::NAN], Method::Cat),
    ];
    let shown = shown.join("\n");
    assert!(shown.contains("`model.layers.0.self_attn.q_proj` has the ranks 4 and 6, and ties adds matrices of one rank: give them one with `--method rerank` first, or take `cat` or `svd`"), "{shown}");
    assert!(shown.contains("CASES/parents/one/adapter_model.safetensors` has the weight 0: give a number other than 0"), "{shown}");
    assert!(
        shown.contains("CASES/parents/two/adapter_model.safetensors` has the weight NaN"),
        "{shown}"
    );
}
