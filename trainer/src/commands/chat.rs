//! `graft chat`: a conversation, line by line, until end of input.

mod editor;
mod lines;
mod said;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use graft_data::{ChatTemplate, Message, Role, Tokenizer, visible};
use graft_kernels::Precision;
use graft_model::Projection;
use serde_json::json;
use signal_hook::consts::SIGINT;

use super::open::Opening;
use super::speech::{Reading, Speech, check_room, conversation, mark};
use crate::cli::model_args::ChatArgs;
use crate::cli::{Globals, page};
use crate::device::{Backend, OnBackend};
use crate::progress::Voice;
use graft_engine::generate::{Answer, Generator, Heard, Sampling, Session};
use lines::{Lines, Next};
use said::{HELP, Said};

/// Reads questions from standard input and answers each with the conversation so far in view.
///
/// # Errors
/// Model or adapter are unusable; input or output fails; a question from a file cannot be answered.
pub fn run(globals: &Globals, args: &ChatArgs) -> anyhow::Result<()> {
    let sampling = args.sampling.sampling()?;
    let device = globals.device.open()?;
    let precision = args.model.beside.precision(&device, globals);
    let opening = args.model.beside.open(&args.model.model)?;
    opening.warn(globals)?;
    // A chat that cannot be rendered is refused before the weights are read and anything is asked.
    let chat = args.model.beside.chat(&opening.trained, opening.files.template.as_ref());
    let first = conversation(vec![Message::text(Role::User, "?")], None);
    chat.prompt(&first, &opening.files.tokenizer)?;
    device.run(Opened { args, opening, precision, sampling, globals })
}

/// The work on whichever backend there is.
struct Opened<'a> {
    args: &'a ChatArgs,
    opening: Opening,
    precision: Precision,
    sampling: Sampling,
    globals: &'a Globals,
}

impl OnBackend for Opened<'_> {
    type Output = anyhow::Result<()>;

    fn on<B: Backend>(self, device: &B::Device) -> Self::Output {
        let Self { args, opening, precision, sampling, globals } = self;
        let files = &opening.files;
        let nf4 = args.model.beside.nf4(&files.config, &opening.trained, &args.model.model)?;
        let system = opening.system(args.system.as_deref(), globals);
        let model = opening.load::<B>(globals.voice(), nf4, device)?;
        let stop = files.tokenizer.stop_ids();
        let session = Session::new(Generator { model: &model, precision, stop: &stop });
        let mut lines = Lines::new();
        let at_terminal = lines.are_edited();
        let talk = Talk {
            args,
            voice: globals.voice(),
            opening: &opening,
            tokenizer: &files.tokenizer,
            chat: args.model.beside.chat(&opening.trained, files.template.as_ref()),
            longest: files.config.max_position_embeddings,
            session,
            sampling,
            interrupted: if at_terminal { interrupts()? } else { Arc::default() },
            system,
            turns: Vec::new(),
            at_terminal,
        };
        talk.until_the_end(&mut lines, globals)
    }
}

/// What is no answer of the model goes to stderr: there it is asked for, and never part of a result.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(text));
}

/// From now on the first Ctrl-C is for the answer; a second one before it is heard ends the process.
fn interrupts() -> std::io::Result<Arc<AtomicBool>> {
    /// 128 and the signal's number, as shells have it.
    const BY_SIGINT: i32 = 128 + SIGINT;
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register_conditional_shutdown(SIGINT, BY_SIGINT, Arc::clone(&flag))?;
    signal_hook::flag::register(SIGINT, Arc::clone(&flag))?;
    Ok(flag)
}

/// A conversation under way.
struct Talk<'a, B: Backend, P> {
    args: &'a ChatArgs,
    voice: Voice,
    opening: &'a Opening,
    tokenizer: &'a Tokenizer,
    chat: ChatTemplate,
    /// The model's positions.
    longest: usize,
    session: Session<'a, B, P>,
    sampling: Sampling,
    interrupted: Arc<AtomicBool>,
    system: Option<String>,
    /// What was said, without the system prompt.
    turns: Vec<Message>,
    at_terminal: bool,
}

