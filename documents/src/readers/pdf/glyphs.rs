//! The glyphs that a page draws, with their places; nothing else of it.

use hayro_interpret::font::{Glyph as Drawn, GlyphRun};
use hayro_interpret::hayro_cmap::BfString;
use hayro_interpret::kurbo::{Affine, BezPath, Point, Rect, Vec2};
use hayro_interpret::{
    BlendMode, ClipPath, Device, DrawMode, DrawProps, Image, ImageDrawProps, SoftMask,
};
use hayro_syntax::object::Dict;

use crate::budget::Budget;
use crate::error::Why;

/// Thrown out of a page's program that takes too long: there is no other way out of it.
pub(super) struct OutOfBudget(pub(super) Why);

/// A drawn character, or several that share a glyph. The page's top is at 0.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Glyph {
    pub(super) text: String,
    /// Where it begins and ends, along the line.
    pub(super) x: f64,
    pub(super) end: f64,
    /// The line that it stands on.
    pub(super) y: f64,
    pub(super) size: f64,
    /// Whether the line runs from left to right, not up or down.
    pub(super) is_level: bool,
    pub(super) is_bold: bool,
}

/// Glyphs of a page.
pub(super) struct Glyphs<'b> {
    area: Rect,
    budget: &'b Budget,
    pub(super) drawn: Vec<Glyph>,
    /// Glyphs that no character belongs to.
    pub(super) nameless: u64,
    /// Stretches of text that the file itself says are heads, feet or numbers of pages.
    pub(super) artifacts: u64,
    /// Of each stretch of marked content that is open, whether it is such.
    marked: Vec<bool>,
    /// Whether the stretch has text.
    has_text: bool,
    /// Where the run before begins among the glyphs.
    before: usize,
}

impl<'b> Glyphs<'b> {
    pub(super) fn new(area: Rect, budget: &'b Budget) -> Self {
        Self {
            area,
            budget,
            drawn: Vec::new(),
            nameless: 0,
            artifacts: 0,
            marked: Vec::new(),
            has_text: false,
            before: 0,
        }
    }

    fn check(&self) {
        let checked = self.budget.time().and_then(|()| self.budget.glyphs(self.drawn.len()));
        if let Err(why) = checked {
            // No hook has anything to say about it.
            std::panic::resume_unwind(Box::new(OutOfBudget(why)));
        }
    }

    fn add(&mut self, run: &GlyphRun<'_, '_>, props: &DrawProps<'_>) {
        let begins = self.drawn.len();
        for glyph in run.glyphs() {
            let Some(text) = character(glyph) else {
                self.nameless += 1;
                continue;
            };
            let whole = props.transform * glyph.transform();
            let Some(placed) = place(glyph, whole, text) else { continue };
            if self.area.inflate(1.0, 1.0).contains(Point::new(placed.x, placed.y)) {
                self.drawn.push(placed);
            }
        }
        // Letters drawn twice, for a shadow or to look bold, are there once.
        let (older, newer) = self.drawn.split_at(begins);
        let older = &older[self.before.min(begins)..];
        let is_again = !newer.is_empty()
            && older.len() == newer.len()
            && older.iter().zip(newer).all(|(a, b)| is_same(a, b));
        if is_again {
            self.drawn.truncate(begins);
        } else {
            self.before = begins;
        }
    }
}

fn is_same(a: &Glyph, b: &Glyph) -> bool {
    let near = 0.15 * a.size;
    a.text == b.text && (a.x - b.x).abs() < near && (a.y - b.y).abs() < near
}

/// What a glyph says.
fn character(glyph: &Drawn<'_>) -> Option<String> {
    let text = match glyph.as_unicode()? {
        BfString::Char(character) => character.to_string(),
        BfString::String(text) => text,
    };
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Letters that are set as one are several.
            '\u{fb00}' => plain.push_str("ff"),
            '\u{fb01}' => plain.push_str("fi"),
            '\u{fb02}' => plain.push_str("fl"),
            '\u{fb03}' => plain.push_str("ffi"),
            '\u{fb04}' => plain.push_str("ffl"),
            '\u{fb05}' | '\u{fb06}' => plain.push_str("st"),
            '\u{a0}' => plain.push(' '),
            '\u{ad}' | '\u{2010}' | '\u{2011}' => plain.push('-'),
            '\u{200b}'..='\u{200f}' | '\u{feff}' => {}
            // The bullets of two fonts that number their signs.
            '\u{f0b7}' | '\u{f0a7}' => plain.push('•'),
            // Of a font that calls its glyphs by places of its own.
            '\u{e000}'..='\u{f8ff}' | '\u{fffd}' => return None,
            character if character.is_control() => {}
            character => plain.push(character),
        }
    }
    Some(plain)
}

fn place(glyph: &Drawn<'_>, whole: Affine, text: String) -> Option<Glyph> {
    let advance = match glyph {
        Drawn::Outline(outline) => outline.advance_width(),
        Drawn::Type3(drawn) => drawn.advance_width(),
    };
    let origin = whole * Point::ZERO;
    let linear = |vector: Vec2| (whole * vector.to_point()) - origin;
    let along = linear(Vec2::new(1_000.0, 0.0));
    let up = linear(Vec2::new(0.0, 1_000.0));
    let size = up.hypot();
    // What is smaller than a point, or larger than a page, is no letter.
    if !size.is_finite() || !(0.5..2_000.0).contains(&size) || !origin.is_finite() {
        return None;
    }
    let is_level = along.x > 0.0 && along.y.abs() <= 0.1 * along.x;
    let width = f64::from(advance.unwrap_or(500.0).clamp(0.0, 4_000.0)) / 1_000.0 * along.x.abs();
    let is_bold = match glyph {
        Drawn::Outline(outline) => outline.font_data().is_some_and(|font| {
            font.postscript_name
                .as_ref()
                .is_some_and(|name| name.to_ascii_lowercase().contains("bold"))
        }),
        Drawn::Type3(_) => false,
    };
    Some(Glyph { text, x: origin.x, end: origin.x + width, y: origin.y, size, is_level, is_bold })
}

impl<'a> Device<'a> for Glyphs<'_> {
    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'a>, _: &DrawMode) {
        self.check();
    }

    fn push_clip_path(&mut self, _: &ClipPath) {
        self.check();
    }

    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'a>>, _: BlendMode) {
        self.check();
    }

    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, 'a>, props: DrawProps<'a>, _: &DrawMode) {
        self.check();
        if self.marked.contains(&true) {
            self.has_text |= !run.glyphs().is_empty();
        } else {
            self.add(run, &props);
        }
    }

    fn draw_image(&mut self, _: Image<'a, '_>, _: ImageDrawProps<'a>) {
        self.check();
    }

    fn pop_clip(&mut self) {}

    fn pop_transparency_group(&mut self) {}

    fn begin_marked_content(&mut self, tag: &[u8], _: Option<&Dict<'_>>) {
        self.check();
        self.marked.push(tag == b"Artifact");
    }

    fn end_marked_content(&mut self) {
        if self.marked.pop() == Some(true) && std::mem::take(&mut self.has_text) {
            self.artifacts += 1;
        }
    }
}
