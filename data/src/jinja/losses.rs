//! What a template leaves out of a conversation, found by rendering and comparing.
//!
//! Every shape of conversation is rendered once with a number in place of every text, and each number
//! must come out; then every row's own texts are looked for, word by word. Where one is not found (a
//! template may write it in another way) it is altered: it is lost if nothing of the rendering moves.

use serde_json::{Value as Json, json};

use super::ModelTemplate;
use super::values::Wording;
use crate::conversation::{Content, Conversation, Role};
use crate::error::RowProblem;
use crate::template_json::compact;

/// Whether a chat template may leave out parts of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Losses {
    /// The conversation is refused. The default.
    #[default]
    Refuse,
    /// What the template leaves out is not learnt.
    Allow,
}

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Every turn.
    All,
    /// What the model is asked: templates may drop what it thought in earlier turns.
    Question,
}

/// Bytes that are looked through for the texts of a conversation: some seconds.
const MOST_LOOKED_AT: usize = 20_000_000_000;

/// Distinct shapes that are remembered: conversations have few.
const MOST_SHAPES: usize = 4_096;

/// A rendering of a conversation, to be compared.
pub(super) struct Comparison<'a> {
    pub template: &'a ModelTemplate,
    pub wording: &'a Wording,
    pub conversation: &'a Conversation,
    pub date: &'a str,
    /// With signs, as the template wrote it.
    pub marked: &'a str,
    pub prompt: bool,
}

