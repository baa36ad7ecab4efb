//! What other programs take of an adapter, read in their own sources on the day that a row says: the one table that
//! `graft export --for`, `finish.for` of recipes and their checks ask.

use graft_adapters::{LoraConfig, PeftAdapter, Scaling};
use graft_model::ProjectionKind;
use graft_recipes::Target;

/// A property of an adapter that not every program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Magnitudes, `use_dora`.
    Dora,
    /// A scale by the root of the rank, `use_rslora`.
    RsLora,
    /// Ranks by module, `rank_pattern`.
    RankPattern,
    /// Alphas by module, `alpha_pattern`.
    AlphaPattern,
    /// An embedding or a head that is brought whole, `modules_to_save`.
    Tables,
    /// Some of q, k and v of a block without the others.
    PartOfQkv,
}

impl Feature {
    /// In words, as the object of a sentence.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Dora => "DoRA (use_dora)",
            Self::RsLora => "a scale by the root of the rank (use_rslora)",
            Self::RankPattern => "ranks by module (rank_pattern)",
            Self::AlphaPattern => "alphas by module (alpha_pattern)",
            Self::Tables => {
                "what is trained of embedding or head (modules_to_save, lm_head, rows of tokens)"
            }
            Self::PartOfQkv => "some of q, k and v without the others",
        }
    }
}

/// In which form a program takes an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// PEFT's files, as they are.
    Peft,
    /// PEFT's files in their plainest form.
    Portable,
    /// PEFT's files, in their plainest form where it does not take what the adapter has.
    PeftOrPortable,
    /// A GGUF file of the adapter by itself.
    Gguf,
    /// None: base and adapter as one GGUF file, with a Modelfile beside it.
    Modelfile,
}

/// Ranks that a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// The largest one unless it is told another, and how it is told.
    pub usual: Option<(usize, &'static str)>,
    /// What it can be told; empty for anything.
    pub allowed: &'static [usize],
}

impl Ranks {
    const ANY: Self = Self { usual: None, allowed: &[] };
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its name in recipes and on the command line.
    pub target: Target,
    /// The day on which the sources were read.
    pub read_on: &'static str,
    /// Where it says what it takes.
    pub sources: &'static [&'static str],
    /// The form.
    pub form: Form,
    /// What it takes.
    pub takes: &'static [Feature],
    /// The ranks.
    pub ranks: Ranks,
    /// Whether the files were tried with the program itself.
    pub tried: Option<&'static str>,
    /// How it is started with them.
    pub usage: &'static str,
}

use Feature::{AlphaPattern, Dora, PartOfQkv, RankPattern, RsLora, Tables};

