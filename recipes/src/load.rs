//! From a name or path to a recipe: find the text, lay it over what it extends, apply overrides.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft_files::plain_file::{self, Unreadable};

use crate::effects::{self, RecipeFiles};
use crate::layers::overlay;
use crate::library;
use crate::overrides;
use crate::paths::expand;
use crate::problem::{Problem, Problems, escaped, nearest, printable};
use crate::recipe::Recipe;
use crate::section::{Sink, text};
use crate::tree::{self, Entry, Node, Origin, Value};

/// What a layer never hands on: it names the one recipe it stands in.
const NEVER_INHERITED: &[&str] = &["name", "output_dir"];
/// Recipes that may stand above each other; each is a file that someone has to understand.
const MAX_LAYERS: usize = 16;

/// Loads a shipped recipe by its name, or a recipe file by its path, and applies `overrides`
/// (`key=value`, `~key`).
///
/// A name without folder or ending is looked up in the library first, then as a file.
///
/// # Errors
/// Every problem of the recipe, the recipes it extends, and the overrides, at once.
pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Recipe, Problems> {
    let text = Text::find(name_or_path, None)
        .map_err(|(message, hint)| Problems::whole(name_or_path, message, hint))?;
    resolve(name_or_path, text, overrides)
}

impl Recipe {
    /// Reads a recipe from text that is, or will be, in the file `file_name`: what it extends is
    /// looked for beside it.
    ///
    /// # Errors
    /// Every problem at once, as [`load`] gives them.
    pub fn from_yaml(text: &str, file_name: &str) -> Result<Self, Problems> {
        let text = Text {
            home: Home::File(PathBuf::from(file_name)),
            label: file_name.to_owned(),
            yaml: text.to_owned(),
        };
        resolve(file_name, text, &[])
    }
}

/// Where a text comes from; two of the same home are the same recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Home {
    Shipped(&'static str),
    File(PathBuf),
}

/// A recipe's text.
struct Text {
    home: Home,
    /// How the file is named in messages.
    label: String,
    yaml: String,
}

type Refusal = (String, Option<String>);

impl Text {
    /// Finds a recipe; relative paths begin at `beside`, or at the working directory.
    fn find(name: &str, beside: Option<&Path>) -> Result<Self, Refusal> {
        if let Some(shipped) = library::find(name) {
            return Ok(Self {
                home: Home::Shipped(shipped.name),
                label: format!("{name}.yaml (shipped)"),
                yaml: shipped.text.to_owned(),
            });
        }
        let path = expand(name).map_err(|message| (message, None))?;
        let path = beside.map_or_else(|| path.clone(), |folder| folder.join(&path));
        let bytes = plain_file::read(&path, tree::MAX_BYTES)
            .map_err(|error| missing(name, &path, &error))?;
        let yaml = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line =
                1 + String::from_utf8_lossy(&error.as_bytes()[..valid]).matches('\n').count();
            let message =
                format!("`{}` is not UTF-8 text: byte {valid}, on line {line}", path.display());
            let message = escaped(&message);
            (message, Some("save the file as UTF-8".to_owned()))
        })?;
        Ok(Self { home: Home::File(path.clone()), label: path.display().to_string(), yaml })
    }

    /// The name of a recipe that gives itself none.
    fn default_name(&self) -> String {
        match &self.home {
            Home::Shipped(name) => (*name).to_owned(),
            Home::File(path) => name_of_file(path),
        }
    }

    /// The folder that `extends` begins at.
    fn folder(&self) -> Option<&Path> {
        match &self.home {
            Home::Shipped(_) => None,
            Home::File(path) => path.parent(),
        }
    }

    fn is_same(&self, other: &Home) -> bool {
        match (&self.home, other) {
            (Home::File(a), Home::File(b)) => match (a.canonicalize(), b.canonicalize()) {
                (Ok(a), Ok(b)) => a == b,
                _ => a == b,
            },
            (a, b) => a == b,
        }
    }
}

/// The name of the recipe in a file: the file's without its ending, other characters than a name
/// has as `-`.
pub(crate) fn name_of_file(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain = |c: char| if fits(c) { c } else { '-' };
    let name: String = stem.chars().map(plain).collect();
    let name = name.trim_start_matches(['.', '-', '_']);
    if name.is_empty() { "recipe".to_owned() } else { name.to_owned() }
}

fn is_yaml(ending: &std::ffi::OsStr) -> bool {
    ending.eq_ignore_ascii_case("yaml") || ending.eq_ignore_ascii_case("yml")
}

