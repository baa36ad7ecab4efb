//! A merged model is the base plus the update, everything else the base bit for bit.

use std::fs;
use std::path::Path;

use crate::tiny::{Tiny, files, read_config};
use graft_adapters::merge::{self, Merge, NOTHING_TOLD, Onto, Summary};
use graft_adapters::merged::MergedWeights;
use graft_adapters::{Error, PeftAdapter, quantize};
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::{Checkpoint, Dtype, ShardedWriter};
use graft_model::folder::ModelFolder;
use graft_model::load::{Weights, quantise};
use graft_model::{ProjectionKind, Site};

const ORIGINAL: Onto = Onto::Original;
const NF4: Onto = Onto::Dequantised { scales: AbsmaxFormat::Double };

fn q(layer: usize) -> Site {
    Site { layer, kind: ProjectionKind::Q }
}

fn down(layer: usize) -> Site {
    Site { layer, kind: ProjectionKind::Down }
}

fn merge_into(
    out: &str,
    tiny: &Tiny,
    adapter: &PeftAdapter,
    onto: Onto,
    max_shard_bytes: u64,
) -> Result<Summary, Error> {
    let base = tiny.base();
    let merge = Merge { base: &base, config: &tiny.config, adapter, onto, told: &NOTHING_TOLD };
    let mut last = (0, 1);
    let summary =
        merge::write(&tiny.root.path().join(out), &merge, max_shard_bytes, &mut |done, total| {
            assert!(done > last.0 && done <= total);
            last = (done, total);
        })?;
    assert_eq!(last.0, last.1, "progress ends at the end");
    Ok(summary)
}

fn merged(tiny: &Tiny, adapter: &PeftAdapter, onto: Onto) -> Checkpoint {
    let summary = merge_into("out", tiny, adapter, onto, ShardedWriter::MAX_SHARD_BYTES).unwrap();
    Checkpoint::open(&ModelFolder::at(&summary.folder).unwrap()).unwrap()
}

#[test]
fn a_zero_adapter_leaves_every_bit() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        for tied in [false, true] {
            let tiny = Tiny::new(tied, dtype);
            let base = tiny.checkpoint();
            let found = merged(&tiny, &tiny.adapter(Site::all(&tiny.config), 0.0), ORIGINAL);
            assert!(found.names().eq(base.names()));
            assert_eq!(found.names().any(|name| name == "lm_head.weight"), !tied);
            for name in base.names() {
                assert_eq!(found.tensor(name), base.tensor(name), "{name} {dtype}");
            }
        }
    }
}

/// `W + scale · B·A`, summed in f64.
fn sum(weight: &[f32], adapter: &PeftAdapter, site: Site, inner: usize) -> Vec<f64> {
    let values = adapter.values(site);
    let term = |i: usize| {
        let scale = adapter.config().scale(site)?;
        let [a, b] = values.as_ref()?;
        let product =
            |r: usize| f64::from(b[i / inner * 4 + r]) * f64::from(a[r * inner + i % inner]);
        Some(scale * (0..4).map(product).sum::<f64>())
    };
    let at = |(i, &weight): (usize, &f32)| f64::from(weight) + term(i).unwrap_or(0.0);
    weight.iter().enumerate().map(at).collect()
}

