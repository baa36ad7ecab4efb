//! Progress of long work on stderr: a bar on a terminal, now and then a plain line elsewhere.
//! stdout belongs to results and is never touched.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use graft_data::visible;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// Whether work says how far it is, and what else there is beside its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// On stderr.
    Stderr,
    /// Not at all.
    Silent,
}

impl Voice {
    /// Says something beside the result.
    pub fn note(self, text: &str) {
        if self == Self::Stderr {
            // Work does not end because nobody reads what it says.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// Says what nobody should miss, whatever voice the work has.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "warning: {}", visible(text));
}

/// What the work is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things with a name: `steps`, `tensors`, `rows`.
    Count(&'static str),
    /// Bytes, shown in binary units.
    Bytes,
}

/// What a step can say beside how far it came.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Fields {
    /// The last training loss.
    pub loss: Option<f64>,
    /// Tokens per second of the last step.
    pub tokens_per_second: Option<f64>,
}

/// Progress of one piece of work. It may be shared between threads.
pub struct Progress {
    title: String,
    total: Option<u64>,
    unit: Unit,
    first: u64,
    begun: Instant,
    view: View,
}

enum View {
    Bar(ProgressBar),
    Lines(Arc<Mutex<Lines>>),
}

struct Lines {
    out: Box<dyn Write + Send>,
    cadence: Cadence,
    /// When the last line was written, since the work begun.
    said: Duration,
}

impl Progress {
    /// Begins to show `title`. Without a total there is a count instead of a bar, and no time left.
    pub fn new(voice: Voice, title: &str, total: impl Into<Option<u64>>, unit: Unit) -> Self {
        Self::going_on(voice, title, 0, total, unit)
    }

    /// Like [`Progress::new`], for work of which `done` units were done before; they do not count into
    /// the speed.
    pub fn going_on(
        voice: Voice,
        title: &str,
        done: u64,
        total: impl Into<Option<u64>>,
        unit: Unit,
    ) -> Self {
        let title = &*visible(title);
        let (total, dumb) =
            (total.into(), std::env::var_os("TERM").is_some_and(|term| term == "dumb"));
        let silent = voice == Voice::Silent;
        let view = if io::stderr().is_terminal() && !dumb && !silent {
            View::Bar(bar(title, done, total))
        } else {
            let out: Box<dyn Write + Send> =
                if silent { Box::new(io::sink()) } else { Box::new(io::stderr()) };
            let lines = Lines { out, cadence: Cadence::default(), said: Duration::ZERO };
            let lines = Arc::new(Mutex::new(lines));
            if !silent {
                beat(title.to_owned(), Arc::downgrade(&lines));
            }
            View::Lines(lines)
        };
        Self { title: title.to_owned(), total, unit, first: done, begun: Instant::now(), view }
    }

    /// Shows that `done` units are done.
    pub fn step(&self, done: u64, fields: &Fields) {
        let now = self.begun.elapsed();
        match &self.view {
            View::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(self.state(done, fields, now));
            }
            View::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.cadence.due(done, self.total, now) {
                    lines.said = now;
                    lines.write(&format!("{}: {}", self.title, self.state(done, fields, now)));
                }
            }
        }
    }

    /// Says something in between, on a line of its own.
    pub fn note(&self, text: &str) {
        let text = &*visible(text);
        match &self.view {
            View::Bar(bar) => bar.println(text),
            View::Lines(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).write(text),
        }
    }

    /// Ends with a last line: title, message, time taken.
    pub fn finish(self, message: &str) {
        let time = took(self.begun.elapsed());
        let last = format!("{}: {} ({time})", self.title, visible(message));
        match self.view {
            View::Bar(bar) => {
                bar.set_style(template("{msg}"));
                bar.finish_with_message(last);
            }
            View::Lines(lines) => {
                lines.lock().unwrap_or_else(PoisonError::into_inner).write(&last);
            }
        }
    }

    /// `120/400 steps · loss 1.234 · 5,120 tokens/s · 1:03 left`
    fn state(&self, done: u64, fields: &Fields, elapsed: Duration) -> String {
        let Fields { loss, tokens_per_second } = fields;
        let mut state = match (self.unit, self.total) {
            (Unit::Count(name), Some(total)) => format!("{done}/{total} {name}"),
            (Unit::Count(name), None) => format!("{done} {name}"),
            (Unit::Bytes, Some(total)) => format!("{} of {}", size(done), size(total)),
            (Unit::Bytes, None) => size(done),
        };
        if let Some(loss) = loss {
            let _ = write!(state, " · loss {loss:.4}");
        }
        if let Some(speed) = tokens_per_second.filter(|speed| speed.is_finite()) {
            let places = usize::from(speed < 100.0);
            let _ = write!(state, " · {speed:.places$} tokens/s");
        }
        if let Some(left) = time_left(self.first, done, self.total, elapsed) {
            let _ = write!(state, " · {} left", clock(left));
        }
        state
    }
}

