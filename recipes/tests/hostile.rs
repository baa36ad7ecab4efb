//! Input that nobody means: never a panic, never a value that was not written.

use graft_recipes::{PathOrBuiltin, Preamble, Recipe, keys, load};
use proptest::prelude::*;

/// Text that looks enough like YAML to get deep into the reader.
fn almost_yaml() -> impl Strategy<Value = String> {
    let words = keys().iter().flat_map(|key| [key.path, key.example, key.default]);
    let mut tokens: Vec<String> = words.map(str::to_owned).collect();
    tokens.extend(
        [
            ": ", "\n", "\n  ", "- ", "{", "}", "[", "]", ", ", "'", "\"", "&a ", "*a ", "!!int ",
            "? ",
        ]
        .iter()
        .chain(&["|\n", ">", "#", "---\n", "...", "~", "\t", "extends: ", "\u{e000}", "<<: ", "%"])
        .map(|text| (*text).to_owned()),
    );
    let parts = keys().iter().filter_map(|key| key.path.rsplit('.').next());
    tokens.extend(parts.map(str::to_owned));
    prop::collection::vec(prop::sample::select(tokens), 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Recipe::from_yaml(&String::from_utf8_lossy(&bytes), "any.yaml");
    }

    #[test]
    fn text_like_yaml_never_panics(text in almost_yaml()) {
        if let Err(problems) = Recipe::from_yaml(&text, "any.yaml") {
            prop_assert!(!problems.list.is_empty());
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn arbitrary_overrides_never_panic(key in "[a-z.~\\[\\]0-9=]{0,24}", value in almost_yaml()) {
        let _ = load("quickstart", &[key.clone(), format!("{key}={value}"), value]);
    }

    #[test]
    fn overrides_of_known_keys_never_panic(
        at in 0..keys().len(), other in 0..keys().len(), value in almost_yaml(),
    ) {
        let path = keys()[at].path.replace("[]", ".0");
        let _ = load("quickstart", &[format!("{path}={value}")]);
        let example = keys()[other].example;
        if let Ok(recipe) = load("quickstart", &[format!("{path}={example}")]) {
            prop_assert_eq!(Recipe::from_yaml(&recipe.to_yaml(), "a.yaml").unwrap(), recipe);
        }
    }

    #[test]
    fn any_text_survives_writing_and_reading(text in any::<String>(), date in "\\PC{0,12}") {
        let mut recipe = load("quickstart", &[]).unwrap();
        recipe.data.system_prompt = Some(text.clone());
        recipe.data.chat.preamble = Preamble::Official;
        recipe.data.chat.date = date;
        // A prompt of blanks alone is refused.
        recipe.finish.prompts = vec![format!("{text}?"), "yes".to_owned(), "1e3".to_owned()];
        let yaml = recipe.to_yaml();
        let back = Recipe::from_yaml(&yaml, "a.yaml");
        prop_assert_eq!(back.as_ref(), Ok(&recipe), "{}", yaml);
    }

    #[test]
    fn any_float_survives_writing_and_reading(rate in 1e-300..=1.0_f64, seed in 0..=i64::MAX as u64) {
        let mut recipe = load("quickstart", &[]).unwrap();
        recipe.training.learning_rate = rate;
        recipe.training.seed = seed;
        prop_assert_eq!(Recipe::from_yaml(&recipe.to_yaml(), "a.yaml").unwrap(), recipe);
    }
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for text in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        "&a - ".repeat(100_000),
        "!t - ".repeat(100_000),
        "-\t".repeat(100_000),
        "{a: ".repeat(50_000),
        (0..1_200).map(|depth| " ".repeat(depth) + "a:\n").collect(),
        "a: &a [1, 1]\nb: &b [*a, *a]\n".to_owned() + &"c: [*b, *b, *b]\n".repeat(5_000),
    ] {
        Recipe::from_yaml(&text, "deep.yaml").unwrap_err();
        load("quickstart", &[format!("data.train={text}")]).unwrap_err();
    }
    let nest = |inner: &str| format!("{}{inner}{}", "[".repeat(250), "]".repeat(250));
    let mut aliases = format!("a0: &a0 {}\n", nest("1"));
    for level in 1..30 {
        let inner = nest(&format!("*a{}", level - 1));
        aliases.extend([format!("a{level}: &a{level} {inner}\n")]);
    }
    Recipe::from_yaml(&aliases, "deep.yaml").unwrap_err();
    let deep_key = "a.".repeat(100_000) + "a=1";
    load("quickstart", &[deep_key]).unwrap_err();
}

#[test]
fn a_place_is_never_empty() {
    assert_eq!(PathOrBuiltin::parse(""), None);
    assert_eq!(PathOrBuiltin::parse("builtin:"), None);
    assert_eq!(PathOrBuiltin::parse("a b").unwrap().to_string(), "a b");
    assert_eq!(PathOrBuiltin::parse("builtin:q/t"), Some(PathOrBuiltin::Builtin("q/t".to_owned())));
}
