//! Pages that are XML: an element may end where it begins, as `<title/>`, which HTML has only for some. Written out,
//! they are pages like others.

use std::borrow::Cow;

/// Elements that never hold anything.
const EMPTY: [&str; 14] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
    "track", "wbr",
];

/// The page with every element ended as HTML does it; pages that are no XML stay as they are.
pub(super) fn as_html(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with("<?xml") || !text.contains("/>") {
        return Cow::Borrowed(text);
    }
    let mut page = String::with_capacity(text.len() + text.len() / 16);
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        page.push_str(&rest[..at]);
        rest = &rest[at..];
        let aside = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")];
        if let Some((_, ending)) = aside.iter().find(|(beginning, _)| rest.starts_with(beginning)) {
            let end = rest.find(ending).map_or(rest.len(), |end| end + ending.len());
            let whole = &rest[..end];
            match whole.strip_prefix("<![CDATA[").and_then(|inside| inside.strip_suffix("]]>")) {
                Some(inside) => page.push_str(&inside.replace('&', "&amp;").replace('<', "&lt;")),
                None => page.push_str(whole),
            }
            rest = &rest[end..];
            continue;
        }
        let end = tag_end(rest);
        let tag = &rest[..end];
        rest = &rest[end..];
        let name: &str = tag[1..]
            .split(|c: char| c.is_whitespace() || "/>".contains(c))
            .next()
            .unwrap_or_default();
        match tag.strip_suffix("/>") {
            Some(open) if !name.is_empty() && !EMPTY.contains(&name) => {
                page.push_str(open);
                page.push_str("></");
                page.push_str(name);
                page.push('>');
            }
            _ => page.push_str(tag),
        }
    }
    page.push_str(rest);
    Cow::Owned(page)
}

/// Where a tag ends; signs in quotes do not end it.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_that_end_where_they_begin_are_written_out() {
        let page = "<?xml version='1.0'?><title/><p a='/>' ><a id=\"x\"/>b<br/><!-- <i/> --><![CDATA[<c>]]></p>";
        insta::assert_snapshot!(as_html(page), @r#"<?xml version='1.0'?><title></title><p a='/>' ><a id="x"></a>b<br/><!-- <i/> -->&lt;c></p>"#);
        assert_eq!(as_html("<title/>"), "<title/>");
        assert_eq!(as_html("<?xml <a/><b"), "<?xml <a/><b");
    }
}
