//! `graft documents`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::number;
use super::paths::{path, place};

/// What would stop the command, and may be left out instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Allow {
    /// Files, and attachments of mails, that are broken, locked, empty or of no kind that is read.
    Unreadable,
    /// Pages without text, of documents that have some: scanned, drawn or blank.
    PagesWithoutText,
}

/// `graft documents`.
#[derive(Debug, Args)]
#[command(
    long_about = "Make a corpus of documents: text, Markdown, HTML, PDF, DOCX, ODT, EPUB, XLSX, ODS, mails (EML) \
                  and boxes of them (MBOX). What a file is, its content says. Headings, lists, tables and code come \
                  out as Markdown; menus, running heads and the like go, counted. Texts are cut along headings and \
                  paragraphs. Each row says which file, page and stretch it is from, and `format: text` trains on \
                  it.\n\nNothing is dropped in silence: what cannot be read is an error, unless it is allowed.",
    after_help = "Examples:\n  graft documents handbook/ notices.pdf\n  \
                  graft documents handbook/ --out corpus.jsonl --max-tokens 512 --model models/Llama-3.1-8B-Instruct"
)]
pub struct DocumentsArgs {
    /// Files, and folders that are walked
    #[arg(required = true, value_name = "SOURCE", value_parser = path())]
    pub sources: Vec<PathBuf>,
    /// The new file of rows [default: none, what came out is shown alone]
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub out: Option<PathBuf>,
    /// The longest text of a row, in tokens of --model, or in words without it
    #[arg(long, value_name = "N", default_value = "1024", value_parser = number::count)]
    pub max_tokens: NonZeroUsize,
    /// How much a text repeats of the one before it, where a section had to be cut; at most half of a text
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::whole::<usize>)]
    pub overlap: usize,
    /// The folder whose tokenizer counts tokens, or builtin:quickstart
    #[arg(long, visible_alias = "tokenizer", value_name = "DIR", value_parser = place())]
    pub model: Option<String>,
    /// Leave out and count what would be an error; may be given twice
    #[arg(long, value_name = "WHAT", value_enum)]
    pub allow: Vec<Allow>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
