//! The model's own chat template: Jinja from `chat_template.jinja` or tokenizer_config.json, rendered
//! as transformers' `apply_chat_template` does (`utils/chat_template_utils.py`): blocks trimmed,
//! `break` and `continue`, Python's texts and JSON, `raise_exception`, `strftime_now`.
//!
//! Three things differ from there, on purpose:
//! - Text that spells a control token stays text: it is broken up before the template sees it and put
//!   together again before it is encoded, so data can forge no turn.
//! - The date is the recipe's, not today's: `date_string` and `strftime_now` both give it, and the same
//!   data has the same tokens tomorrow.
//! - `~` writes true, false and none as minijinja does and not with Python's capitals.

mod budget;
mod clock;
mod environment;
mod guard;
mod losses;
mod mask;
mod numbers;
mod python;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use graft_files::caught::caught;
use graft_files::sha256::sha256_hex;
use minijinja::Environment;
use serde_json::Value as Json;

use crate::conversation::{Conversation, Message, Role};
use crate::error::{Error, RowProblem};
use crate::tokenizer::Tokenizer;
pub use losses::Losses;
use losses::{Comparison, Extent};
use values::Wording;

/// SHA-256 of `chat_template` of Llama-3.1-8B-Instruct, which the built-in format is.
const LLAMA_3_1: &str = "e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65";

/// Roles of special tokens that tokenizer_config.json names and templates may write.
const TOKEN_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What a template is tried on.
fn probe() -> Conversation {
    let turns = [(Role::User, "17"), (Role::Assistant, "71")];
    Conversation::of(turns.map(|(role, text)| Message::text(role, text)).to_vec())
}

/// The day of that conversation.
const PROBE_DATE: &str = "26 Jul 2024";

const BLANK: &str = "the template renders nothing of a conversation; put the model's own there, or \
                     remove it";

/// Turns that one conversation's renderings write in all: some seconds.
const MOST_TURNS_WRITTEN: usize = 3_000_000;
/// Text that takes as long to render as a turn does.
const BYTES_OF_A_TURN: usize = 500;

/// A file of the model folder: its bytes, and its name in messages.
#[derive(Debug, Clone, Copy)]
pub struct NamedFile<'a> {
    /// What it holds.
    pub bytes: &'a [u8],
    /// How messages call it.
    pub origin: &'a str,
}

/// The files of a model folder that may hold a chat template.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemplateFiles<'a> {
    /// `chat_template.jinja`, which wins over tokenizer_config.json.
    pub jinja: Option<NamedFile<'a>>,
    /// `additional_chat_templates/tool_use.jinja`, for conversations with tools.
    pub tool_use: Option<NamedFile<'a>>,
    /// `tokenizer_config.json`: special tokens, and in most folders the template.
    pub tokenizer_config: Option<NamedFile<'a>>,
}

/// A model's own chat template, ready to render.
pub struct ModelTemplate {
    environment: Environment<'static>,
    default: TemplateText,
    tool_use: Option<TemplateText>,
    /// `bos_token` and the like.
    tokens: BTreeMap<String, String>,
    /// Shapes of conversations that come out whole.
    whole: Mutex<BTreeSet<String>>,
}

/// The text of a template and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TemplateText {
    origin: String,
    text: String,
    /// Whether it marks what the model writes with `{% generation %}`.
    marks: bool,
}

impl ModelTemplate {
    /// All that decides what it renders.
    pub(crate) fn identity(&self) -> String {
        format!("{:?} {:?} {:?}", self.default, self.tool_use, self.tokens)
    }
}

impl std::fmt::Debug for ModelTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelTemplate")
            .field("origin", &self.default.origin)
            .field("sha256", &self.sha256())
            .finish_non_exhaustive()
    }
}

impl PartialEq for ModelTemplate {
    fn eq(&self, other: &Self) -> bool {
        (&self.default, &self.tool_use, &self.tokens)
            == (&other.default, &other.tool_use, &other.tokens)
    }
}

impl Eq for ModelTemplate {}

