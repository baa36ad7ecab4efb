//! `graft synth-model`: random weights of a true shape, for measurements.

use std::time::Instant;

use crate::cli::folder_args::SynthModelArgs;
use crate::cli::{Globals, page};
use crate::plan::parameters;
use crate::progress::{Progress, Unit};
use crate::signals;
use crate::synthetic::Synthetic;

/// Writes the folder.
///
/// # Errors
/// The output is taken; the disk has too little room or refuses.
pub fn run(globals: &Globals, args: &SynthModelArgs) -> anyhow::Result<()> {
    signals::listen()?;
    signals::work_begins(globals.voice());
    let started = Instant::now();
    let SynthModelArgs { preset, format, out, layers, seed: _, sparse: _ } = args;
    let layers = layers.map(usize::from);
    let model = Synthetic::new((preset.config)(), layers, *format, args.contents())?;
    let progress = Progress::new(globals.voice(), "write", model.tensor_bytes(), Unit::Bytes);
    let fields = Default::default();
    let written = model.write(out, &mut |done| progress.step(done, &fields))?;
    progress.finish(&page::bytes(model.tensor_bytes()));
    let rows = [
        ("written", written.folder.display().to_string()),
        ("parameters", page::grouped(parameters(model.config()))),
        ("weights", format!("{} in {} files", page::bytes(model.tensor_bytes()), written.files)),
        ("on disk", page::bytes(written.disk_bytes)),
        ("time", format!("{:.1} s", started.elapsed().as_secs_f64())),
    ];
    Ok(page::print(&page::table(&rows))?)
}
