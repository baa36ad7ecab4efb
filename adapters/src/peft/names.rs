//! What PEFT calls the tensors of an adapter (`save_and_load.py`).

use graft_model::Site;

use super::PREFIX;
use crate::lora::TableName;

/// Which of LoRA's two matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoraMatrix {
    /// `[rank, in]`.
    A,
    /// `[out, rank]`.
    B,
}

impl LoraMatrix {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// PEFT's module name, `lora_A` or `lora_B`.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "lora_A",
            Self::B => "lora_B",
        }
    }
}

/// The name inside a model: `model.layers.3.self_attn.q_proj.lora_A.weight`.
pub fn tensor_name(site: Site, matrix: LoraMatrix) -> String {
    format!("{}.{}.weight", site.module_name(), matrix.name())
}

/// What PEFT calls the magnitudes of a projection.
const MAGNITUDE: &str = "lora_magnitude_vector";

/// The name inside a model: `model.layers.3.self_attn.q_proj.lora_magnitude_vector`.
pub fn magnitude_name(site: Site) -> String {
    format!("{}.{MAGNITUDE}", site.module_name())
}

/// The site of magnitudes by their name in an adapter's file. `lora_magnitude_vector.weight` and `….default.weight`, of
/// running PEFT models, are understood too.
pub fn magnitude_from_key(key: &str) -> Option<Site> {
    let rest = key.strip_prefix(PREFIX)?;
    let rest = rest.strip_suffix(".weight").unwrap_or(rest);
    let rest = rest.strip_suffix(".default").unwrap_or(rest);
    Site::from_module_name(rest.strip_suffix(MAGNITUDE)?.strip_suffix('.')?)
}

/// The name in an adapter's file: that inside the model, behind PEFT's prefix.
pub fn key(site: Site, matrix: LoraMatrix) -> String {
    format!("{PREFIX}{}", tensor_name(site, matrix))
}

/// The inverse of [`key`]. `lora_A.default.weight`, the name inside a running PEFT model that some tools
/// write to disk, is understood too.
pub fn from_key(key: &str) -> Option<(Site, LoraMatrix)> {
    from_name(key.strip_prefix(PREFIX)?)
}

/// The inverse of [`tensor_name`], as [`from_key`].
pub fn from_name(name: &str) -> Option<(Site, LoraMatrix)> {
    let rest = name.strip_suffix(".weight")?;
    let rest = rest.strip_suffix(".default").unwrap_or(rest);
    let (module, matrix) = rest.rsplit_once('.')?;
    let matrix = LoraMatrix::BOTH.into_iter().find(|m| m.name() == matrix)?;
    Some((Site::from_module_name(module)?, matrix))
}

/// A tensor that is trained of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableTensor {
    /// All of it.
    Whole,
    /// `V` of an update `V·M`, `[vocab, rank]`.
    Wide,
    /// `M` of an update `V·M`, `[rank, d_model]`.
    Narrow,
    /// Some rows.
    Rows,
}

impl TableTensor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Whole, Self::Wide, Self::Narrow, Self::Rows];

    /// What PEFT calls it behind the name of its module.
    fn suffix(self, table: TableName) -> &'static str {
        match (self, table) {
            (Self::Whole, _) => "weight",
            (Self::Wide, TableName::Embedding) => "lora_embedding_A",
            (Self::Narrow, TableName::Embedding) => "lora_embedding_B",
            (Self::Wide, TableName::Head) => "lora_B.weight",
            (Self::Narrow, TableName::Head) => "lora_A.weight",
            (Self::Rows, _) => "token_adapter.trainable_tokens_delta",
        }
    }

    /// The name inside a model: `lm_head.lora_B.weight`.
    pub fn name(self, table: TableName) -> String {
        format!("{}.{}", table.module_name(), self.suffix(table))
    }

    /// The inverse of [`TableTensor::name`].
    pub fn from_name(name: &str) -> Option<(TableName, Self)> {
        let tables = TableName::ALL.into_iter();
        tables.flat_map(|table| Self::ALL.map(|tensor| (table, tensor))).find(|(table, tensor)| {
            let rest = name.strip_prefix(table.module_name()).and_then(|r| r.strip_prefix('.'));
            rest.is_some_and(|rest| rest == tensor.suffix(*table))
        })
    }

    /// Whether a file holds it transposed: PEFT's `A` of an embedding is `[rank, vocab]`, its `B` `[d_model, rank]`.
    pub fn is_turned_in_file(self, table: TableName) -> bool {
        table == TableName::Embedding && matches!(self, Self::Wide | Self::Narrow)
    }
}