#[test]
fn a_merged_weight_is_the_sum_rounded_once() {
    for (onto, dtype) in [(ORIGINAL, Dtype::F32), (ORIGINAL, Dtype::BF16), (NF4, Dtype::BF16)] {
        let tiny = Tiny::new(true, dtype);
        let adapter = tiny.adapter([q(0), down(1)], 1.0);
        let base = tiny.checkpoint();
        let found = merged(&tiny, &adapter, onto);
        for site in Site::all(&tiny.config) {
            let (name, shape) = (site.checkpoint_name(), site.weight_shape(&tiny.config));
            let mut weight = base.matrix(&name, shape).unwrap();
            if onto == NF4 {
                weight = quantise(&name, weight, AbsmaxFormat::Double).unwrap();
            }
            let expected = sum(&weight.to_f32(), &adapter, site, shape[1]);
            let found = found.tensor(&name).unwrap();
            assert_eq!(found.dtype, dtype);
            for (index, (found, expected)) in
                found.to_f32().unwrap().iter().zip(expected).enumerate()
            {
                let off = (f64::from(*found) - expected).abs();
                // f32: a handful of roundings of values below 1. bf16: half of its last place.
                let bound = match dtype {
                    Dtype::F32 => 1e-7,
                    _ => expected.abs() * 0.003_907 + 1e-7,
                };
                assert!(off <= bound, "{name}[{index}] is {found}, {off} from {expected}");
            }
        }
        for name in base.names().filter(|name| Site::from_checkpoint_name(name).is_none()) {
            assert_eq!(found.tensor(name), base.tensor(name), "{name}");
        }
    }
}

#[test]
fn shards_hold_what_one_file_holds() {
    let tiny = Tiny::new(false, Dtype::BF16);
    let adapter = tiny.adapter([q(0), q(1), down(0), down(1)], 1.0);
    let one = merged(&tiny, &adapter, NF4);
    let summary = merge_into("shards", &tiny, &adapter, NF4, 20_000).unwrap();
    assert!(summary.weight_files.len() > 4);
    assert!(summary.folder.join("model.safetensors.index.json").exists());
    let many = Checkpoint::open(&ModelFolder::at(&summary.folder).unwrap()).unwrap();
    assert!(many.names().eq(one.names()));
    for name in one.names() {
        assert_eq!(many.tensor(name), one.tensor(name), "{name}");
    }
}

#[test]
fn the_folder_has_what_the_model_needs_and_the_base_stays() {
    let tiny = Tiny::new(true, Dtype::BF16);
    let base = tiny.root.path().join("base");
    let before = files(&base);
    let out = "deeper/still/out";
    let summary = merge_into(out, &tiny, &tiny.adapter([q(0)], 1.0), NF4, u64::MAX).unwrap();
    assert_eq!(summary.copied, ["LICENSE.txt", "generation_config.json", "tokenizer.json"]);
    assert_eq!((summary.changed, summary.weight_files.len()), (14, 1));
    let written = files(&summary.folder);
    for name in &summary.copied {
        assert_eq!(written[name], before[name]);
    }
    assert_eq!(written.len(), 5);
    assert_eq!(read_config(&summary.folder), tiny.config);
    assert_eq!(files(&base), before);
    let weights = &before["model.safetensors"];
    assert_eq!(written["model.safetensors"].len(), weights.len());
    assert_eq!(summary.tensor_bytes, tiny.checkpoint().total_bytes());
}

#[test]
fn a_base_in_nf4_gives_the_model_of_its_dense_original() {
    let tiny = Tiny::new(false, Dtype::BF16);
    let adapter = tiny.adapter([q(0), down(1)], 1.0);
    let expected = merged(&tiny, &adapter, NF4);
    let folder = tiny.root.path().join("nf4");
    quantize::write(&folder, &tiny.base(), &tiny.config, true, &mut |_, _| {}).unwrap();
    let (base, config) = (ModelFolder::at(&folder).unwrap(), read_config(&folder));
    let merge =
        |onto| Merge { base: &base, config: &config, adapter: &adapter, onto, told: &NOTHING_TOLD };
    let out = tiny.root.path().join("from-nf4");
    let refused = merge::write(&out, &merge(ORIGINAL), u64::MAX, &mut |_, _| {}).unwrap_err();
    assert!(matches!(refused, Error::NoOriginal { .. }), "{refused}");
    assert!(!out.exists());
    // Whoever reads base and adapter without asking what is written hears so, too.
    let refused = MergedWeights::of(&merge(ORIGINAL), &Checkpoint::open(&base).unwrap()).err();
    assert!(matches!(refused, Some(Error::NoOriginal { .. })), "{refused:?}");
    merge::write(&out, &merge(NF4), u64::MAX, &mut |_, _| {}).unwrap();
    let found = Checkpoint::open(&ModelFolder::at(&out).unwrap()).unwrap();
    assert!(found.names().eq(expected.names()));
    for name in expected.names() {
        assert_eq!(found.tensor(name), expected.tensor(name), "{name}");
    }
    assert_eq!(read_config(&out), tiny.config);
}

