//! Where the samples of a section are kept: in memory, or in the files of a cache.

use std::path::{Path, PathBuf};

use graft_data::{Cache, Dataset, Error, SampleOptions, SourceFile, Tokenizer};
use graft_files::place;
use graft_recipes::{Cache as Choice, PathOrBuiltin, Recipe};

use super::findings::Findings;

/// Bytes of a section's files that are read within a second or two: what they become fits into memory.
const LARGE: u64 = 32 << 20;
/// The folder within the user's own for caches.
const NAME: &str = "graft";

/// What the recipe says, and what is to be said of it.
pub(super) struct Keeping {
    choice: Choice,
    /// Sentences for people.
    pub(super) notes: Vec<String>,
}

impl Keeping {
    pub(super) fn of(choice: &Choice) -> Self {
        Self { choice: choice.clone(), notes: Vec::new() }
    }

    /// Samples of the files of a section.
    ///
    /// # Errors
    /// The files are wrong, or the folder of the recipe cannot be written.
    pub(super) fn load(
        &mut self,
        sources: &[SourceFile],
        tokenizer: &Tokenizer,
        options: &SampleOptions,
    ) -> Result<Dataset, Error> {
        match self.cache(sources) {
            Some(cache) => {
                cache.load(sources, tokenizer, options, &mut |note| self.notes.push(note))
            }
            None => Dataset::load(sources, tokenizer, options),
        }
    }

    /// `None` for memory.
    fn cache(&mut self, sources: &[SourceFile]) -> Option<Cache> {
        // What the program holds itself, or was given once, is not there at the next start.
        if !sources.iter().all(SourceFile::is_on_disk) {
            return None;
        }
        match &self.choice {
            Choice::Off => None,
            Choice::Folder(folder) => Some(Cache::at(folder)),
            Choice::Auto => {
                let size =
                    |source: &SourceFile| source.path.metadata().map_or(0, |found| found.len());
                let bytes: u64 = sources.iter().map(size).sum();
                if bytes < LARGE {
                    return None;
                }
                let found = usual_folder().map(Cache::at).ok_or_else(|| {
                    "neither XDG_CACHE_HOME nor HOME names a folder for caches".to_owned()
                });
                let writable = found.and_then(|cache| usable(cache, bytes));
                writable.map_err(|problem| self.notes.push(in_memory(&problem))).ok()
            }
        }
    }
}

/// Refuses a cache among what a run reads, or in what it writes.
pub(super) fn check(recipe: &Recipe, findings: &mut Findings<'_>) {
    let Choice::Folder(folder) = &recipe.data.cache else { return };
    let path = |place: &PathOrBuiltin| match place {
        PathOrBuiltin::Path(path) => Some(path.clone()),
        PathOrBuiltin::Builtin(_) => None,
    };
    let (data, evaluation) = (&recipe.data, &recipe.evaluation);
    let sources =
        [&data.train, data.validation.sources(), &evaluation.held_out, &evaluation.general];
    let sources = sources.into_iter().flatten().filter_map(|source| path(&source.path));
    let others = [Some(recipe.output_dir.clone()), path(&recipe.model.path)];
    let mut others = others.into_iter().flatten().chain(sources).filter(|other| !other.is_file());
    let Ok(place) = place::resolve(folder) else { return };
    let is_within = |other: &PathBuf| place::resolve(other).is_ok_and(|it| place.starts_with(it));
    if let Some(other) = others.find(is_within) {
        let message = format!(
            "found `{}`, which is in `{}`: what a run reads or leaves there is no place for a cache",
            folder.display(),
            other.display()
        );
        findings.problem("data.cache", message);
    }
}

/// A cache that can be written, with room for samples of so many bytes of text: about as many.
fn usable(cache: Cache, bytes: u64) -> Result<Cache, String> {
    let folder = cache.folder().display();
    cache.try_writing().map_err(|error| format!("{folder} cannot be written ({error})"))?;
    let room = graft_files::disk::require_free(cache.folder(), bytes);
    room.map_err(|error| error.to_string())?;
    Ok(cache)
}

fn in_memory(problem: &str) -> String {
    format!(
        "samples are kept in memory and made again at each start, since {problem}; `data.cache: FOLDER` keeps \
         them elsewhere, and `data.cache: off` asks for this"
    )
}

/// `$XDG_CACHE_HOME/graft`, or `~/.cache/graft`.
fn usual_folder() -> Option<PathBuf> {
    let named = |name: &str| {
        // A relative one is to be ignored: XDG Base Directory Specification, section 2.
        std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
    };
    let home = || named("HOME").map(|home| home.join(".cache"));
    named("XDG_CACHE_HOME").or_else(home).map(|folder| folder.join(Path::new(NAME)))
}
