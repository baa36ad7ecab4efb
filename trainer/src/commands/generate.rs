//! `graft generate`: one answer.

use std::io::{IsTerminal as _, Write as _};

use graft_data::{Conversation, Message, Role};
use graft_kernels::Precision;
use serde_json::json;

use super::open::Opening;
use crate::cli::model_args::GenerateArgs;
use crate::cli::{Globals, page};
use crate::device::{Backend, OnBackend};
use crate::generate::Generator;

/// Answers a prompt; on a terminal the text appears as it is written.
///
/// # Errors
/// Model or adapter are unusable.
pub fn run(globals: &Globals, args: &GenerateArgs) -> anyhow::Result<()> {
    let device = globals.device.open()?;
    let precision = args.model.precision(&device, globals);
    device.run(Answering { args, precision })
}

/// The work on whichever backend there is.
struct Answering<'a> {
    args: &'a GenerateArgs,
    precision: Precision,
}

impl OnBackend for Answering<'_> {
    type Output = anyhow::Result<()>;

    fn on<B: Backend>(self, device: &B::Device) -> Self::Output {
        let Self { args, precision } = self;
        let opening = Opening::new(&args.model.model, args.model.adapter.as_deref())?;
        let files = &opening.files;
        let nf4 = args.model.nf4(&files.config, &opening.trained)?;
        let prompt = prompt(args, &opening)?;
        let model = opening.load::<B>(nf4, device)?;
        let stop = files.tokenizer.stop_ids();
        let generator = Generator { model: &model, precision, stop: &stop };
        let streams = !args.json && std::io::stdout().is_terminal();
        let mut stream = files.tokenizer.decode_stream(true);
        let mut out = std::io::stdout().lock();
        let mut on_token = |_: usize, token: u32| {
            if !streams {
                return true;
            }
            let text = stream.push(token).ok().flatten().unwrap_or_default();
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
        };
        let max_new = args.sampling.max_new_tokens.get();
        let sampling = args.sampling.sampling();
        let prompt_tokens = prompt.len();
        let started = std::time::Instant::now();
        let tokens = generator.run(&[prompt], max_new, &sampling, &mut on_token)?.swap_remove(0);
        let seconds = started.elapsed().as_secs_f64();
        drop(out);
        if streams {
            let rest = stream.finish()?;
            return Ok(page::print(&(rest + "\n"))?);
        }
        let text = files.tokenizer.decode(&tokens, true)?;
        if args.json {
            return Ok(page::print_json(&json!({
                "text": text,
                "tokens": tokens,
                "prompt_tokens": prompt_tokens,
                "tokens_per_second": tokens.len() as f64 / seconds,
            }))?);
        }
        Ok(page::print(&(text + "\n"))?)
    }
}

/// The prompt through the chat template, or as raw text after the first token.
fn prompt(args: &GenerateArgs, opening: &Opening) -> anyhow::Result<Vec<u32>> {
    if args.raw {
        let mut tokens = opening.files.tokenizer.opening().to_vec();
        tokens.extend(opening.files.tokenizer.encode(&args.prompt)?);
        anyhow::ensure!(!tokens.is_empty(), "the prompt has no tokens, so nothing can follow it");
        return Ok(tokens);
    }
    let messages = vec![Message::text(Role::User, &args.prompt)];
    let mut conversation = Conversation::of(messages);
    if let Some(system) = &args.system {
        conversation = conversation.with_system_prompt(system);
    }
    let chat = args.model.chat(&opening.trained, opening.files.template.as_ref());
    Ok(chat.prompt(&conversation, &opening.files.tokenizer)?)
}
