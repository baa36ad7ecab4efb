//! Glyphs in the order in which they are drawn, as lines: a space is where a gap is, drawn or not.

use super::glyphs::Glyph;

/// A line, or the part of one that is drawn in one go.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) x: f64,
    pub(super) end: f64,
    pub(super) y: f64,
    /// The size of most of its letters.
    pub(super) size: f64,
    pub(super) is_level: bool,
    pub(super) is_bold: bool,
    /// How wide each letter is, where all are alike.
    pub(super) pitch: Option<f64>,
}

/// A line while glyphs come.
struct Growing {
    text: String,
    x: f64,
    end: f64,
    y: f64,
    size: f64,
    is_level: bool,
    letters: usize,
    bold: usize,
    widths: Vec<f64>,
}

/// Puts glyphs together.
pub(super) fn lines(glyphs: Vec<Glyph>) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut growing: Option<Growing> = None;
    for glyph in glyphs {
        if glyph.text.is_empty() {
            continue;
        }
        if let Some(line) = &mut growing {
            if line.takes(&glyph) {
                line.add(&glyph);
                continue;
            }
            lines.extend(growing.take().and_then(Growing::line));
        }
        growing = Some(Growing::new(&glyph));
    }
    lines.extend(growing.and_then(Growing::line));
    lines
}

impl Growing {
    fn new(glyph: &Glyph) -> Self {
        let mut line = Self {
            text: String::new(),
            x: glyph.x,
            end: glyph.x,
            y: glyph.y,
            size: glyph.size,
            is_level: glyph.is_level,
            letters: 0,
            bold: 0,
            widths: Vec::new(),
        };
        line.add(glyph);
        line
    }

    /// Whether a glyph goes on with the line: on it, or raised or lowered beside it.
    fn takes(&self, glyph: &Glyph) -> bool {
        let size = self.size.max(glyph.size);
        let off = (glyph.y - self.y).abs();
        let is_beside =
            off <= 0.12 * size || off <= 0.55 * size && (glyph.size - self.size).abs() > 0.1 * size;
        let is_forward = glyph.x >= self.end - 0.7 * size;
        glyph.is_level == self.is_level && is_beside && is_forward
    }

    fn add(&mut self, glyph: &Glyph) {
        let is_space = glyph.text.trim().is_empty();
        let gap = glyph.x - self.end;
        if is_space {
            self.space();
        } else {
            if gap > 1.8 * self.size && !self.text.is_empty() {
                // Of a table, or another column of one: wider than any space between words.
                self.text.truncate(self.text.trim_end().len());
                self.text.push('\t');
            } else if gap > 0.12 * self.size {
                self.space();
            }
            self.text.push_str(&glyph.text);
            if self.letters == 0 || glyph.size > 1.05 * self.size {
                // A line may begin with a raised mark, and is as large as its letters.
                (self.size, self.y) = (glyph.size, glyph.y);
            }
            self.letters += 1;
            self.bold += usize::from(glyph.is_bold);
            if glyph.text.chars().all(|c| c.is_ascii_graphic()) {
                self.widths.push((glyph.end - glyph.x) / glyph.size);
            }
        }
        // A space that ends before the word before it does not lead back.
        self.end = self.end.max(glyph.end);
    }

    fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with([' ', '\t']) {
            self.text.push(' ');
        }
    }

    fn line(self) -> Option<Line> {
        let Self { text, x, end, y, size, is_level, letters, bold, widths } = self;
        let text = text.trim().to_owned();
        let pitch = pitch(&widths).map(|pitch| pitch * size);
        let is_bold = bold * 10 > letters * 9;
        (!text.is_empty()).then_some(Line { text, x, end, y, size, is_level, is_bold, pitch })
    }
}

/// The width that all letters have, in their sizes.
fn pitch(widths: &[f64]) -> Option<f64> {
    /// Fewer letters say nothing.
    const ENOUGH: usize = 2;
    let (least, most) = widths
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), width| (least.min(*width), most.max(*width)));
    // Fonts of one width are about as wide as half their height; digits of any font are alike, too, and narrower.
    (widths.len() >= ENOUGH && most - least < 0.01 && (0.515..0.7).contains(&most)).then_some(most)
}
