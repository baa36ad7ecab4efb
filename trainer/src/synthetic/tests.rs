//! A synthetic folder is a folder like any other.

use graft_adapters::quantize;

use super::*;

/// The built-in model's sizes: small, and in the proportions of a Llama.
fn tiny() -> LlamaConfig {
    read_config(&builtin().unwrap()).unwrap()
}

fn write(out: &Path, format: Format, contents: Contents) -> Written {
    Synthetic::new(tiny(), Some(2), format, contents).unwrap().write(out, &mut |_| ()).unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = ModelFolder::at(folder).unwrap().names().unwrap();
    names.into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

const SEED: Contents = Contents::Random { seed: 7 };

#[test]
fn the_quantised_folder_is_what_quantize_makes_of_the_dense_one() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    write(&at("dense"), Format::Bf16, SEED);
    let base = ModelFolder::at(&at("dense")).unwrap();
    let config = read_config(&base).unwrap();
    for (format, double) in [(Format::Nf4, false), (Format::Nf4Double, true)] {
        let (made, expected) = (at(&format!("made-{double}")), at(&format!("true-{double}")));
        write(&made, format, SEED);
        quantize::write(&expected, &base, &config, double, &mut |_, _| ()).unwrap();
        let (made_files, true_files) = (files(&made), files(&expected));
        if double {
            // Scales of scales are those of the pool here, and each tensor's own there.
            assert_same_but_for_scales(&made, &expected);
        } else {
            assert!(made_files == true_files, "{:?}", made_files.keys());
        }
    }
}

fn assert_same_but_for_scales(made: &Path, expected: &Path) {
    let open = |folder: &Path| Checkpoint::open(&ModelFolder::at(folder).unwrap()).unwrap();
    let (made_weights, true_weights) = (open(made), open(expected));
    for tensor in super::expected(&tiny_of_two()) {
        let one = made_weights.tensor(&tensor.name).unwrap();
        let other = true_weights.tensor(&tensor.name).unwrap();
        assert_eq!((one.dtype, &one.shape), (other.dtype, &other.shape), "{}", tensor.name);
        assert!(one.bytes == other.bytes, "{}", tensor.name);
        if tensor.site.is_none() {
            continue;
        }
        let read = |weights: &Checkpoint| weights.nf4(&tensor.name).unwrap().unwrap();
        let (one, other) = (read(&made_weights), read(&true_weights));
        let scales = one.absmax.decode().into_iter().zip(other.absmax.decode());
        // Both are the same scales to 8 bits: steps of at most 1/64 of their spread.
        let far = scales.map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        assert!(far < 1e-3, "{}: scales {far} apart", tensor.name);
    }
}

fn tiny_of_two() -> LlamaConfig {
    LlamaConfig { layers: 2, ..tiny() }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, seed| {
        write(&root.path().join(name), Format::Nf4Double, Contents::Random { seed });
        files(&root.path().join(name))
    };
    let first = write("a", 7);
    assert!(first == write("b", 7));
    assert!(first != write("c", 8));
}

#[test]
fn holes_read_as_zeros_and_take_no_disk() {
    let root = tempfile::tempdir().unwrap();
    for (name, format) in Format::ALL {
        let model = Synthetic::new(tiny(), Some(64), *format, Contents::Holes).unwrap();
        let out = root.path().join(name);
        let written = model.write(&out, &mut |_| ()).unwrap();
        let weights = Checkpoint::open(&ModelFolder::at(&out).unwrap()).unwrap();
        assert_eq!(weights.total_bytes(), model.tensor_bytes());
        // Norms, maps and the tokenizer remain.
        let share = written.disk_bytes as f64 / model.tensor_bytes() as f64;
        assert!(share < 0.25, "{name}: {share}");
        let weight = |name: &str| weights.tensor(&format!("model.layers.63.{name}.weight"));
        assert!(weight("mlp.up_proj").unwrap().bytes.iter().all(|byte| *byte == 0));
        assert!(weight("input_layernorm").unwrap().bytes.iter().any(|byte| *byte != 0));
        if format.nf4().is_some() {
            let name = "model.layers.63.mlp.up_proj.weight";
            let nf4 = weights.nf4(name).unwrap().unwrap();
            assert!(nf4.absmax.decode().iter().all(|scale| *scale == 0.0));
        }
    }
}
