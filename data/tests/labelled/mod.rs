//! Rows and texts of which it is known what is to be found in them, drawn from a seed.

#![allow(dead_code, reason = "the test and the example each use a part")]

use std::collections::BTreeSet;

use graft_data::{CounterRng, Purpose};

/// Random numbers, one after the other.
pub(crate) struct Draw {
    rng: CounterRng,
    next: u64,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: CounterRng::new(seed, Purpose::Generation, 0, 0), next: 0 }
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.next += 1;
        self.rng.below(self.next, n as u64) as usize
    }

    pub(crate) fn of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    pub(crate) fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn letters(&mut self, count: usize, from: &[u8]) -> String {
        (0..count).map(|_| char::from(from[self.below(from.len())])).collect()
    }

    /// A word of syllables; a few are frequent, most are rare.
    pub(crate) fn word(&mut self) -> String {
        const SYLLABLES: [&str; 40] = [
            "ba", "be", "bo", "da", "de", "di", "fa", "fi", "ga", "go", "ha", "he", "ka", "ki",
            "ko", "la", "le", "li", "lo", "ma", "me", "mi", "na", "ne", "ni", "no", "pa", "po",
            "ra", "re", "ri", "sa", "se", "si", "ta", "te", "to", "va", "vi", "zo",
        ];
        let rank = self.below(1_000);
        if rank < 400 {
            return SYLLABLES[rank % 40].to_owned() + if rank < 200 { "n" } else { "" };
        }
        (0..2 + self.below(2)).map(|_| SYLLABLES[self.below(40)]).collect()
    }

    pub(crate) fn words(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.word()).collect()
    }
}

/// A text, and another one made of it.
pub(crate) struct Family {
    pub(crate) texts: [String; 2],
    /// The share of stretches of three words that both have.
    pub(crate) likeness: f64,
}

/// A text of 15 to 200 words and one in which some of them are changed, left out or added.
pub(crate) fn family(draw: &mut Draw) -> Family {
    let count = 15 + draw.below(186);
    let words = draw.words(count);
    let edits = draw.below(2 + count / 8);
    let mut other = words.clone();
    for _ in 0..edits {
        let at = draw.below(other.len());
        match draw.below(3) {
            0 => other[at] = draw.word(),
            1 if other.len() > 5 => drop(other.remove(at)),
            _ => other.insert(at, draw.word()),
        }
    }
    let likeness = likeness(&words, &other);
    // Case and marks do not count.
    let mut text = other.join(" ");
    if draw.below(2) == 0 {
        text = text.to_uppercase() + "!";
    }
    Family { texts: [words.join(" "), text], likeness }
}

/// By the words themselves.
fn likeness(one: &[String], other: &[String]) -> f64 {
    let stretches = |words: &[String]| -> BTreeSet<String> {
        words.windows(3).map(|three| three.join(" ")).collect()
    };
    let (one, other) = (stretches(one), stretches(other));
    let both = one.intersection(&other).count();
    both as f64 / (one.len() + other.len() - both) as f64
}

/// A text with one value of a kind, or with something that looks like one.
pub(crate) struct Labelled {
    pub(crate) text: String,
    /// The value; `None` where there is none.
    pub(crate) value: Option<String>,
}

/// Kinds of which sets are drawn.
pub(crate) const KINDS: [&str; 7] = ["mail", "phone", "iban", "card", "ip", "secret", "password"];

/// One with or without a value of the kind.
pub(crate) fn labelled(kind: &str, draw: &mut Draw) -> Labelled {
    let is_value = draw.below(2) == 0;
    let value = match (kind, is_value) {
        ("mail", true) => mail(draw),
        ("mail", false) => no_mail(draw),
        ("phone", true) => phone(draw),
        ("phone", false) => no_phone(draw),
        ("iban", _) => iban(draw, is_value),
        ("card", _) => card(draw, is_value),
        ("ip", true) => ip(draw),
        ("ip", false) => no_ip(draw),
        ("secret", _) => secret(draw, is_value),
        _ => password(draw, is_value),
    };
    let (before, behind) = (draw.words(4).join(" "), draw.words(3).join(" "));
    let (open, close) =
        draw.of(&[&(" ", " "), &(": ", ". "), &(" (", ") "), &("\n", "\n"), &(" \"", "\" ")]);
    let value = value.as_str();
    // What is masked of a URL is its password alone.
    let shown = value.split('\u{1}').collect::<Vec<_>>();
    let text = format!("{before}{open}{}{close}{behind}", shown.concat());
    let own = if shown.len() == 3 { shown[1] } else { value };
    Labelled { text, value: is_value.then(|| own.to_owned()) }
}

