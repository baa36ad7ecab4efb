//! Whether an expression that splits text can be trusted to come to an end.
//!
//! The engine goes back and tries again, and some expressions make it do so for longer than anybody
//! waits: `(a+)+b` and `(a|a)+b` double their work with every letter. What makes that possible is refused:
//! something repeated within something repeated, choices within something repeated, many choices in a row,
//! repetitions that only look around, references back, recursion, more than a few open repetitions in a
//! row. The expressions of all known releases pass.

/// Longer than any release's.
const LONGEST: usize = 4_096;
/// Groups within groups.
const DEEPEST: usize = 16;
/// Open repetitions side by side: each one more multiplies the work by the length of the text.
const MOST_IN_A_ROW: usize = 2;
/// Ways to match what stands in a row, as a power of two.
const MOST_CHOICES: f64 = 10.0;

/// A group, open or closed.
#[derive(Clone, Copy, Default)]
struct Group {
    /// Something without an upper bound is repeated within.
    repeats: bool,
    /// What it matches is looked at and not taken.
    looks: bool,
    /// How many alternatives are behind the present one.
    alternatives: u32,
    /// Ways to match the present alternative, as a power of two.
    choices: f64,
    /// Ways to match the alternative that has most, as a power of two.
    most: f64,
}

impl Group {
    fn next_alternative(&mut self) {
        self.most = self.most.max(self.choices);
        (self.choices, self.alternatives) = (0.0, self.alternatives + 1);
    }

    /// Ways to match it, as a power of two.
    fn ways(&self) -> f64 {
        self.most.max(self.choices) + f64::from(self.alternatives + 1).log2()
    }
}

/// What stands before a quantifier.
#[derive(Clone, Copy, Default)]
struct Unit {
    repeats: bool,
    choices: f64,
}

/// # Errors
/// What is wrong, as the end of a sentence about the expression.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if pattern.len() > LONGEST {
        return Err(format!("has {} bytes, and at most {LONGEST} are read", pattern.len()));
    }
    let characters: Vec<char> = pattern.chars().collect();
    let mut groups = vec![Group::default()];
    let mut last = Unit::default();
    let (mut at, mut row) = (0, 0);
    while let Some(&character) = characters.get(at) {
        at += 1;
        if !last.repeats && !"*+?{()".contains(character) || character == '|' {
            row = 0;
        }
        match character {
            '\\' => {
                let escaped = characters.get(at).copied().unwrap_or_default();
                if escaped.is_ascii_digit() && escaped != '0' || "kgGK".contains(escaped) {
                    return Err(format!(
                        "uses `\\{escaped}`, a reference, which is not known here"
                    ));
                }
                at += 1;
                if "pPx".contains(escaped) && characters.get(at) == Some(&'{') {
                    at = behind(&characters, at, '}')?;
                }
                last = Unit::default();
            }
            '[' => {
                at = behind_class(&characters, at)?;
                last = Unit::default();
            }
            '(' => {
                if groups.len() > DEEPEST {
                    return Err(format!("has groups more than {DEEPEST} deep"));
                }
                let looks;
                (at, looks) = check_group(&characters, at)?;
                groups.push(Group { looks, ..Group::default() });
            }
            ')' => {
                let closed = groups.pop().filter(|_| !groups.is_empty());
                let closed = closed.ok_or("closes a group that it never opened")?;
                last = Unit { repeats: closed.repeats, choices: closed.ways() };
                if let Some(outer) = groups.last_mut() {
                    outer.repeats |= last.repeats;
                    choose(outer, last.choices)?;
                }
            }
            '*' | '+' | '?' | '{' => {
                let quantifier = Quantifier::at(&characters, at - 1);
                at = quantifier.end;
                if quantifier.open {
                    check_open(last, &groups)?;
                    row += 1;
                    if row > MOST_IN_A_ROW {
                        return Err(format!("has more than {MOST_IN_A_ROW} repetitions in a row"));
                    }
                }
                if let Some(group) = groups.last_mut() {
                    group.repeats |= quantifier.open;
                    choose(group, quantifier.choices(last))?;
                }
                // `a++` and `a+?` are one repetition.
                if matches!(characters.get(at), Some('+' | '?')) {
                    at += 1;
                }
                last.repeats |= quantifier.open;
            }
            _ => {
                if let ('|', Some(group)) = (character, groups.last_mut()) {
                    group.next_alternative();
                }
                last = Unit::default();
            }
        }
    }
    if groups.len() == 1 { Ok(()) } else { Err("leaves a group open".to_owned()) }
}

/// Whether `unit` may be repeated without a bound within these groups.
fn check_open(unit: Unit, groups: &[Group]) -> Result<(), String> {
    let what = if unit.repeats {
        "repeats a group that holds a repetition"
    } else if unit.choices > 0.0 {
        "repeats a group that holds a choice"
    } else if groups.iter().any(|group| group.looks) {
        "looks ahead or back over a repetition without a bound"
    } else {
        return Ok(());
    };
    Err(format!("{what}, which can take longer than anybody waits"))
}

