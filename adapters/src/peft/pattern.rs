//! The patterns of module names in adapter_config.json: regular expressions as Python's `re` reads
//! them, of which the part is read here that describes module names. The rest is refused by name.
//!
//! A pattern comes from a stranger. Its length and depth are bounded, and a match visits each of its parts
//! once, however it repeats them: what a part can match is a relation between places of the name, and
//! repeating it is a power of that relation. [`Pattern::steps`] tells how long a match can take.
//!
//! Follows PEFT 0.21.2: `get_pattern_key` (`utils/other.py`) for ranks and alphas,
//! `check_target_module_exists` (`tuners/tuners_utils.py`) for targets.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use Unclear::{Unread, Wrong};

/// Characters of a pattern: names have some dozen.
const LONGEST: usize = 2_000;

/// Groups inside each other.
const DEEPEST: usize = 32;

/// Places of a name: before each character and behind the last. The longest name of a module has 60.
const PLACES: usize = 128;

/// A pattern that a whole name must match.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(Node);

/// The part of a pattern that is not understood.
#[derive(Debug, PartialEq)]
pub(super) enum Unclear {
    /// Nor does anybody else: it is malformed, or of a size that no names ask for.
    Wrong(String),
    /// Python's `re` may read it.
    Unread(String),
}

impl fmt::Display for Unclear {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Wrong(part) | Self::Unread(part)) = self;
        out.write_str(part)
    }
}

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

/// A pattern for names of modules as `rank_pattern` and `alpha_pattern` of PEFT have it: it matches a module whose
/// whole name, or what follows one of its dots, it describes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModulePattern(Pattern);

impl ModulePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The part of it that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        Pattern::parse(text).map(Self).map_err(|unclear| unclear.to_string())
    }

    /// Whether it matches the module of this whole name.
    pub fn matches(&self, module: &str) -> bool {
        self.0.matches_end_of(module)
    }
}

impl Pattern {
    /// Reads a pattern; the error is the part that is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, Unclear> {
        let length = text.chars().count();
        if length > LONGEST {
            return Err(Wrong(format!("more than {LONGEST} characters: it has {length}")));
        }
        let mut chars = text.chars().peekable();
        let node = either(&mut chars, DEEPEST)?;
        match chars.next() {
            None => Ok(Self(node)),
            Some(left) => Err(Wrong(format!("an unmatched `{left}`"))),
        }
    }

    /// PEFT's `re.fullmatch`.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name = Name::new(name);
        self.0.ends(&name, 1) & name.end() != 0
    }

    /// PEFT's `re.match(rf"(.*\.)?({key})$")`: the whole name, or what follows one of its dots.
    pub(super) fn matches_end_of(&self, name: &str) -> bool {
        let name = Name::new(name);
        let after_dots = name.places(|c| c == '.') << 1;
        self.0.ends(&name, 1 | after_dots) & name.end() != 0
    }

    /// How many steps a match takes at most, about.
    pub(super) fn steps(&self) -> u64 {
        self.0.steps(false)
    }
}

/// A set of places, one a bit.
type Places = u128;

/// The name that is matched.
struct Name(Vec<char>);

impl Name {
    fn new(name: &str) -> Self {
        let name: Vec<char> = name.chars().collect();
        assert!(name.len() < PLACES, "a name of {} characters is no module's", name.len());
        Self(name)
    }

    /// The place behind the last character.
    fn end(&self) -> Places {
        1 << self.0.len()
    }

    /// Where such characters are.
    fn places(&self, is: impl Fn(char) -> bool) -> Places {
        let bit = |(place, &c): (usize, &char)| Places::from(is(c)) << place;
        self.0.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
    }
}

/// For every place of a name, where a match can end that begins there.
struct Relation(Vec<Places>);

impl Relation {
    /// Nothing is matched: each place ends where it begins.
    fn nothing(name: &Name) -> Self {
        Self((0..=name.0.len()).map(|place| 1 << place).collect())
    }

    /// Where matches can end that begin at one of `starts`.
    fn of(&self, mut starts: Places) -> Places {
        let mut ends = 0;
        while starts != 0 {
            ends |= self.0[starts.trailing_zeros() as usize];
            starts &= starts - 1;
        }
        ends
    }

