//! How much memory a process may still take: what the machine has left (`MemAvailable`, proc_meminfo(5)),
//! and what its control groups leave it, of version 1 and 2 (cgroups(7); `cgroup-v1/memory.rst` and
//! `cgroup-v2.rst` of the kernel).
//!
//! Groups are nested, and each limits all that lies in it: the tightest on the way up counts. Pages of files
//! count as used there, but go when memory is short, so that here they are free.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory; `None` where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemMemory {
    /// All of the machine's.
    pub total: Option<u64>,
    /// What the machine could still give without swapping.
    pub available: Option<u64>,
    /// The lowest limit of the process's control groups; `None` where none is below what there is.
    pub limit: Option<u64>,
    /// What the tightest of these groups still leaves.
    pub left_in_groups: Option<u64>,
}

impl SystemMemory {
    /// This machine's, now.
    pub fn now() -> Self {
        Self::under(Path::new("/"))
    }

    /// What the files of a system at `root` say.
    pub fn under(root: &Path) -> Self {
        let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let (total, available) = (kib(&meminfo, "MemTotal"), kib(&meminfo, "MemAvailable"));
        let mut found = Self { total, available, ..Self::default() };
        for (group, files) in groups(root) {
            let Some(limit) = files.limit(&group).filter(|&limit| limits(limit, total)) else {
                continue;
            };
            found.limit = found.limit.into_iter().chain([limit]).min();
            if let Some(used) = files.used(&group) {
                let left = limit.saturating_sub(used);
                found.left_in_groups = found.left_in_groups.into_iter().chain([left]).min();
            }
        }
        found
    }

    /// What the process could still take: what the machine and its groups leave, whichever is less.
    pub fn usable(&self) -> Option<u64> {
        self.available.into_iter().chain(self.left_in_groups).min()
    }
}

/// Groups without a limit give a number near 2^63.
fn limits(limit: u64, total: Option<u64>) -> bool {
    total.map_or(limit < 1 << 62, |total| limit < total)
}

/// The value of a `name: … kB` line; the kernel's kB are 1,024 bytes.
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// What a version calls its files.
#[derive(Clone, Copy)]
struct Files {
    limits: &'static [&'static str],
    used: &'static str,
    /// In `memory.stat`: a limit that holds here and may come from a group above that cannot be seen.
    inherited: Option<&'static str>,
    /// In `memory.stat`: pages of files, of all groups below.
    cache: [&'static str; 2],
}

const VERSION_1: Files = Files {
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    inherited: Some("hierarchical_memory_limit"),
    cache: ["total_active_file", "total_inactive_file"],
};

const VERSION_2: Files = Files {
    // Beyond `high` a group is slowed down until it is back: no run that goes on there ends in time.
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    inherited: None,
    cache: ["active_file", "inactive_file"],
};

impl Files {
    fn limit(&self, group: &Path) -> Option<u64> {
        // `max` is no number: no limit.
        let own = self.limits.iter().filter_map(|name| number(&group.join(name)));
        let inherited = self.inherited.and_then(|key| stat(group, key));
        own.chain(inherited).min()
    }