/// The table. Biases are in no adapter that Graft reads. vLLM takes updates of the tables and rows of tokens in its newest
/// releases alone, so that they are refused here.
pub const SERVERS: [Server; 7] = [
    Server {
        target: Target::Peft,
        read_on: "2026-11-30",
        sources: &[
            "https://github.com/huggingface/peft/blob/v0.21.2/src/peft/tuners/lora/config.py",
        ],
        form: Form::Peft,
        takes: &[Dora, RsLora, RankPattern, AlphaPattern, Tables, PartOfQkv],
        ranks: Ranks::ANY,
        tried: Some("peft 0.21.2"),
        usage: "PeftModel.from_pretrained(base, OUT)",
    },
    Server {
        target: Target::PeftPortable,
        read_on: "2026-11-30",
        sources: &[
            "https://github.com/huggingface/peft/blob/v0.21.2/src/peft/tuners/lora/config.py",
        ],
        form: Form::Portable,
        takes: &[PartOfQkv],
        ranks: Ranks::ANY,
        tried: Some("peft 0.21.2"),
        usage: "what reads r, lora_alpha and target_modules of PEFT's files alone",
    },
    // `PEFTHelper` refuses DoRA and modules_to_save, takes use_rslora, and leaves out every key that it does not know,
    // patterns among them: their updates would get another scale without a word.
    Server {
        target: Target::Vllm,
        read_on: "2026-11-30",
        sources: &[
            "https://github.com/vllm-project/vllm/blob/main/vllm/lora/peft_helper.py",
            "https://github.com/vllm-project/vllm/blob/main/vllm/config/lora.py",
        ],
        form: Form::PeftOrPortable,
        takes: &[RsLora, PartOfQkv],
        ranks: Ranks {
            usual: Some((16, "--max-lora-rank")),
            allowed: &[1, 8, 16, 32, 64, 128, 256, 320, 512],
        },
        tried: None,
        usage: "vllm serve BASE --enable-lora --lora-modules NAME=OUT",
    },
    // Its loader multiplies with `adapter.lora.alpha` over each update's own rank; other scales go into `B`. Tensors
    // of other names than `.lora_a` and `.lora_b` are refused.
    Server {
        target: Target::LlamaCpp,
        read_on: "2026-11-30",
        sources: &[
            "https://github.com/ggml-org/llama.cpp/blob/master/convert_lora_to_gguf.py",
            "https://github.com/ggml-org/llama.cpp/blob/master/src/llama-adapter.cpp",
        ],
        form: Form::Gguf,
        takes: &[RsLora, RankPattern, AlphaPattern, PartOfQkv],
        ranks: Ranks::ANY,
        tried: Some("llama-cpp-python 0.3.36"),
        usage: "llama-server -m BASE.gguf --lora OUT",
    },
    // An ADAPTER line takes PEFT's files of Llamas, turns q and k by the shapes of their matrices and knows neither
    // patterns nor rsLoRA; what is merged needs none of it.
    Server {
        target: Target::Ollama,
        read_on: "2026-11-30",
        sources: &[
            "https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx",
            "https://github.com/ollama/ollama/blob/main/convert/convert_llama_adapter.go",
            "https://github.com/ollama/ollama/blob/main/template/template.go",
        ],
        form: Form::Modelfile,
        takes: &[Dora, RsLora, RankPattern, AlphaPattern, Tables, PartOfQkv],
        ranks: Ranks::ANY,
        tried: None,
        usage: "ollama create NAME -f OUT/Modelfile",
    },
    Server {
        target: Target::MistralRs,
        read_on: "2026-11-30",
        sources: &[
            "https://github.com/EricLBuehler/mistral.rs/blob/master/mistralrs-quant/src/lora/mod.rs",
            "https://github.com/EricLBuehler/mistral.rs/blob/master/docs/src/content/docs/guides/customize/lora-adapters.mdx",
        ],
        form: Form::PeftOrPortable,
        takes: &[RsLora, RankPattern, AlphaPattern, PartOfQkv],
        ranks: Ranks { usual: Some((256, "--lora-max-rank")), allowed: &[] },
        tried: None,
        usage: "mistralrs serve -m BASE --lora NAME=OUT",
    },
    // `LoraManager.load_from_hf` scales by one lora_alpha, takes magnitudes only as its own converter norms them, and
    // fills those of q, k and v that are missing with zeros as wide as the model, which those of grouped heads are not.
    Server {
        target: Target::TensorRtLlm,
        read_on: "2026-11-30",
        sources: &[
            "https://github.com/NVIDIA/TensorRT-LLM/blob/main/tensorrt_llm/lora_manager.py",
            "https://github.com/NVIDIA/TensorRT-LLM/blob/main/docs/source/features/lora.md",
        ],
        form: Form::PeftOrPortable,
        takes: &[RsLora, RankPattern],
        ranks: Ranks { usual: Some((64, "max_lora_rank")), allowed: &[] },
        tried: None,
        usage: "LoraConfig(lora_dir=[OUT], max_lora_rank=N) of its LLM API",
    },
];

/// The row of a program.
pub fn server(target: Target) -> &'static Server {
    let found = SERVERS.iter().find(|server| server.target == target);
    found.expect("every target has its row, as the tests hold")
}

/// What the table asks of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traits {
    /// What it has.
    pub features: Vec<Feature>,
    /// The largest rank of an update.
    pub rank: usize,
}

impl Traits {
    /// Those of updates, and of tables where something is trained of them.
    pub fn of(lora: &LoraConfig) -> Self {
        let sizes = || lora.sites.values();
        let differ = |of: &dyn Fn(&graft_adapters::Size) -> u64| {
            let mut found = sizes().map(of);
            let first = found.next();
            found.any(|value| Some(value) != first)
        };
        let has = |feature: Feature| match feature {
            Feature::Dora => lora.dora,
            Feature::RsLora => lora.scaling == Scaling::RankStabilised,
            Feature::RankPattern => differ(&|size| size.rank.get() as u64),
            Feature::AlphaPattern => differ(&|size| size.alpha.to_bits()),
            Feature::Tables => !lora.tables.is_empty(),
            Feature::PartOfQkv => is_part_of_qkv(lora),
        };
        let all = [Dora, RsLora, RankPattern, AlphaPattern, Tables, PartOfQkv];
        let features = all.into_iter().filter(|feature| has(*feature)).collect();
        Self { features, rank: sizes().map(|size| size.rank.get()).max().unwrap_or(0) }
    }

