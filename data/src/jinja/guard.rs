//! A template rewritten so that everything it does is counted: it is a program from a stranger.
//!
//! The engine has no bound on the size of a text or the length of a list, and none for its reader's
//! stack. So a template is looked at before it is read (size, length of a tag), read on a thread whose
//! stack is known, and written out again with calls around whatever can make something large: `a ~ b`
//! becomes `graft_concat(a, b)`, each pass of a loop begins with `graft_tick()`, plain text becomes the
//! value of a call. Lines stay where they were. [`super::budget`] counts.

mod expression;
mod statement;

use graft_files::caught::caught;
use minijinja::machinery::{Token, WhitespaceConfig, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

use statement::Writer;

/// Releases' templates have up to 20 KB.
const LARGEST: usize = 1 << 20;
/// The engine counts lines in 16 bits.
const MOST_LINES: usize = 60_000;
/// Tokens between `{{` and `}}`: as deep as an expression can get.
const LONGEST_TAG: usize = 2_000;
/// Tokens of a template.
const MOST_TOKENS: usize = 100_000;
/// Each is read within the one before.
const MOST_ELIFS: usize = 200;
/// For the reader and for what is done with what it read.
const STACK: usize = 64 << 20;

/// The template with its work counted.
///
/// # Errors
/// It is too large, or cannot be parsed.
pub(super) fn guarded(source: &str) -> Result<String, Error> {
    check_size(source)?;
    let refused = |what: &str| Error::new(ErrorKind::SyntaxError, what.to_owned());
    let work = || {
        let thread = std::thread::Builder::new().stack_size(STACK);
        std::thread::scope(|scope| {
            let thread = thread
                .spawn_scoped(scope, || caught(|| rewritten(source)))
                .map_err(|error| refused(&format!("no thread to read it on: {error}")))?;
            let read = thread.join().ok().flatten();
            read.unwrap_or_else(|| Err(refused("its reader gave up on it")))
        })
    };
    work()
}

/// Blanks around blocks, as transformers sets them.
fn whitespace() -> WhitespaceConfig {
    WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true }
}

fn check_size(source: &str) -> Result<(), Error> {
    let refused = |what: String| Err(Error::new(ErrorKind::SyntaxError, what));
    if source.len() > LARGEST {
        return refused(format!("it has {} bytes, and at most {LARGEST} are read", source.len()));
    }
    let lines = source.bytes().filter(|&byte| byte == b'\n').count();
    if lines > MOST_LINES {
        return refused(format!("it has {lines} lines, and at most {MOST_LINES} are read"));
    }
    let (mut all, mut here, mut elifs) = (0, 0, 0);
    for token in tokenize(source, false, SyntaxConfig, whitespace()) {
        // What cannot be told apart is said by the parser, with its line.
        let Ok((token, span)) = token else { return Ok(()) };
        all += 1;
        here += 1;
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => here = 0,
            Token::Ident("elif") => elifs += 1,
            _ => {}
        }
        let line = span.start_line;
        if here > LONGEST_TAG {
            return refused(format!("the tag of line {line} has more than {LONGEST_TAG} parts"));
        }
        if all > MOST_TOKENS || elifs > MOST_ELIFS {
            return refused(format!(
                "it has more than {MOST_TOKENS} parts or {MOST_ELIFS} times `elif`"
            ));
        }
    }
    Ok(())
}

fn rewritten(source: &str) -> Result<String, Error> {
    let tree = parse(source, "template", SyntaxConfig, whitespace())?;
    let mut writer = Writer::new(2 * source.len());
    writer.statement(&tree)?;
    Ok(writer.into_text())
}