fn bar(title: &str, done: u64, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        .with_position(done)
        // An error that drops the bar leaves on screen how far the work came.
        .with_finish(ProgressFinish::Abandon)
        .with_prefix(title.to_owned());
    let style = match total {
        Some(_) => "{prefix:.bold} {bar:24.cyan/238} {wide_msg} {elapsed:.dim}",
        None => "{prefix:.bold} {spinner:.cyan} {wide_msg} {elapsed:.dim}",
    };
    bar.set_style(template(style).progress_chars("━╸─"));
    // A step can take minutes; the clock shows that the work goes on.
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).expect("the templates of this file are well-formed")
}

/// Lets a line be heard now and then while one part of the work takes long, as a bar's clock does: until
/// the work ends.
fn beat(title: String, lines: Weak<Mutex<Lines>>) {
    let begun = Instant::now();
    let work = move || {
        loop {
            std::thread::sleep(CLOSE);
            let Some(lines) = lines.upgrade() else { return };
            lines.lock().unwrap_or_else(PoisonError::into_inner).beat(&title, begun.elapsed());
        }
    };
    // Without such a thread the work is only quieter.
    let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(work);
}

impl Lines {
    /// Says that the work goes on, if it was quiet for long.
    fn beat(&mut self, title: &str, now: Duration) {
        if now.saturating_sub(self.said) >= LONG {
            self.said = now;
            self.write(&format!("{title}: at work for {}", clock(now)));
        }
    }

    fn write(&mut self, line: &str) {
        // Work does not end because nobody reads its progress any more.
        let _ = writeln!(self.out, "{line}");
        let _ = self.out.flush();
    }
}

/// When a plain line is due: at the first step, at each tenth of the whole, after ten quiet seconds,
/// at the last step; never twice in a second in between, so that quick work stays quiet.
#[derive(Default)]
struct Cadence {
    last: Option<(u64, Duration)>,
}

const QUIET: Duration = Duration::from_secs(10);
const CLOSE: Duration = Duration::from_secs(1);
/// So long one part of the work may take before a line says that it goes on.
const LONG: Duration = Duration::from_secs(30);

impl Cadence {
    fn due(&mut self, done: u64, total: Option<u64>, now: Duration) -> bool {
        let due = match self.last {
            None => true,
            Some((before, _)) if before == done => false,
            Some(_) if total == Some(done) => true,
            Some((before, then)) => {
                let quiet = now.saturating_sub(then);
                let tenth =
                    |done: u64| total.map(|total| u128::from(done) * 10 / u128::from(total.max(1)));
                quiet >= QUIET || (quiet >= CLOSE && tenth(done) > tenth(before))
            }
        };
        if due {
            self.last = Some((done, now));
        }
        due
    }
}

fn time_left(first: u64, done: u64, total: Option<u64>, elapsed: Duration) -> Option<Duration> {
    let (new, left) = (done.checked_sub(first)?, total?.checked_sub(done)?);
    if new == 0 || left == 0 {
        return None;
    }
    Duration::try_from_secs_f64(elapsed.as_secs_f64() / new as f64 * left as f64).ok()
}

