//! What of a page is not its matter: menus, bars, heads and feet, scripts, forms, pictures.

use super::tree::{At, Tree};
use crate::document::Left;

/// Whether an element is read.
pub(super) enum Unread {
    /// It is.
    No,
    /// Nothing is in it for a reader.
    Nothing,
    /// It is left out, and counted.
    Counted(Left),
    /// A head of a page: only a title in it is read.
    ButItsTitle,
}

/// Words that stand for navigation where they are one of an element's classes.
const NAVIGATION: [&str; 24] = [
    "breadcrumb",
    "breadcrumbs",
    "cookie-banner",
    "footer",
    "menu",
    "nav",
    "navbar",
    "navfooter",
    "navheader",
    "navigation",
    "navlinks",
    "noprint",
    "page-footer",
    "pagination",
    "prev-next",
    "related",
    "rst-footer-buttons",
    "sidebar",
    "site-footer",
    "site-header",
    "skip-link",
    "sphinxsidebar",
    "topbar",
    "wy-nav-side",
];

/// Words for contents that a program made of headings.
const CONTENTS: [&str; 8] = [
    "contents-page",
    "indextable",
    "list-of-tables",
    "table-of-contents",
    "toc",
    "toctree-wrapper",
    "tocdepth",
    "localtoc",
];

pub(super) fn unread(tree: &Tree, at: At, name: &str, in_main: bool) -> Unread {
    match name {
        "head" | "template" | "colgroup" | "col" | "hr" | "base" | "link" | "meta" | "title" => {
            return if name == "head" { head(tree, at) } else { Unread::Nothing };
        }
        "script" | "style" => return Unread::Counted(Left::Script),
        "nav" | "aside" => return Unread::Counted(Left::Navigation),
        "header" if !in_main => return Unread::ButItsTitle,
        "footer" if !in_main => return Unread::Counted(Left::Navigation),
        "button" | "select" | "textarea" | "input" | "option" | "datalist" | "fieldset-legend" => {
            return Unread::Counted(Left::FormField);
        }
        "img" | "svg" | "picture" | "video" | "audio" | "canvas" | "object" | "embed"
        | "iframe" | "map" | "applet" => return Unread::Counted(Left::Picture),
        _ => {}
    }
    let attribute = |name| tree.attribute(at, name);
    let is_hidden = attribute("hidden").is_some_and(|how| how != "until-found")
        || attribute("aria-hidden") == Some("true") && name != "a"
        || attribute("style").is_some_and(is_out_of_sight);
    if is_hidden {
        return Unread::Counted(Left::Hidden);
    }
    match attribute("role") {
        Some("navigation" | "contentinfo" | "complementary" | "search" | "menu" | "menubar") => {
            return Unread::Counted(Left::Navigation);
        }
        Some("banner") => return Unread::ButItsTitle,
        Some("doc-toc" | "doc-index") => return Unread::Counted(Left::Contents),
        _ => {}
    }
    let classes = || attribute("class").into_iter().flat_map(str::split_ascii_whitespace);
    // A mark beside a heading that leads to it.
    if name == "a"
        && classes()
            .any(|class| matches!(class, "headerlink" | "anchor" | "anchorjs-link" | "para"))
    {
        let words = tree.below(at).count();
        if words <= 2 {
            return Unread::Nothing;
        }
    }
    if is_line_number(tree, at) {
        return Unread::Nothing;
    }
    if !matches!(name, "body" | "html" | "main" | "article") {
        if classes().any(|class| CONTENTS.contains(&class)) {
            return Unread::Counted(Left::Contents);
        }
        if classes().any(|class| NAVIGATION.contains(&class)) {
            return Unread::Counted(Left::Navigation);
        }
    }
    Unread::No
}

/// The head of a page is read for its title before; a page whose head holds text keeps it in its body.
fn head(tree: &Tree, at: At) -> Unread {
    let has_script =
        tree.children(at).any(|child| matches!(tree.name(child), Some("script" | "style")));
    if has_script { Unread::Counted(Left::Script) } else { Unread::Nothing }
}

fn is_out_of_sight(style: &str) -> bool {
    let style: String =
        style.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    style.contains("display:none") || style.contains("visibility:hidden")
}

/// Whether an element numbers the lines of code beside it.
pub(super) fn is_line_number(tree: &Tree, at: At) -> bool {
    let classes = tree.attribute(at, "class").into_iter().flat_map(str::split_ascii_whitespace);
    let mut classes =
        classes.filter(|class| matches!(*class, "linenos" | "lineno" | "linenodiv" | "gutter"));
    classes.next().is_some()
}
