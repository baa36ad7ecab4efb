//! PDF (ISO 32000): glyphs with their places, as the page's program draws them, put together to lines, paragraphs and
//! headings.

mod blocks;
mod bombs;
mod glyphs;
mod hyphens;
mod lines;
mod outline;
mod running;

use hayro_interpret::{
    Context, InterpreterCache, InterpreterSettings, TransformExt, interpret_page,
};
use hayro_syntax::{DecryptionError, LoadPdfError, Pdf};

use crate::budget::Budget;
use crate::document::Left;
use crate::error::Why;
use crate::kind::Kind;
use crate::writer::Writer;

use glyphs::{Glyphs, OutOfBudget};
use lines::Line;

/// A page, as lines in the order in which they are drawn.
struct Page {
    number: u32,
    height: f64,
    lines: Vec<Line>,
}

pub(super) fn read(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), Why> {
    let budget = writer.budget;
    bombs::check_packed(bytes, budget)?;
    let pdf = open(bytes)?;
    let count = pdf.pages().len();
    if count == 0 {
        return Err(without_pages());
    }
    budget.pages(count)?;
    bombs::check_streams(&pdf, budget)?;
    let mut pages = Vec::with_capacity(count);
    let (mut glyphs, mut nameless, mut artifacts) = (0, 0, 0);
    for number in 0..count {
        let page = draw(&pdf, number, budget)?;
        glyphs += page.drawn.len() as u64 + page.nameless;
        nameless += page.nameless;
        artifacts += page.artifacts;
        let height = f64::from(pdf.pages()[number].render_dimensions().1);
        pages.push(Page { number: number as u32 + 1, height, lines: lines::lines(page.drawn) });
    }
    // What a font does not name is guessed by nobody; a page of it is no text.
    if nameless * 10 > glyphs {
        let what = format!(
            "{nameless} of its {glyphs} glyphs stand for no character that its fonts name; recognise its text (OCR)"
        );
        return Err(Why::Broken { kind: Kind::Pdf, what });
    }
    writer.leave(Left::Glyph, nameless);
    writer.leave(Left::RunningLine, artifacts);
    writer.pages = Some(count as u32);
    writer.textless =
        pages.iter().filter(|page| page.lines.is_empty()).map(|page| page.number).collect();
    running::take(&mut pages, writer);
    blocks::write(&pages, &outline::titles(&pdf), writer)
}

fn open(bytes: &[u8]) -> Result<Pdf, Why> {
    let kind = Kind::Pdf;
    Pdf::new(bytes.to_vec()).map_err(|error| match error {
        LoadPdfError::Decryption(
            DecryptionError::PasswordProtected | DecryptionError::UnsupportedAlgorithm,
        ) => Why::Encrypted { kind },
        LoadPdfError::Decryption(_) => {
            Why::Broken { kind, what: "what it says of its encryption makes no sense".to_owned() }
        }
        LoadPdfError::Invalid => without_pages(),
    })
}

fn without_pages() -> Why {
    Why::Broken { kind: Kind::Pdf, what: "no pages are found in it".to_owned() }
}

/// What one page draws.
fn draw<'b>(pdf: &Pdf, number: usize, budget: &'b Budget) -> Result<Glyphs<'b>, Why> {
    budget.time()?;
    let page = &pdf.pages()[number];
    let transform = page.initial_transform(true).to_kurbo();
    let (width, height) = page.render_dimensions();
    let area = hayro_interpret::kurbo::Rect::new(0.0, 0.0, width.into(), height.into());
    // Fonts of one page do not keep the memory of all.
    let cache = InterpreterCache::new();
    let mut context =
        Context::new(transform, area, &cache, pdf.xref(), InterpreterSettings::default());
    let mut glyphs = Glyphs::new(area, budget);
    let drawing = std::panic::AssertUnwindSafe(|| interpret_page(page, &mut context, &mut glyphs));
    match std::panic::catch_unwind(drawing) {
        Ok(()) => Ok(glyphs),
        // The only way out of a page's program.
        Err(reason) => match reason.downcast::<OutOfBudget>() {
            Ok(out) => Err(out.0),
            Err(_) => Err(Why::Broken {
                kind: Kind::Pdf,
                what: format!("page {} cannot be drawn", number + 1),
            }),
        },
    }
}
