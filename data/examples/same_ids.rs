//! Compares the ids of this crate's encoder with those of the `tokenizers` crate, on any files and on
//! drawn text: `cargo run --release -p graft-data --example same_ids -- TOKENIZER.json [--drawn MEGABYTES] FILES…`
//!
//! Files are read as UTF-8 (what is none becomes U+FFFD) and cut into texts of 1 byte to 64 KiB. Prints what was compared, and the
//! time of both; exits with 1 at the first text that differs.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use graft_data::{CounterRng, Purpose};
use rayon::prelude::*;

/// Text that is compared at once.
const AT_ONCE: usize = 16 << 20;

#[derive(Default)]
struct Compared {
    bytes: usize,
    texts: usize,
    tokens: usize,
    own: Duration,
    reference: Duration,
}

struct Both {
    own: graft_data::Tokenizer,
    reference: tokenizers::Tokenizer,
}

impl Both {
    fn read(path: &str) -> Result<Self, String> {
        let json = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let own =
            graft_data::Tokenizer::from_bytes(&json, path).map_err(|error| error.to_string())?;
        let tables =
            own.table_bytes().ok_or("the `tokenizers` crate encodes for this tokenizer")?;
        report(&format!("tables of {:.1} MB", tables as f64 / 1e6));
        let mut reference =
            tokenizers::Tokenizer::from_bytes(&json).map_err(|error| error.to_string())?;
        reference.set_encode_special_tokens(true);
        Ok(Self { own, reference })
    }

    /// # Errors
    /// The first text whose ids differ.
    fn compare(&self, texts: &[&str], compared: &mut Compared) -> Result<(), String> {
        let begun = Instant::now();
        let own = self.own.encode_batch(texts).map_err(|error| error.to_string())?;
        compared.own += begun.elapsed();
        let begun = Instant::now();
        let encode = |text: &&str| {
            let found =
                self.reference.encode_fast(*text, false).map_err(|error| error.to_string())?;
            Ok(found.get_ids().to_vec())
        };
        let reference = texts.par_iter().map(encode).collect::<Result<Vec<_>, String>>()?;
        compared.reference += begun.elapsed();
        for ((text, own), reference) in texts.iter().zip(&own).zip(&reference) {
            if own != reference {
                return Err(format!("{text:?}\n{own:?}\n{reference:?}"));
            }
            compared.tokens += own.len();
            compared.bytes += text.len();
        }
        compared.texts += texts.len();
        Ok(())
    }
}

/// Texts of many lengths, most of them short, that are `text` together.
fn cut(text: &str) -> Vec<&str> {
    let lengths = CounterRng::new(1, Purpose::Shuffle, text.len() as u64, 0);
    let (mut texts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let length = 2_f64.powf(16.0 * lengths.uniform_f64_at(texts.len() as u64)) as usize;
        let (first, behind) = rest.split_at(rest.ceil_char_boundary(length.max(1).min(rest.len())));
        texts.push(first);
        rest = behind;
    }
    texts
}

/// Runs of all kinds of characters: of one, of a block, of any, of words.
fn drawn(bytes: usize, seed: u64) -> String {
    let rng = CounterRng::new(seed, Purpose::Shuffle, 0, 1);
    let mut draws = 0;
    let mut below = |end: u32| {
        draws += 1;
        (rng.uniform_f64_at(draws) * f64::from(end)) as u32
    };
    let signs: Vec<char> = " \n\r\t'’sStTrReEvVlLmMdDſ019½٣.,!?-_()=>€éß中文字🙂👩\u{301}\u{200d}\u{fe0f}\u{a0}\u{3000}\u{2028}\u{0}"
        .chars()
        .collect();
    let words = [
        "the",
        " of",
        " Amt",
        "don't",
        " office",
        "ing",
        "<|eot_id|>",
        " function",
        "();\n",
        "    ",
    ];
    let mut text = String::with_capacity(bytes + 64);
    while text.len() < bytes {
        let count = 1 << below(7);
        match below(6) {
            0 => {
                let sign = signs[below(signs.len() as u32) as usize];
                text.extend(std::iter::repeat_n(sign, count));
            }
            1 => {
                let block = below(0x1100) << 8;
                text.extend((0..count).filter_map(|_| char::from_u32(block + below(256))));
            }
            2 => text.extend((0..count).filter_map(|_| char::from_u32(below(0x11_0000)))),
            3 => text.extend((0..count).map(|_| signs[below(signs.len() as u32) as usize])),
            4 => text.extend((0..count).filter_map(|_| char::from_u32(0x61 + below(26)))),
            _ => text.extend((0..count).map(|_| words[below(words.len() as u32) as usize])),
        }
    }
    text
}

fn report(line: &str) {
    use std::io::Write;
    // Nobody listens where it fails.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn compare_all() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1).peekable();
    let usage = "usage: same_ids TOKENIZER.json [--drawn MEGABYTES] FILES…";
    let both = Both::read(&arguments.next().ok_or(usage)?)?;
    let mut compared = Compared::default();
    if arguments.next_if(|argument| argument == "--drawn").is_some() {
        let megabytes: usize = arguments.next().and_then(|text| text.parse().ok()).ok_or(usage)?;
        for part in 0..megabytes.div_ceil(16) {
            let text = drawn(AT_ONCE.min((megabytes << 20) - part * AT_ONCE), part as u64);
            both.compare(&cut(&text), &mut compared)?;
        }
        report(&format!("{} bytes of drawn text: the same ids", compared.bytes));
    }
    let mut waiting = String::new();
    for path in arguments {
        let bytes = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        for part in bytes.chunks(AT_ONCE) {
            waiting.push_str(&String::from_utf8_lossy(part));
            if waiting.len() >= AT_ONCE {
                both.compare(&cut(&waiting), &mut compared)?;
                waiting.clear();
            }
        }
    }
    both.compare(&cut(&waiting), &mut compared)?;
    let Compared { bytes, texts, tokens, own, reference } = compared;
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    report(&format!(
        "{bytes} bytes in {texts} texts, {tokens} tokens: the same ids; {:.1} MB/s here, {:.1} MB/s in `tokenizers`",
        rate(own),
        rate(reference)
    ));
    Ok(())
}

fn main() -> ExitCode {
    match compare_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            report(&message);
            ExitCode::FAILURE
        }
    }
}
