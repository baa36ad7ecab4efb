//! The matrix of comparisons with the reference implementations is whole: every cell has its test, in a
//! target that cargo builds, beside fixtures that a committed script made; together they are small.

use std::path::{Path, PathBuf};

/// One area: its fixtures, the target that reads them, the cells with the test of each.
struct Area {
    folder: &'static str,
    fixtures: &'static str,
    target: &'static str,
    cells: &'static [(&'static str, &'static str)],
}

const AREAS: [Area; 10] = [
    Area {
        folder: "tests",
        fixtures: "tests/fixtures/model",
        target: "model_parity",
        cells: &[
            ("every case is there", "every_fixture_is_there_and_none_is_left_over"),
            ("logits and gradients, f32", "f32_is_the_reference_to_its_rounding"),
            ("logits and gradients, bf16", "bf16_is_as_near_to_f64_as_that_of_pytorch"),
            ("losses of rows", "the_loss_of_every_row_is_that_of_transformers"),
            ("AdamW", "twenty_steps_of_adamw_end_where_pytorch_ends"),
            (
                "DoRA and LoRA+",
                "twenty_steps_of_dora_with_a_rate_of_its_own_for_b_end_where_pytorch_ends",
            ),
            ("embedding and head", "twenty_steps_of_embedding_and_head_end_where_pytorch_ends"),
            ("AdamW over NF4", "twenty_steps_over_a_quantised_base_end_where_pytorch_ends"),
            (
                "quantised folders",
                "a_folder_that_bitsandbytes_quantised_is_what_quantising_while_loading_makes",
            ),
        ],
    },
    Area {
        folder: "kernels/tests",
        fixtures: "kernels/tests/fixtures/nf4",
        target: "nf4_bitsandbytes",
        cells: &[
            ("codes, scales, offset, values", "every_fixture_is_reproduced_to_the_bit"),
            ("code and dynamic map", "the_maps_are_those_of_the_reference"),
            ("offset", "the_mean_is_that_of_one_torch_thread_at_every_size"),
        ],
    },
    Area {
        folder: "tests",
        fixtures: "tests/fixtures/adapters",
        target: "adapter_files",
        cells: &[
            ("every case is there", "every_fixture_is_compared_and_none_is_missing"),
            ("logits", "adapters_give_the_logits_that_peft_gives"),
            ("merge, bf16", "weights_merged_onto_a_bf16_base_are_those_of_peft"),
            (
                "merge, originals",
                "weights_merged_onto_the_originals_of_an_nf4_base_are_those_of_peft",
            ),
            ("merge, decoded", "weights_merged_onto_dequantised_ones_are_those_of_peft"),
            (
                "folders with bitsandbytes",
                "folders_that_transformers_quantised_give_the_same_logits",
            ),
            ("refusals", "folders_of_other_formats_are_refused_by_name"),
        ],
    },
    Area {
        folder: "tests",
        fixtures: "tests/fixtures/algebra",
        target: "algebra",
        cells: &[
            ("every method", "every_method_gives_what_peft_gives"),
            ("what is written", "what_comes_out_is_an_adapter_of_peft_s_files"),
        ],
    },
    Area {
        folder: "tests",
        fixtures: "tests/fixtures/tokenizer",
        target: "tokenizers",
        cells: &[
            ("every case is there", "the_folder_holds_exactly_the_cases"),
            ("ids", "ids_are_those_of_tiktoken_and_tokenizers"),
            ("surrogates", "halves_of_characters_are_refused_where_tokenizers_refuses_them"),
            ("both kinds of file", "both_files_of_a_vocabulary_are_one_tokenizer"),
        ],
    },
    Area {
        folder: "tests",
        fixtures: "tests/fixtures/chat_template",
        target: "chat_templates",
        cells: &[
            ("every case is there", "the_folder_holds_exactly_the_cases"),
            ("ids and training mask", "ids_and_masks_are_those_of_transformers"),
            ("Jinja", "templates_are_rendered_as_jinja2_renders_them"),
        ],
    },
    Area {
        folder: "tests",
        fixtures: "tests/fixtures/optimizer",
        target: "optimizer",
        cells: &[
            ("every case is there", "the_folder_holds_exactly_the_cases"),
            ("maps", "the_maps_are_those_of_bitsandbytes"),
            ("quantisation", "codes_and_scales_are_those_of_bitsandbytes"),
            ("AdamW8bit", "steps_with_moments_in_8_bits_are_those_of_bitsandbytes"),
        ],
    },
    Area {
        folder: "tests",
        fixtures: "tests/fixtures/starts",
        target: "laws",
        cells: &[(
            "PiSSA and OLoRA",
            "a_part_of_a_weight_is_that_of_peft_and_the_weight_keeps_the_rest",
        )],
    },
    // Laws draw their cases themselves.
    Area {
        folder: "tests",
        fixtures: "",
        target: "laws",
        cells: &[
            ("k micro-batches = one batch", "micro_batches_equal_one_batch"),
            ("packed = unpacked", "packed_rows_score_as_rows_alone_to_the_bit"),
            ("packed = unpacked, gradient", "a_packed_row_has_the_gradient_that_it_has_alone"),
            ("block checkpointing", "checkpointed_gradients_are_those_of_the_full_tape_to_the_bit"),
            ("threads", "the_number_of_threads_does_not_change_a_bit"),
            ("adapter of zeros", "an_adapter_of_zeros_is_the_base_to_the_bit"),
            ("merged = base + adapter", "a_merged_model_is_base_and_adapter"),
            ("resume", "a_resumed_run_is_the_uninterrupted_one_to_the_bit"),
            ("padding", "padding_changes_nothing"),
        ],
    },
    Area {
        folder: "tests",
        fixtures: "tests/fixtures/generation",
        target: "generation",
        cells: &[
            ("every case is there", "every_fixture_is_compared_and_none_is_missing"),
            ("greedy", "greedy_tokens_are_those_of_transformers_for_64_steps"),
            ("repetition penalty", "penalised_tokens_are_those_of_transformers_for_64_steps"),
            ("stop tokens", "stop_tokens_end_answers_where_transformers_ends_them"),
            ("temperature, top-p, top-k", "probabilities_are_those_of_transformers"),
        ],
    },
];