impl ModelTemplate {
    /// The template of a folder; `None` where it has none, or where it is Llama 3.1's, which the
    /// built-in format renders to the same tokens.
    ///
    /// # Errors
    /// A file is not what its name says, or its template cannot be parsed.
    pub fn from_files(files: TemplateFiles<'_>) -> Result<Option<Self>, Error> {
        let config = files.tokenizer_config.map(read_config).transpose()?.unwrap_or_default();
        let mut named = BTreeMap::new();
        if let Some(file) = files.jinja {
            named.insert("default".to_owned(), (text(file)?, file.origin.to_owned()));
            if let Some(file) = files.tool_use {
                named.insert("tool_use".to_owned(), (text(file)?, file.origin.to_owned()));
            }
        } else if let Some(file) = files.tokenizer_config {
            named = of_config(&config, file.origin)?;
        }
        let names = named.keys().cloned().collect::<Vec<_>>().join(", ");
        let (Some((default, origin)), tool_use) =
            (named.remove("default"), named.remove("tool_use"))
        else {
            let Some(file) = files.tokenizer_config.filter(|_| !names.is_empty()) else {
                return Ok(None);
            };
            let message = format!("`chat_template` has no template `default` (found: {names})");
            return Err(Error::Template { origin: file.origin.to_owned(), line: 1, message });
        };
        let tokens = special_tokens(&config);
        let known = sha256_hex(default.as_bytes()) == LLAMA_3_1
            && tokens.get("bos_token").is_some_and(|token| token == "<|begin_of_text|>");
        if known && tool_use.is_none() {
            return Ok(None);
        }
        Self::new((default, origin), tool_use, tokens).map(Some)
    }

    /// A template by itself.
    ///
    /// # Errors
    /// It cannot be parsed.
    pub fn from_text(text: &str, origin: &str, bos_token: &str) -> Result<Self, Error> {
        let tokens = BTreeMap::from([("bos_token".to_owned(), bos_token.to_owned())]);
        Self::new((text.to_owned(), origin.to_owned()), None, tokens)
    }

