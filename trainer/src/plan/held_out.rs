//! Questions with answers, for exact match: what the model is given, and what it should write.

use std::collections::BTreeMap;

use graft_data::{
    Content, Error, FileDigest, Format, Origin, ReadRows, Row, RowProblem, Rows, SampleOptions,
    SourceFile, Tokenizer, read_rows,
};

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOut {
    /// Ids that the model goes on from: all turns before the last answer, and its header; for a
    /// `completion` row the first token and the prompt.
    pub prompt: Vec<u32>,
    /// The last thing that was asked.
    pub question: String,
    /// The answer, without white space around it.
    pub expected: String,
}

/// The questions of some files.
#[derive(Debug, Default)]
pub struct HeldOutRows {
    /// In file order.
    pub questions: Vec<HeldOut>,
    /// What each row says.
    pub rows: Rows,
    /// Size and hash of each file.
    pub files: Vec<FileDigest>,
    /// What `data.hygiene` did to rows, and to how many.
    pub cleaned: BTreeMap<String, usize>,
}

/// Reads the questions of `sources`.
///
/// # Errors
/// A file cannot be read or holds a wrong row, a row has no question, or its answer is a tool call
/// or longer than exact match makes sense for; each with file and line.
pub fn held_out_rows(
    sources: &[SourceFile],
    tokenizer: &Tokenizer,
    options: &SampleOptions,
) -> Result<HeldOutRows, Error> {
    if sources.is_empty() {
        return Ok(HeldOutRows::default());
    }
    let ReadRows { rows, files } = read_rows(sources)?;
    let one = |(row, origin): &(Row, Origin)| {
        held_out(row, tokenizer, options).map_err(|error| match error {
            Error::Render(problem) => {
                Error::Row { place: Box::new(origin.place(sources)), problem }
            }
            other => other,
        })
    };
    let questions = rows.iter().map(one).collect::<Result<_, _>>()?;
    let rows = rows.iter().map(|(row, origin)| row.record(*origin)).collect();
    let mut cleaned = BTreeMap::new();
    for (what, count) in files.iter().flat_map(|file| &file.cleaned) {
        *cleaned.entry(what.clone()).or_default() += count;
    }
    let files = files.into_iter().map(|file| file.digest).collect();
    Ok(HeldOutRows { questions, rows, files, cleaned })
}

fn held_out(row: &Row, tokenizer: &Tokenizer, options: &SampleOptions) -> Result<HeldOut, Error> {
    match row {
        Row::Conversation(conversation) => {
            let mut conversation = conversation.clone();
            if let Some(prompt) = &options.system_prompt {
                conversation = conversation.with_system_prompt(prompt);
            }
            let messages = &mut conversation.messages;
            // Of the turns that are to be learnt: another is given.
            let last = messages.iter().rposition(|message| message.learnt);
            let last = last.ok_or_else(|| {
                unsupported("every turn of the assistant has `weight: 0`, so none is an answer")
            })?;
            let answer = messages.split_off(last).swap_remove(0);
            let Content::Text(expected) = answer.content else {
                return Err(unsupported(
                    "the last answer is a tool call, which exact match cannot score",
                ));
            };
            let question = messages.iter().rev().find_map(|message| match &message.content {
                Content::Text(text) if message.role == graft_data::Role::User => {
                    Some(text.trim().to_owned())
                }
                _ => None,
            });
            let question =
                question.ok_or_else(|| unsupported("no question stands before the last answer"))?;
            let prompt = options.chat.prompt(&conversation, tokenizer)?;
            Ok(HeldOut { prompt, question, expected: expected.trim().to_owned() })
        }
        Row::Completion { prompt, completion } => {
            let mut ids = tokenizer.opening().to_vec();
            ids.extend(tokenizer.encode(prompt)?);
            let (question, expected) = (prompt.trim().to_owned(), completion.trim().to_owned());
            Ok(HeldOut { prompt: ids, question, expected })
        }
        Row::Text(_) => Err(unsupported(&format!(
            "`format: {}` has no question and no answer; use another format",
            Format::Text
        ))),
    }
}

/// The first question that, with an answer of `answer` tokens, is longer than the model's longest
/// sequence.
pub fn without_room(rows: &[HeldOut], answer: usize, longest: usize) -> Option<&HeldOut> {
    rows.iter().find(|row| row.prompt.len() + answer > longest)
}

/// What is said of a question that leaves no room for its answer, whose length `key` says.
pub fn no_room(
    question: &str,
    tokens: usize,
    (answer, key): (usize, &str),
    longest: usize,
) -> String {
    let question: String = question.chars().take(60).collect();
    format!(
        "the prompt of {question:?} has {tokens} tokens and its answer may have {answer} \
         ({key}), but the model's longest sequence is {longest}"
    )
}

fn unsupported(message: &str) -> Error {
    Error::Render(RowProblem::Unsupported(message.to_owned()))
}
