//! The patterns of module names in adapter_config.json: regular expressions as Python's `re` reads
//! them, of which the part is read here that describes module names. The rest is refused by name.
//!
//! Follows PEFT 0.21.2: `get_pattern_key` (`utils/other.py`) for ranks and alphas,
//! `check_target_module_exists` (`tuners/tuners_utils.py`) for targets.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// A pattern that a whole name must match.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// One character out of a set.
    One(Set),
    /// One after the other.
    Row(Vec<Node>),
    /// Any of them.
    Either(Vec<Node>),
    /// At least, and at most if bounded.
    Times(Box<Node>, usize, Option<usize>),
    /// `^`.
    Start,
    /// `$`.
    End,
}

#[derive(Clone, Debug, PartialEq)]
struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Pattern {
    /// Reads a pattern; the error is the part that is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut chars = text.chars().peekable();
        let node = either(&mut chars)?;
        match chars.next() {
            None => Ok(Self(node)),
            Some(left) => Err(format!("an unmatched `{left}`")),
        }
    }

    /// PEFT's `re.fullmatch`.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        self.0.ends(&name, &BTreeSet::from([0])).contains(&name.len())
    }

    /// PEFT's `re.match(rf"(.*\.)?({key})$")`: the whole name, or what follows one of its dots.
    pub(super) fn matches_end_of(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let after_dots = (0..name.len()).filter(|&at| name[at] == '.').map(|at| at + 1);
        let starts = std::iter::once(0).chain(after_dots).collect();
        self.0.ends(&name, &starts).contains(&name.len())
    }
}

impl Node {
    /// Where a match can end that begins at one of `starts`.
    fn ends(&self, name: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
        let kept = |keep: &dyn Fn(usize) -> bool| -> BTreeSet<usize> {
            starts.iter().copied().filter(|&at| keep(at)).collect()
        };
        match self {
            Self::One(set) => kept(&|at| name.get(at).is_some_and(|&c| set.contains(c)))
                .iter()
                .map(|at| at + 1)
                .collect(),
            Self::Row(nodes) => {
                nodes.iter().fold(starts.clone(), |starts, node| node.ends(name, &starts))
            }
            Self::Either(nodes) => nodes.iter().flat_map(|node| node.ends(name, starts)).collect(),
            Self::Times(node, least, most) => {
                let mut now = starts.clone();
                for _ in 0..*least {
                    now = node.ends(name, &now);
                }
                let mut all = now.clone();
                // A name has few places, so more rounds than it has characters find nothing new.
                for _ in *least..most.unwrap_or(usize::MAX).min(least + name.len()) {
                    now = node.ends(name, &now);
                    all.extend(&now);
                }
                all
            }
            Self::Start => kept(&|at| at == 0),
            Self::End => kept(&|at| at == name.len()),
        }
    }
}

impl Set {
    fn contains(&self, c: char) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&c)) != self.negated
    }
}

type Text<'a> = Peekable<Chars<'a>>;

fn either(chars: &mut Text<'_>) -> Result<Node, String> {
    let mut branches = vec![row(chars)?];
    while chars.next_if_eq(&'|').is_some() {
        branches.push(row(chars)?);
    }
    Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Either(branches) })
}

fn row(chars: &mut Text<'_>) -> Result<Node, String> {
    let mut nodes = Vec::new();
    while let Some(c) = chars.next_if(|c| !matches!(c, '|' | ')')) {
        let node = match c {
            '^' => Node::Start,
            '$' => Node::End,
            '.' => Node::One(Set { negated: true, ranges: vec![('\n', '\n')] }),
            '(' => group(chars)?,
            '[' => Node::One(class(chars)?),
            '\\' => Node::One(Set { negated: false, ranges: escape(chars)? }),
            '*' | '+' | '?' | '{' => return Err(format!("a `{c}` that repeats nothing")),
            c => Node::One(Set { negated: false, ranges: vec![(c, c)] }),
        };
        nodes.push(repeated(node, chars)?);
    }
    Ok(Node::Row(nodes))
}

fn group(chars: &mut Text<'_>) -> Result<Node, String> {
    if chars.next_if_eq(&'?').is_some() && chars.next_if_eq(&':').is_none() {
        let kind: String = chars.take(2).collect();
        return Err(format!("`(?{kind}…`, which looks around or refers back"));
    }
    let inner = either(chars)?;
    chars.next_if_eq(&')').map(|_| inner).ok_or_else(|| "a `(` without its `)`".to_owned())
}