    fn new(
        default: (String, String),
        tool_use: Option<(String, String)>,
        tokens: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut environment = environment::new();
        let mut add = |name: &'static str, (text, origin): (String, String)| {
            let (prepared, marks) = mask::prepare(&text);
            let added = guard::guarded(&prepared)
                .and_then(|guarded| environment.add_template_owned(name, guarded));
            match added {
                Ok(()) => Ok(TemplateText { origin, text, marks }),
                Err(error) => {
                    let Problem { line, message } = Problem::of(&error);
                    Err(Error::Template { origin, line, message })
                }
            }
        };
        let default = add("default", default)?;
        let tool_use = tool_use.map(|named| add("tool_use", named)).transpose()?;
        let whole = Mutex::default();
        let template = Self { environment, default, tool_use, tokens, whole };
        template.check_not_blank()?;
        Ok(template)
    }

    /// An empty file, a comment: models cannot be asked with nothing.
    fn check_not_blank(&self) -> Result<(), Error> {
        let with_tools = self.tool_use.as_ref().map(|_| vec![serde_json::json!({"name": "f"})]);
        for tools in std::iter::once(Vec::new()).chain(with_tools) {
            let conversation = Conversation { tools, ..probe() };
            let wording = Wording::of(&conversation, None, self.texts())?;
            let blank = |prompt| {
                let rendered = self.render(&wording, wording.messages(), PROBE_DATE, prompt);
                rendered.is_ok_and(|text| mask::marked(&text, wording.mark).0.trim().is_empty())
            };
            if blank(false) && blank(true) {
                let (origin, message) = (self.source(&conversation).origin.clone(), BLANK);
                return Err(Error::Template { origin, line: 1, message: message.to_owned() });
            }
        }
        Ok(())
    }

    /// Whether the template's own text has the token.
    pub(crate) fn writes(&self, token: &str) -> bool {
        self.texts().any(|text| text.contains(token))
    }

    /// The token that the template ends an answer with.
    pub(crate) fn closing(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let (ids, targets) = self.encode(&probe(), PROBE_DATE, Losses::Allow, tokenizer).ok()?;
        let last = targets.iter().rposition(|&target| target)?;
        let mut end = ids[last..].iter().take(2).copied();
        end.find(|&id| tokenizer.marks().contain(id))
    }

    /// Shapes of conversations that come out whole.
    fn shapes(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that the template of plain conversations stands in.
    pub fn origin(&self) -> &str {
        &self.default.origin
    }

    /// SHA-256 of the text of that template, in hexadecimal.
    pub fn sha256(&self) -> String {
        sha256_hex(self.default.text.as_bytes())
    }

    /// Ids of the conversation and, for each, whether it is a target.
    ///
    /// Where the template has `{% generation %}` blocks, targets are the tokens that touch one, as
    /// in transformers. Elsewhere an assistant's turn is what the template adds for it to the
    /// conversation before it, up to the last control token. Of another's turn that is learnt, targets are
    /// its content and the control token behind it.
    ///
    /// # Errors
    /// The template refuses the conversation, renders nothing or leaves something out where that is
    /// not allowed, or does not say which part of it is the assistant's: it writes a turn in another
    /// way once others follow it.
    pub fn encode(
        &self,
        conversation: &Conversation,
        date: &str,
        losses: Losses,
        tokenizer: &Tokenizer,
    ) -> Result<(Vec<u32>, Vec<bool>), Error> {
        let wording = Wording::of(conversation, Some(tokenizer), self.texts())?;
        mask::check_turns(self, &wording, conversation)?;
        let marked = self.render(&wording, wording.messages(), date, false)?;
        self.check_said(conversation, &wording, &marked)?;
        if losses == Losses::Refuse {
            let (template, prompt) = (self, false);
            Comparison { template, wording: &wording, conversation, date, marked: &marked, prompt }
                .check(Extent::All)?;
        }
        let source = self.source(conversation);
        let (rendered, mut spans) = if source.marks {
            let (rendered, spans) = mask::marked(&marked, wording.mark);
            (rendered, mask::of_learnt(spans, conversation)?)
        } else {
            let spans = mask::by_prefixes(self, &wording, conversation, date, &marked, tokenizer)?;
            (marked, spans)
        };
        spans.extend(mask::of_others(self, &wording, conversation, date, &rendered, tokenizer)?);
        spans.sort_by_key(|span| span.start);
        mask::encode(&rendered, &spans, wording.breaker, tokenizer)
    }

    /// Ids of the conversation so far and of what the template puts before the assistant's next turn.
    ///
    /// # Errors
    /// The template refuses the conversation, renders nothing, or leaves out something of what is
    /// asked where that is not allowed.
    pub fn prompt(
        &self,
        conversation: &Conversation,
        date: &str,
        losses: Losses,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, Error> {
        let wording = Wording::of(conversation, Some(tokenizer), self.texts())?;
        let marked = self.render(&wording, wording.messages(), date, true)?;
        self.check_said(conversation, &wording, &marked)?;
        if losses == Losses::Refuse {
            let (template, prompt) = (self, true);
            Comparison { template, wording: &wording, conversation, date, marked: &marked, prompt }
                .check(Extent::Question)?;
        }
        let (rendered, _) = mask::marked(&marked, wording.mark);
        Ok(mask::encode(&rendered, &[], wording.breaker, tokenizer)?.0)
    }

    fn check_said(
        &self,
        conversation: &Conversation,
        wording: &Wording,
        marked: &str,
    ) -> Result<(), RowProblem> {
        if mask::marked(marked, wording.mark).0.trim().is_empty() {
            let (origin, message) = (self.source(conversation).origin.clone(), BLANK.to_owned());
            return Err(RowProblem::Template { origin, line: 1, message });
        }
        Ok(())
    }

    /// # Errors
    /// Rendering the conversation so many times would take more than a moment.
    fn check_effort(
        &self,
        conversation: &Conversation,
        wording: &Wording,
        renderings: usize,
        why: &str,
    ) -> Result<(), RowProblem> {
        let turns = conversation.messages.len();
        if renderings.saturating_mul(turns + wording.bytes / BYTES_OF_A_TURN) <= MOST_TURNS_WRITTEN
        {
            return Ok(());
        }
        Err(self.too_long(conversation, wording, why))
    }

    fn too_long(&self, conversation: &Conversation, wording: &Wording, why: &str) -> RowProblem {
        let (turns, bytes) = (conversation.messages.len(), wording.bytes);
        let message = format!(
            "{turns} turns with {bytes} bytes, and {why}; cut the conversation into several rows"
        );
        RowProblem::Template { origin: self.source(conversation).origin.clone(), line: 1, message }
    }

    /// The text of some of the conversation's turns, marks and breakers included.
    fn render(
        &self,
        wording: &Wording,
        messages: &[Json],
        date: &str,
        generation_prompt: bool,
    ) -> Result<String, RowProblem> {
        self.render_with(wording, messages, wording.tools(), date, generation_prompt)
    }

    /// With other tools than the conversation's.
    fn render_with(
        &self,
        wording: &Wording,
        messages: &[Json],
        tools: &[Json],
        date: &str,
        generation_prompt: bool,
    ) -> Result<String, RowProblem> {
        let (name, source) = match &self.tool_use {
            Some(source) if !tools.is_empty() => ("tool_use", source),
            _ => ("default", &self.default),
        };
        let context = wording.context(messages, tools, date, generation_prompt, &self.tokens);
        budget::begin(wording.bytes);
        let rendered = caught(|| {
            self.environment.get_template(name).and_then(|template| template.render(context))
        });
        let problem = match rendered {
            Some(Ok(text)) => return Ok(text),
            Some(Err(error)) => Problem::of(&error),
            None => Problem { line: 1, message: "the engine gave up on it".to_owned() },
        };
        let (origin, Problem { line, message }) = (source.origin.clone(), problem);
        Err(RowProblem::Template { origin, line, message })
    }

    /// The template that renders the conversation.
    fn source(&self, conversation: &Conversation) -> &TemplateText {
        self.tool_use.as_ref().filter(|_| !conversation.tools.is_empty()).unwrap_or(&self.default)
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.default).chain(&self.tool_use).map(|source| source.text.as_str())
    }
}

