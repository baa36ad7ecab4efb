//! Passwords within URLs: before the host, `https://name:password@host`, and behind the question mark,
//! `?token=…`. The rest of the URL stays.

use std::ops::Range;

/// Names of a query whose values are secret.
const NAMES: [&str; 10] = [
    "password",
    "passwd",
    "pwd",
    "pass",
    "token",
    "access_token",
    "secret",
    "client_secret",
    "api_key",
    "apikey",
];

/// Bytes of a URL that are looked at.
const LONGEST: usize = 2_048;

pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let finder = memchr::memmem::Finder::new("://");
    for at in finder.find_iter(text.as_bytes()) {
        let start = at + 3;
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`' | '\\' | '|');
        let rest = &text[start..text.floor_char_boundary(start + LONGEST)];
        let url = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let authority = &url[..url.find(['/', '?', '#']).unwrap_or(url.len())];
        if let Some(host) = authority.rfind('@')
            && let Some(name) = authority[..host].find(':')
            && name + 1 < host
        {
            found.push(start + name + 1..start + host);
        }
        let Some(query) = url.find('?') else { continue };
        let mut begin = query + 1;
        for pair in url[begin..].split(['&', '#']) {
            if let Some((name, value)) = pair.split_once('=')
                && NAMES.contains(&name.to_ascii_lowercase().as_str())
            {
                let value = value.trim_end_matches([')', ']', '.', ',', ';', '\'']);
                let from = start + begin + name.len() + 1;
                if !value.is_empty() {
                    found.push(from..from + value.len());
                }
            }
            begin += pair.len() + 1;
        }
    }
}