    /// Those of an adapter's files.
    pub fn of_adapter(adapter: &PeftAdapter) -> Self {
        Self::of(adapter.config())
    }
}

fn is_part_of_qkv(lora: &LoraConfig) -> bool {
    const KINDS: [ProjectionKind; 3] = [ProjectionKind::Q, ProjectionKind::K, ProjectionKind::V];
    let has = |layer, kind| lora.sites.contains_key(&graft_model::Site { layer, kind });
    lora.sites
        .keys()
        .any(|site| KINDS.contains(&site.kind) && KINDS.iter().any(|kind| !has(site.layer, *kind)))
}

/// How an adapter becomes what a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it is.
    AsItIs,
    /// In its plainest form, of a rank.
    Folded {
        /// The rank.
        rank: usize,
        /// Whether every block with one of q, k and v gets all three.
        together: bool,
    },
    /// As one with its base.
    Merged,
}

impl Server {
    /// How an adapter becomes what this program takes; `asked` is the rank that it is to have.
    ///
    /// # Errors
    /// It cannot: a sentence with the way out.
    pub fn way(&self, adapter: &Traits, asked: Option<usize>) -> Result<Way, String> {
        let name = self.target.name();
        let lacks: Vec<Feature> =
            adapter.features.iter().copied().filter(|it| !self.takes.contains(it)).collect();
        if lacks.contains(&Feature::Tables) {
            return Err(format!(
                "{name} does not take {} from an adapter, and no update can say them: merge the adapter into its base \
                 (`graft merge`)",
                Feature::Tables.in_words()
            ));
        }
        if matches!(self.form, Form::Peft | Form::Modelfile) && asked.is_some() {
            let why =
                if self.form == Form::Peft { "as they are" } else { "merged into their base" };
            return Err(format!("{name} takes adapters {why}: leave --rank out"));
        }
        let way = match self.form {
            Form::Modelfile => Way::Merged,
            Form::Peft => Way::AsItIs,
            Form::PeftOrPortable | Form::Gguf if lacks.is_empty() && asked.is_none() => Way::AsItIs,
            Form::Portable | Form::PeftOrPortable | Form::Gguf => {
                if lacks.contains(&Feature::Dora) && asked.is_none() {
                    return Err(format!(
                        "{name} does not take {}: give the rank of a plain adapter that comes near it, with --rank N; how near \
                         is told",
                        Feature::Dora.in_words()
                    ));
                }
                let together = lacks.contains(&Feature::PartOfQkv);
                Way::Folded { rank: asked.unwrap_or(adapter.rank), together }
            }
        };
        let rank = match way {
            Way::Merged => return Ok(way),
            Way::Folded { rank, .. } => rank,
            Way::AsItIs => adapter.rank,
        };
        match self.ranks.allowed.last() {
            Some(most) if rank > *most => Err(format!(
                "{name} takes ranks up to {most}, and this one is {rank}: fold it into a smaller one with --rank {most}; what \
                 is lost is told"
            )),
            _ => Ok(way),
        }
    }

