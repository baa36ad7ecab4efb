//! What the machine has left: memory by the kernel's own estimate and the limits of the control groups, disk
//! by the file system.

use std::fs;
use std::path::Path;

use graft_files::disk;
use graft_model::SystemMemory;

use crate::device::Device;

/// Bytes that there are; `None` where nobody says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Available {
    /// Memory that the run may take, what this process holds already included.
    pub memory: Option<u64>,
    /// Memory of the GPU that computes.
    pub device: Option<u64>,
    /// Disk for the run folder, what a run holds there already included.
    pub disk: Option<u64>,
}

impl Available {
    /// Looks at this machine and what computes there; `output_dir` need not exist yet.
    pub fn here(output_dir: &Path, device: &Device) -> Self {
        let own = crate::memory::anonymous_bytes().unwrap_or(0);
        let memory = SystemMemory::now().usable().map(|bytes| bytes.saturating_add(own));
        Self { memory, device: device.memory_bytes(), disk: disk(output_dir) }
    }

    /// What there is, with what a person says in place of what was found.
    #[must_use]
    pub fn or_as_told(self, told: Self) -> Self {
        let Self { memory, device, disk } = told;
        Self {
            memory: memory.or(self.memory),
            device: device.or(self.device),
            disk: disk.or(self.disk),
        }
    }
}

/// Free bytes of the file system that `path` is, or will be, on, and those that it holds already.
fn disk(path: &Path) -> Option<u64> {
    let here = Path::new(".");
    let home = path
        .ancestors()
        .map(|path| if path.as_os_str().is_empty() { here } else { path })
        .find(|path| path.is_dir())?;
    // Some file systems do not say how full they are.
    let free = disk::free_bytes(home).ok()?;
    Some(free.saturating_add(if home == path { held(path) } else { 0 }))
}

fn held(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => held(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test writes a file of its own")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_disk_of_the_one_above() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("a/b");
        assert!(disk(&missing).unwrap() > 0);
        fs::write(root.path().join("x"), [0; 1_000]).unwrap();
        assert_eq!(held(root.path()), 1_000);
    }
}
