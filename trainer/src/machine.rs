//! What this machine has: processor, memory, pages. Everything is read from the system, nothing guessed;
//! what a system does not say is `None`. Linux: proc_cpuinfo(5); memory as [`SystemMemory`] finds it.

use std::fs;

use graft_model::SystemMemory;
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
    /// What this process could still get without swapping.
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
        let memory = SystemMemory::now();
        Self {
            total_bytes: memory.total,
            available_bytes: memory.usable(),
            limit_bytes: memory.limit,
            page_bytes: u64::try_from(rustix::param::page_size()).ok(),
        }
    }
}

/// How the kernel gives out huge pages: `always`, `madvise` or `never`.
pub fn huge_pages() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
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

#[cfg(test)]
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

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory_and_threads() {
        let memory = Memory::of_this_machine();
        assert!(memory.total_bytes > memory.available_bytes);
        assert!(memory.available_bytes > Some(0) && memory.page_bytes >= Some(4_096));
        assert!(Processor::of_this_machine().threads > 0);
    }
}
