//! A method for tests: factors on what projections give, `y = (x·Wᵀ) ⊙ m`, in files that are not PEFT's.

use std::path::Path;

use graft_adapters::{Error, Learns, Learnt, Method, TokenBytes, TrainedTensor};
use graft_kernels::Precision;
use graft_model::{LlamaConfig, Seat, Site};

/// Factors on every projection.
#[derive(Debug)]
pub(crate) struct Factors {
    /// Whether they say what they take of a token.
    pub(crate) tells: bool,
}

impl Method for Factors {
    fn name(&self) -> &'static str {
        "factors"
    }

    fn phrase(&self) -> String {
        "factors on every projection".to_owned()
    }

    fn learns(&self) -> Learns {
        Learns::Adapter
    }

    fn merges(&self) -> bool {
        false
    }

    fn trained(&self, model: &LlamaConfig) -> Vec<TrainedTensor> {
        let tensor = |site: Site| TrainedTensor {
            seat: Seat::Projection(site),
            shape: vec![site.kind.out_features(model)],
        };
        Site::all(model).map(tensor).collect()
    }

    fn token_bytes(&self, site: Site, model: &LlamaConfig, _: Precision) -> TokenBytes {
        if !self.tells {
            return TokenBytes::default();
        }
        let in_f32 = 4 * site.kind.out_features(model);
        let ends_a_branch = site.kind.ends_a_branch();
        TokenBytes {
            reads_input: false,
            beside: 0,
            reads_product: true,
            // The product, in f32.
            tape: in_f32,
            // What is given; in bf16 that and the product in f32, in the place of the one that was kept.
            beside_products: if ends_a_branch { 0 } else { in_f32 },
            // The gradients of both factors.
            moment: 2 * in_f32,
        }
    }

    fn drops(&self, _: Site) -> bool {
        false
    }

    fn write(&self, _: &Path, _: &Learnt<'_>) -> Result<(), Error> {
        Ok(())
    }
}
