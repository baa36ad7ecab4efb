//! The control tokens that Graft's own chat format, Llama 3.1's, is made of.

use super::{Kind, Tokenizer};
use crate::error::Error;

const BEGIN_OF_TEXT: &str = "<|begin_of_text|>";
const END_OF_TEXT: &str = "<|end_of_text|>";
const START_HEADER: &str = "<|start_header_id|>";
const END_HEADER: &str = "<|end_header_id|>";
const EOT: &str = "<|eot_id|>";
const EOM: &str = "<|eom_id|>";

/// Ids of Llama 3's control tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Llama3 {
    pub(super) bos: u32,
    pub(super) end_of_text: u32,
    pub(super) start_header: u32,
    pub(super) end_header: u32,
    pub(super) eot: u32,
    pub(super) eom: Option<u32>,
}

/// Why there are none.
#[derive(Debug, Clone)]
pub(super) struct Missing {
    /// Names that the vocabulary lacks.
    absent: Vec<&'static str>,
    /// Names that it has as ordinary text.
    unmarked: Vec<&'static str>,
}

impl Tokenizer {
    /// Ids of Llama 3's control tokens.
    ///
    /// # Errors
    /// What of them is missing, all at once.
    fn llama3(&self) -> Result<&Llama3, Error> {
        self.llama3.as_ref().map_err(|Missing { absent, unmarked }| {
            let origin = self.origin.clone();
            if absent.is_empty() {
                return Error::NotSpecial { origin, tokens: listed(unmarked) };
            }
            Error::MissingSpecial { origin, tokens: listed(absent) }
        })
    }

    /// `<|begin_of_text|>` of Graft's own chat format.
    ///
    /// # Errors
    /// The tokenizer is not Llama 3's.
    pub(crate) fn begin_of_text(&self) -> Result<u32, Error> {
        Ok(self.llama3()?.bos)
    }

    /// `<|start_header_id|>`.
    pub(crate) fn start_header(&self) -> Result<u32, Error> {
        Ok(self.llama3()?.start_header)
    }

    /// `<|end_header_id|>`.
    pub(crate) fn end_header(&self) -> Result<u32, Error> {
        Ok(self.llama3()?.end_header)
    }

    /// `<|eot_id|>`: ends a turn.
    pub(crate) fn eot(&self) -> Result<u32, Error> {
        Ok(self.llama3()?.eot)
    }

    /// `<|eom_id|>`: ends a message that waits for a tool; Llama 3.0 has none.
    pub(crate) fn eom(&self) -> Result<Option<u32>, Error> {
        Ok(self.llama3()?.eom)
    }
}

impl Llama3 {
    pub(super) fn find(tokenizer: &tokenizers::Tokenizer, kinds: &[Kind]) -> Result<Self, Missing> {
        let (mut absent, mut unmarked) = (Vec::new(), Vec::new());
        let mut find = |token: &'static str, needed: bool| {
            let id = tokenizer.token_to_id(token);
            match id {
                Some(id) if kinds[id as usize] == Kind::Special => return Some(id),
                Some(_) => unmarked.push(token),
                None if needed => absent.push(token),
                None => {}
            }
            None
        };
        let found = [BEGIN_OF_TEXT, END_OF_TEXT, START_HEADER, END_HEADER, EOT]
            .map(|token| find(token, true));
        let eom = find(EOM, false);
        match found {
            [Some(bos), Some(end_of_text), Some(start_header), Some(end_header), Some(eot)]
                if unmarked.is_empty() =>
            {
                Ok(Self { bos, end_of_text, start_header, end_header, eot, eom })
            }
            _ => Err(Missing { absent, unmarked }),
        }
    }
}

fn listed(tokens: &[&str]) -> String {
    tokens.iter().map(|token| format!("`{token}`")).collect::<Vec<_>>().join(", ")
}
