//! The shipped recipes: every file of `recipes/library`, embedded.

use std::path::Path;

use crate::load::name_of_file;
use crate::tree::{self, Origin, Value};

/// A recipe that the program carries in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// The name it is found by.
    pub name: &'static str,
    /// What it is for, in a line: the first line of the file.
    pub summary: &'static str,
    /// The YAML.
    pub text: &'static str,
}

impl Shipped {
    /// The YAML of a copy in `file`: it has the file's name, so that its run goes to a folder of its
    /// own.
    pub fn copy_for(&self, file: &Path) -> String {
        let own = format!("name: {}\n", self.name);
        let name = name_of_file(file);
        let plain = format!("name: {name}\n");
        // `12`, `true` and `null` are texts in quotes alone.
        let is_text = reads_as_text(&name);
        let line = if is_text { plain } else { format!("name: \"{name}\"\n") };
        self.text.replacen(&own, &line, 1)
    }
}

macro_rules! shipped {
    ($($name:literal,)+) => {
        &[$(Shipped::new($name, include_str!(concat!("../library/", $name, ".yaml"))),)+]
    };
}

const ALL: &[Shipped] = shipped![
    "quickstart",
    "quickstart-base",
    "llama3.1-8b-lora",
    "llama3.1-8b-qlora",
    "llama3.1-70b-qlora",
    "llama3.1-405b-qlora",
    "llama3.2-1b-lora",
    "llama3.2-1b-qlora",
    "llama3.2-3b-lora",
    "llama3.2-3b-qlora",
    "llama3.3-70b-qlora",
    "domain-adaptation",
    "instruction-tuning",
];

impl Shipped {
    const fn new(name: &'static str, text: &'static str) -> Self {
        let (first, _) = text.as_bytes().split_at(line_length(text));
        let (_, summary) = first.split_at(2);
        match std::str::from_utf8(summary) {
            Ok(summary) => Self { name, summary, text },
            Err(_) => panic!("a line break is never inside a character"),
        }
    }
}

/// Whether YAML takes a word without quotes for a text.
fn reads_as_text(word: &str) -> bool {
    let origin = Origin::File("name".into());
    tree::read(word, &origin).is_ok_and(|(node, problems)| {
        problems.is_empty() && matches!(node.value, Value::Text(text) if text == word)
    })
}

/// Bytes before the first line break.
const fn line_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut length = 0;
    while length < bytes.len() && bytes[length] != b'\n' {
        length += 1;
    }
    length
}

/// Every shipped recipe, in the order they are listed to people.
pub fn all() -> &'static [Shipped] {
    ALL
}

/// The shipped recipe with this name.
pub fn find(name: &str) -> Option<&'static Shipped> {
    ALL.iter().find(|shipped| shipped.name == name)
}
