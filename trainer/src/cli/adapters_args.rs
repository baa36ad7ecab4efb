//! What `graft adapters` is told.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use graft_adapters::Rank;
use graft_adapters::algebra::{Draws, Method, Share, Sign};

use super::failure::WrongUse;
use super::folder_args::tolerance;
use super::named::named;
use super::number;
use super::paths::{path, place};

/// How adapters become one, without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "PEFT's names, and one of ours")]
pub enum MethodName {
    Linear,
    Cat,
    Svd,
    MagnitudePrune,
    Ties,
    DareLinear,
    DareTies,
    Rerank,
}

impl MethodName {
    const ALL: &[(&str, Self)] = &[
        ("linear", Self::Linear),
        ("cat", Self::Cat),
        ("svd", Self::Svd),
        ("magnitude_prune", Self::MagnitudePrune),
        ("ties", Self::Ties),
        ("dare_linear", Self::DareLinear),
        ("dare_ties", Self::DareTies),
        ("rerank", Self::Rerank),
    ];

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, found)| *found == self);
        found.expect("all are in the list").0
    }
}

/// `graft adapters`.
#[derive(Debug, Args)]
#[command(
    long_about = "Make one adapter of several, or one of another rank. Methods are those of PEFT's \
                  `add_weighted_adapter`:\n\n  \
                  cat              all matrices side by side: the sum of the updates itself, of the ranks together\n  \
                  svd              the best update of --rank for that sum\n  \
                  linear           A and B added up apart: near the sum where adapters are near each other\n  \
                  magnitude_prune  as linear, of the largest share (--density) of each matrix\n  \
                  ties             as magnitude_prune, at each place of the values with the sign of most\n  \
                  dare_linear      as linear, of values drawn by chance (--density, --seed)\n  \
                  dare_ties        as dare_linear, at each place of the values with the sign of most\n  \
                  rerank           one adapter in the best way of --rank",
    after_help = "Examples:\n  graft adapters --method svd --rank 16 --adapter runs/a/adapter --adapter runs/b/adapter \\\n    \
                  --weights 0.7,0.3 --model models/Llama-3.1-8B-Instruct --out both\n  \
                  graft adapters --method rerank --rank 8 --adapter runs/a/adapter --out smaller"
)]
pub struct AdaptersArgs {
    /// How they become one
    #[arg(long, value_parser = named(MethodName::ALL))]
    pub method: MethodName,
    /// An adapter's folder (PEFT); given once for each
    #[arg(long, value_name = "DIR", required = true, value_parser = path())]
    pub adapter: Vec<PathBuf>,
    /// What each one's update is multiplied with, in their order [default: 1 for each]
    #[arg(long, value_name = "X,…", value_delimiter = ',', allow_hyphen_values = true, value_parser = weight)]
    pub weights: Vec<f64>,
    /// The new folder
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub out: PathBuf,
    /// The rank of svd and rerank
    #[arg(long, value_name = "N", value_parser = number::count)]
    pub rank: Option<NonZeroUsize>,
    /// The share of values that magnitude_prune, ties and the dares keep, above 0 and at most 1
    #[arg(long, value_name = "X", value_parser = share)]
    pub density: Option<Share>,
    /// The sign of most, of ties and dare_ties: that of the sum, or that of more values [default: total]
    #[arg(long, value_parser = named(Sign::ALL))]
    pub majority_sign_method: Option<Sign>,
    /// The root of what the dares draw [default: 7]
    #[arg(long, value_name = "N", value_parser = number::whole::<u64>)]
    pub seed: Option<u64>,
    /// The base: its folder, a GGUF file, or builtin:quickstart. With it the result is asked beside it, and how far its answers
    /// are from those of the sum of the updates is told
    #[arg(long, value_name = "PATH", value_parser = place())]
    pub model: Option<String>,
    /// The largest mean divergence from the sum of the updates, in nats a token, that is accepted
    /// [default: any, as it is told]
    #[arg(long, value_name = "X", value_parser = tolerance)]
    pub tolerance: Option<f32>,
}

fn share(text: &str) -> Result<Share, String> {
    let share = text.parse().ok().and_then(Share::new);
    share.ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
}

/// What an update is multiplied with.
fn weight(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|x| x.is_finite() && *x != 0.0);
    number.ok_or_else(|| "expected a number other than 0".to_owned())
}

impl AdaptersArgs {
    /// The method with its numbers.
    ///
    /// # Errors
    /// One is missing, or given to a method that has none; weights that are not one for each adapter.
    pub fn method(&self) -> Result<Method, WrongUse> {
        use MethodName::{Cat, DareLinear, DareTies, Linear, MagnitudePrune, Rerank, Svd, Ties};
        let name = self.method;
        let of = |flag: &str, is_given: bool, methods: &[MethodName]| {
            if !is_given || methods.contains(&name) {
                return Ok(());
            }
            let methods: Vec<&str> = methods.iter().map(|method| method.name()).collect();
            let (methods, name) = (methods.join(", "), name.name());
            Err(WrongUse(format!(
                "{flag} is of {methods}, and says nothing of {name}: leave it out"
            )))
        };
        of("--rank", self.rank.is_some(), &[Svd, Rerank])?;
        let pruned = [MagnitudePrune, Ties, DareLinear, DareTies];
        of("--density", self.density.is_some(), &pruned)?;
        let elected = [Ties, DareTies];
        of("--majority-sign-method", self.majority_sign_method.is_some(), &elected)?;
        of("--seed", self.seed.is_some(), &[DareLinear, DareTies])?;
        if self.tolerance.is_some() && self.model.is_none() {
            let text = "--tolerance is of what is asked beside the base: name it with --model PATH";
            return Err(WrongUse(text.to_owned()));
        }
        let (found, asked) = (self.weights.len(), self.adapter.len());
        if found > 0 && found != asked {
            return Err(WrongUse(format!(
                "--weights has {found} numbers for {asked} adapters: give one for each, in their order"
            )));
        }
        match (name, asked) {
            (Rerank, 2..) => {
                let text = "rerank is of one adapter: take svd, which is of the sum of several";
                return Err(WrongUse(text.to_owned()));
            }
            (Rerank, _) | (_, 2..) => {}
            (_, _) => {
                let name = name.name();
                return Err(WrongUse(format!(
                    "{name} is of several adapters: give --adapter once for each, or take rerank for one of another rank"
                )));
            }
        }
        let missing = |flag: &str| WrongUse(format!("{} needs {flag}", name.name()));
        let rank = || self.rank.map(Rank).ok_or_else(|| missing("--rank N"));
        let share = || self.density.ok_or_else(|| missing("--density X"));
        let sign = self.majority_sign_method.unwrap_or(Sign::Total);
        let draws = Draws(self.seed.unwrap_or(7));
        Ok(match name {
            Linear => Method::Linear,
            Cat => Method::Cat,
            Svd | Rerank => Method::Svd(rank()?),
            MagnitudePrune => Method::MagnitudePrune(share()?),
            Ties => Method::Ties(share()?, sign),
            DareLinear => Method::DareLinear(share()?, draws),
            DareTies => Method::DareTies(share()?, draws, sign),
        })
    }

    /// Each adapter's weight.
    pub fn weight(&self, index: usize) -> f64 {
        self.weights.get(index).copied().unwrap_or(1.0)
    }
}