/// `1.4 s`, or from a minute on as [`clock`] has it.
fn took(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1} s") } else { clock(time) }
}

/// `1:03`, or `2:00:05` from an hour on.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn plain(first: u64, total: Option<u64>, unit: Unit) -> (Progress, Page) {
        let page = Page::default();
        let lines = Lines {
            out: Box::new(page.clone()),
            cadence: Cadence::default(),
            said: Duration::ZERO,
        };
        let (title, begun) = ("train".to_owned(), Instant::now());
        (
            Progress {
                title,
                total,
                unit,
                first,
                begun,
                view: View::Lines(Arc::new(Mutex::new(lines))),
            },
            page,
        )
    }

    #[test]
    fn quick_work_writes_its_first_step_its_last_and_its_end() {
        let (progress, page) = plain(0, Some(500), Unit::Count("steps"));
        for step in 1..=500 {
            let loss = Some(1.0 / step as f64);
            progress.step(step, &Fields { loss, tokens_per_second: Some(5_120.4) });
            if step == 250 {
                progress.note("validation loss 0.5");
            }
        }
        progress.finish("500 steps");
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        insta::assert_snapshot!(text, @r"
        train: 1/500 steps · loss 1.0000 · 5120 tokens/s · 0:00 left
        validation loss 0.5
        train: 500/500 steps · loss 0.0020 · 5120 tokens/s
        train: 500 steps (0.0 s)
        ");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn long_parts_are_heard_of_twice_a_minute() {
        let page = Page::default();
        let out = Box::new(page.clone());
        let mut lines = Lines { out, cadence: Cadence::default(), said: Duration::ZERO };
        for second in 0..=95 {
            lines.beat("train", Duration::from_secs(second));
        }
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        insta::assert_snapshot!(text, @r"
        train: at work for 0:30
        train: at work for 1:00
        train: at work for 1:30
        ");
    }

    #[test]
    fn lines_come_at_tenths_or_after_ten_seconds() {
        let due = |total, seconds_a_step: f64| -> Vec<u64> {
            let mut cadence = Cadence::default();
            let at = |step: u64| Duration::from_secs_f64(step as f64 * seconds_a_step);
            (1..=100).filter(|step| cadence.due(*step, total, at(*step))).collect()
        };
        assert_eq!(due(Some(100), 0.5), [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert_eq!(due(Some(100), 60.0), (1..=100).collect::<Vec<_>>());
        assert_eq!(due(None, 0.5), [1, 21, 41, 61, 81]);
        assert_eq!(due(Some(u64::MAX), 0.001), [1]);
    }

    #[test]
    fn time_left_counts_only_this_run() {
        let second = Duration::from_secs(1);
        assert_eq!(time_left(900, 910, Some(1_000), 10 * second), Some(90 * second));
        assert_eq!(time_left(0, 0, Some(10), second), None);
        assert_eq!(time_left(0, 10, Some(10), second), None);
        assert_eq!(time_left(0, 10, None, second), None);
        assert_eq!(time_left(5, 4, Some(10), second), None);
        assert_eq!(clock(Duration::from_secs(63)), "1:03");
        assert_eq!(took(Duration::from_millis(1_449)), "1.4 s");
        assert_eq!(took(Duration::from_secs(63)), "1:03");
        assert_eq!(clock(Duration::from_secs(7_205)), "2:00:05");
    }

    #[test]
    fn bytes_read_as_bytes() {
        let (progress, _) = plain(0, Some(3 << 30), Unit::Bytes);
        let state = progress.state(1 << 30, &Fields::default(), Duration::from_secs(10));
        assert_eq!(state, "1.00 GiB of 3.00 GiB · 0:20 left");
        let (progress, _) = plain(0, None, Unit::Count("tensors"));
        assert_eq!(progress.state(9, &Fields::default(), Duration::ZERO), "9 tensors");
    }
}