fn choose(group: &mut Group, choices: f64) -> Result<(), String> {
    group.choices += choices;
    if group.choices <= MOST_CHOICES {
        return Ok(());
    }
    Err("can match the same text in too many ways, which can take longer than anybody waits"
        .to_owned())
}

/// `(?:`, `(?i:`, `(?!`, `(?=`, `(?<!`, `(?<=`, `(?>` and plain groups.
///
/// Returns where the group's content begins, and whether it only looks.
fn check_group(characters: &[char], at: usize) -> Result<(usize, bool), String> {
    if characters.get(at) != Some(&'?') {
        return Ok((at, false));
    }
    let kind: String = characters[at + 1..].iter().take(8).collect();
    let flags = kind.trim_start_matches(['i', 'm', 's', 'x', '-']);
    let start = at + 1 + (kind.len() - flags.len());
    match flags.chars().next() {
        Some(':' | '>') => Ok((start + 1, false)),
        Some('!' | '=') => Ok((start + 1, true)),
        Some('<') if flags[1..].starts_with(['!', '=']) => Ok((start + 2, true)),
        // Flags for the rest of the group around it.
        Some(')') => Ok((start, false)),
        _ => Err("has a group of a kind that is not known here".to_owned()),
    }
}

/// `*`, `+`, `?`, `{m,n}`.
struct Quantifier {
    /// Without a bound, or with a high one.
    open: bool,
    /// The lowest and the highest count of one that is not.
    counts: (u32, u32),
    /// The place behind it.
    end: usize,
}

impl Quantifier {
    /// Counts above are as good as none.
    const MOST: u32 = 16;

    fn at(characters: &[char], at: usize) -> Self {
        let once = (1, 1);
        match characters[at] {
            '*' | '+' => return Self { open: true, counts: once, end: at + 1 },
            '?' => return Self { open: false, counts: (0, 1), end: at + 1 },
            _ => {}
        }
        let body: String = characters[at + 1..].iter().take_while(|c| **c != '}').collect();
        let is_count = body.chars().all(|c| c.is_ascii_digit() || c == ',') && !body.is_empty();
        if !is_count {
            // A brace that stands for itself.
            return Self { open: false, counts: once, end: at + 1 };
        }
        let end = at + body.chars().count() + 2;
        let (least, most) = body.split_once(',').unwrap_or((&body, &body));
        match most.parse() {
            Ok(most) if most <= Self::MOST => {
                Self { open: false, counts: (least.parse().unwrap_or(0).min(most), most), end }
            }
            _ => Self { open: true, counts: once, end },
        }
    }

    /// Ways that it adds to those of what it repeats, as a power of two.
    fn choices(&self, unit: Unit) -> f64 {
        let (least, most) = self.counts;
        f64::from(most - least + 1).log2() + unit.choices * f64::from(most.saturating_sub(1))
    }
}

fn behind(characters: &[char], from: usize, end: char) -> Result<usize, String> {
    let found = characters[from..].iter().position(|c| *c == end);
    found.map(|found| from + found + 1).ok_or_else(|| "is cut off".to_owned())
}

/// Behind the bracket that closes a class; `at` is behind the one that opens it.
fn behind_class(characters: &[char], mut at: usize) -> Result<usize, String> {
    let mut depth = 1;
    // A bracket that comes first stands for itself.
    if characters.get(at) == Some(&'^') {
        at += 1;
    }
    if characters.get(at) == Some(&']') {
        at += 1;
    }
    while depth > 0 {
        match characters.get(at) {
            None => return Err("is cut off within `[`".to_owned()),
            Some('\\') => at += 1,
            Some('[') => depth += 1,
            Some(']') => depth -= 1,
            Some(_) => {}
        }
        at += 1;
        if depth > DEEPEST {
            return Err(format!("has classes more than {DEEPEST} deep"));
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of GPT-2, Llama 3, Qwen 2, GPT-4o, DeepSeek, `StarCoder`, and a class of `CJK`.
    const RELEASES: [&str; 7] = [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"\p{N}{1,3}(?=(?:\p{N}{3}){0,9}(?:\P{N}|$))|[\r\n]",
        "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    ];

    #[test]
    fn expressions_of_releases_pass() {
        for pattern in RELEASES {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn expressions_that_may_never_end_are_refused() {
        for pattern in [
            "(a+)+b",
            "(a*)*b",
            "(?:a|b+)*c",
            "((a+)b)+",
            "(?:(?:x+)y){2,}",
            r"(a)\1",
            r"\g<0>",
            "(?R)",
            "(?<n>a)",
            "(a",
            "a)",
            "[a",
            "(a{1,}){9,}",
            "a*a*a*a*b",
            r"\s*\s+(?:\s*)\s*b",
            "(?:a|a)+b",
            "(?:a?)+b",
            "(?:a|a|a|a)*",
            "(?=a*b)a",
            "(?!a{2,})a",
            "(?<=a+)b",
            "(?:a?){30}a{30}b",
            "a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaa",
            "(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)b",
            "(?:(?:a|b){0,8}c){3}",
            r"\w*\w*\w*1",
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
    }
}
