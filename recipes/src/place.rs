//! Where a recipe points: a path on disk, or something the program carries in itself.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

/// What `builtin:` precedes in a recipe.
const BUILTIN: &str = "builtin:";

/// A place as it is written. A relative path in a recipe is meant from the working directory of
/// the command that reads it, wherever the recipe lies; nothing here touches the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file or folder.
    Path(PathBuf),
    /// Something embedded: `builtin:quickstart/train` is `Builtin("quickstart/train")`.
    Builtin(String),
}

impl Place {
    /// Reads a place as a recipe writes it; `None` for an empty text.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(BUILTIN) {
            Some(name) if !name.is_empty() => Some(Self::Builtin(name.to_owned())),
            Some(_) => None,
            None if text.is_empty() => None,
            None => Some(Self::Path(PathBuf::from(text))),
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Builtin(name) => write!(f, "{BUILTIN}{name}"),
        }
    }
}
