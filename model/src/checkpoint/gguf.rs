//! The tensors of a GGUF file under the names and in the order of rows of a Hugging Face checkpoint.
//!
//! What is kept as f32, f16 or bf16 stays a slice of the map. Blocks are decoded when a tensor is asked for, and rounded
//! to f16, whose eleven bits are finer than what any of them was rounded to. The rows of `attn_q` and `attn_k` are put
//! back in transformers' order.

use std::ops::Range;

use bytes::Bytes;
use graft_gguf::blocks::decode;
use graft_gguf::rope::row_in_file;
use graft_gguf::{Tensor, TensorType, hugging_face};
use half::f16;
use rayon::prelude::*;

use super::{Checkpoint, Dtype, Entry};
use crate::config::LlamaConfig;
use crate::error::Error;
use crate::folder::{GgufModel, ModelFolder};
use crate::pages::Mapped;
use crate::site::{self, Site};

/// How a tensor is made of what is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    kind: TensorType,
    /// Rows of a head, where their order is another.
    head: Option<usize>,
}

impl Checkpoint {
    /// The tensors of the GGUF file that stands for `folder`.
    pub(super) fn of_gguf(folder: &ModelFolder, model: &GgufModel) -> Result<Self, Error> {
        let name = "config.json";
        let config = LlamaConfig::from_json(&folder.required(name)?, &folder.display_file(name))?;
        let mut checkpoint = Self::empty(folder);
        checkpoint.maps.extend(Mapped::new(model.map().clone()));
        for tensor in model.file().tensors() {
            if tensor.name == hugging_face::ROPE_FREQS {
                continue;
            }
            let name = checkpoint_name(&tensor.name);
            let entry = entry(tensor, head(&name, &config, tensor), folder);
            if checkpoint.tensors.insert(name.clone(), entry).is_some() {
                let (first, second) = (folder.display(), folder.display());
                return Err(Error::TwoShards { tensor: name, first, second });
            }
        }
        Ok(checkpoint)
    }
}

/// What a checkpoint calls a tensor; one that no Llama has keeps its name.
fn checkpoint_name(name: &str) -> String {
    if let Some(site) = Site::from_gguf_name(name) {
        return site.checkpoint_name();
    }
    let of_block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let norm = of_block.and_then(|(layer, rest)| {
        let layer = site::layer_number(layer)?;
        match rest {
            hugging_face::ATTENTION_NORM => Some(site::input_layernorm(layer)),
            hugging_face::FEED_FORWARD_NORM => Some(site::post_attention_layernorm(layer)),
            _ => None,
        }
    });
    norm.unwrap_or_else(|| {
        match name {
            hugging_face::EMBEDDING => site::EMBED_TOKENS,
            hugging_face::LAST_NORM => site::NORM,
            hugging_face::HEAD => site::LM_HEAD,
            other => other,
        }
        .to_owned()
    })
}

/// Rows of a head of a tensor whose rows stand in another order.
fn head(name: &str, config: &LlamaConfig, tensor: &Tensor) -> Option<usize> {
    let site = Site::from_checkpoint_name(name)?;
    // One of another shape is refused when it is compared with the model.
    let fits = tensor.shape == site.weight_shape(config);
    (site.kind.is_turned_in_gguf() && fits).then_some(config.head_dim)
}

fn entry(tensor: &Tensor, head: Option<usize>, folder: &ModelFolder) -> Entry {
    let Tensor { name: _, kind, shape, bytes } = tensor.clone();
    let dtype = match kind {
        TensorType::F32 => Dtype::F32,
        TensorType::Bf16 => Dtype::BF16,
        _ => Dtype::F16,
    };
    let made = (!kind.is_plain() || head.is_some()).then_some(Made { kind, head });
    Entry { file: folder.display().into(), dtype, shape, bytes, made }
}

impl Made {
    /// Rows of a matrix with rows of `inner` numbers, as a checkpoint has them.
    pub(super) fn rows(self, stored: &Bytes, inner: usize, rows: Range<usize>) -> Bytes {
        let Self { kind, head } = self;
        let row_bytes = kind.row_bytes(inner).expect("the header was checked");
        let width = if kind == TensorType::F32 { 4 } else { 2 };
        let mut made = vec![0u8; rows.len() * inner * width];
        if made.is_empty() {
            return Bytes::new();
        }
        made.par_chunks_exact_mut(inner * width).zip(rows).for_each_init(
            || vec![0.0; inner],
            |values, (made, row)| {
                let from = head.map_or(row, |head| row_in_file(row, head));
                let stored = &stored[from * row_bytes..][..row_bytes];
                if kind.is_plain() {
                    made.copy_from_slice(stored);
                    return;
                }
                decode(kind, stored, values);
                for (made, value) in made.as_chunks_mut().0.iter_mut().zip(values) {
                    *made = f16::from_f32(*value).to_le_bytes();
                }
            },
        );
        made.into()
    }

    /// The name of the form that it is stored in.
    pub(super) fn form(self) -> &'static str {
        self.kind.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_those_of_a_checkpoint() {
        for (gguf, name) in [
            ("blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight"),
            ("blk.3.attn_norm.weight", "model.layers.3.input_layernorm.weight"),
            ("blk.11.ffn_norm.weight", "model.layers.11.post_attention_layernorm.weight"),
            ("blk.03.ffn_norm.weight", "blk.03.ffn_norm.weight"),
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.0.attn_q.bias", "blk.0.attn_q.bias"),
        ] {
            assert_eq!(checkpoint_name(gguf), name);
        }
    }
}
