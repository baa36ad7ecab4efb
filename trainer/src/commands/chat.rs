//! `graft chat`: a conversation, line by line, until end of input.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use graft_data::{Conversation, Message, Role};
use graft_kernels::Precision;

use super::open::Opening;
use crate::cli::Globals;
use crate::cli::model_args::ChatArgs;
use crate::device::{Backend, OnBackend};
use crate::generate::Generator;

/// Reads questions from standard input and answers each with the conversation so far in view. An empty
/// line starts over.
///
/// # Errors
/// Model or adapter are unusable; input or output fails.
pub fn run(globals: &Globals, args: &ChatArgs) -> anyhow::Result<()> {
    let device = globals.device.open()?;
    let precision = args.model.precision(&device, globals);
    device.run(Talking { args, precision, globals })
}

/// The work on whichever backend there is.
struct Talking<'a> {
    args: &'a ChatArgs,
    precision: Precision,
    globals: &'a Globals,
}

impl OnBackend for Talking<'_> {
    type Output = anyhow::Result<()>;

    fn on<B: Backend>(self, device: &B::Device) -> Self::Output {
        let Self { args, precision, globals } = self;
        let opening = Opening::new(&args.model.model, args.model.adapter.as_deref())?;
        let files = &opening.files;
        let nf4 = args.model.nf4(&files.config, &opening.trained)?;
        let model = opening.load::<B>(nf4, device)?;
        let stop = files.tokenizer.stop_ids();
        let generator = Generator { model: &model, precision, stop: &stop };
        let asks = std::io::stdin().is_terminal();
        if asks {
            globals.note("An empty line starts over; end with Ctrl-D.");
        }
        let mut conversation = first_turns(args);
        let mut out = std::io::stdout().lock();
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if asks {
                write!(out, "> ")?;
                out.flush()?;
            }
            let Some(line) = lines.next().transpose()? else {
                return Ok(());
            };
            if line.trim().is_empty() {
                conversation = first_turns(args);
                continue;
            }
            conversation.messages.push(Message::text(Role::User, &line));
            let chat = args.model.chat(&opening.trained, files.template.as_ref());
            let prompt = chat.prompt(&conversation, &files.tokenizer)?;
            let mut stream = files.tokenizer.decode_stream(true);
            let mut on_token = |_: usize, token: u32| {
                let text = stream.push(token).ok().flatten().unwrap_or_default();
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
            };
            let max_new = args.sampling.max_new_tokens.get();
            let sampling = args.sampling.sampling();
            let tokens =
                generator.run(&[prompt], max_new, &sampling, &mut on_token)?.swap_remove(0);
            writeln!(out, "{}", stream.finish()?)?;
            out.flush()?;
            let answer = files.tokenizer.decode(&tokens, true)?;
            conversation.messages.push(Message::text(Role::Assistant, &answer));
        }
    }
}

fn first_turns(args: &ChatArgs) -> Conversation {
    let conversation = Conversation::default();
    match &args.system {
        Some(system) => conversation.with_system_prompt(system),
        None => conversation,
    }
}
