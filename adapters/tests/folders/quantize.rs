//! A quantised folder decodes to what quantising at load gives.

use std::fs;

use crate::tiny::{Tiny, files, read_config};
use graft_adapters::{Error, quantize};
use graft_files::place::Refused;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::Site;
use graft_model::checkpoint::{Checkpoint, Dtype};
use graft_model::folder::ModelFolder;
use graft_model::load::{Weights, quantise};

#[test]
fn decoding_equals_quantising_at_load() {
    for (double, dtype) in [(true, Dtype::BF16), (false, Dtype::BF16), (true, Dtype::F32)] {
        let tiny = Tiny::new(false, dtype);
        let out = tiny.root.path().join("nf4");
        let mut last = (0, 1);
        let summary =
            quantize::write(&out, &tiny.base(), &tiny.config, double, &mut |done, total| {
                assert!(done >= last.0 && done <= total);
                last = (done, total);
            })
            .unwrap();
        assert_eq!(last.0, last.1, "progress ends at the end");
        assert_eq!((summary.changed, summary.weight_files.len()), (14, 1));
        assert_eq!(summary.copied, ["LICENSE.txt", "generation_config.json", "tokenizer.json"]);
        let config = read_config(&out);
        assert_eq!(config.quantization.as_ref().map(|bnb| bnb.double), Some(double));
        let base = tiny.checkpoint();
        let found = Checkpoint::open(&ModelFolder::at(&out).unwrap()).unwrap();
        found.verify(&config).unwrap();
        for site in Site::all(&config) {
            let (name, shape) = (site.checkpoint_name(), site.weight_shape(&config));
            let weight = base.matrix(&name, shape).unwrap();
            let expected = quantise(&name, weight, AbsmaxFormat::of(double)).unwrap();
            let found = found.matrix(&name, shape).unwrap();
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(found.to_f32()), bits(expected.to_f32()), "{name}");
        }
        for name in base.names().filter(|name| Site::from_checkpoint_name(name).is_none()) {
            assert_eq!(found.tensor(name), base.tensor(name), "{name}");
        }
    }
}

#[test]
fn equal_bases_give_equal_bytes() {
    let tiny = Tiny::new(true, Dtype::BF16);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = tiny.root.path().join(format!("nf4-{threads}"));
        let write = || quantize::write(&out, &tiny.base(), &tiny.config, true, &mut |_, _| {});
        pool.install(write).unwrap();
        files(&out)
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn the_state_is_the_text_that_bitsandbytes_reads() {
    let tiny = Tiny::new(true, Dtype::F16);
    let state = |double| {
        let out = tiny.root.path().join(format!("nf4-{double}"));
        quantize::write(&out, &tiny.base(), &tiny.config, double, &mut |_, _| {}).unwrap();
        let checkpoint = Checkpoint::open(&ModelFolder::at(&out).unwrap()).unwrap();
        let name = "model.layers.1.mlp.down_proj.weight.quant_state.bitsandbytes__nf4";
        let view = checkpoint.tensor(name).unwrap();
        assert_eq!((view.dtype, view.shape.as_slice()), (Dtype::U8, &[view.bytes.len()][..]));
        String::from_utf8(view.bytes.to_vec()).unwrap()
    };
    let plain = r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [64, 128]"#;
    assert_eq!(state(false), format!("{plain}}}"));
    let double = state(true);
    let offset = double
        .strip_prefix(plain)
        .and_then(|rest| {
            rest.strip_prefix(
                r#", "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": "#,
            )
        })
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap();
    assert!((0.1..0.13).contains(&offset.parse::<f64>().unwrap()), "{offset}");
}

#[test]
fn what_is_in_nf4_already_or_has_no_nf4_form_is_refused() {
    let tiny = Tiny::new(true, Dtype::BF16);
    let nf4 = tiny.root.path().join("nf4");
    quantize::write(&nf4, &tiny.base(), &tiny.config, true, &mut |_, _| {}).unwrap();
    let again = tiny.root.path().join("again");
    let base = ModelFolder::at(&nf4).unwrap();
    let error = quantize::write(&again, &base, &read_config(&nf4), true, &mut |_, _| {});
    assert!(matches!(error, Err(Error::AlreadyNf4 { .. })));
    let error = quantize::write(&nf4, &tiny.base(), &tiny.config, true, &mut |_, _| {});
    assert!(matches!(
        error,
        Err(Error::Model(graft_model::Error::Taken(Refused::FolderTaken { .. })))
    ));
    assert_eq!(tiny.entries(), ["base", "nf4"]);
}

#[test]
fn a_weight_that_is_not_finite_leaves_nothing() {
    let tiny = Tiny::new(true, Dtype::F32);
    let path = tiny.root.path().join("base/model.safetensors");
    let checkpoint = tiny.checkpoint();
    let name = "model.layers.1.mlp.up_proj.weight";
    let view = checkpoint.tensor(name).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let start = bytes.windows(64).position(|window| window == &view.bytes[..64]).unwrap();
    drop((view, checkpoint));
    bytes[start + 40..start + 44].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    for double in [true, false] {
        let out = tiny.root.path().join("nf4");
        let error =
            quantize::write(&out, &tiny.base(), &tiny.config, double, &mut |_, _| {}).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("value 10 is inf"), "{text}");
    }
    assert_eq!(tiny.entries(), ["base"]);
}

#[test]
fn links_to_files_of_somebody_else_never_reach_the_new_folder() {
    let tiny = Tiny::new(true, Dtype::BF16);
    let at = |name: &str| tiny.root.path().join(name);
    fs::write(at("secret"), "private").unwrap();
    fs::write(at("mine.jinja"), "{{ messages }}").unwrap();
    fs::create_dir(at("base/additional_chat_templates")).unwrap();
    let link =
        |to: &str, name: &str| std::os::unix::fs::symlink(at(to), at("base").join(name)).unwrap();
    // Names that the format does not know stay behind, whatever they are.
    link("secret", "tokenizer.secret");
    link("mine.jinja", "chat_template.jinja");
    link("mine.jinja", "additional_chat_templates/other.jinja");
    for name in ["LICENSE", "additional_chat_templates/rag.jinja", "tokenizer.model"] {
        link("secret", name);
        let out = at("out");
        let error = quantize::write(&out, &tiny.base(), &tiny.config, true, &mut |_, _| {});
        let said = error.unwrap_err().to_string();
        let named = said.contains(&format!("{name}` is a link to `")) && said.contains("secret`");
        assert!(named && !out.exists(), "{said}");
        fs::remove_file(at("base").join(name)).unwrap();
    }
    let summary = quantize::write(&at("out"), &tiny.base(), &tiny.config, true, &mut |_, _| {});
    let expected = [
        "LICENSE.txt",
        "additional_chat_templates/other.jinja",
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer.json",
    ];
    assert_eq!(summary.unwrap().copied, expected);
    assert!(fs::symlink_metadata(at("out/chat_template.jinja")).unwrap().is_file());
}