    fn used(&self, group: &Path) -> Option<u64> {
        let cache: u64 = self.cache.iter().filter_map(|key| stat(group, key)).sum();
        Some(number(&group.join(self.used))?.saturating_sub(cache))
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn stat(group: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(group.join("memory.stat")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The folders of this process's group and of those above it, in every tree that counts memory.
fn groups(root: &Path) -> Vec<(PathBuf, Files)> {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let (own, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let files = match controllers {
            "" => VERSION_2,
            _ if controllers.split(',').any(|name| name == "memory") => VERSION_1,
            _ => continue,
        };
        let Mount { shows, at } = Mount::of(&mounts, controllers.is_empty());
        // A container sees its own part of the tree, but may be told its name in the whole.
        let group = Path::new(group);
        let group = group.strip_prefix(&shows).or_else(|_| group.strip_prefix("/"));
        let home = root.join(at.strip_prefix("/").unwrap_or(&at));
        for group in group.unwrap_or(Path::new("")).ancestors() {
            // Joining nothing would put a slash behind the name.
            let folder = if group == Path::new("") { home.clone() } else { home.join(group) };
            found.push((folder, files));
        }
    }
    found
}

/// Where a tree of groups is seen, and which part of it.
struct Mount {
    shows: PathBuf,
    at: PathBuf,
}

impl Mount {
    /// From lines of proc_pid_mountinfo(5), or where systems usually put it.
    fn of(mounts: &str, is_second: bool) -> Self {
        let found = mounts.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let (name, options) = (kind.next()?, kind.nth(1)?);
            let is_it = match name {
                "cgroup2" => is_second,
                "cgroup" => !is_second && options.split(',').any(|option| option == "memory"),
                _ => false,
            };
            let mut place = place.split(' ').skip(3);
            let (shows, at) = (place.next()?, place.next()?);
            is_it.then(|| Self { shows: shows.into(), at: at.into() })
        });
        let usual = if is_second { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        found.unwrap_or_else(|| Self { shows: "/".into(), at: usual.into() })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write the files of a made-up system")]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> SystemMemory {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        SystemMemory::under(root.path())
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       2000 kB\nMemAvailable:   1000 kB\nHugePages_Total: 0\n");
    const SECOND: (&str, &str) = ("proc/self/cgroup", "0::/a/b\n");
    const FIRST: (&str, &str) = ("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/c/d\n0::/\n");

    #[test]
    fn the_machine_alone_gives_what_it_has_left() {
        assert_eq!(system(&[]), SystemMemory::default());
        let found = system(&[MEMINFO]);
        assert_eq!((found.total, found.usable()), (Some(2_048_000), Some(1_024_000)));
        assert_eq!((found.limit, found.left_in_groups), (None, None));
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let with = |max, current| {
            let max = ("sys/fs/cgroup/a/memory.max", max);
            system(&[MEMINFO, SECOND, max, ("sys/fs/cgroup/a/memory.current", current)])
        };
        let usable = |max, current| with(max, current).usable();
        assert_eq!(usable("max\n", "5\n"), Some(1_024_000));
        assert_eq!(usable("500000\n", "200000\n"), Some(300_000));
        assert_eq!(usable("500000\n", "600000\n"), Some(0));
        assert_eq!(usable("9000000\n", "200000\n"), Some(1_024_000));
        assert_eq!(with("9000000\n", "200000\n").limit, None);
        let nested = [
            MEMINFO,
            SECOND,
            ("sys/fs/cgroup/a/memory.max", "900000"),
            ("sys/fs/cgroup/a/memory.current", "850000"),
            ("sys/fs/cgroup/a/b/memory.max", "500000"),
            ("sys/fs/cgroup/a/b/memory.current", "200000"),
        ];
        // The wider limit leaves less.
        let found = system(&nested);
        assert_eq!((found.limit, found.usable()), (Some(500_000), Some(50_000)));
    }

    #[test]
    fn beyond_high_there_is_nothing_to_take() {
        let files = [
            MEMINFO,
            SECOND,
            ("sys/fs/cgroup/a/b/memory.max", "800000"),
            ("sys/fs/cgroup/a/b/memory.high", "400000"),
            ("sys/fs/cgroup/a/b/memory.current", "100000"),
        ];
        assert_eq!(system(&files).usable(), Some(300_000));
    }

    #[test]
    fn pages_of_files_are_free() {
        let files = [
            MEMINFO,
            SECOND,
            ("sys/fs/cgroup/a/b/memory.max", "500000"),
            ("sys/fs/cgroup/a/b/memory.current", "400000"),
            ("sys/fs/cgroup/a/b/memory.stat", "anon 7\nactive_file 50000\ninactive_file 200000\n"),
        ];
        assert_eq!(system(&files).usable(), Some(350_000));
    }

    #[test]
    fn version_1_counts_as_version_2_does() {
        let files = [
            MEMINFO,
            FIRST,
            ("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "600000"),
            ("sys/fs/cgroup/memory/c/memory.usage_in_bytes", "500000"),
            (
                "sys/fs/cgroup/memory/c/memory.stat",
                "total_active_file 1000\ntotal_inactive_file 0\n",
            ),
            ("sys/fs/cgroup/memory/c/d/memory.limit_in_bytes", "9223372036854771712"),
        ];
        let found = system(&files);
        assert_eq!((found.limit, found.usable()), (Some(600_000), Some(101_000)));
        let hidden = [
            MEMINFO,
            FIRST,
            ("sys/fs/cgroup/memory/c/d/memory.limit_in_bytes", "9223372036854771712"),
            ("sys/fs/cgroup/memory/c/d/memory.usage_in_bytes", "100000"),
            ("sys/fs/cgroup/memory/c/d/memory.stat", "hierarchical_memory_limit 300000\n"),
        ];
        assert_eq!(system(&hidden).usable(), Some(200_000), "a limit of a group out of sight");
    }

    #[test]
    fn a_container_finds_its_group_where_it_is_shown() {
        let mounts = "30 20 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      36 25 0:32 /docker/ab /elsewhere/mem rw,nosuid master:1 - cgroup cgroup rw,memory\n\
                      37 25 0:33 /docker/ab /elsewhere/cpu rw - cgroup cgroup rw,cpu\n";
        let files = [
            MEMINFO,
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "4:memory:/docker/ab/inner\n"),
            ("elsewhere/mem/memory.limit_in_bytes", "700000"),
            ("elsewhere/mem/memory.usage_in_bytes", "300000"),
            ("elsewhere/mem/inner/memory.limit_in_bytes", "650000"),
            ("elsewhere/mem/inner/memory.usage_in_bytes", "300000"),
        ];
        let found = system(&files);
        assert_eq!((found.limit, found.usable()), (Some(650_000), Some(350_000)));
        let hybrid = "39 30 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let files = [
            MEMINFO,
            ("proc/self/mountinfo", hybrid),
            ("proc/self/cgroup", "0::/x\n"),
            ("sys/fs/cgroup/unified/x/memory.max", "100000"),
            ("sys/fs/cgroup/unified/x/memory.current", "1000"),
        ];
        assert_eq!(system(&files).usable(), Some(99_000));
    }

    #[test]
    fn a_limit_that_limits_nothing_is_none() {
        assert!(!limits(u64::MAX >> 1, Some(1 << 34)) && !limits(u64::MAX >> 1, None));
        assert!(limits(1 << 33, Some(1 << 34)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory() {
        let memory = SystemMemory::now();
        assert!(memory.total > memory.available && memory.usable() > Some(0));
    }
}
