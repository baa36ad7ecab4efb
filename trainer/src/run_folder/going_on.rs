//! A run that goes on: what it may differ in, and what is recorded of it.

use std::io;

use graft_files::atomic;
use graft_files::sha256::sha256_hex;
use graft_recipes::Recipe;

use super::checkpoints::set_aside;
use super::contract::{self, Asked, Change};
use super::made::keep_unless;
use super::manifest::{FileHash, Inputs, Mended, Recorded, Status, hash_file};
use super::{Error, RECIPE, Result, RunFolder, plain};

impl RunFolder {
    /// What the run goes on with otherwise than before, of all that its result depends on.
    ///
    /// # Errors
    /// Something has changed that may not, or that was not asked for.
    pub fn changes(&self, now: &Inputs, asked: Asked<'_>) -> Result<Vec<Change>> {
        let was = self.recipe_of_manifest()?;
        contract::compare(&self.manifest.inputs, &was, now, asked)
            .map_err(|refusals| Error::Changed { path: self.path.clone(), refusals })
    }

    /// The recipe that the run has gone by until now.
    fn recipe_of_manifest(&self) -> Result<Recipe> {
        let path = self.manifest_path();
        // JSON is YAML, and the reader of recipes fills in what older ones did not know.
        let text = format!("{:#}", self.manifest.inputs.recipe);
        Recipe::from_yaml(&text, &path.display().to_string())
            .map_err(|problems| Error::Recipe { path, problems: Box::new(problems) })
    }

    /// Records that the run goes on after `step` by this recipe, with what is otherwise from now on, and what
    /// was found damaged; gives all of the latter, `recipe.yaml` included, which is written if it is another.
    pub fn resumed_after(
        &mut self,
        step: u64,
        (now, recipe): (Inputs, &str),
        changes: Vec<Change>,
        mut mended: Vec<Mended>,
    ) -> Result<Vec<Mended>> {
        let mode = atomic::mode_of(&self.recipe_path());
        let was = self.inspect_recipe()?;
        let own = was.as_ref().ok().cloned();
        mended.extend(was.err());
        self.manifest.resumed_after.push(step);
        self.manifest.changes.extend(recorded(step, changes));
        self.manifest.mended.extend(recorded(step, mended.clone()));
        self.manifest.inputs = now;
        self.end(Status::Running)?;
        let own: Vec<FileHash> = own.into_iter().chain([FileHash::of(recipe.as_bytes())]).collect();
        let path = self.recipe_path();
        if !hash_file(&path, |_| ()).is_ok_and(|found| Some(&found) == own.last()) {
            atomic::exchange_bytes(&path, recipe.as_bytes(), mode, |old| {
                keep_unless(&own, old, &path).map(|_| ())
            })?;
        }
        Ok(mended)
    }

    /// Records damage that was found after `step`, and how the run goes on.
    pub fn mended(&mut self, step: u64, mended: Mended) -> Result<Mended> {
        self.manifest.mended.extend(recorded(step, [mended.clone()]));
        self.record()?;
        Ok(mended)
    }

    /// `recipe.yaml`, which is a copy for people, if it is as the run wrote it. Else it is set aside, and what is
    /// wrong with it is given.
    fn inspect_recipe(&self) -> Result<Result<FileHash, Mended>> {
        let path = self.recipe_path();
        let found = match plain::read(&path) {
            Ok(text) if sha256_hex(&text) == self.manifest.inputs.recipe_sha256 => {
                return Ok(Ok(FileHash::of(&text)));
            }
            Ok(_) => {
                let aside = set_aside(&path)?;
                format!("it is not the recipe of the run: written again, the other is `{aside}`")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                "it is missing: written again".to_owned()
            }
            Err(source) => return Err(Error::Read { path, source }),
        };
        Ok(Err(Mended { file: RECIPE.to_owned(), found }))
    }
}

fn recorded<T>(step: u64, what: impl IntoIterator<Item = T>) -> impl Iterator<Item = Recorded<T>> {
    what.into_iter().map(move |what| Recorded { after_step: step, what })
}