    /// One after the other.
    fn then(&self, next: &Self) -> Self {
        Self(self.0.iter().map(|&ends| next.of(ends)).collect())
    }

    fn or(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one | other).collect())
    }

    /// `times` after one another, by squaring.
    fn power(self, mut times: usize, name: &Name) -> Self {
        let (mut result, mut square) = (Self::nothing(name), self);
        while times > 0 {
            if times % 2 == 1 {
                result = result.then(&square);
            }
            square = square.then(&square);
            times /= 2;
        }
        result
    }
}

impl Node {
    /// Where a match can end that begins at one of `starts`.
    fn ends(&self, name: &Name, starts: Places) -> Places {
        if starts == 0 {
            return 0;
        }
        match self {
            Self::One(set) => (starts & name.places(|c| set.contains(c))) << 1,
            Self::Row(nodes) => nodes.iter().fold(starts, |starts, node| node.ends(name, starts)),
            Self::Either(nodes) => {
                nodes.iter().fold(0, |ends, node| ends | node.ends(name, starts))
            }
            Self::Times(..) => self.relation(name).of(starts),
            Self::Start => starts & 1,
            Self::End => starts & name.end(),
        }
    }

    /// From every place of the name, where the pattern may end.
    fn relation(&self, name: &Name) -> Relation {
        let each = |ends: &dyn Fn(Places) -> Places| {
            Relation((0..=name.0.len()).map(|place| ends(1 << place)).collect())
        };
        match self {
            Self::One(set) => {
                let places = name.places(|c| set.contains(c));
                each(&|start| (start & places) << 1)
            }
            Self::Row(nodes) => nodes
                .iter()
                .fold(Relation::nothing(name), |row, node| row.then(&node.relation(name))),
            Self::Either(nodes) => {
                let none = Relation(vec![0; name.0.len() + 1]);
                nodes.iter().fold(none, |all, node| all.or(&node.relation(name)))
            }
            Self::Times(node, least, most) => {
                let once = node.relation(name);
                let at_most_once = once.or(&Relation::nothing(name));
                // A name has few places, so more rounds than these find nothing new.
                let more = most.map_or(PLACES, |most| (most - least).min(PLACES));
                once.power(*least, name).then(&at_most_once.power(more, name))
            }
            Self::Start | Self::End => each(&|start| self.ends(name, start)),
        }
    }

    /// Steps of a match; of one that is asked for every place where the node is `repeated`.
    fn steps(&self, repeated: bool) -> u64 {
        /// Of a relation's product with another, and of those that a power takes.
        const PRODUCT: u64 = 512;
        const POWERS: u64 = 40 * PRODUCT;
        let product = if repeated { PRODUCT } else { 1 };
        match self {
            // A set is asked for every character of the name.
            Self::One(set) => 32 * set.ranges.len() as u64 + product,
            Self::Row(nodes) | Self::Either(nodes) => {
                nodes.iter().map(|node| node.steps(repeated) + product).sum()
            }
            Self::Times(node, ..) => POWERS + node.steps(true),
            Self::Start | Self::End => product,
        }
    }
}

impl Set {
    fn contains(&self, c: char) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&c)) != self.negated
    }
}

type Text<'a> = Peekable<Chars<'a>>;

fn either(chars: &mut Text<'_>, depth: usize) -> Result<Node, Unclear> {
    let mut branches = vec![row(chars, depth)?];
    while chars.next_if_eq(&'|').is_some() {
        branches.push(row(chars, depth)?);
    }
    Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Either(branches) })
}

fn row(chars: &mut Text<'_>, depth: usize) -> Result<Node, Unclear> {
    let mut nodes = Vec::new();
    while let Some(c) = chars.next_if(|c| !matches!(c, '|' | ')')) {
        let node = match c {
            '^' => Node::Start,
            '$' => Node::End,
            '.' => Node::One(Set { negated: true, ranges: vec![('\n', '\n')] }),
            '(' => group(chars, depth)?,
            '[' => Node::One(class(chars)?),
            '\\' => Node::One(Set { negated: false, ranges: escape(chars)? }),
            '*' | '+' | '?' | '{' => {
                return Err(Wrong(format!("a `{c}` that repeats nothing")));
            }
            c => Node::One(Set { negated: false, ranges: vec![(c, c)] }),
        };
        nodes.push(repeated(node, chars)?);
    }
    Ok(Node::Row(nodes))
}