/// The tensor of a table by its name in an adapter's file. Names inside a running PEFT model, with `.default`, are
/// understood too.
pub fn table_from_key(key: &str) -> Option<(TableName, TableTensor)> {
    let rest = key.strip_prefix(PREFIX)?.replace(".default", "");
    TableTensor::from_name(&rest).or_else(|| TableTensor::from_name(rest.strip_suffix(".weight")?))
}

/// The table whose base's matrix PEFT saves beside an update of it, by the name in an adapter's file.
pub fn base_of_table_from_key(key: &str) -> Option<TableName> {
    let module = key.strip_prefix(PREFIX)?.strip_suffix(".base_layer.weight")?;
    TableName::ALL.into_iter().find(|table| table.module_name() == module)
}

#[cfg(test)]
mod tests {
    use graft_model::ProjectionKind;

    use super::*;

    #[test]
    fn every_key_parses_back_and_is_that_of_the_field() {
        for layer in [0, 3, 10, 125] {
            for kind in ProjectionKind::ALL {
                let site = Site { layer, kind };
                for matrix in LoraMatrix::BOTH {
                    assert_eq!(from_key(&key(site, matrix)), Some((site, matrix)));
                }
            }
        }
        let q = Site { layer: 3, kind: ProjectionKind::Q };
        let down = Site { layer: 10, kind: ProjectionKind::Down };
        assert_eq!(
            [key(q, LoraMatrix::A), key(down, LoraMatrix::B)],
            [
                "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight",
                "base_model.model.model.layers.10.mlp.down_proj.lora_B.weight",
            ]
        );
        let long = "base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight";
        assert_eq!(from_key(long), Some((q, LoraMatrix::A)));
        for end in ["", ".weight", ".default", ".default.weight"] {
            let key = format!("{PREFIX}{}{end}", magnitude_name(q));
            assert_eq!((magnitude_from_key(&key), from_key(&key)), (Some(q), None), "{key}");
        }
        assert_eq!(magnitude_from_key(&key(q, LoraMatrix::A)), None);
        assert_eq!(
            from_key("base_model.model.model.layers.03.self_attn.q_proj.lora_A.weight"),
            None
        );
    }

    #[test]
    fn every_tensor_of_a_table_parses_back_and_is_that_of_the_field() {
        let all = TableName::ALL.map(|table| TableTensor::ALL.map(|tensor| (table, tensor)));
        let keys = all.as_flattened().iter().map(|&(table, tensor)| {
            let key = format!("{PREFIX}{}", tensor.name(table));
            assert_eq!(table_from_key(&key), Some((table, tensor)), "{key}");
            assert_eq!(from_key(&key), None, "{key}");
            key
        });
        assert_eq!(
            keys.map(|key| key[PREFIX.len()..].to_owned()).collect::<Vec<_>>(),
            [
                "model.embed_tokens.weight",
                "model.embed_tokens.lora_embedding_A",
                "model.embed_tokens.lora_embedding_B",
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                "lm_head.weight",
                "lm_head.lora_B.weight",
                "lm_head.lora_A.weight",
                "lm_head.token_adapter.trainable_tokens_delta",
            ]
        );
        for (long, expected) in [
            ("lm_head.lora_B.default.weight", (TableName::Head, TableTensor::Wide)),
            (
                "model.embed_tokens.lora_embedding_A.default",
                (TableName::Embedding, TableTensor::Wide),
            ),
            (
                "model.embed_tokens.token_adapter.trainable_tokens_delta.default",
                (TableName::Embedding, TableTensor::Rows),
            ),
        ] {
            assert_eq!(table_from_key(&format!("{PREFIX}{long}")), Some(expected), "{long}");
        }
        let base = format!("{PREFIX}model.embed_tokens.base_layer.weight");
        assert_eq!(
            (table_from_key(&base), base_of_table_from_key(&base)),
            (None, Some(TableName::Embedding))
        );
    }
}
