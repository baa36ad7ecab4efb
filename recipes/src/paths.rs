//! Where a recipe points: a path on disk, or something the program carries in itself.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::problem::printable;

/// What `builtin:` precedes in a recipe.
const BUILTIN: &str = "builtin:";

/// A path on disk, or the name of something built in. A relative path in a recipe is meant from the working
/// directory of the command that reads it, wherever the recipe lies; nothing here touches the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathOrBuiltin {
    /// A file or folder.
    Path(PathBuf),
    /// Something embedded: `builtin:quickstart/train` is `Builtin("quickstart/train")`.
    Builtin(String),
}

impl PathOrBuiltin {
    /// Reads what a recipe says, a path not yet [expanded](expand); `None` for an empty text.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(BUILTIN) {
            Some(name) if !name.is_empty() => Some(Self::Builtin(name.to_owned())),
            Some(_) => None,
            None if text.is_empty() => None,
            None => Some(Self::Path(PathBuf::from(text))),
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Path(path) => written(path),
            Self::Builtin(_) => Value::String(self.to_string()),
        }
    }
}

impl fmt::Display for PathOrBuiltin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Builtin(name) => write!(f, "{BUILTIN}{name}"),
        }
    }
}

/// The path that someone means who writes `text`, in a recipe or behind a flag.
///
/// `~` and `~/x` begin at the home folder; `$NAME` and `${NAME}` are variables of the environment,
/// and `$$` is one `$`. A file whose name begins with `~` is `./~x`.
///
/// # Errors
/// Another user's home, a variable that is not set, an unfinished `${`; each with the way out.
pub fn expand(text: &str) -> Result<PathBuf, String> {
    expand_with(text, &|name| std::env::var(name).ok())
}

fn expand_with(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, String> {
    let Some(rest) = text.strip_prefix('~') else {
        return Ok(PathBuf::from(variables(text, text, variable)?));
    };
    if !rest.is_empty() && !rest.starts_with(is_separator) {
        return Err(format!(
            "`{}` begins at another user's home, which is not looked up: write the path out, or \
             `./{}` for a file of that name",
            printable(text),
            printable(text)
        ));
    }
    let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let home = variable(name).filter(|home| !home.is_empty()).ok_or_else(|| {
        format!("`{}` begins at the home folder, but {name} is not set", printable(text))
    })?;
    let rest = variables(text, rest.trim_start_matches(is_separator), variable)?;
    Ok(if rest.is_empty() { PathBuf::from(home) } else { Path::new(&home).join(rest) })
}

fn is_separator(c: char) -> bool {
    std::path::is_separator(c)
}

/// `part` of the path `whole` with the values of its variables.
fn variables(
    whole: &str,
    part: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or_else(|| {
                format!("`{}` has `${{` without `}}`; `$$` stands for one `$`", printable(whole))
            })?,
            None => rest.split_at(name_length(rest)),
        };
        if name.is_empty() || name_length(name) != name.len() {
            // No shell would take it for a variable.
            if !rest.starts_with('{') {
                out.push('$');
                continue;
            }
            let shown = printable(name);
            return Err(format!("`{}`: `{shown}` is no variable's name", printable(whole)));
        }
        let value = variable(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            format!(
                "`{}` names the variable {}, which the environment does not set; `$$` stands for \
                 one `$`",
                printable(whole),
                printable(name)
            )
        })?;
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Bytes of the variable's name that `text` begins with.
fn name_length(text: &str) -> usize {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = || text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    if begins { end().unwrap_or(text.len()) } else { 0 }
}

/// A path as a recipe writes it, so that [`expand`] gives it back.
pub(crate) fn written(path: &Path) -> Value {
    let text = path.display().to_string().replace('$', "$$");
    Value::String(if text.starts_with('~') { format!("./{text}") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(text: &str) -> Result<String, String> {
        let variable = |name: &str| match name {
            "HOME" | "USERPROFILE" => Some("/home/me".to_owned()),
            "SCRATCH" => Some("/scratch/me".to_owned()),
            "TILDE" => Some("~x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand_with(text, &variable).map(|path| path.display().to_string())
    }

    #[test]
    fn a_path_is_what_a_shell_would_make_of_it() {
        for (text, path) in [
            ("models/x", "models/x"),
            ("~", "/home/me"),
            ("~/", "/home/me"),
            ("~/models/x", "/home/me/models/x"),
            ("a~/b", "a~/b"),
            ("./~x", "./~x"),
            ("$SCRATCH/m", "/scratch/me/m"),
            ("${SCRATCH}-2/$SCRATCH", "/scratch/me-2//scratch/me"),
            ("a$$b/$$SCRATCH", "a$b/$SCRATCH"),
            ("cost$", "cost$"),
            ("5$ or $5", "5$ or $5"),
        ] {
            assert_eq!(meant(text).as_deref(), Ok(path), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let refusals: Vec<String> =
            ["~root/x", "$NOWHERE/x", "a/${NOWHERE}", "$EMPTY/x", "${", "${a b}", "${}"]
                .map(|text| meant(text).unwrap_err())
                .to_vec();
        insta::assert_snapshot!(refusals.join("\n"), @r"
        `~root/x` begins at another user's home, which is not looked up: write the path out, or `./~root/x` for a file of that name
        `$NOWHERE/x` names the variable NOWHERE, which the environment does not set; `$$` stands for one `$`
        `a/${NOWHERE}` names the variable NOWHERE, which the environment does not set; `$$` stands for one `$`
        `$EMPTY/x` names the variable EMPTY, which the environment does not set; `$$` stands for one `$`
        `${` has `${` without `}`; `$$` stands for one `$`
        `${a b}`: `a b` is no variable's name
        `${}`: `` is no variable's name
        ");
        let homeless = expand_with("~/x", &|_| None).unwrap_err();
        assert!(homeless.contains("HOME is not set") || cfg!(windows), "{homeless}");
    }

    #[test]
    fn a_path_is_written_so_that_it_is_read_back() {
        for path in ["a$b/${c}", "~x", "./~x", "plain", "$", "$$"] {
            let Value::String(text) = written(Path::new(path)) else { panic!("{path}") };
            let back = meant(&text).unwrap();
            assert_eq!(back.trim_start_matches("./"), path.trim_start_matches("./"), "{text}");
        }
    }
}
