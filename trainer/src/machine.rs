//! What this machine has: processor, memory, pages. Everything is read from the system, nothing guessed;
//! what a system does not say is `None`. Linux: proc_cpuinfo(5), proc_meminfo(5), cgroups(7).

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Processor {
    /// As it calls itself.
    pub name: Option<String>,
    /// The instruction set that Graft was built for.
    pub architecture: &'static str,
    /// Cores, without the second thread of each.
    pub cores: Option<usize>,
    /// Threads that this process may run at once: affinity and cgroup quotas count.
    pub threads: usize,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of the machine's.
    pub total_bytes: Option<u64>,
    /// What programs could still get without swapping.
    pub available_bytes: Option<u64>,
    /// The most that this process and its relatives may hold, where a cgroup says so.
    pub limit_bytes: Option<u64>,
    /// Size of a page.
    pub page_bytes: Option<u64>,
}

impl Processor {
    /// This machine's.
    pub fn of_this_machine() -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            name: field(&text, "model name").map(ToOwned::to_owned),
            architecture: std::env::consts::ARCH,
            cores: cores(&text),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

impl Memory {
    /// This machine's, now.
    pub fn of_this_machine() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total_bytes = kib(&text, "MemTotal");
        Self {
            total_bytes,
            available_bytes: kib(&text, "MemAvailable"),
            limit_bytes: cgroup_limit(Path::new("/")).filter(|&limit| below(limit, total_bytes)),
            page_bytes: page_bytes(),
        }
    }

    /// What a run could still take: what is available, if no limit is lower.
    pub fn usable_bytes(&self) -> Option<u64> {
        self.available_bytes.into_iter().chain(self.limit_bytes).min()
    }
}

/// How the kernel gives out huge pages: `always`, `madvise` or `never`.
pub fn huge_pages() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Cgroups without a limit give a number near 2^63.
fn below(limit: u64, total: Option<u64>) -> bool {
    total.map_or(limit < 1 << 62, |total| limit < total)
}

/// The value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name && !value.trim().is_empty()).then(|| value.trim())
    })
}

/// Different pairs of socket and core; two threads of a core are one.
fn cores(cpuinfo: &str) -> Option<usize> {
    let mut cores = std::collections::BTreeSet::new();
    for processor in cpuinfo.split("\n\n") {
        if let Some(core) = field(processor, "core id") {
            cores.insert((field(processor, "physical id"), core));
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// The kernel's kB are 1,024 bytes.
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, name)?.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// The lowest limit of this process's cgroup and those above it, version 2 or 1, with the file system
/// rooted at `root`.
fn cgroup_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        let group = Path::new(group.trim_start_matches('/'));
        let above = group.ancestors().map(|group| root.join(mount).join(group).join(file));
        above.collect::<Vec<PathBuf>>()
    });
    limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "sysconf(3) has no safe wrapper in the dependencies")]
fn page_bytes() -> Option<u64> {
    // SAFETY: the call takes a number and gives one.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()
}

#[cfg(not(unix))]
fn page_bytes() -> Option<u64> {
    None
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nmodel name\t: A 9\nphysical id\t: 0\ncore id\t\t: 0\n\n\
                           processor\t: 1\nmodel name\t: A 9\nphysical id\t: 0\ncore id\t\t: 0\n\n\
                           processor\t: 2\nmodel name\t: A 9\nphysical id\t: 1\ncore id\t\t: 0\n\n";

    #[test]
    fn two_threads_of_a_core_are_one_core() {
        assert_eq!(cores(CPUINFO), Some(2));
        assert_eq!(cores("processor : 0\n"), None);
        assert_eq!(field(CPUINFO, "model name"), Some("A 9"));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       24 kB\nMemAvailable:   10 kB\nHugePages_Total:   0\n";
        assert_eq!(kib(text, "MemTotal"), Some(24_576));
        assert_eq!(kib(text, "HugePages_Total"), None);
        assert_eq!(kib("", "MemTotal"), None);
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(cgroup_limit(root.path()), None);
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(cgroup_limit(root.path()), None);
        write("sys/fs/cgroup/a/memory.max", "4096\n");
        assert_eq!(cgroup_limit(root.path()), Some(4_096));
        write("proc/self/cgroup", "5:cpu:/x\n4:memory:/c\n0::/\n");
        write("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "8192\n");
        assert_eq!(cgroup_limit(root.path()), Some(8_192));
    }

    #[test]
    fn a_limit_that_limits_nothing_is_none() {
        assert!(!below(u64::MAX >> 1, Some(1 << 34)) && !below(u64::MAX >> 1, None));
        assert!(below(1 << 33, Some(1 << 34)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory_and_threads() {
        let memory = Memory::of_this_machine();
        assert!(memory.total_bytes > memory.available_bytes);
        assert!(memory.usable_bytes() > Some(0) && memory.page_bytes >= Some(4_096));
        assert!(Processor::of_this_machine().threads > 0);
    }
}
