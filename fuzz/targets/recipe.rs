//! Recipes: what is one comes out of its own YAML as it was.
#![no_main]

use graft_recipes::Recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Recipe::from_yaml(text, "any.yaml") {
        Ok(recipe) => {
            let yaml = recipe.to_yaml();
            assert_eq!(Recipe::from_yaml(&yaml, "any.yaml").as_ref(), Ok(&recipe), "{yaml}");
        }
        Err(problems) => {
            let shown = problems.to_string();
            assert!(shown.len() < 40_000, "an error of {} bytes", shown.len());
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        }
    }
});
