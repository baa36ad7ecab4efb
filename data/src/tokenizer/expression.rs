//! Whether an expression that splits text can be trusted to come to an end.
//!
//! The engine goes back and tries again, and some expressions make it do so for longer than anybody
//! waits: `(a+)+b` doubles its work with every letter. What makes that possible is refused: something
//! repeated within something repeated, references back, recursion, more than a few open repetitions in
//! a row. The expressions of all known releases pass.

/// Longer than any release's.
const LONGEST: usize = 4_096;
/// Groups within groups.
const DEEPEST: usize = 16;
/// Open repetitions side by side: each one more multiplies the work by the length of the text.
const MOST_IN_A_ROW: usize = 3;

/// A group that is open.
#[derive(Clone, Copy, Default)]
struct Group {
    /// Something without an upper bound is repeated within.
    repeats: bool,
}

/// # Errors
/// What is wrong, as the end of a sentence about the expression.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if pattern.len() > LONGEST {
        return Err(format!("has {} bytes, and at most {LONGEST} are read", pattern.len()));
    }
    let characters: Vec<char> = pattern.chars().collect();
    let mut groups = vec![Group::default()];
    // Whether what stands before the place holds a repetition.
    let mut last = Group::default();
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
                last = Group::default();
            }
            '[' => {
                at = behind_class(&characters, at)?;
                last = Group::default();
            }
            '(' => {
                if groups.len() > DEEPEST {
                    return Err(format!("has groups more than {DEEPEST} deep"));
                }
                at = check_group(&characters, at)?;
                groups.push(Group::default());
            }
            ')' => {
                let closed = groups.pop().filter(|_| !groups.is_empty());
                last = closed.ok_or("closes a group that it never opened")?;
                if let Some(outer) = groups.last_mut() {
                    outer.repeats |= last.repeats;
                }
            }
            '*' | '+' | '?' | '{' => {
                let (open, end) = quantifier(&characters, at - 1);
                at = end;
                if open {
                    if last.repeats {
                        return Err("repeats a group that holds a repetition, which can take \
                                    longer than anybody waits"
                            .to_owned());
                    }
                    row += 1;
                    if row > MOST_IN_A_ROW {
                        return Err(format!("has more than {MOST_IN_A_ROW} repetitions in a row"));
                    }
                    if let Some(group) = groups.last_mut() {
                        group.repeats = true;
                    }
                }
                // `a++` and `a+?` are one repetition.
                if matches!(characters.get(at), Some('+' | '?')) {
                    at += 1;
                }
                last.repeats |= open;
            }
            _ => last = Group::default(),
        }
    }
    if groups.len() == 1 { Ok(()) } else { Err("leaves a group open".to_owned()) }
}

/// `(?:`, `(?i:`, `(?!`, `(?=`, `(?<!`, `(?<=`, `(?>` and plain groups.
fn check_group(characters: &[char], at: usize) -> Result<usize, String> {
    if characters.get(at) != Some(&'?') {
        return Ok(at);
    }
    let kind: String = characters[at + 1..].iter().take(8).collect();
    let flags = kind.trim_start_matches(['i', 'm', 's', 'x', '-']);
    let start = at + 1 + (kind.len() - flags.len());
    match flags.chars().next() {
        Some(':' | '!' | '=' | '>') => Ok(start + 1),
        Some('<') if flags[1..].starts_with(['!', '=']) => Ok(start + 2),
        // Flags for the rest of the group around it.
        Some(')') => Ok(start),
        _ => Err("has a group of a kind that is not known here".to_owned()),
    }
}

/// Whether the repetition at `at` is without a bound (or with a high one), and where it ends.
fn quantifier(characters: &[char], at: usize) -> (bool, usize) {
    match characters[at] {
        '*' | '+' => (true, at + 1),
        '?' => (false, at + 1),
        _ => {
            let body: String = characters[at + 1..].iter().take_while(|c| **c != '}').collect();
            let is_count = body.chars().all(|c| c.is_ascii_digit() || c == ',') && !body.is_empty();
            if !is_count {
                // A brace that stands for itself.
                return (false, at + 1);
            }
            let most = body.rsplit(',').next().unwrap_or_default();
            let open = most.parse::<usize>().map_or(true, |most| most > 16);
            (open, at + body.chars().count() + 2)
        }
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
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
    }
}
