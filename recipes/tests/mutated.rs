//! Recipes with a few bytes changed: never a panic, and never more than some memory and a moment.
//!
//! `GRAFT_MUTATIONS=1000000 cargo test --release -p graft-recipes --test mutated` for a long run.
#![expect(clippy::unwrap_used, reason = "a failing fixture is a failing test")]

use std::time::Instant;

use graft_recipes::{Recipe, library};

/// Pieces that change what YAML means.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ", ",
    ": ",
    "\n",
    "  ",
    "\t",
    "- ",
    "? ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "#",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "*b",
    "&b ",
    "!!int ",
    "!x ",
    "<<: *a\n",
    "~",
    "null",
    "%YAML 1.2\n",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\0",
    "\u{1b}[31m",
    "$",
    "${HOME}",
    "~/",
    "../",
    "builtin:",
    "extends: ",
    "1e999",
    "-1",
    "0x7fffffffffffffff",
    "99999999999999999999",
    ".nan",
    "true",
    "none",
];

/// A generator of its own, so that a seed means the same everywhere (Marsaglia 2003, xorshift).
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

/// The shipped recipes, and texts that once were hard.
fn corpus() -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> =
        library::all().iter().map(|shipped| shipped.text.as_bytes().to_vec()).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    texts.extend(files.iter().map(|path| std::fs::read(path).unwrap()));
    texts
}

fn mutate(text: &mut Vec<u8>, corpus: &[Vec<u8>], draws: &mut Draws) {
    let at = draws.below(text.len() + 1);
    let end = (at + 1 + draws.below(24)).min(text.len());
    match draws.below(7) {
        0 if at < text.len() => text[at] = draws.below(256) as u8,
        1 => drop(text.drain(at..end)),
        2 => {
            let part = text[at..end].to_vec();
            let to = draws.below(text.len() + 1);
            text.splice(to..to, part);
        }
        3 => {
            let part = text[at..end].to_vec().repeat(1 + draws.below(200));
            text.splice(at..at, part);
        }
        4 => {
            let other = &corpus[draws.below(corpus.len())];
            let from = draws.below(other.len());
            let to = (from + draws.below(200)).min(other.len());
            text.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            let piece = PIECES[draws.below(PIECES.len())];
            text.splice(at..at, piece.bytes());
        }
    }
}

#[test]
fn no_mutated_recipe_breaks_the_reader() {
    let count = std::env::var("GRAFT_MUTATIONS").map_or(20_000, |count| count.parse().unwrap());
    let corpus = corpus();
    let mut draws = Draws(0x9e37_79b9_7f4a_7c15);
    let (mut accepted, mut slowest) = (0, (0.0, String::new()));
    for _ in 0..count {
        let mut text = corpus[draws.below(corpus.len())].clone();
        for _ in 0..=draws.below(6) {
            mutate(&mut text, &corpus, &mut draws);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let begun = Instant::now();
        match Recipe::from_yaml(&text, "any.yaml") {
            Ok(recipe) => {
                accepted += 1;
                let yaml = recipe.to_yaml();
                assert_eq!(Recipe::from_yaml(&yaml, "any.yaml").as_ref(), Ok(&recipe), "{yaml}");
            }
            Err(problems) => {
                let shown = problems.to_string();
                assert!(shown.len() < 40_000, "an error of {} bytes on {text:?}", shown.len());
                let raw = |c: char| c.is_control() && c != '\n';
                assert!(!shown.contains(raw), "{shown:?}");
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        if seconds > slowest.0 {
            slowest = (seconds, text);
        }
    }
    assert!(accepted > count / 100, "only {accepted} of {count} were recipes at all");
    // Far beyond what a busy machine adds: what takes this long grows with more than the text.
    assert!(slowest.0 < 20.0, "{} s for {:?}", slowest.0, slowest.1);
}
