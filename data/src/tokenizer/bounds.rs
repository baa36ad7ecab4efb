//! Bounds for one text on its way through the reference reader: what it takes of memory, and of time.
//!
//! A tokenizer.json is a program with expressions that may take the square of a text's length, or more,
//! and the engine that runs them cannot be stopped. So longer texts are read on a thread that is watched,
//! and given up; and the time of all texts together is held against their length.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use graft_files::caught::caught;
use tokenizers::{Encoding, Tokenizer as Reader};

use super::outline::{Growth, Single};
use crate::formats::MOST_BYTES_OF_A_ROW;

/// The expressions of all releases try each length of a run of blanks, and the engine gives up at ten
/// million.
const LONGEST_RUN: usize = 1_000_000;
/// Words and signs of a text: what splits it keeps some 350 bytes of each, beside 75 of each byte.
const MOST_PIECES: usize = 1_000_000;
/// Bytes of a text when all is replaced in it that is to be.
const MOST_BYTES: usize = 4 * MOST_BYTES_OF_A_ROW;
/// Texts beyond take turns, or each thread would hold one's pieces.
const LONG_TEXT: usize = 512 << 10;
/// Texts from here on are read on a watched thread; shorter ones are over soon.
const WATCHED: usize = 4 << 10;
/// What one text may take of a processor: the longest take 3 seconds.
const MOST_TIME: Duration = Duration::from_secs(15);
/// What all texts together may take, beside a time for each of their bytes that is 100 times the usual.
const TIME_OF_ALL: Duration = Duration::from_secs(20);
const TIME_OF_A_BYTE: Duration = Duration::from_micros(20);
/// For the expressions of a stranger.
const STACK: usize = 16 << 20;

/// Of one tokenizer.
#[derive(Default)]
pub(super) struct Bounds {
    growth: Growth,
    /// Held while a long text is encoded.
    turn: Mutex<()>,
    /// Of all texts so far.
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

/// Whether the bytes that a token stands for are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Offsets {
    No,
    Yes,
}

impl Bounds {
    pub(super) fn of(growth: Growth) -> Self {
        Self { growth, ..Self::default() }
    }

    /// Encodes a text without the reference reader: of any kind, and not longer than its reader takes.
    ///
    /// # Errors
    /// The text has too many bytes.
    pub(super) fn within<T>(&self, text: &str, encode: impl FnOnce() -> T) -> Result<T, String> {
        self.check_bytes(text)?;
        let _turn = self.turn(text);
        Ok(encode())
    }

    /// Long texts take turns.
    fn turn(&self, text: &str) -> Option<MutexGuard<'_, ()>> {
        // It guards nothing that a panic could leave half done.
        let turn = || self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        (text.len() > LONG_TEXT).then(turn)
    }

    /// The text as `reader` reads it.
    ///
    /// # Errors
    /// The reader fails, or the text takes too much of it.
    pub(super) fn encode(
        &self,
        reader: &Arc<Reader>,
        text: &str,
        offsets: Offsets,
    ) -> Result<Encoding, String> {
        self.check_size(text)?;
        let _turn = self.turn(text);
        let begun = Instant::now();
        let encoding = match text.len() {
            ..WATCHED => read(reader, text, offsets),
            _ => watched(reader.clone(), text.to_owned(), offsets, MOST_TIME),
        }?;
        self.account(text.len(), begun.elapsed())?;
        Ok(encoding)
    }

    /// What a text takes of memory grows with its bytes, also where it is one word of millions of
    /// letters, and with the pieces that it is split into.
    fn check_size(&self, text: &str) -> Result<(), String> {
        self.check_bytes(text)?;
        let Growth { pieces: growth, single, .. } = self.growth;
        if text.len() as f64 * growth <= MOST_PIECES as f64 {
            return Ok(());
        }
        let most = (MOST_PIECES as f64 / growth) as usize;
        let pieces = pieces(text, single);
        if pieces > most {
            return Err(format!(
                "a text has {pieces} words and signs, and at most {most} are encoded at once; cut it into \
                 several rows"
            ));
        }
        let mut run = 0;
        for character in text.chars() {
            run = if character.is_whitespace() { run + 1 } else { 0 };
            if run > LONGEST_RUN {
                return Err(format!(
                    "a text has more than {LONGEST_RUN} blanks and line ends in a row, which the \
                     expression that splits it does not come to an end with; shorten it"
                ));
            }
        }
        Ok(())
    }

    fn check_bytes(&self, text: &str) -> Result<(), String> {
        let most = MOST_BYTES_OF_A_ROW.min((MOST_BYTES as f64 / self.growth.bytes) as usize);
        if text.len() <= most {
            return Ok(());
        }
        Err(format!(
            "a text has {} bytes, and at most {most} are encoded at once; cut it into several rows",
            text.len()
        ))
    }

    fn account(&self, bytes: usize, time: Duration) -> Result<(), String> {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let spent = self.nanoseconds.fetch_add(nanoseconds, Relaxed).saturating_add(nanoseconds);
        let bytes = self.bytes.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        let given = TIME_OF_ALL.as_nanos() + u128::from(bytes) * TIME_OF_A_BYTE.as_nanos();
        if u128::from(spent) <= given {
            return Ok(());
        }
        Err(format!(
            "its expressions take {} s for {bytes} bytes of text, a hundred times what those of releases \
             take",
            spent / 1_000_000_000
        ))
    }
}

