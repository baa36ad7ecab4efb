//! What PEFT calls the tensors of an adapter (`save_and_load.py`).

use graft_model::Site;

use super::PREFIX;

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
}
