//! Parity with PEFT and bitsandbytes in files: adapters that PEFT saved, and folders that transformers
//! saved in NF4, give the logits and the merged weights that the reference gives. The cases and how
//! they were made are in `fixtures/adapters/generate.py`.
//!
//! Two peculiarities of the reference are on purpose not followed:
//! - bitsandbytes rounds decoded weights to the type that they had before quantisation, mostly bf16,
//!   whatever the computation's type. Graft keeps them in f32; so the reference is asked for f32 too.
//! - `merge_and_unload` of a 4-bit model quantises its sums again, and the update is lost in part.
//!   Graft writes the sums; quantised again they have the reference's codes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorPrimitive};
use graft_adapters::merge::{self, Merge, NOTHING_TOLD, Onto};
use graft_adapters::{Fresh, LoraConfig, LoraFactory, LoraLinear, PeftAdapter};
use graft_kernels::nf4::{self, AbsmaxFormat};
use graft_kernels::{Home, Precision};
use graft_model::checkpoint::{Checkpoint, Dtype, TensorView};
use graft_model::folder::ModelFolder;
use graft_model::load::{Weights, left_to_quantise};
use graft_model::param::host_values;
use graft_model::{Context, Layout, Llama, LlamaConfig, Site};
use graft_tests::Cpu;
use graft_tests::parity::{Deviations, cases};
use half::bf16;

/// Adapters and the bases that they are for.
const ADAPTERS: [(&str, &str); 18] = [
    ("from_pissa", "dense"),
    ("half_tensors", "dense"),
    ("head", "dense"),
    ("old_config", "dense"),
    ("one_layer", "dense"),
    ("over_nf4", "nf4"),
    ("over_nf4_bf16", "nf4_bf16"),
    ("over_nf4_patterns", "nf4"),
    ("patterns", "dense"),
    ("plain", "dense"),
    ("rslora", "dense"),
    ("rslora_patterns", "dense"),
    ("single_file", "dense"),
    ("some_layers", "dense"),
    ("tables", "dense"),
    ("target_pattern", "dense"),
    ("tied_embedding", "tied"),
    ("tied_head", "tied"),
];
const FOLDERS: [&str; 8] = [
    "double",
    "from_float16",
    "from_float32",
    "plain",
    "skipped",
    "storage_bfloat16",
    "storage_float16",
    "storage_float32",
];
const REFUSED: [&str; 2] = ["fp4", "int8"];

/// As in the comparison of models: a few dozen roundings of 6e-8 through the layers.
const LOGITS: f64 = 2e-5;
/// Spacings of bf16 at the larger of base and sum: the reference rounds the decoded weight, then the
/// sum, each by half a spacing at most; Graft rounds once, by another half.
const TWICE_ROUNDED: f64 = 1.5;

fn area(kind: &str) -> PathBuf {
    cases("adapters").join(kind)
}

/// A model folder's parts.
struct Base {
    folder: ModelFolder,
    config: LlamaConfig,
    checkpoint: Checkpoint,
}

impl Base {
    fn open(path: &Path) -> Result<Self, graft_model::Error> {
        let folder = ModelFolder::at(path)?;
        let config = LlamaConfig::from_json(&folder.required("config.json")?, "config.json")?;
        let checkpoint = Checkpoint::open(&folder)?;
        checkpoint.verify(&config)?;
        Ok(Self { folder, config, checkpoint })
    }

