//! The shipped recipes, all of them: found by a walk of the folder, counted against the catalogue.
#![expect(clippy::unwrap_used, reason = "a failing fixture is a failing test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use graft_recipes::{AdapterMethod, Duration, Quantization, Recipe, library, load};

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path);
        }
    }
}

fn shipped_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("library"), &mut found);
    found.sort();
    found
}

#[test]
fn the_catalogue_is_the_folder() {
    let files: BTreeSet<String> = shipped_files()
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let catalogue: BTreeSet<String> =
        library::all().iter().map(|shipped| shipped.name.to_owned()).collect();
    assert_eq!(files, catalogue);
    assert_eq!(library::all().len(), shipped_files().len(), "a name is listed twice");
}

#[test]
fn every_shipped_recipe_resolves_and_loads_back_equal() {
    for shipped in library::all() {
        let recipe = load(shipped.name, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(recipe.name, shipped.name);
        assert_eq!(recipe.output_dir, Path::new("runs").join(shipped.name));
        let yaml = recipe.to_yaml();
        let back = Recipe::from_yaml(&yaml, "recipe.yaml")
            .unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
        assert_eq!(back, recipe, "{yaml}");
        assert_eq!(back.to_yaml(), yaml);
    }
}

#[test]
fn every_shipped_recipe_is_short_and_says_what_it_is_for() {
    for (shipped, path) in library::all().iter().map(|shipped| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("library");
        (shipped, folder.join(format!("{}.yaml", shipped.name)))
    }) {
        assert_eq!(shipped.text, std::fs::read_to_string(path).unwrap());
        assert!(shipped.text.lines().count() <= 60, "{} is too long", shipped.name);
        assert!(shipped.text.starts_with("# "), "{} has no summary", shipped.name);
        assert!(shipped.summary.ends_with('.'), "{}: {}", shipped.name, shipped.summary);
        assert!(shipped.text.contains(shipped.summary));
    }
}

#[test]
fn a_copy_is_a_recipe_of_its_files_name_whatever_that_looks_like() {
    for (file, name) in [
        ("12.yaml", "12"),
        ("1e3.yaml", "1e3"),
        ("0x1F.yml", "0x1F"),
        ("1.5.yaml", "1.5"),
        ("true.yaml", "true"),
        ("null.yaml", "null"),
        ("~.yaml", "recipe"),
        ("mine.yaml", "mine"),
        ("dir/my recipe.yaml", "my-recipe"),
    ] {
        let copy = library::find("quickstart").unwrap().copy_for(Path::new(file));
        let recipe = Recipe::from_yaml(&copy, file).unwrap_or_else(|p| panic!("{file}: {p}"));
        assert_eq!(recipe.name, name, "{file}");
    }
    let copy = library::find("quickstart").unwrap().copy_for(Path::new("mine.yaml"));
    assert!(copy.contains("\nname: mine\n"), "{copy}");
}

#[test]
fn the_name_says_how_the_weights_are_frozen() {
    for shipped in library::all() {
        let recipe = load(shipped.name, &[]).unwrap();
        if shipped.name.ends_with("-qlora") {
            assert_eq!(recipe.quantization, Quantization::Nf4 { double: true }, "{}", shipped.name);
        } else if shipped.name.ends_with("-lora") {
            assert_eq!(recipe.quantization, Quantization::None, "{}", shipped.name);
        }
        let is_full = recipe.adapter == AdapterMethod::Full;
        assert_eq!(is_full, shipped.name == "quickstart-base", "{}", shipped.name);
        if let Some(preset) = recipe.model.preset.filter(|_| shipped.name.starts_with("llama")) {
            assert!(shipped.name.starts_with(preset.name()), "{}", shipped.name);
        }
        assert!(matches!(recipe.training.duration, Duration::Epochs(_)));
    }
}
