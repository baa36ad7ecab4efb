//! What the machine has left: memory by the kernel's own estimate and the limits of the control group,
//! disk by the file system.

use std::fs;
use std::path::Path;

use graft_model::atomic;

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
        let memory = memory_below(Path::new("/")).map(|bytes| bytes.saturating_add(own));
        Self { memory, device: device.memory_bytes(), disk: disk(output_dir) }
    }

    /// The same, with what a person says in place of what was found.
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

/// Memory available under the files of a system at `root`: Linux's `MemAvailable`, or what the limits
/// of cgroup v2 leave to this process's group and those above it, where that is less.
fn memory_below(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = mem_available(&read("proc/meminfo")?)?;
    let group = read("proc/self/cgroup").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        Some(line.trim().to_owned())
    });
    let mut least = machine;
    let group = group.unwrap_or_default();
    for folder in Path::new(&group).ancestors() {
        let number = |name: &str| {
            let path = root.join("sys/fs/cgroup").join(folder).join(name);
            fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        };
        // `max` is no number: no limit.
        if let (Some(limit), Some(current)) = (number("memory.max"), number("memory.current")) {
            // Pages of files count as used there, but go when memory is short.
            let files = number_of(root, folder, "inactive_file").unwrap_or(0);
            least = least.min(limit.saturating_sub(current.saturating_sub(files)));
        }
    }
    Some(least)
}

fn number_of(root: &Path, folder: &Path, key: &str) -> Option<u64> {
    let path = root.join("sys/fs/cgroup").join(folder).join("memory.stat");
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// Free bytes of the file system that `path` is, or will be, on, and those that it holds already.
fn disk(path: &Path) -> Option<u64> {
    let here = Path::new(".");
    let home = path
        .ancestors()
        .map(|path| if path.as_os_str().is_empty() { here } else { path })
        .find(|path| path.is_dir())?;
    // Some file systems do not say how full they are.
    let free = atomic::free_bytes(home).ok()?;
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
#[expect(clippy::disallowed_methods, reason = "the tests write the files of a made-up system")]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        memory_below(root.path())
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       2000 kB\nMemAvailable:   1000 kB\n");
    const GROUP: (&str, &str) = ("proc/self/cgroup", "0::/a/b\n");

    #[test]
    fn the_least_of_the_machine_and_of_all_groups_counts() {
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MEMINFO]), Some(1_024_000));
        let limited = |max, current| {
            let max = ("sys/fs/cgroup/a/memory.max", max);
            system(&[MEMINFO, GROUP, max, ("sys/fs/cgroup/a/memory.current", current)])
        };
        assert_eq!(limited("max\n", "5\n"), Some(1_024_000));
        assert_eq!(limited("500000\n", "200000\n"), Some(300_000));
        assert_eq!(limited("500000\n", "600000\n"), Some(0));
        assert_eq!(limited("9000000\n", "200000\n"), Some(1_024_000));
        let files = [
            MEMINFO,
            GROUP,
            ("sys/fs/cgroup/a/b/memory.max", "500000"),
            ("sys/fs/cgroup/a/b/memory.current", "400000"),
            ("sys/fs/cgroup/a/b/memory.stat", "anon 7\ninactive_file 250000\n"),
        ];
        assert_eq!(system(&files), Some(350_000));
    }

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_disk_of_the_one_above() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("a/b");
        assert!(disk(&missing).unwrap() > 0);
        fs::write(root.path().join("x"), [0; 1_000]).unwrap();
        assert_eq!(held(root.path()), 1_000);
    }
}