    fn of(name: &str) -> Self {
        Self::open(&area("bases").join(name)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As the program asks for a folder in NF4: what it holds dense, it keeps dense.
    fn nf4(&self) -> Option<AbsmaxFormat> {
        left_to_quantise(
            &self.config,
            self.config.quantization.as_ref().map(|bnb| AbsmaxFormat::of(bnb.double)),
        )
    }

    fn with(&self, adapter: &PeftAdapter) -> Llama<Cpu, LoraLinear<Cpu>> {
        adapter.check_model(&self.config).unwrap_or_else(|error| panic!("{error}"));
        let device = Default::default();
        let config = adapter.model_config(&self.config);
        let weights = adapter.weights(&self.checkpoint, &self.config);
        let nf4 = self.nf4();
        let mut factory = LoraFactory {
            config: adapter.config(),
            start: adapter,
            nf4,
            home: Home::Device,
            device: &device,
        };
        Llama::load(&config, &weights, &mut factory, &device, &mut |_| ())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn alone(&self) -> Llama<Cpu, LoraLinear<Cpu>> {
        let device = Default::default();
        let config = LoraConfig::default();
        let start = Fresh(|_, len| vec![0.0; len]);
        let nf4 = self.nf4();
        let mut factory =
            LoraFactory { config: &config, start, nf4, home: Home::Device, device: &device };
        Llama::load(&self.config, &self.checkpoint, &mut factory, &device, &mut |_| ())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn merged(&self, adapter: &PeftAdapter, onto: Onto) -> Base {
        let root = tempfile::tempdir().expect("a temporary folder");
        let out = root.path().join("merged");
        let (base, config) = (&self.folder, &self.config);
        let request = Merge { base, config, adapter, onto, told: &NOTHING_TOLD };
        merge::write(&out, &request, u64::MAX, &mut |_, _| ())
            .unwrap_or_else(|error| panic!("{error}"));
        // The map outlives the folder.
        Self::open(&out).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// An adapter with its answers.
struct Case {
    adapter: PeftAdapter,
    expected: Checkpoint,
}

impl Case {
    fn open(name: &str) -> Self {
        let path = area("adapters").join(name);
        let own = path.join("my-adapter.safetensors");
        let adapter = PeftAdapter::open(if own.exists() { &own } else { &path });
        Self {
            adapter: adapter.unwrap_or_else(|error| panic!("{error}")),
            expected: expected(&path),
        }
    }

    /// The tensors under this heading, by their names in a checkpoint.
    fn under(&self, heading: &str) -> Vec<(String, TensorView)> {
        let named = |key: &str| {
            let name = key.strip_prefix(heading)?.strip_prefix('.')?.to_owned();
            Some((name, self.expected.tensor(key)?))
        };
        self.expected.names().filter_map(named).collect()
    }
}

fn expected(path: &Path) -> Checkpoint {
    let folder = ModelFolder::at(path).unwrap_or_else(|error| panic!("{error}"));
    Checkpoint::open_file(&folder, "expected.safetensors").unwrap_or_else(|error| panic!("{error}"))
}

/// How far the model's logits are from the expected ones, in parts of the largest.
fn logits_off(model: &Llama<Cpu, LoraLinear<Cpu>>, expected: &Checkpoint) -> f64 {
    let view = |name| expected.tensor(name).unwrap_or_else(|| panic!("no `{name}`"));
    let tokens: Vec<u32> =
        view("tokens").bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    let whole = 0..tokens.len();
    let layout =
        Layout::of_documents(&model.config, &model.rope, &positions, std::slice::from_ref(&whole));
    let hidden = model.hidden(&tokens, &layout, Context::evaluation(Precision::F32));
    let logits = model.logits(&hidden, Precision::F32);
    let logits = Tensor::<Cpu, 2>::from_primitive(TensorPrimitive::Float(logits));
    assert_eq!(view("logits").shape, logits.dims());
    let found = host_values::<Cpu>(logits.into_primitive().tensor());
    let expected = view("logits").to_f32().expect("f32 in the files");
    let off = found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs()));
    // Not `f64::max`, which would pass over what is no number.
    let off = off.fold(0.0, |max, value| if value <= max { max } else { value });
    off / f64::from(expected.iter().fold(0.0_f32, |max, value| max.max(value.abs())))
}

fn folders_of(kind: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(area(kind)).expect("the folder of the cases");
    let entries = entries.map(|entry| entry.expect("a folder that opened lists its entries"));
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_fixture_is_compared_and_none_is_missing() {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(folders_of("adapters"), names(&ADAPTERS.map(|(name, _)| name)));
    assert_eq!(folders_of("bases"), names(&["dense", "nf4", "nf4_bf16", "tied"]));
    assert_eq!(folders_of("folders"), names(&[FOLDERS.as_slice(), &REFUSED].concat()));
}

#[test]
fn adapters_give_the_logits_that_peft_gives() {
    let mut deviations = Deviations::of("adapters");
    for (name, base) in ADAPTERS {
        let Case { adapter, expected } = Case::open(name);
        let off = logits_off(&Base::of(base).with(&adapter), &expected);
        let kind = if base.starts_with("nf4") { "logits over NF4" } else { "logits" };
        deviations.note(kind, name, off, LOGITS);
    }
    deviations.finish(ADAPTERS.len());
}

/// Compares the merged tensors with the reference's under `heading`, and all others with the base's.
fn compare(
    deviations: &mut Deviations,
    row: &str,
    name: &str,
    [found, base]: [&Base; 2],
    expected: &[(String, TensorView)],
) -> usize {
    assert!(!expected.is_empty(), "{name}: {row} has no tensors");
    for (tensor, expected) in expected {
        let found = found.checkpoint.tensor(tensor).unwrap_or_else(|| panic!("no {tensor}"));
        let what = format!("{name} {tensor}");
        assert_eq!((found.dtype, &found.shape), (expected.dtype, &expected.shape), "{what}");
        deviations.exact(row, &what, found.bytes == expected.bytes);
    }
    let changed: BTreeSet<&String> = expected.iter().map(|(tensor, _)| tensor).collect();
    for tensor in found.checkpoint.names().filter(|&t| !changed.contains(&t.to_owned())) {
        // A head that was the embedding has the embedding's values.
        let stored = base.checkpoint.tensor(tensor);
        let stored = stored.or_else(|| base.checkpoint.tensor("model.embed_tokens.weight"));
        let same = found.checkpoint.tensor(tensor).map(|view| view.bytes);
        assert!(same == stored.map(|view| view.bytes), "{name}: {tensor} is not the base's");
    }
    expected.len()
}

#[test]
fn weights_merged_onto_a_bf16_base_are_those_of_peft() {
    let mut deviations = Deviations::of("adapters");
    let mut count = 0;
    // Its matrices are no short numbers, so its sums depend on their order.
    let exact = |(name, base): &(&str, &str)| !base.starts_with("nf4") && *name != "from_pissa";
    for (name, base) in ADAPTERS.into_iter().filter(exact) {
        let (case, base) = (Case::open(name), Base::of(base));
        let merged = base.merged(&case.adapter, Onto::Original);
        let expected = case.under("merged");
        let row = "merged onto bf16, bits";
        count += compare(&mut deviations, row, name, [&merged, &base], &expected);
        let tied = base.config.tied && case.adapter.config().tables.is_empty();
        assert_eq!(merged.config.tied, tied, "{name}");
        let moved = logits_off(&merged.alone(), &case.expected);
        assert!(moved < 0.05, "{name}: bf16 rounding of merged weights moved logits by {moved}");
    }
    deviations.finish(count);
}

#[test]
fn weights_merged_onto_the_originals_of_an_nf4_base_are_those_of_peft() {
    let mut deviations = Deviations::of("adapters");
    let mut count = 0;
    let base = Base::of("dense");
    for (name, _) in ADAPTERS.into_iter().filter(|(_, base)| base.starts_with("nf4")) {
        let case = Case::open(name);
        let merged = base.merged(&case.adapter, Onto::Original);
        let expected = case.under("original");
        let row = "merged onto the originals of NF4, bits";
        count += compare(&mut deviations, row, name, [&merged, &base], &expected);
    }
    deviations.finish(count);
}

#[test]
fn weights_merged_onto_dequantised_ones_are_those_of_peft() {
    let mut deviations = Deviations::of("adapters");
    let mut count = 0;
    for name in ["over_nf4", "over_nf4_patterns"] {
        let (case, base, dense) = (Case::open(name), Base::of("nf4"), Base::of("dense"));
        let onto = Onto::Dequantised { scales: AbsmaxFormat::Double };
        let merged = base.merged(&case.adapter, onto);
        let quantised_here = dense.merged(&case.adapter, onto);
        for (tensor, expected) in case.under("merged") {
            let found = |base: &Base| base.checkpoint.tensor(&tensor).expect("every projection");
            let what = format!("{name} {tensor}");
            let row = "merged onto decoded f32, bits";
            deviations.exact(row, &what, found(&merged).bytes == expected.bytes);
            let sums = expected.to_f32().expect("f32 in the files");
            let rounded: Vec<u8> =
                sums.iter().flat_map(|&sum| bf16::from_f32(sum).to_le_bytes()).collect();
            let row = "bf16 quantised, decoded and merged here, bits";
            deviations.exact(row, &what, found(&quantised_here).bytes == rounded);
            let codes = nf4::quantize(&sums, AbsmaxFormat::Double).expect("finite").codes;
            let again = case.expected.tensor(&format!("requantised.{tensor}"));
            let row = "merged in 4 bits, codes";
            deviations.exact(row, &what, again.expect("in every case").bytes == codes);
            count += 3;
        }
        assert_eq!(merged.checkpoint.len(), dense.checkpoint.len(), "{name}");
        let off = logits_off(&merged.alone(), &case.expected);
        deviations.note("logits merged onto decoded f32", name, off, LOGITS);
        count += 1;
    }
    deviations.finish(count);
}

#[test]
fn weights_merged_onto_bf16_ones_that_were_quantised_are_within_the_references_second_rounding() {
    let (case, base) = (Case::open("over_nf4_bf16"), Base::of("nf4_bf16"));
    let merged = base.merged(&case.adapter, Onto::Dequantised { scales: AbsmaxFormat::Plain });
    let mut deviations = Deviations::of("adapters");
    let expected = case.under("merged");
    for (tensor, expected) in &expected {
        let site = Site::from_checkpoint_name(tensor).expect("projections only");
        let shape = site.weight_shape(&base.config);
        let decoded = base.checkpoint.matrix(tensor, shape).expect("stored").to_f32();
        let found = merged.checkpoint.tensor(tensor).expect("every projection");
        assert_eq!(found.dtype, Dtype::BF16, "{tensor}");
        let found = found.to_f32().expect("the line above");
        let expected = expected.to_f32().expect("bf16 in the files");
        let off = |((found, expected), decoded): ((&f32, &f32), &f32)| {
            let size = expected.abs().max(decoded.abs()).max(found.abs());
            let spacing = f64::from(size.max(f32::MIN_POSITIVE)).log2().floor().exp2() / 128.0;
            f64::from((found - expected).abs()) / spacing
        };
        let off = found.iter().zip(&expected).zip(&decoded).map(off);
        let off = off.fold(0.0, |max, value| if value <= max { max } else { value });
        deviations.note("merged onto decoded bf16, spacings", tensor, off, TWICE_ROUNDED);
    }
    deviations.finish(expected.len());
}

#[test]
fn folders_that_transformers_quantised_give_the_same_logits() {
    let mut deviations = Deviations::of("NF4");
    for name in FOLDERS {
        let path = area("folders").join(name);
        let base = Base::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let off = logits_off(&base.alone(), &expected(&path));
        deviations.note("logits of a folder with bitsandbytes", name, off, LOGITS);
    }
    deviations.finish(FOLDERS.len());
}

#[test]
fn folders_of_other_formats_are_refused_by_name() {
    for (name, said) in [
        ("fp4", "`quantization_config.bnb_4bit_quant_type` is \"fp4\""),
        ("int8", "`quantization_config.load_in_8bit` is true (LLM.int8)"),
    ] {
        let Err(error) = Base::open(&area("folders").join(name)) else {
            panic!("{name} must be refused")
        };
        let error = error.to_string();
        assert!(error.contains(said) && error.contains("graft quantize"), "{name}: {error}");
    }
}