    /// What the program has to be told of a rank, where that is more than its usual.
    pub fn told_of_rank(&self, rank: usize) -> Option<String> {
        let (usual, flag) = self.ranks.usual?;
        if rank <= usual {
            return None;
        }
        let enough = self.ranks.allowed.iter().find(|allowed| **allowed >= rank);
        let name = self.target.name();
        Some(format!(
            "{name} takes ranks up to {usual} unless it is told another: start it with {flag} {}",
            enough.unwrap_or(&rank)
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use graft_adapters::{Rank, Size, TableMethod, TableName};
    use graft_model::Site;

    use super::*;

    const ALL: [Feature; 6] = [Dora, RsLora, RankPattern, AlphaPattern, Tables, PartOfQkv];

    #[test]
    fn every_target_has_one_row_with_sources_and_a_day() {
        for (name, target) in Target::ALL {
            assert_eq!(SERVERS.iter().filter(|row| row.target == *target).count(), 1, "{name}");
            let row = server(*target);
            assert!(
                !row.sources.is_empty() && row.sources.iter().all(|it| it.starts_with("https://"))
            );
            assert_eq!(row.read_on.len(), "2026-11-30".len(), "{name}");
            assert!(row.ranks.allowed.is_sorted(), "{name}");
        }
        assert_eq!(SERVERS.len(), Target::ALL.len());
    }

    #[test]
    fn each_feature_goes_its_way_to_each_target() {
        let mut shown = Vec::new();
        for (name, target) in Target::ALL {
            let way = |feature| {
                let traits = Traits { features: vec![feature], rank: 8 };
                let mark = match server(*target).way(&traits, None) {
                    Ok(Way::AsItIs) => "as it is",
                    Ok(Way::Folded { .. }) => "folded",
                    Ok(Way::Merged) => "merged",
                    Err(_) if server(*target).way(&traits, Some(8)).is_ok() => "folded at a rank",
                    Err(_) => "refused",
                };
                format!("{mark:<17}")
            };
            let ways: Vec<String> = ALL.map(way).into();
            shown.push(format!("{name:<14}{}", ways.join("").trim_end()));
        }
        insta::assert_snapshot!(shown.join("\n"), @"
        peft          as it is         as it is         as it is         as it is         as it is         as it is
        peft-portable folded at a rank folded           folded           folded           refused          folded
        vllm          folded at a rank as it is         folded           folded           refused          as it is
        llama.cpp     folded at a rank as it is         as it is         as it is         refused          as it is
        ollama        merged           merged           merged           merged           merged           merged
        mistral.rs    folded at a rank as it is         as it is         as it is         refused          as it is
        tensorrt-llm  folded at a rank as it is         as it is         folded           refused          folded
        ");
    }

    #[test]
    fn ranks_are_held_to_what_a_program_can_be_told() {
        let plain = |rank| Traits { features: Vec::new(), rank };
        let vllm = server(Target::Vllm);
        assert_eq!(vllm.way(&plain(512), None), Ok(Way::AsItIs));
        assert_eq!(vllm.told_of_rank(16), None);
        let told = [vllm.told_of_rank(33).unwrap(), vllm.way(&plain(513), None).unwrap_err()];
        let mistral = server(Target::MistralRs).told_of_rank(300).unwrap();
        insta::assert_snapshot!([&told[..], &[mistral]].concat().join("\n"), @"
        vllm takes ranks up to 16 unless it is told another: start it with --max-lora-rank 64
        vllm takes ranks up to 512, and this one is 513: fold it into a smaller one with --rank 512; what is lost is told
        mistral.rs takes ranks up to 256 unless it is told another: start it with --lora-max-rank 300
        ");
        let smaller = vllm.way(&plain(513), Some(64));
        assert_eq!(smaller, Ok(Way::Folded { rank: 64, together: false }));
        let dora = Traits { features: vec![Dora], rank: 8 };
        let refused = vllm.way(&dora, None).unwrap_err();
        insta::assert_snapshot!(refused, @"vllm does not take DoRA (use_dora): give the rank of a plain adapter that comes near it, with --rank N; how near is told");
        let peft = server(Target::Peft).way(&plain(8), Some(4)).unwrap_err();
        assert_eq!(peft, "peft takes adapters as they are: leave --rank out");
    }

    #[test]
    fn an_adapter_s_traits_are_found() {
        let size = |rank, alpha| Size { rank: Rank(NonZeroUsize::new(rank).unwrap()), alpha };
        let at = |kind| Site { layer: 0, kind };
        let (q, k, v) = (ProjectionKind::Q, ProjectionKind::K, ProjectionKind::V);
        let all = [q, k, v].map(at);
        let mut lora = LoraConfig::uniform(size(4, 8.0), Scaling::Standard, 0.0, all);
        assert_eq!(Traits::of(&lora), Traits { features: Vec::new(), rank: 4 });
        lora.sites.insert(at(ProjectionKind::Down), size(6, 8.0));
        lora.sites.remove(&at(k));
        lora.scaling = Scaling::RankStabilised;
        lora.tables.insert(TableName::Head, TableMethod::Whole);
        let features = vec![RsLora, RankPattern, Tables, PartOfQkv];
        assert_eq!(Traits::of(&lora), Traits { features, rank: 6 });
        lora.sites.insert(at(v), size(4, 2.0));
        assert!(Traits::of(&lora).features.contains(&AlphaPattern));
    }
}
