//! Where the samples of a section are kept: in memory, or in the files of a cache.

use std::path::{Path, PathBuf};

use graft_data::hygiene::{self, Hygiene, Section, Survey, Unread};
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
    /// Where caches of this user lie, if anywhere.
    usual: Option<PathBuf>,
    /// Bytes of a section's files from which on they are kept there.
    large: u64,
    /// Sentences for people.
    pub(super) notes: Vec<String>,
}

impl Keeping {
    pub(super) fn of(choice: &Choice) -> Self {
        let (choice, usual) = (choice.clone(), usual_folder());
        Self { choice, usual, large: LARGE, notes: Vec::new() }
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
        match self.cache(&sources.iter().collect::<Vec<_>>()) {
            Some(cache) => {
                cache.load(sources, tokenizer, options, &mut |note| self.notes.push(note))
            }
            None => Dataset::load(sources, tokenizer, options),
        }
    }

    /// What is found in the rows of these sections; what an earlier start found, where the same was looked for in the same files.
    ///
    /// # Errors
    /// The files cannot be read, or are wrong.
    pub(super) fn survey(
        &mut self,
        measured: &[Section<'_>],
        train: Section<'_>,
        asked: &Hygiene,
    ) -> Result<Survey, Unread> {
        let all = measured.iter().chain([&train]).flat_map(|section| section.sources);
        // What is in the program is the same at the next start.
        let files: Vec<_> = all.filter(|source| source.embedded_text().is_none()).collect();
        let said = self.notes.len();
        let cache = self.cache(&files);
        // Of a folder that does not serve the samples are told.
        self.notes.truncate(said);
        match cache {
            Some(cache) => cache.survey(measured, train, asked, &mut |note| self.notes.push(note)),
            None => hygiene::survey(measured, train, asked),
        }
    }

    /// `None` for memory.
    fn cache(&mut self, sources: &[&SourceFile]) -> Option<Cache> {
        // What the program holds itself, or was given once, is not there at the next start.
        if !sources.iter().all(|source| source.is_on_disk()) {
            return None;
        }
        match &self.choice {
            Choice::Off => None,
            Choice::Folder(folder) => Some(Cache::at(folder)),
            Choice::Auto => {
                let size =
                    |source: &&SourceFile| source.path.metadata().map_or(0, |found| found.len());
                let bytes: u64 = sources.iter().map(size).sum();
                if bytes < self.large {
                    return None;
                }
                let found = self.usual.clone().map(Cache::at).ok_or_else(|| {
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use graft_data::Format;
    use graft_files::disk;

    use super::*;

    /// Where the samples of a file of this many bytes are kept, and what is said of it.
    fn kept(choice: Choice, usual: Option<PathBuf>, bytes: u64) -> (Option<PathBuf>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        // A hole: nothing of it is on the disk.
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        let mut keeping = Keeping { choice, usual, large: 1_000, notes: Vec::new() };
        let sources = [SourceFile::new(path, Format::Text)];
        let cache = keeping.cache(&sources.each_ref()).map(|cache| cache.folder().to_owned());
        (cache, keeping.notes)
    }

    #[test]
    fn large_files_are_kept_in_the_usual_folder_and_small_ones_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let usual = folder.path().join("new").join("graft");
        assert_eq!(kept(Choice::Auto, Some(usual.clone()), 999), (None, vec![]));
        assert!(!usual.exists());
        assert_eq!(kept(Choice::Auto, Some(usual.clone()), 1_000), (Some(usual.clone()), vec![]));
        let mode = fs::metadata(&usual).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(kept(Choice::Off, Some(usual.clone()), 1_000), (None, vec![]));
        let own = folder.path().join("own");
        assert_eq!(kept(Choice::Folder(own.clone()), Some(usual), 1), (Some(own), vec![]));
    }

    #[test]
    fn what_is_in_the_program_is_kept_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let choice = Choice::Folder(folder.path().to_owned());
        let mut keeping = Keeping { choice, usual: None, large: 0, notes: Vec::new() };
        let source = SourceFile::builtin("quickstart/train", Format::Messages).unwrap();
        assert_eq!(keeping.cache(&[&source]), None);
    }

    #[test]
    fn where_the_usual_folder_does_not_serve_samples_stay_in_memory_and_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let said = |usual: Option<PathBuf>, bytes| {
            let (cache, notes) = kept(Choice::Auto, usual, bytes);
            assert_eq!((cache, notes.len()), (None, 1), "{notes:?}");
            notes[0].replace(&folder.path().display().to_string(), "HOME")
        };
        insta::assert_snapshot!(said(None, 1_000), @"samples are kept in memory and made again at each start, since neither XDG_CACHE_HOME nor HOME names a folder for caches; `data.cache: FOLDER` keeps them elsewhere, and `data.cache: off` asks for this");
        let taken = folder.path().join("taken");
        fs::write(&taken, "").unwrap();
        insta::assert_snapshot!(said(Some(taken.join("graft")), 1_000), @"samples are kept in memory and made again at each start, since HOME/taken/graft cannot be written (Not a directory (os error 20)); `data.cache: FOLDER` keeps them elsewhere, and `data.cache: off` asks for this");
        let usual = folder.path().join("graft");
        let more = disk::free_bytes(&usual).unwrap().saturating_mul(4);
        // File systems that make no file so large have no disk so large.
        if let Ok(file) = fs::File::create(folder.path().join("probe"))
            && file.set_len(more).is_ok()
        {
            let said = said(Some(usual), more);
            let rest = said.split_once(" bytes, but its disk has ").unwrap().1;
            assert!(rest.contains("; `data.cache: FOLDER` keeps them elsewhere"), "{said}");
        }
    }
}
