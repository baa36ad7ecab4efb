//! Keys and tokens that say what they are by how they begin, and private keys.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

/// How a kind of token begins, what it goes on with, and how long that is at least.
struct Form {
    begins: &'static str,
    goes_on: fn(u8) -> bool,
    shortest: usize,
    longest: usize,
}

fn capital(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn dotted(byte: u8) -> bool {
    token(byte) || byte == b'.'
}

const fn form(
    begins: &'static str,
    goes_on: fn(u8) -> bool,
    shortest: usize,
    longest: usize,
) -> Form {
    Form { begins, goes_on, shortest, longest }
}

#[rustfmt::skip]
static FORMS: [Form; 28] = [
    form("AKIA", capital, 16, 16), form("ASIA", capital, 16, 16), // Amazon
    form("ghp_", word, 36, 255), form("gho_", word, 36, 255), form("ghu_", word, 36, 255), // GitHub
    form("ghs_", word, 36, 255), form("ghr_", word, 36, 255), form("github_pat_", token, 22, 255),
    form("glpat-", token, 20, 255), // GitLab
    form("xoxb-", token, 10, 255), form("xoxp-", token, 10, 255), form("xoxa-", token, 10, 255), // Slack
    form("xoxr-", token, 10, 255), form("xoxs-", token, 10, 255), form("xapp-", token, 10, 255),
    form("sk_live_", word, 16, 255), form("rk_live_", word, 16, 255), form("sk_test_", word, 16, 255), // Stripe
    form("sk-proj-", token, 20, 255), form("sk-ant-", token, 20, 255), form("sk-", word, 32, 255), // OpenAI, Anthropic
    form("AIza", token, 35, 35), form("ya29.", token, 20, 2_048), // Google
    form("hf_", word, 30, 255), // Hugging Face
    form("npm_", word, 36, 36), form("pypi-", token, 50, 2_048), // package registries
    form("SG.", dotted, 60, 80), // SendGrid
    form("eyJ", dotted, 30, 16_384), // JSON web tokens
];

const PRIVATE_KEY: &str = "-----BEGIN ";

static BEGINNINGS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let begins = FORMS.iter().map(|form| form.begins).chain([PRIVATE_KEY]);
    AhoCorasick::builder()
        .match_kind(aho_corasick::MatchKind::LeftmostFirst)
        .build(begins)
        .expect("a few short words make a small automaton")
});

pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let mut end = 0;
    for begun in BEGINNINGS.find_iter(text) {
        if begun.start() < end {
            continue;
        }
        let value = match FORMS.get(begun.pattern().as_usize()) {
            Some(form) => of_form(text, form, begun.start()),
            None => private_key(text, begun.start()),
        };
        if let Some(value) = value {
            end = value.end;
            found.push(value);
        }
    }
}

fn of_form(text: &str, form: &Form, start: usize) -> Option<Range<usize>> {
    if !super::is_edge(text, start) {
        return None;
    }
    let rest = &text.as_bytes()[start + form.begins.len()..];
    let rest = &rest[..rest.len().min(form.longest + 1)];
    let length = match form.begins {
        "eyJ" => web_token(rest)?,
        _ => rest.iter().position(|&byte| !(form.goes_on)(byte)).unwrap_or(rest.len()),
    };
    // A sentence's full stop is none of it.
    let length = rest[..length].iter().rposition(|&byte| byte != b'.').map_or(0, |at| at + 1);
    let end = start + form.begins.len() + length;
    (form.shortest..=form.longest).contains(&length).then_some(start..end)
}

/// How long three parts are with a point between each two.
fn web_token(rest: &[u8]) -> Option<usize> {
    let mut end = 0;
    for part in 0..3 {
        let length = rest[end..].iter().position(|&byte| !token(byte)).unwrap_or(rest.len() - end);
        end += length;
        if length < 7 || (part < 2 && rest.get(end) != Some(&b'.')) {
            return None;
        }
        end += usize::from(part < 2);
    }
    let goes_on =
        rest.get(end) == Some(&b'.') && rest.get(end + 1).is_some_and(|&byte| token(byte));
    (!goes_on).then_some(end)
}

/// From the line that begins a private key to the one that ends it, or to the text's end.
fn private_key(text: &str, start: usize) -> Option<Range<usize>> {
    const ENDS: &str = "PRIVATE KEY-----";
    /// The longest name of a kind of key, and more.
    const LONGEST_HEAD: usize = 64;
    let head = text.as_bytes()[start..].iter().take(LONGEST_HEAD);
    let head: Vec<u8> =
        head.copied().take_while(|byte| byte.is_ascii() && *byte != b'\n').collect();
    let head = memchr::memmem::find(&head, ENDS.as_bytes())? + ENDS.len();
    let rest = &text[start + head..];
    let end = rest.find("-----END ").and_then(|at| Some(at + rest[at..].find(ENDS)? + ENDS.len()));
    Some(start..end.map_or(text.len(), |end| start + head + end))
}