/// What a template's failure is called.
struct Problem {
    /// Line of the template, counted from 1.
    line: usize,
    message: String,
}

impl Problem {
    fn of(error: &minijinja::Error) -> Self {
        let line = error.line().unwrap_or(1);
        let message = match (environment::raised(error), error.detail()) {
            (Some(said), _) => format!("the template says: {said}"),
            (_, Some(detail)) if detail.starts_with(budget::TOO_MUCH) => detail.to_owned(),
            (_, Some(detail)) => format!("{}: {detail}", error.kind()),
            (_, None) => error.kind().to_string(),
        };
        Self { line, message }
    }
}

fn text(file: NamedFile<'_>) -> Result<String, Error> {
    let text = std::str::from_utf8(file.bytes).map(str::to_owned);
    text.map_err(|error| Error::Template {
        origin: file.origin.to_owned(),
        line: 1,
        message: format!("not UTF-8 after byte {}", error.valid_up_to()),
    })
}

fn read_config(file: NamedFile<'_>) -> Result<Json, Error> {
    serde_json::from_slice(file.bytes).map_err(|error| Error::Settings {
        origin: file.origin.to_owned(),
        message: format!("malformed JSON: {error}"),
    })
}

/// `chat_template`: one text, or a list of `{"name", "template"}`.
fn of_config(config: &Json, origin: &str) -> Result<BTreeMap<String, (String, String)>, Error> {
    let fail = |message: &str| {
        let (origin, message) = (origin.to_owned(), message.to_owned());
        Err(Error::Template { origin, line: 1, message })
    };
    let mut named = BTreeMap::new();
    match config.get("chat_template") {
        None | Some(Json::Null) => {}
        Some(Json::String(text)) => {
            named.insert("default".to_owned(), (text.clone(), origin.to_owned()));
        }
        Some(Json::Array(list)) => {
            for entry in list {
                let (Some(name), Some(text)) = (entry["name"].as_str(), entry["template"].as_str())
                else {
                    return fail("an entry of `chat_template` has no `name` or no `template`");
                };
                named.insert(name.to_owned(), (text.to_owned(), origin.to_owned()));
            }
        }
        Some(_) => return fail("`chat_template` is neither a text nor a list of templates"),
    }
    Ok(named)
}

/// Written as a text, or as an object whose `content` is the text.
fn special_tokens(config: &Json) -> BTreeMap<String, String> {
    let spelling = |name: &&'static str| {
        let value = config.get(*name)?;
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        Some(((*name).to_owned(), text.to_owned()))
    };
    TOKEN_NAMES.iter().filter_map(spelling).collect()
}

#[cfg(test)]
mod tests;
