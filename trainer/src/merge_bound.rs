//! How far a merged model may be from base and adapter: beyond which distance it is said, and beyond
//! which it is refused.

use graft_adapters::merge::Onto;
use graft_kernels::nf4::AbsmaxFormat;
use graft_recipes::MergeOnto;

/// The bound of a merge, by what its weights were added to. Distances are mean divergences of the next
/// token's distribution, in nats a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeBound {
    /// The weights that training computed with: only the rounding of the sums to the base's type moves
    /// the model.
    Seen,
    /// The original weights, where training saw them in NF4: the adapter has learnt to correct others.
    Original,
}

impl MergeBound {
    /// That of a merge onto these weights of an adapter that was trained beside NF4 or not.
    pub fn of(onto: MergeOnto, nf4: Option<AbsmaxFormat>) -> Self {
        match (onto, nf4) {
            (MergeOnto::Original, Some(_)) => Self::Original,
            (MergeOnto::Original, None) | (MergeOnto::Dequantised, _) => Self::Seen,
        }
    }

    /// Farther away the merged model is an error.
    pub fn refused(self) -> f64 {
        match self {
            Self::Seen => 0.02,
            // Another model by intent: whose it is to judge.
            Self::Original => f64::INFINITY,
        }
    }

    /// Farther away it is said, with the way out.
    pub fn warned(self) -> f64 {
        match self {
            // A hundred times what bf16's rounding moves the built-in model.
            Self::Seen => 2e-3,
            // What NF4 alone moves the built-in model; larger ones are moved less.
            Self::Original => 0.05,
        }
    }

    /// A sentence for a merged model that is farther away than such merges should be.
    pub fn warning(self, mean: f64) -> Option<String> {
        let most = self.warned();
        if mean <= most {
            return None;
        }
        let way_out = match self {
            Self::Seen => {
                "the base's type is too coarse for these updates: keep the adapter beside the base, \
                 or merge into the base stored in f32"
            }
            Self::Original => {
                "the adapter was trained beside NF4 weights, and these are others: merge onto the \
                 dequantised ones (`onto: dequantised`, the default) or keep the adapter beside the base in \
                 NF4, but for one that began as a part of the weights (`init`), which is for these: train \
                 that without `quantization`"
            }
        };
        Some(format!(
            "the merged model is {mean:.4} nats a token away from base + adapter, more than {most}: \
             it answers otherwise than what was trained; {way_out}"
        ))
    }
}

/// Which weights a merge is added to.
pub fn onto(onto: MergeOnto, nf4: Option<AbsmaxFormat>) -> Onto {
    match (onto, nf4) {
        (MergeOnto::Dequantised, Some(scales)) => Onto::Dequantised { scales },
        (MergeOnto::Dequantised, None) | (MergeOnto::Original, _) => Onto::Original,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_merge_has_a_bound_and_a_way_out() {
        let (far, near, no_number) = (0.36, 1e-5, f64::NAN);
        let mut warnings = Vec::new();
        for (asked, nf4, refuses) in [
            (MergeOnto::Dequantised, Some(AbsmaxFormat::Double), true),
            (MergeOnto::Dequantised, None, true),
            (MergeOnto::Original, None, true),
            (MergeOnto::Original, Some(AbsmaxFormat::Double), false),
        ] {
            let bound = MergeBound::of(asked, nf4);
            assert_eq!(bound.warning(near), None, "{asked:?} {nf4:?}");
            assert!(bound.warning(no_number).is_some(), "{asked:?} {nf4:?}");
            assert_eq!(far > bound.refused(), refuses, "{asked:?} {nf4:?}");
            warnings.extend(bound.warning(far));
        }
        warnings.dedup();
        insta::assert_snapshot!(warnings.join("\n"), @r"
        the merged model is 0.3600 nats a token away from base + adapter, more than 0.002: it answers otherwise than what was trained; the base's type is too coarse for these updates: keep the adapter beside the base, or merge into the base stored in f32
        the merged model is 0.3600 nats a token away from base + adapter, more than 0.05: it answers otherwise than what was trained; the adapter was trained beside NF4 weights, and these are others: merge onto the dequantised ones (`onto: dequantised`, the default) or keep the adapter beside the base in NF4, but for one that began as a part of the weights (`init`), which is for these: train that without `quantization`
        ");
    }
}