#[test]
fn a_taken_or_wrong_place_is_refused_before_anything_is_written() {
    let tiny = Tiny::new(true, Dtype::BF16);
    let adapter = tiny.adapter([q(0)], 1.0);
    let root = tiny.root.path();
    fs::create_dir(root.join("full")).unwrap();
    fs::write(root.join("full/notes"), "mine").unwrap();
    fs::write(root.join("file"), "mine").unwrap();
    std::os::unix::fs::symlink("base", root.join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
    let before = tiny.entries();
    let refuse = |out: &str| {
        let error = merge_into(out, &tiny, &adapter, ORIGINAL, u64::MAX).unwrap_err();
        error.to_string().replace(&root.display().to_string(), "ROOT")
    };
    let taken = "exists and is not an empty folder: nothing is overwritten. Choose another folder \
                 or remove this one";
    let in_base = "is or lies in the base's folder `ROOT/base`, which is never written to: choose \
                   another folder";
    assert_eq!(refuse("full"), format!("`ROOT/full` {taken}"));
    assert_eq!(refuse("file"), format!("`ROOT/file` {taken}"));
    assert_eq!(refuse("dangling"), format!("`ROOT/dangling` {taken}"));
    assert_eq!(refuse("base"), format!("`ROOT/base` {in_base}"));
    assert_eq!(refuse("link"), format!("`ROOT/link` {in_base}"));
    assert_eq!(refuse("base/merged"), format!("`ROOT/base/merged` {in_base}"));
    assert_eq!(refuse("full/../base"), format!("`ROOT/full/../base` {in_base}"));
    assert_eq!(tiny.entries(), before);
    fs::create_dir(root.join("empty")).unwrap();
    merge_into("empty", &tiny, &adapter, ORIGINAL, u64::MAX).unwrap();
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let tiny = Tiny::new(true, Dtype::BF16);
    let mut larger = Tiny::new(true, Dtype::BF16);
    larger.config.layers = 4;
    let adapter = larger.adapter([q(3)], 1.0);
    let error = merge_into("out", &tiny, &adapter, ORIGINAL, u64::MAX).unwrap_err();
    assert!(matches!(error, Error::AdapterMisfit { .. }), "{error}");
    assert_eq!(tiny.entries(), ["base"]);
}

#[test]
fn a_sum_beyond_the_type_is_an_error_that_leaves_nothing() {
    let tiny = Tiny::new(true, Dtype::F16);
    let adapter = tiny.adapter([down(1)], 1e8);
    for out in ["out", "new/out"] {
        let error = merge_into(out, &tiny, &adapter, ORIGINAL, 20_000).unwrap_err();
        let Error::NotFinite { tensor, dtype: Dtype::F16, value, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(tensor, "model.layers.1.mlp.down_proj.weight");
        assert!(value.is_infinite());
    }
    assert_eq!(tiny.entries(), ["adapter", "base", "new"]);
    assert_eq!(fs::read_dir(tiny.root.path().join("new")).unwrap().count(), 0);
}

#[test]
fn merged_bytes_do_not_depend_on_the_number_of_threads() {
    let tiny = Tiny::new(true, Dtype::BF16);
    let adapter = tiny.adapter(Site::all(&tiny.config), 1.0);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = format!("out-{threads}");
        pool.install(|| merge_into(&out, &tiny, &adapter, NF4, 20_000).unwrap().folder)
    };
    assert_eq!(files(&run(1)), files(&run(4)));
}

#[test]
fn an_adapter_that_peft_saved_gives_the_updates_that_peft_computes() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft");
    let adapter = PeftAdapter::open(&fixture).unwrap();
    let sites = [q(0), down(0), q(1), down(1)];
    let config = adapter.config();
    assert!(config.sites.keys().copied().eq(sites));
    let size = config.one_size().unwrap();
    assert_eq!((size.rank.get(), size.alpha, config.dropout), (4, 6.0, 0.05));
    let tiny = Tiny::new(true, Dtype::F32);
    let (base, found) = (tiny.checkpoint(), merged(&tiny, &adapter, ORIGINAL));
    let folder = ModelFolder::at(&fixture).unwrap();
    let deltas = Checkpoint::open_file(&folder, "delta.safetensors").unwrap();
    let name = down(1).checkpoint_name();
    let values = |from: &Checkpoint, name: &str| from.tensor(name).unwrap().to_f32().unwrap();
    let expected = values(&deltas, &down(1).module_name());
    let moved = values(&found, &name).into_iter().zip(values(&base, &name));
    for (index, ((new, old), delta)) in moved.zip(expected).enumerate() {
        // Weights below 1/4 are rounded to 2^-27; a sum of four terms adds as little.
        let off = (f64::from(new) - f64::from(old) - f64::from(delta)).abs();
        assert!(off < 2e-8, "{name}[{index}] moved {} for {delta}", new - old);
    }
}