fn mail(draw: &mut Draw) -> String {
    let (one, other, host) = (draw.word(), draw.word(), draw.word());
    let between = draw.of(&[".", "_", "-", "+", ""]);
    let end =
        draw.of(&["example.org", "example.com", "mail.example.de", "co.example.uk", "example.io"]);
    format!("{one}{between}{other}{}@{host}-{end}", draw.below(100))
}

fn no_mail(draw: &mut Draw) -> String {
    let word = draw.word();
    match draw.below(4) {
        0 => format!("@{word}"),
        1 => format!("{word}@localhost"),
        2 => format!("{word}@{}x.png", draw.below(9)),
        _ => format!("{} @ {}.{}", draw.below(99), draw.below(99), draw.digits(2)),
    }
}

fn phone(draw: &mut Draw) -> String {
    let area = 200 + draw.below(700);
    let exchange = 200 + draw.below(800);
    let line = draw.digits(4);
    match draw.below(7) {
        0 => format!("+49 {} {}", 30 + draw.below(900), draw.digits(7)),
        1 => format!("+1 ({area}) {exchange}-{line}"),
        2 => format!("{area}-{exchange}-{line}"),
        3 => format!("({area}) {exchange}-{line}"),
        4 => format!("0{}/{} {}", 30 + draw.below(900), draw.digits(3), draw.digits(4)),
        5 => format!("+44 20 {} {}", draw.digits(4), draw.digits(4)),
        _ => format!(
            "0041 {} {} {} {}",
            21 + draw.below(70),
            draw.digits(3),
            draw.digits(2),
            draw.digits(2)
        ),
    }
}

fn no_phone(draw: &mut Draw) -> String {
    match draw.below(8) {
        0 => format!(
            "20{}-0{}-1{} 12:{}",
            draw.digits(2),
            1 + draw.below(9),
            draw.below(10),
            10 + draw.below(50)
        ),
        1 => format!("0{}.0{}.20{}", 1 + draw.below(9), 1 + draw.below(9), draw.digits(2)),
        2 => format!(
            "{},{},{}.{}",
            1 + draw.below(9),
            draw.digits(3),
            draw.digits(3),
            draw.digits(2)
        ),
        3 => format!("978-3-16-{}-{}", draw.digits(6), draw.below(10)),
        4 => format!("0.{}", draw.digits(9)),
        5 => format!("#{}", draw.digits(8)),
        6 => format!("{}x{}", 100 + draw.below(3_000), 100 + draw.below(3_000)),
        _ => format!("v{}.{}.{}", draw.below(20), draw.below(20), draw.digits(4)),
    }
}

fn iban(draw: &mut Draw, is_value: bool) -> String {
    let (country, length) = *draw.of(&[
        &("DE", 22),
        &("GB", 22),
        &("FR", 27),
        &("NL", 18),
        &("CH", 21),
        &("NO", 15),
        &("MT", 31),
    ]);
    let body = match country {
        "GB" | "NL" => draw.letters(4, b"ABCDEFGHKLMNPRSTUW") + &draw.digits(length - 8),
        _ => draw.digits(length - 4),
    };
    let mut check = 98 - remainder(&format!("{body}{country}00"));
    if !is_value {
        check = (check + 1 + draw.below(95)) % 97 + 1;
        // The same remainder has one other spelling.
        if remainder(&format!("{body}{country}{check:02}")) == 1 {
            check = check % 96 + 1;
        }
    }
    let number = format!("{country}{check:02}{body}");
    if draw.below(2) == 0 { number } else { grouped(&number, " ") }
}

