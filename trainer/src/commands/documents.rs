//! `graft documents`: what came out of each file, and all of it as rows.

mod found;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use graft_data::Tokenizer;
use graft_documents::{Document, Found, Limits, Sources};
use graft_files::{atomic, place};
use graft_model::stop;

use crate::cli::documents_args::{Allow, DocumentsArgs};
use crate::cli::failure::WrongUse;
use crate::cli::{Globals, page};
use crate::document_rows::pages_without_text;
use crate::plan::open_tokenizer;
use crate::progress::{Progress, Unit};
use crate::{privacy, signals};
use found::{File, Findings, Problem};

/// Reads the documents, shows them, and writes their rows.
///
/// # Errors
/// A source cannot be read and that is not allowed, the place of the output is taken, the disk refuses.
pub fn run(globals: &Globals, args: &DocumentsArgs) -> anyhow::Result<()> {
    signals::listen()?;
    if args.overlap > args.max_tokens.get() / 2 {
        let (overlap, max) = (args.overlap, args.max_tokens);
        let message = format!(
            "--overlap is {overlap}, and a text has at most {max} (--max-tokens): allowed is at most half of that, \
             so that each brings something new"
        );
        return Err(WrongUse(message).into());
    }
    if let Some(out) = &args.out {
        place::new_file(out)?;
    }
    let tokenizer = args.model.as_deref().map(open_tokenizer).transpose()?.map(|(it, _)| it);
    let sources = Sources::find(&args.sources);
    // What was asked for by name is there, or the command line is wrong.
    let missing = |found: &&Found| found.problem.is_some() && args.sources.contains(&found.path);
    if let Some(Found { path, problem: Some(problem) }) = sources.files.iter().find(missing) {
        return Err(WrongUse(format!("cannot read `{}`: {problem}", path.display())).into());
    }
    if sources.files.is_empty() {
        return Err(WrongUse(nothing_found(args, &sources)).into());
    }
    signals::work_begins(globals.voice());
    let reading = Reading { args, sources: &sources, tokenizer: tokenizer.as_ref(), globals };
    let findings = match &args.out {
        None => reading.all(&mut std::io::sink())?,
        Some(out) => {
            privacy::as_private_as(out, sources.files.iter().map(|file| &*file.path));
            let mut findings = None;
            atomic::create_file::<anyhow::Error>(out, |writer| {
                findings = Some(reading.all(writer)?);
                Ok(())
            })?;
            findings.expect("a file that was written was filled")
        }
    };
    if args.json {
        return Ok(page::print_json(&findings.json(args.out.as_deref()))?);
    }
    Ok(page::print(&findings.text(args.out.as_deref()))?)
}

fn nothing_found(args: &DocumentsArgs, sources: &Sources) -> String {
    let named: Vec<String> =
        args.sources.iter().map(|source| format!("`{}`", source.display())).collect();
    let hidden = match sources.hidden {
        0 => String::new(),
        hidden => format!(", but for {hidden} whose names begin with a dot"),
    };
    format!("there is no file in {}{hidden}", named.join(", "))
}

/// How long a text is, in tokens, or in words where there is no tokenizer.
fn length(tokenizer: Option<&Tokenizer>, text: &str) -> Result<usize, graft_data::Error> {
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer.encode(text)?.len()),
        None => Ok(graft_documents::words(text)),
    }
}

/// All that is asked of the documents.
struct Reading<'a> {
    args: &'a DocumentsArgs,
    sources: &'a Sources,
    /// What counts the length of texts; `None` for words.
    tokenizer: Option<&'a Tokenizer>,
    globals: &'a Globals,
}

impl Reading<'_> {
    /// Reads all, and writes rows as long as there is no problem: one that is not allowed ends it, after all others
    /// were looked for.
    fn all(&self, out: &mut dyn Write) -> anyhow::Result<Findings> {
        let Self { args, sources, tokenizer, globals } = self;
        let (limits, files) = (Limits::default(), &sources.files);
        let progress =
            Progress::new(globals.voice(), "read", files.len() as u64, Unit::Count("files"));
        let unit = if tokenizer.is_some() { "tokens" } else { "words" };
        let mut findings =
            Findings { unit, hidden: sources.hidden, again: sources.again, ..Findings::default() };
        let mut known = BTreeMap::new();
        let mut is_refused = false;
        for (number, Found { path, problem }) in files.iter().enumerate() {
            stop::check()?;
            let read = match problem {
                Some(problem) => Err(Problem::unreadable(path, problem.clone())),
                None => graft_documents::read(path, &limits)
                    .map_err(|error| Problem::unreadable(path, error.why.to_string())),
            };
            match read {
                Ok(document) => {
                    findings.problems.extend(problems_of(path, &document));
                    is_refused |= findings.refused(&args.allow).next().is_some();
                    let same_as = known.get(&document.sha256).cloned();
                    known.entry(document.sha256.clone()).or_insert_with(|| path.clone());
                    let file = self.write(
                        &document,
                        same_as,
                        if is_refused { None } else { Some(&mut *out) },
                    )?;
                    findings.files.push(file);
                }
                Err(problem) => findings.problems.push(problem),
            }
            progress.step(number as u64 + 1, &Default::default());
        }
        progress.finish(&page::counted(files.len() as u64, "file"));
        stop::check()?;
        match findings.refusal(&args.allow, files.len(), args.out.is_some()) {
            Some(refusal) => Err(WrongUse(refusal).into()),
            None => Ok(findings),
        }
    }

    /// Cuts a document, and writes its rows if there is where to.
    fn write(
        &self,
        document: &Document,
        same_as: Option<std::path::PathBuf>,
        out: Option<&mut dyn Write>,
    ) -> anyhow::Result<File> {
        let Self { args, tokenizer, .. } = self;
        let measure = |text: &str| length(*tokenizer, text);
        let chunks = document.try_chunks(&measure, args.max_tokens.get(), args.overlap)?;
        if let Some(out) = out {
            for chunk in &chunks {
                serde_json::to_writer(&mut *out, &graft_documents::row(document, chunk))
                    .map_err(std::io::Error::from)?;
                out.write_all(b"\n")?;
            }
        }
        let length = chunks.iter().map(|chunk| chunk.length as u64).sum();
        Ok(File::of(document, chunks.len(), length, same_as))
    }
}

/// What of a document that was read could not be.
fn problems_of(path: &Path, document: &Document) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        document.unread.iter().map(|what| Problem::unreadable(path, what.clone())).collect();
    if !document.textless.is_empty() {
        let pages = pages_without_text(&document.textless);
        problems.push(Problem {
            path: path.to_path_buf(),
            what: pages,
            allow: Allow::PagesWithoutText,
        });
    }
    problems
}