impl<B: Backend, P: Projection<B>> Talk<'_, B, P> {
    fn until_the_end(mut self, lines: &mut Lines, globals: &Globals) -> anyhow::Result<()> {
        if self.at_terminal {
            globals
                .note("/help lists the commands; Ctrl-C ends an answer, Ctrl-D the conversation.");
        }
        loop {
            let line = match lines.next()? {
                Next::Line(line) => line,
                Next::Interrupted => {
                    tell("Ctrl-D or /quit ends the conversation.");
                    continue;
                }
                Next::End => return Ok(()),
            };
            match Said::of(&line) {
                Said::Nothing => {}
                Said::Quit => return Ok(()),
                Said::Help => tell(HELP),
                Said::Clear => {
                    self.turns.clear();
                    tell("The conversation starts over.");
                }
                Said::ShowSystem => tell(&match &self.system {
                    Some(system) => format!("system prompt: {system}"),
                    None => "There is no system prompt.".to_owned(),
                }),
                Said::System(text) => {
                    self.system = Some(text).filter(|text| !text.is_empty());
                    self.turns.clear();
                    tell("The conversation starts over with this system prompt.");
                }
                Said::Unknown(found) => {
                    tell(&format!("`{found}` is no command; /help lists them."));
                }
                Said::Text(text) => self.turn(text)?,
            }
        }
    }

    /// Answers a text. A person who asks what cannot be answered is told why and asks again.
    fn turn(&mut self, text: String) -> anyhow::Result<()> {
        self.turns.push(Message::text(Role::User, text));
        let prompt = match self.prompt() {
            Ok(prompt) => prompt,
            Err(error) if self.at_terminal => {
                self.turns.pop();
                tell(&format!("{error:#}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let prompt_tokens = prompt.len();
        let answer = self.answer(prompt)?;
        let text = self.tokenizer.decode(&answer.tokens, true)?;
        if self.args.json {
            page::print_json_line(&json!({
                "text": text,
                "finish_reason": answer.end,
                "tokens": answer.tokens.len(),
                "prompt_tokens": prompt_tokens,
            }))?;
        } else {
            mark(&answer, self.args.sampling.max_new_tokens.get(), self.longest);
        }
        if text.trim().is_empty() {
            // Templates have no turn that says nothing: the question is as if it had not been asked.
            self.turns.pop();
        } else {
            self.turns.push(Message::text(Role::Assistant, text));
        }
        Ok(())
    }

    fn prompt(&self) -> anyhow::Result<Vec<u32>> {
        let conversation = conversation(self.turns.clone(), self.system.as_deref());
        let prompt = self.chat.prompt(&conversation, self.tokenizer)?;
        check_room(prompt.len(), self.longest).map_err(|error| {
            if self.turns.len() == 1 {
                return error.into();
            }
            let all = page::grouped(prompt.len() as u64);
            let longest = page::grouped(self.longest as u64);
            anyhow::Error::new(crate::cli::failure::WrongUse(format!(
                "the conversation no longer fits the model: with this question it has {all} tokens, \
                 and the longest sequence is {longest}, answer included. /clear starts over, and a \
                 shorter question may fit"
            )))
        })?;
        Ok(prompt)
    }

    fn answer(&mut self, prompt: Vec<u32>) -> anyhow::Result<Answer> {
        let Self { args, voice, session, sampling, interrupted, tokenizer, .. } = self;
        interrupted.store(false, Ordering::Relaxed);
        let mut speech = (!args.json).then(|| Speech::new(tokenizer));
        let mut reading = Reading::new(*voice);
        let mut listener = |heard| {
            let is_heard = match (&mut speech, heard) {
                (Some(speech), Heard::Token(id)) => speech.token(id),
                (_, Heard::Prompt { read, of }) => {
                    reading.heard(read, of);
                    true
                }
                _ => true,
            };
            is_heard && !interrupted.load(Ordering::Relaxed)
        };
        let max_new = args.sampling.max_new_tokens.get();
        let answer = session.answer(prompt, max_new, sampling, &mut listener);
        let answer = answer.map_err(|error| self.opening.named(error))?;
        interrupted.store(false, Ordering::Relaxed);
        if let Some(speech) = speech {
            speech.finish()?;
        }
        Ok(answer)
    }
}
