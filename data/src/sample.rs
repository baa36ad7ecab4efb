//! One row as tokens, and which of them are learnt.

use crate::chat::ChatTemplate;
use crate::error::{Error, RowProblem};
use crate::formats::{Origin, Row};
use crate::overlong::Overlong;
use crate::tokenizer::Tokenizer;

/// The label of a token that does not count in the loss, as in PyTorch and transformers.
pub const IGNORE: i32 = -100;

/// A row ready to be trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Ids, `[seq]`.
    pub tokens: Vec<u32>,
    /// For every token its own id where it is a target, else [`IGNORE`], `[seq]`; not shifted, as
    /// in transformers.
    pub labels: Vec<i32>,
    /// Where the row stands.
    pub origin: Origin,
}

impl Sample {
    /// How many tokens are predicted and count; the first token of a row is never predicted.
    pub fn targets(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label != IGNORE).count()
    }

    /// Whether a run of targets holds none of the ids at which generation ends: who learns it does not
    /// learn to stop there.
    pub(crate) fn has_open_answer(&self, stops: &[u32]) -> bool {
        self.labels
            .split(|&label| label == IGNORE)
            .any(|run| !run.is_empty() && !run.iter().any(|&id| stops.contains(&(id as u32))))
    }
}

/// How rows become samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleOptions {
    /// Renders conversations.
    pub chat: ChatTemplate,
    /// System prompt of conversations that bring none.
    pub system_prompt: Option<String>,
    /// Longest row in tokens, at least 2.
    pub max_seq_len: usize,
    /// What happens to longer rows.
    pub overlong: Overlong,
    /// Learn every token but the first, not the answers alone.
    pub train_on_inputs: bool,
    /// Drop and count rows without a target token; an error otherwise.
    pub allow_empty_targets: bool,
}

impl SampleOptions {
    /// The defaults of a recipe, for rows of at most `max_seq_len` tokens.
    pub fn new(max_seq_len: usize) -> Self {
        Self {
            chat: ChatTemplate::default(),
            system_prompt: None,
            max_seq_len,
            overlong: Overlong::Error,
            train_on_inputs: false,
            allow_empty_targets: false,
        }
    }
}

/// Why a row did not become a sample, before its place is known.
pub(crate) enum RowFailure {
    Row(RowProblem),
    Other(Error),
}

impl From<RowProblem> for RowFailure {
    fn from(problem: RowProblem) -> Self {
        Self::Row(problem)
    }
}

impl From<Error> for RowFailure {
    fn from(error: Error) -> Self {
        match error {
            Error::Render(problem) => Self::Row(problem),
            other => Self::Other(other),
        }
    }
}

/// The row in full, whatever its length.
pub(crate) fn encode_row(
    row: &Row,
    origin: Origin,
    tokenizer: &Tokenizer,
    options: &SampleOptions,
) -> Result<Sample, RowFailure> {
    let (tokens, mut targets) = match row {
        Row::Conversation(conversation) => match &options.system_prompt {
            Some(prompt) => {
                options.chat.encode(&conversation.clone().with_system_prompt(prompt), tokenizer)
            }
            None => options.chat.encode(conversation, tokenizer),
        }?,
        // The two texts are encoded apart, so that the prompt has the ids it has at inference.
        Row::Completion { prompt, completion } => {
            framed(&[(prompt, false), (completion, true)], tokenizer)?
        }
        Row::Text(text) => framed(&[(text, true)], tokenizer)?,
    };
    if options.train_on_inputs {
        if let Row::Conversation(conversation) = row
            && conversation.has_masked_turn()
        {
            return Err(RowProblem::Unsupported(
                "a turn is not to be learnt (`weight: 0`), but `train_on_inputs` \
                 learns every token; give up one of the two"
                    .to_owned(),
            )
            .into());
        }
        targets.fill(true);
    }
    // Nothing stands before the first token that could predict it.
    if let Some(first) = targets.first_mut() {
        *first = false;
    }
    let label = |(&id, &target): (&u32, &bool)| if target { id as i32 } else { IGNORE };
    let labels = tokens.iter().zip(&targets).map(label).collect();
    Ok(Sample { tokens, labels, origin })
}

/// What the tokenizer puts in front of a text, the texts, and what ends them as a target.
fn framed(
    texts: &[(&String, bool)],
    tokenizer: &Tokenizer,
) -> Result<(Vec<u32>, Vec<bool>), Error> {
    let mut ids = tokenizer.opening().to_vec();
    let mut targets = vec![false; ids.len()];
    for (text, target) in texts {
        ids.extend(tokenizer.encode(text)?);
        targets.resize(ids.len(), *target);
    }
    ids.extend(tokenizer.closing());
    targets.resize(ids.len(), true);
    Ok((ids, targets))
}