fn group(chars: &mut Text<'_>, depth: usize) -> Result<Node, Unclear> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Wrong(format!("more than {DEEPEST} groups inside each other")));
    };
    if chars.next_if_eq(&'?').is_some() && chars.next_if_eq(&':').is_none() {
        let kind: String = chars.take(2).collect();
        return Err(Unread(format!("`(?{kind}…`, which looks around or refers back")));
    }
    let inner = either(chars, depth)?;
    chars.next_if_eq(&')').map(|_| inner).ok_or_else(|| Wrong("a `(` without its `)`".to_owned()))
}

/// The characters that `\` and what follows stand for.
fn escape(chars: &mut Text<'_>) -> Result<Vec<(char, char)>, Unclear> {
    match chars.next() {
        Some('d') => Ok(vec![('0', '9')]),
        Some('w') => Ok(vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')]),
        Some(c) if !c.is_alphanumeric() => Ok(vec![(c, c)]),
        Some(c) => Err(Unread(format!("`\\{c}`"))),
        None => Err(Wrong("a `\\` at its end".to_owned())),
    }
}

fn class(chars: &mut Text<'_>) -> Result<Set, Unclear> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        match chars.next() {
            None => return Err(Wrong("a `[` without its `]`".to_owned())),
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
                    return Err(Unread(format!("`[{first}-{last}…]`")));
                }
                ranges.push((first, last));
            }
        }
    }
}

fn repeated(node: Node, chars: &mut Text<'_>) -> Result<Node, Unclear> {
    let (least, most) = match chars.peek() {
        Some('*') => (0, None),
        Some('+') => (1, None),
        Some('?') => (0, Some(1)),
        Some('{') => {
            let inner: String = chars.clone().skip(1).take_while(|&c| c != '}').collect();
            let bounds = bounds(&inner).ok_or_else(|| Unread(format!("`{{{inner}}}`")))?;
            chars.nth(inner.chars().count());
            bounds
        }
        _ => return Ok(node),
    };
    chars.next();
    // Greedy or lazy decides what a group holds, not whether there is a match.
    chars.next_if_eq(&'?');
    match chars.peek() {
        Some(c @ ('*' | '+' | '?' | '{')) => {
            Err(Unread(format!("a `{c}` behind another repetition")))
        }
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
    fn repetitions_inside_repetitions_end_soon() {
        let nested = |inner: &str, times: &str, depth: usize| {
            let start = "(".repeat(depth);
            format!("{start}{inner}{}", format!("){times}").repeat(depth))
        };
        for (pattern, is_match) in [
            (nested(r"\w|\.", "{1000}", 20), false),
            (nested(r"\w|\.", "{0,1000}", 20), true),
            (nested(r"\w|\.", "*", 32), true),
            (nested(r"(\w*)*\.?", "+", 20), true),
            (nested(r"x?", "{1000}", 30) + "q_proj", false),
            ("(.*.*.*)*".repeat(200) + "k_proj", false),
            ("(a|a|.)*".repeat(200), true),
            (r"[\w.]{32}".to_owned(), true),
            (r"[\w.]{31}".to_owned(), false),
            (r"([\w.]{8}){4}".to_owned(), true),
            (r"([\w.]{5,6}){5}".to_owned(), false),
            (r"([\w.]{5,7}){5}".to_owned(), true),
        ] {
            let parsed = Pattern::parse(&pattern).unwrap();
            assert_eq!(parsed.matches(NAME), is_match, "{pattern}");
        }
    }

    #[test]
    fn steps_grow_with_what_a_match_has_to_do() {
        let steps = |pattern: &str| Pattern::parse(pattern).unwrap().steps();
        assert!(steps(NAME) < 3_000, "{}", steps(NAME));
        assert!(steps(&".*".repeat(1_000)) > 20_000_000);
        assert!(steps(&"((.*)*)*".repeat(100)) > 6_000_000);
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
            (&"(".repeat(1_000), "more than 32 groups inside each other"),
            (&"q".repeat(2_001), "more than 2000 characters: it has 2001"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap_err().to_string(), named, "{pattern}");
        }
    }
}