/// The characters that `\` and what follows stand for.
fn escape(chars: &mut Text<'_>) -> Result<Vec<(char, char)>, String> {
    match chars.next() {
        Some('d') => Ok(vec![('0', '9')]),
        Some('w') => Ok(vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')]),
        Some(c) if !c.is_alphanumeric() => Ok(vec![(c, c)]),
        Some(c) => Err(format!("`\\{c}`")),
        None => Err("a `\\` at its end".to_owned()),
    }
}

fn class(chars: &mut Text<'_>) -> Result<Set, String> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        match chars.next() {
            None => return Err("a `[` without its `]`".to_owned()),
            // Right behind the bracket it stands for itself.
            Some(']') if !ranges.is_empty() => return Ok(Set { negated, ranges }),
            Some('\\') => ranges.extend(escape(chars)?),
            Some(first) => {
                let mut ahead = chars.clone();
                let last = match (ahead.next(), ahead.next()) {
                    (Some('-'), Some(last)) if last != ']' => {
                        *chars = ahead;
                        last
                    }
                    _ => first,
                };
                if last < first || last == '\\' {
                    return Err(format!("`[{first}-{last}…]`"));
                }
                ranges.push((first, last));
            }
        }
    }
}

fn repeated(node: Node, chars: &mut Text<'_>) -> Result<Node, String> {
    let (least, most) = match chars.peek() {
        Some('*') => (0, None),
        Some('+') => (1, None),
        Some('?') => (0, Some(1)),
        Some('{') => {
            let inner: String = chars.clone().skip(1).take_while(|&c| c != '}').collect();
            let bounds = bounds(&inner).ok_or_else(|| format!("`{{{inner}}}`"))?;
            chars.nth(inner.chars().count());
            bounds
        }
        _ => return Ok(node),
    };
    chars.next();
    // Greedy or lazy decides what a group holds, not whether there is a match.
    chars.next_if_eq(&'?');
    match chars.peek() {
        Some(c @ ('*' | '+' | '?' | '{')) => Err(format!("a `{c}` behind another repetition")),
        _ => Ok(Node::Times(Box::new(node), least, most)),
    }
}

/// `3`, `3,`, `,3` or `1,3`.
fn bounds(text: &str) -> Option<(usize, Option<usize>)> {
    // A pattern is for names of a few dozen characters.
    let number = |text: &str| text.parse().ok().filter(|&n: &usize| n <= 1_000);
    match text.split_once(',') {
        None => number(text).map(|n| (n, Some(n))),
        Some((least, most)) => {
            let least = if least.is_empty() { 0 } else { number(least)? };
            let most = if most.is_empty() { None } else { Some(number(most)?) };
            (most.is_none_or(|most| most >= least)).then_some((least, most))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "model.layers.13.self_attn.q_proj";

    fn matches(pattern: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches_end_of(NAME)
    }

    #[test]
    fn patterns_match_what_python_matches() {
        // Each was tried with `re.match(rf"(.*\.)?({pattern})$", NAME)`.
        for pattern in [
            "q_proj",
            "self_attn.q_proj",
            "model.layers.13.self_attn.q_proj",
            "^model.layers.13.self_attn.q_proj",
            r"model\.layers\.(1|13)\.self_attn\.[qk]_proj",
            r"layers\.\d+\..*",
            r"layers.1\d{1}.*?proj$",
            ".*",
            "k_proj|q_proj",
            r"(?:\w+\.)+q_proj",
            "[^k]_proj",
            "layers.[0-9]{1,2}.self_attn.q_proj",
            "q_proj$|never",
            "(k|q)?_?q_proj",
        ] {
            assert!(matches(pattern), "{pattern}");
        }
        for pattern in [
            "proj",
            "_proj",
            "attn.q_proj",
            "model.layers.1.self_attn.q_proj",
            "model.layers.3.self_attn.q_proj",
            "^layers.13.self_attn.q_proj",
            "^q_proj",
            "q_proj.",
            "self_attn",
            "[^q]_proj",
            r"layers\.\d\.self_attn\.q_proj",
            "Q_proj",
            "",
        ] {
            assert!(!matches(pattern), "{pattern}");
        }
        let whole = |pattern: &str| Pattern::parse(pattern).unwrap().matches(NAME);
        assert!(whole(r".*\.(q|v)_proj") && !whole("q_proj"));
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (pattern, named) in [
            ("(?!lm_head).*", "`(?!l…`, which looks around or refers back"),
            ("(q_proj", "a `(` without its `)`"),
            ("q_proj)", "an unmatched `)`"),
            ("[qk", "a `[` without its `]`"),
            ("*q_proj", "a `*` that repeats nothing"),
            (r"\bq_proj", "`\\b`"),
            (r"q\", "a `\\` at its end"),
            ("q{2,1}", "`{2,1}`"),
            ("q**", "a `*` behind another repetition"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap_err(), named, "{pattern}");
        }
    }
}