#[test]
fn every_chat_template_goes_along_and_another_folders_tokenizer_where_it_is_used() {
    let tiny = Tiny::new(true, Dtype::BF16);
    let base = tiny.root.path().join("base");
    let other = tiny.root.path().join("other");
    for (folder, text) in [(&base, "of the base"), (&other, "of another")] {
        fs::create_dir_all(folder.join("additional_chat_templates/inner")).unwrap();
        for name in ["tool_use.jinja", "rag.jinja", "notes.txt"] {
            fs::write(folder.join("additional_chat_templates").join(name), text).unwrap();
        }
        fs::write(folder.join("tokenizer.json"), text).unwrap();
    }
    fs::write(base.join("tokenizer_config.json"), "of the base").unwrap();
    fs::write(other.join("chat_template.jinja"), "of another").unwrap();
    fs::write(other.join("LICENSE.txt"), "of another").unwrap();
    let write = |out: &str, base: &ModelFolder| {
        let out = tiny.root.path().join(out);
        quantize::write(&out, base, &tiny.config, true, &mut |_, _| {}).unwrap().copied
    };
    let own = write("own", &tiny.base());
    assert_eq!(
        own,
        [
            "LICENSE.txt",
            "additional_chat_templates/rag.jinja",
            "additional_chat_templates/tool_use.jinja",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    let merge = Merge {
        base: &tiny.base().with_tokenizer_of(&ModelFolder::at(&other).unwrap()),
        config: &tiny.config,
        adapter: &tiny.adapter([q(0)], 1.0),
        onto: ORIGINAL,
        told: &NOTHING_TOLD,
    };
    let out = tiny.root.path().join("other-tokenizer");
    let found = merge::write(&out, &merge, u64::MAX, &mut |_, _| ()).unwrap().copied;
    assert_eq!(
        found,
        [
            "LICENSE.txt",
            "additional_chat_templates/rag.jinja",
            "additional_chat_templates/tool_use.jinja",
            "chat_template.jinja",
            "generation_config.json",
            "tokenizer.json",
        ]
    );
    let text = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(text("LICENSE.txt"), "terms");
    for name in ["tokenizer.json", "chat_template.jinja", "additional_chat_templates/rag.jinja"] {
        assert_eq!(text(name), "of another", "{name}");
    }
}