/// Of all fixtures together.
const MOST_BYTES: u64 = 12 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_cell_has_its_test() {
    let manifest = read(&root().join("tests/Cargo.toml"));
    for area in AREAS {
        let Area { folder, target, .. } = area;
        let path = root().join(folder);
        let entry = format!("[[test]]\nname = \"{target}\"\npath = \"{target}.rs\"\n");
        // Elsewhere cargo finds the targets by itself.
        assert!(folder != "tests" || manifest.contains(&entry), "Cargo.toml: no target {target}");
        let mut source = read(&path.join(format!("{target}.rs")));
        if path.join(target).is_dir() {
            source.extend(files(&path.join(target)).iter().map(|path| read(path)));
        }
        assert!(!source.contains("#[ignore"), "{target} skips a test");
        for (cell, test) in area.cells {
            let test = format!("#[test]\nfn {test}(");
            let lines: Vec<&str> = source.lines().map(str::trim).collect();
            assert!(lines.join("\n").contains(&test), "{target}, {cell}: no `{test}`");
        }
    }
}

#[test]
fn fixtures_are_there_with_their_script_and_small() {
    let mut bytes = 0;
    for Area { fixtures, .. } in AREAS.iter().filter(|area| !area.fixtures.is_empty()) {
        let found = files(&root().join(fixtures));
        let script = root().join(fixtures).join("generate.py");
        assert!(found.contains(&script), "{fixtures} has no generate.py");
        assert!(found.len() > 1, "{fixtures} holds nothing but its script");
        bytes += found.iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    }
    assert!(bytes <= MOST_BYTES, "fixtures are {bytes} bytes together, allowed are {MOST_BYTES}");
}

#[test]
fn every_folder_of_fixtures_belongs_to_an_area() {
    for folder in ["tests/fixtures", "kernels/tests/fixtures"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let fixtures = format!("{folder}/{name}");
            let known = AREAS.iter().any(|area| area.fixtures == fixtures);
            assert!(known, "{fixtures} belongs to no area");
        }
    }
}
