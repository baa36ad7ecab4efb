//! `graft adapters`: several adapters as one, or one of another rank.

use std::path::{Path, PathBuf};

use graft_adapters::PeftAdapter;
use graft_adapters::algebra::{Combination, Parent};
use graft_adapters::peft;
use graft_model::LlamaConfig;
use graft_model::folder::ModelFolder;

use crate::beside::{Beside, compare};
use crate::cli::adapters_args::AdaptersArgs;
use crate::cli::{Globals, page};
use crate::parents::{self, Parentage};
use crate::plan::read_config;
use crate::progress::{Progress, Unit};
use crate::serving::new_folder;
use crate::trained_with::TrainedWith;
use crate::{base_mark, merging, privacy, signals};

/// Writes the adapter.
///
/// # Errors
/// An adapter is unusable, or they cannot be added as asked; the place is taken; the disk refuses; the result
/// answers otherwise than is accepted.
pub fn run(globals: &Globals, args: &AdaptersArgs) -> anyhow::Result<()> {
    signals::listen()?;
    signals::work_begins(globals.voice());
    let method = args.method()?;
    let opened = args.adapter.iter().map(|path| PeftAdapter::open(path));
    let adapters: Vec<PeftAdapter> = opened.collect::<Result<_, _>>()?;
    let base = args.model.as_deref().map(Base::open).transpose()?;
    let out = place(args, base.as_ref())?;
    let weighted = adapters.iter().enumerate();
    let weighted = weighted.map(|(index, adapter)| Parent { adapter, weight: args.weight(index) });
    let combination = Combination::of(weighted.collect(), method)?;
    for adapter in adapters.iter().filter(|adapter| base.is_none() && adapter.changes_nothing()) {
        let file = adapter.file();
        globals.note(&format!(
            "warning: `{file}` changes nothing: each of its updates has a matrix of zeros"
        ));
    }
    if let Some(base) = &base {
        for adapter in &adapters {
            adapter.check_model(&base.config)?;
            for told in base_mark::oddities(adapter, &base.folder, &base.config)?.told {
                globals.note(&format!("warning: {told}"));
            }
        }
    }
    let Parentage { metadata, base: name, told } =
        parents::of(&args.adapter, &adapters, args, method)?;
    for told in told {
        globals.note(&format!("warning: {told}"));
    }
    // What they say alike, the first one says.
    let nf4 =
        if TrainedWith::is_told(&metadata) { TrainedWith::of(&adapters[0])?.nf4 } else { None };
    let progress = Progress::new(
        globals.voice(),
        "combine",
        combination.config().sites.len() as u64,
        Unit::Count("projections"),
    );
    let (mut far, mut compared) = (0.0, None);
    let check = |folder: &Path| -> anyhow::Result<()> {
        let made = PeftAdapter::open(folder)?;
        far = combination.distance(&made);
        let Some(base) = &base else { return Ok(()) };
        let exact = combination.exact();
        let expected = Beside { lora: exact.config(), start: &exact, nf4 };
        let found = Beside { lora: made.config(), start: &made, nf4 };
        let divergence = compare(&base.folder, &base.config, expected, found)?;
        let allowed = args.tolerance.map_or(f64::INFINITY, f64::from);
        if !divergence.is_within(allowed) {
            anyhow::bail!(
                "the result is {:.2e} nats a token from the sum of the updates, more than {allowed:.1e}: it was removed. \
                 Take cat, which is the sum itself, svd of a higher --rank, or allow more with --tolerance",
                divergence.mean
            );
        }
        compared = Some(divergence);
        Ok(())
    };
    let fields = Default::default();
    let mut step = |done, _| progress.step(done, &fields);
    combination.write(&out, &name, metadata, &mut step, check)?;
    progress.finish(&format!("{far:.1e} of the sum of the updates is lost"));
    let sites = &combination.config().sites;
    let ranks: std::collections::BTreeSet<usize> = sites.values().map(|it| it.rank.get()).collect();
    let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
    let mut rows = vec![
        ("written", out.display().to_string()),
        ("holds", format!("{} updates of rank {}", sites.len(), ranks.join(", "))),
        ("method", method.in_words()),
        ("of the sum", format!("{:.4} % is lost, by length", 100.0 * far)),
    ];
    match compared {
        Some(divergence) => {
            rows.push((
                "compared",
                merging::in_words(&divergence, "base + the sum of the updates"),
            ));
        }
        None => rows.push(("compared", "not beside its base: name it with --model".to_owned())),
    }
    Ok(page::print(&page::table(&rows))?)
}

/// The model that the adapters are for.
struct Base {
    folder: ModelFolder,
    config: LlamaConfig,
}

impl Base {
    fn open(location: &str) -> anyhow::Result<Self> {
        let folder = ModelFolder::open(location)?;
        let config = read_config(&folder)?;
        Ok(Self { folder, config })
    }
}

/// The place of the result, which holds nothing yet and lies in nothing that is read; as private as what is read.
fn place(args: &AdaptersArgs, base: Option<&Base>) -> anyhow::Result<PathBuf> {
    let mut inputs = Vec::new();
    for adapter in &args.adapter {
        inputs.extend(peft::files(adapter)?);
    }
    let folder = base.map(|base| &base.folder);
    if let Some(folder) = folder {
        inputs.extend(folder.paths()?);
    }
    let place = new_folder(&args.out, folder, args.adapter.iter().map(PathBuf::as_path))?;
    privacy::as_private_as(&place, inputs.iter().map(PathBuf::as_path));
    Ok(place)
}