impl Comparison<'_> {
    /// # Errors
    /// Something of the conversation does not come out.
    pub(super) fn check(&self, extent: Extent) -> Result<(), RowProblem> {
        let messages = self.wording.messages();
        // Each text is looked for in all that was written.
        if messages.len().saturating_mul(self.marked.len()) > MOST_LOOKED_AT {
            let Self { template, conversation, wording, .. } = self;
            let why = "finding out whether the template leaves out any of them takes too long, unless that is \
                       allowed (`data.chat.losses: allow`)";
            return Err(template.too_long(conversation, wording, why));
        }
        let counts = |index: &usize| {
            extent == Extent::All || self.conversation.messages[*index].role != Role::Assistant
        };
        let turns: Vec<usize> = (0..messages.len()).filter(counts).collect();
        self.check_shape(&turns, extent)?;
        let mut compared = 0;
        for &index in &turns {
            for path in paths(&messages[index]) {
                let Some(text) = messages[index].pointer(&path).and_then(Json::as_str) else {
                    continue;
                };
                let Some(word) = missing_word(text, self.marked) else { continue };
                compared += 1;
                let why = "finding out what the template leaves out takes a rendering for each text that it \
                           writes in another way, unless that is allowed (`data.chat.losses: allow`)";
                let Self { template, conversation, wording, .. } = self;
                template.check_effort(conversation, wording, compared, why)?;
                let mut altered = messages.to_vec();
                if let Some(place) = altered[index].pointer_mut(&path) {
                    let start = word.as_ptr() as usize - text.as_ptr() as usize;
                    *place = Json::String(format!("{}7081{}", &text[..start], &text[start..]));
                }
                if self.is_same(&altered, self.wording.tools()) {
                    return Err(self.lost(&self.turn(index), word));
                }
            }
        }
        self.check_tools()
    }

    /// With a number in place of every text.
    fn check_shape(&self, turns: &[usize], extent: Extent) -> Result<(), RowProblem> {
        let shape = self.shape(extent);
        if self.template.shapes().contains(&shape) {
            return Ok(());
        }
        let number = |index: usize| format!("7{index:04}0817");
        let mut messages = self.wording.messages().to_vec();
        for (index, message) in messages.iter_mut().enumerate() {
            if message.get("tool_calls").is_some() {
                message["tool_calls"][0]["function"] =
                    json!({"name": number(index), "arguments": {"a": number(index + 5_000)}});
            } else {
                message["content"] = Json::String(number(index));
            }
        }
        // A template that refuses such texts has to be asked with true ones alone.
        if let Ok(rendered) = self.render(&messages, self.wording.tools()) {
            for &index in turns {
                let is_call = messages[index].get("tool_calls").is_some();
                let whole = rendered.contains(&number(index))
                    && (!is_call || rendered.contains(&number(index + 5_000)));
                let says_something =
                    paths(&self.wording.messages()[index]).iter().any(|path| !path.is_empty());
                if !whole && says_something {
                    let text = match &self.conversation.messages[index].content {
                        Content::Text(text) => text.clone(),
                        Content::ToolCall { arguments, .. }
                            if rendered.contains(&number(index)) =>
                        {
                            compact(&Json::from(arguments.clone()))
                        }
                        Content::ToolCall { name, .. } => name.clone(),
                        Content::ToolResult(value) => compact(value),
                    };
                    return Err(self.lost(&self.turn(index), &text));
                }
            }
        }
        let mut shapes = self.template.shapes();
        if shapes.len() < MOST_SHAPES {
            shapes.insert(shape);
        }
        Ok(())
    }

    /// Roles and kinds of the turns.
    fn shape(&self, extent: Extent) -> String {
        let turn = |message: &crate::conversation::Message| match (message.role, &message.content) {
            (_, Content::ToolCall { .. }) => 'c',
            (_, Content::ToolResult(_)) => 'r',
            (Role::System, _) => 's',
            (Role::User, _) => 'u',
            (Role::Assistant, _) => 'a',
            (Role::Tool, _) => 't',
        };
        let turns: String = self.conversation.messages.iter().map(turn).collect();
        let Conversation { tools, builtin_tools, tools_in_user_message, .. } = self.conversation;
        let (tools, builtin) = (!tools.is_empty(), !builtin_tools.is_empty());
        let (extent, prompt) = (extent == Extent::All, self.prompt);
        format!("{turns} {tools} {builtin} {tools_in_user_message:?} {extent} {prompt}")
    }

    fn check_tools(&self) -> Result<(), RowProblem> {
        for (index, tool) in self.wording.tools().iter().enumerate() {
            let name = tool["function"]["name"].as_str().or_else(|| tool["name"].as_str());
            if name.is_some_and(|name| missing_word(name, self.marked).is_none()) {
                continue;
            }
            let mut fewer = self.wording.tools().to_vec();
            fewer.remove(index);
            if self.is_same(self.wording.messages(), &fewer) {
                let name = name.map_or_else(|| tool.to_string(), str::to_owned);
                return Err(self.lost("of `tools`", &name));
            }
        }
        Ok(())
    }

    fn render(&self, messages: &[Json], tools: &[Json]) -> Result<String, RowProblem> {
        self.template.render_with(self.wording, messages, tools, self.date, self.prompt)
    }

    fn is_same(&self, messages: &[Json], tools: &[Json]) -> bool {
        self.render(messages, tools).is_ok_and(|other| other == self.marked)
    }

    fn turn(&self, index: usize) -> String {
        let message = &self.conversation.messages[index];
        let (number, role) = (index + 1, message.role.header());
        let what = match message.content {
            Content::Text(_) => "",
            Content::ToolCall { .. } => ", the call of a tool",
            Content::ToolResult(_) => ", the result of a tool",
        };
        format!("of turn {number} (`{role}`{what})")
    }

    fn lost(&self, place: &str, text: &str) -> RowProblem {
        let text: String = text.trim().chars().take(40).collect();
        RowProblem::Template {
            origin: self.template.source(self.conversation).origin.clone(),
            line: 1,
            message: format!(
                "the template leaves out {text:?} {place}; give a template that writes it, or \
                 leave it out knowingly with `data.chat.losses: allow` in a recipe, `--allow-losses` \
                 without one"
            ),
        }
    }
}

/// JSON pointers to the texts of a turn.
fn paths(message: &Json) -> Vec<String> {
    fn walk(value: &Json, at: &str, out: &mut Vec<String>) {
        match value {
            Json::String(text) if !text.trim().is_empty() => out.push(at.to_owned()),
            Json::Array(list) => {
                for (index, item) in list.iter().enumerate() {
                    walk(item, &format!("{at}/{index}"), out);
                }
            }
            Json::Object(map) => {
                for (key, item) in map {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    walk(item, &format!("{at}/{key}"), out);
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    for (key, value) in [("content", &message["content"]), ("tool_calls", &message["tool_calls"])] {
        walk(value, &format!("/{key}"), &mut out);
    }
    out.retain(|path| !path.ends_with("/type"));
    out
}

/// The first word that does not follow the ones before it somewhere in what was rendered.
fn missing_word<'a>(text: &'a str, rendered: &str) -> Option<&'a str> {
    if rendered.contains(text.trim()) {
        return None;
    }
    let mut rest = rendered;
    for word in text.split_whitespace() {
        match rest.find(word) {
            Some(at) => rest = &rest[at + word.len()..],
            None => return Some(word),
        }
    }
    None
}