fn remainder(number: &str) -> usize {
    number.chars().fold(0, |rest, character| match character.to_digit(36) {
        Some(digit @ 0..=9) => (rest * 10 + digit as usize) % 97,
        Some(letter) => (rest * 100 + letter as usize) % 97,
        None => rest,
    })
}

fn grouped(number: &str, between: &str) -> String {
    let groups: Vec<&str> =
        (0..number.len()).step_by(4).map(|at| &number[at..(at + 4).min(number.len())]).collect();
    groups.join(between)
}

fn card(draw: &mut Draw, is_value: bool) -> String {
    let (begins, length) = *draw.of(&[
        &("4", 16),
        &("51", 16),
        &("55", 16),
        &("2221", 16),
        &("34", 15),
        &("37", 15),
        &("6011", 16),
        &("3530", 16),
        &("36", 14),
        &("62", 16),
    ]);
    let body = begins.to_owned() + &draw.digits(length - 1 - begins.len());
    let sum: usize = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let digit = usize::from(byte - b'0') * if at % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    let check = (10 - sum % 10) % 10;
    let check = if is_value { check } else { (check + 1 + draw.below(9)) % 10 };
    let number = format!("{body}{check}");
    match (length, draw.below(3)) {
        (16, 0) => grouped(&number, " "),
        (16, 1) => grouped(&number, "-"),
        (15, 0) => format!("{} {} {}", &number[..4], &number[4..10], &number[10..]),
        _ => number,
    }
}

fn ip(draw: &mut Draw) -> String {
    if draw.below(3) == 0 {
        let group = |draw: &mut Draw| format!("{:x}", 1 + draw.below(0xffff));
        return format!("2001:db8::{}:{}", group(draw), group(draw));
    }
    format!(
        "{}.{}.{}.{}",
        128 + draw.below(90),
        draw.below(256),
        draw.below(256),
        1 + draw.below(254)
    )
}

fn no_ip(draw: &mut Draw) -> String {
    match draw.below(5) {
        0 => format!("{}.{}.{}", draw.below(20), draw.below(20), draw.below(20)),
        1 => format!("12:{}:{}", 10 + draw.below(50), 10 + draw.below(50)),
        2 => format!(
            "{}.{}.{}.{}",
            256 + draw.below(99),
            draw.below(256),
            draw.below(256),
            draw.below(256)
        ),
        3 => format!("{}::{}", draw.word(), draw.word()),
        _ => "127.0.0.1".to_owned(),
    }
}

const BASE62: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn secret(draw: &mut Draw, is_value: bool) -> String {
    let kind = draw.below(6);
    // What is no value begins alike and is too short.
    let length = |full: usize| if is_value { full } else { 6 };
    match kind {
        0 => format!("AKIA{}", draw.letters(length(16), b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")),
        1 => format!("ghp_{}", draw.letters(length(36), BASE62)),
        2 => format!("hf_{}", draw.letters(length(34), BASE62)),
        3 => format!("glpat-{}", draw.letters(length(20), BASE62)),
        4 => format!("sk_live_{}", draw.letters(length(24), BASE62)),
        _ if is_value => {
            let (one, other, last) =
                (draw.letters(30, BASE62), draw.letters(40, BASE62), draw.letters(43, BASE62));
            format!("eyJ{one}.eyJ{other}.{last}")
        }
        _ => "eyJ.x.y".to_owned(),
    }
}

/// The password between U+0001.
fn password(draw: &mut Draw, is_value: bool) -> String {
    let (user, host) = (draw.word(), draw.word());
    if !is_value {
        let port = 1_000 + draw.below(9_000);
        return format!("https://{host}.example.org:{port}/{user}?page={}", draw.below(9));
    }
    let password = draw.letters(12, BASE62);
    match draw.below(2) {
        0 => format!("postgres://{user}:\u{1}{password}\u{1}@{host}.example.org/db"),
        _ => format!("https://{host}.example.org/{user}?token=\u{1}{password}\u{1}"),
    }
}