fn missing(name: &str, path: &Path, error: &Unreadable) -> Refusal {
    let shown = escaped(&path.display().to_string());
    let is_file = name.contains(['/', '\\']) || Path::new(name).extension().is_some_and(is_yaml);
    if is_file || !error.is_missing() {
        let stem = path.file_stem().and_then(std::ffi::OsStr::to_str);
        let shipped = stem.and_then(library::find).map(|shipped| shipped.name);
        let hint = shipped.map(|name| format!("the shipped recipe is called `{name}`"));
        return (format!("cannot read `{shown}`: {error}"), hint);
    }
    let names = library::all().iter().map(|shipped| shipped.name);
    let hint = nearest(name, names.clone()).map_or_else(
        || format!("shipped recipes: {}", names.collect::<Vec<_>>().join(", ")),
        |name| format!("did you mean `{name}`?"),
    );
    let name = printable(name);
    (format!("`{name}` is neither a shipped recipe nor a file here"), Some(hint))
}

fn resolve(source: &str, text: Text, arguments: &[String]) -> Result<Recipe, Problems> {
    let sink = Sink::default();
    let default_name = text.default_name();
    let mut layers = RecipeFiles::below(arguments);
    let tree = layered(text, &mut Vec::new(), &mut layers, &sink);
    let recipe = tree.map(|mut tree| {
        overrides::apply(&mut tree, arguments, &sink);
        let mut recipe = Recipe::read(&tree, &default_name, &sink);
        effects::check(&mut recipe, &layers, &sink);
        recipe
    });
    let recipe = recipe.map(|recipe| recipe.read_from(layers.into_paths()));
    let list = sink.into_problems();
    match recipe {
        Some(recipe) if list.is_empty() => Ok(recipe),
        _ => Err(Problems::new(source, list)),
    }
}

/// The tree of `text` upon the trees of what it extends; `None` when one of them cannot be read,
/// which is then recorded. `above` holds the homes of the layers that led here; `layers` gets the
/// files in order, the lowest first.
fn layered(
    text: Text,
    above: &mut Vec<Home>,
    layers: &mut RecipeFiles<'_>,
    sink: &Sink,
) -> Option<Node> {
    let label: Arc<str> = Arc::from(text.label.as_str());
    let origin = Origin::File(label.clone());
    let (mut node, problems) = match tree::read(&text.yaml, &origin) {
        Ok(read) => read,
        Err(problem) => {
            sink.push(problem);
            return None;
        }
    };
    for problem in problems {
        sink.push(problem);
    }
    let path = match &text.home {
        Home::File(path) => Some(path.clone()),
        Home::Shipped(_) => None,
    };
    layers.put_below(label, path);
    let Some(extends) = take_entry(&mut node, "extends") else { return Some(node) };
    let refuse = |message: String, hint: Option<String>| {
        let location = Some(extends.value.location.clone());
        sink.push(Problem { key: "extends".to_owned(), location, message, hint });
    };
    let Some(name) = self::text(&extends.value) else {
        if matches!(extends.value.value, Value::Null) {
            return Some(node);
        }
        let found = extends.value.describe();
        refuse(format!("found {found}; allowed: the name or path of one recipe"), None);
        return Some(node);
    };
    let base = match Text::find(name, text.folder()) {
        Ok(base) => base,
        Err((message, hint)) => {
            refuse(message, hint);
            return None;
        }
    };
    above.push(text.home);
    if above.iter().any(|home| base.is_same(home)) {
        let hint = "a recipe extends another, never itself, not even through others";
        refuse(
            format!("found `{}`, which leads back here", printable(name)),
            Some(hint.to_owned()),
        );
        return None;
    }
    if above.len() == MAX_LAYERS {
        refuse(format!("more than {MAX_LAYERS} recipes extend each other"), None);
        return None;
    }
    let mut lower = layered(base, above, layers, sink)?;
    if !matches!(lower.value, Value::Map(_)) {
        let held = match lower.value {
            Value::Null => "is empty".to_owned(),
            _ => format!("holds {}", lower.describe()),
        };
        let message = format!("found `{}`, which {held}; allowed: a recipe", printable(name));
        refuse(message, Some("a recipe is a mapping of keys".to_owned()));
        return None;
    }
    for key in NEVER_INHERITED {
        take_entry(&mut lower, key);
    }
    overlay(&mut lower, node, "");
    Some(lower)
}

fn take_entry(node: &mut Node, key: &str) -> Option<Entry> {
    let Value::Map(entries) = &mut node.value else { return None };
    let at = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(at))
}
