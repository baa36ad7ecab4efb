//! `graft generate`: one answer.

use std::io::IsTerminal as _;

use graft_data::{Message, Role};
use graft_kernels::Precision;
use serde_json::json;

use super::open::Opening;
use super::speech::{Reading, Speech, check_room, conversation, mark};
use crate::cli::failure::WrongUse;
use crate::cli::model_args::GenerateArgs;
use crate::cli::{Globals, page};
use crate::device::{Backend, OnBackend};
use crate::progress::Voice;
use graft_engine::generate::{Generator, Heard, Sampling};

/// Answers a prompt; on a terminal the text appears as it is written.
///
/// # Errors
/// Model or adapter are unusable, the prompt is too long, or the model's scores are no numbers.
pub fn run(globals: &Globals, args: &GenerateArgs) -> anyhow::Result<()> {
    let sampling = args.sampling.sampling()?;
    let device = globals.device.open()?;
    let precision = args.model.beside.precision(&device, globals);
    let opening = args.model.beside.open(&args.model.model)?;
    opening.warn(globals)?;
    let prompt = prompt(globals, args, &opening)?;
    check_room(prompt.len(), opening.files.config.max_position_embeddings)?;
    device.run(Answering { args, opening, prompt, precision, sampling, voice: globals.voice() })
}

/// The work on whichever backend there is.
struct Answering<'a> {
    args: &'a GenerateArgs,
    opening: Opening,
    prompt: Vec<u32>,
    precision: Precision,
    sampling: Sampling,
    voice: Voice,
}

impl OnBackend for Answering<'_> {
    type Output = anyhow::Result<()>;

    fn on<B: Backend>(self, device: &B::Device) -> Self::Output {
        let Self { args, opening, prompt, precision, sampling, voice } = self;
        let files = &opening.files;
        let nf4 = args.model.beside.nf4(&files.config, &opening.trained, &args.model.model)?;
        let model = opening.load::<B>(voice, nf4, device)?;
        let stop = files.tokenizer.stop_ids();
        let generator = Generator { model: &model, precision, stop: &stop };
        let streams = !args.json && std::io::stdout().is_terminal();
        let mut speech = streams.then(|| Speech::new(&files.tokenizer));
        let mut reading = Reading::new(voice);
        let mut listener = |_: usize, heard| match (&mut speech, heard) {
            (Some(speech), Heard::Token(id)) => speech.token(id),
            (_, Heard::Prompt { read, of }) => {
                reading.heard(read, of);
                true
            }
            _ => true,
        };
        let max_new = args.sampling.max_new_tokens.get();
        let prompt_tokens = prompt.len();
        let started = std::time::Instant::now();
        let answer = generator.run(&[prompt], max_new, &sampling, &mut listener);
        let answer = answer.map_err(|error| opening.named(error))?.swap_remove(0);
        let seconds = started.elapsed().as_secs_f64();
        if let Some(speech) = speech {
            speech.finish()?;
        } else {
            let text = files.tokenizer.decode(&answer.tokens, true)?;
            if args.json {
                return Ok(page::print_json(&json!({
                    "text": text,
                    "finish_reason": answer.end,
                    "tokens": answer.tokens,
                    "prompt_tokens": prompt_tokens,
                    "tokens_per_second": answer.tokens.len() as f64 / seconds,
                }))?);
            }
            page::print_exact(&(text + "\n"))?;
        }
        mark(&answer, max_new, files.config.max_position_embeddings);
        Ok(())
    }
}

/// The prompt through the chat template, or as raw text after the first token.
fn prompt(globals: &Globals, args: &GenerateArgs, opening: &Opening) -> anyhow::Result<Vec<u32>> {
    if args.raw {
        let mut tokens = opening.files.tokenizer.opening().to_vec();
        tokens.extend(opening.files.tokenizer.encode(&args.prompt)?);
        if tokens.is_empty() {
            let message = "the prompt has no tokens, so nothing can follow it: write one";
            return Err(WrongUse(message.to_owned()).into());
        }
        return Ok(tokens);
    }
    let system = opening.system(args.system.as_deref(), globals);
    let messages = vec![Message::text(Role::User, &args.prompt)];
    let conversation = conversation(messages, system.as_deref());
    let chat = args.model.beside.chat(&opening.trained, opening.files.template.as_ref());
    Ok(chat.prompt(&conversation, &opening.files.tokenizer)?)
}