fn read(reader: &Reader, text: &str, offsets: Offsets) -> Result<Encoding, String> {
    let read = || match offsets {
        Offsets::No => reader.encode_fast(text, false),
        Offsets::Yes => reader.encode(text, false),
    };
    guarded(read)
}

/// The reader's answer; where it panics, on what no check foresaw, an error like any other.
pub(super) fn guarded<T>(read: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match caught(read) {
        Some(result) => result.map_err(|error| error.to_string()),
        None => Err("its reader gives up on it".to_owned()),
    }
}

/// On a thread of its own, that is left to itself when it takes too long.
fn watched(
    reader: Arc<Reader>,
    text: String,
    offsets: Offsets,
    most: Duration,
) -> Result<Encoding, String> {
    enum Word {
        Clock(Clock),
        Done(Box<Result<Encoding, String>>),
    }
    let bytes = text.len();
    let (tell, told) = sync_channel(2);
    let work = move || {
        // Nobody listens any more where the time was up.
        let _ = tell.send(Word::Clock(Clock::of_this_thread()));
        let _ = tell.send(Word::Done(Box::new(read(&reader, &text, offsets))));
    };
    let thread = thread::Builder::new().stack_size(STACK).spawn(work);
    thread.map_err(|error| format!("the system gives no thread to read a text on: {error}"))?;
    let mut clock = None;
    loop {
        match told.recv_timeout(Duration::from_millis(200)) {
            Ok(Word::Clock(started)) => clock = Some(started),
            Ok(Word::Done(result)) => return *result,
            Err(RecvTimeoutError::Timeout) => {
                if clock.as_ref().is_some_and(|clock| clock.time() > most) {
                    return Err(format!(
                        "its expressions take more than {most:?} for a text of {bytes} bytes"
                    ));
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err("its reader gives up on it".to_owned());
            }
        }
    }
}

/// What a thread has had of a processor, seen from another one.
struct Clock {
    started: Instant,
    /// Its line in Linux's table of processes.
    line: Option<std::path::PathBuf>,
}

impl Clock {
    /// Linux counts in hundredths of a second for programs, whatever it counts in itself.
    const TICK: Duration = Duration::from_millis(10);

    fn of_this_thread() -> Self {
        // A link to `PROCESS/task/THREAD`.
        let own = std::fs::read_link("/proc/thread-self").ok();
        let line = own.map(|own| std::path::Path::new("/proc").join(own).join("stat"));
        Self { started: Instant::now(), line }
    }

    /// Where the system does not say it, the time that went by.
    fn time(&self) -> Duration {
        let text = self.line.as_ref().and_then(|line| std::fs::read_to_string(line).ok());
        let ticks = text.and_then(|text| {
            // Behind the name in brackets: the state is field 3, the two times are 14 and 15.
            let (_, fields) = text.rsplit_once(')')?;
            let mut fields = fields.split_whitespace().skip(11);
            let mut next = || fields.next()?.parse::<u32>().ok();
            Some(next()?.saturating_add(next()?))
        });
        ticks.map_or_else(|| self.started.elapsed(), |ticks| Self::TICK * ticks)
    }
}

/// About how many pieces an expression like Llama 3's splits a text into: words, numbers, runs of signs,
/// line ends.
fn pieces(text: &str, single: Single) -> usize {
    #[derive(Clone, Copy, PartialEq)]
    enum Class {
        Letter,
        Digit,
        LineEnd,
        Blank,
        Sign,
    }
    let class = |character: char| match character {
        '\n' | '\r' => Class::LineEnd,
        _ if character.is_whitespace() => Class::Blank,
        _ if character.is_alphabetic() => Class::Letter,
        _ if character.is_numeric() => Class::Digit,
        _ => Class::Sign,
    };
    let (mut last, mut count) = (Class::Blank, 0);
    for class in text.chars().map(class) {
        // A blank belongs to the word behind it.
        let alone = single.all
            || single.digits && class == Class::Digit
            || single.signs && class == Class::Sign;
        count += usize::from(alone || class != last && class != Class::Blank);
        last = class;
    }
    count
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_busy_thread_is_seen_to_be_busy_and_a_sleeping_one_to_sleep() {
        let (clock_of, clocks) = sync_channel(1);
        let (stop, stopped) = sync_channel::<()>(1);
        let asleep = thread::spawn(move || {
            clock_of.send(Clock::of_this_thread()).unwrap();
            stopped.recv().unwrap_err();
        });
        let sleeping = clocks.recv().unwrap();
        let own = Clock::of_this_thread();
        let (begun, mut sum) = (Instant::now(), 0_u64);
        while own.time() < Duration::from_millis(30) && begun.elapsed() < Duration::from_mins(1) {
            sum = (0..100_000).fold(sum, |sum, value| std::hint::black_box(sum ^ value));
        }
        assert!(own.time() >= Duration::from_millis(30));
        if sleeping.line.is_some() {
            assert!(sleeping.time() < Duration::from_millis(30));
        }
        drop(stop);
        asleep.join().unwrap();
    }

    #[test]
    fn an_expression_that_nobody_foresaw_is_given_up() {
        // At each letter it looks for the end of all, in vain.
        let model = json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []});
        let split = json!({
            "type": "Split", "pattern": {"Regex": "(?:a*c)?a"}, "behavior": "Isolated", "invert": false
        });
        let file = json!({"version": "1.0", "pre_tokenizer": split, "model": model});
        let reader = Arc::new(Reader::from_bytes(file.to_string()).unwrap());
        let read = |letters: usize| {
            let (text, most) = ("a".repeat(letters), Duration::from_millis(300));
            watched(reader.clone(), text, Offsets::No, most).map(|read| read.get_ids().len())
        };
        assert_eq!(read(10), Ok(10));
        let refused = read(2_000_000).unwrap_err();
        assert_eq!(refused, "its expressions take more than 300ms for a text of 2000000 bytes");
    }

    #[test]
    fn pieces_are_words_and_signs() {
        let text = "It cost 12,50 €.\n\n  Paid: no\n";
        let [runs, mut digits, mut signs, mut all] = [Single::default(); 4];
        (digits.digits, signs.signs, all.all) = (true, true, true);
        assert_eq!([runs, digits, signs, all].map(|single| pieces(text, single)), [11, 13, 12, 29]);
    }

    #[test]
    fn texts_that_grow_are_held_to_what_they_grow_to() {
        let bounds = Bounds::of(Growth { bytes: 8.0, pieces: 8.0, single: Single::default() });
        let digits = "1a".repeat(100_000);
        assert!(bounds.check_size(&digits[..120_000]).is_ok());
        assert!(bounds.check_size(&digits).unwrap_err().contains("at most 125000"));
        assert!(bounds.check_size(&"a".repeat(3 << 20)).unwrap_err().contains("at most 2097152"));
        assert!(Bounds::default().check_size(&"a".repeat(3 << 20)).is_ok());
        let single = Single { all: true, ..Single::default() };
        let each = Bounds::of(Growth { single, ..Growth::default() });
        let refused = each.check_size(&"a".repeat(3 << 20)).unwrap_err();
        assert!(refused.contains("3145728 words and signs, and at most 1000000"), "{refused}");
    }

    #[test]
    fn time_out_of_all_proportion_is_refused_at_last() {
        let bounds = Bounds::default();
        assert_eq!(bounds.account(1_000_000, Duration::from_secs(30)), Ok(()));
        let refused = bounds.account(10, Duration::from_secs(11)).unwrap_err();
        assert!(refused.contains("41 s for 1000010 bytes"), "{refused}");
    }
}
