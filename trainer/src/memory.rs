//! How much memory this process has used: the kernel's own counters, nothing estimated.
//! Linux: `VmHWM` and `RssAnon` of /proc/self/status (proc_pid_status(5)); other Unixes: getrusage(2).

/// The largest resident size so far, in bytes: private memory plus the touched pages of maps.
/// `None` where the system does not say. Asks for no memory itself.
pub fn peak_resident_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    if let Some(bytes) = status_bytes("VmHWM") {
        return Some(bytes);
    }
    peak_by_rusage()
}

/// Resident bytes now that no file backs: the heap and the stacks, without memory-mapped weights.
/// `None` outside Linux, which alone keeps this count.
pub fn anonymous_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        status_bytes("RssAnon")
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

/// Reads onto the stack, for where an allocation fails there is no memory for the answer, either.
#[cfg(target_os = "linux")]
fn status_bytes(key: &str) -> Option<u64> {
    use rustix::fs::{Mode, OFlags};
    const STATUS: &std::ffi::CStr = c"/proc/self/status";
    let file = rustix::fs::open(STATUS, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // About 1,500 bytes; a list of many groups stands before the sizes.
    let (mut text, mut length) = ([0_u8; 16_384], 0);
    while length < text.len() {
        match rustix::io::read(&file, &mut text[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    // The first line is the program's name, which may be cut within a character; the rest is ASCII.
    let text = &text[..length];
    let rest = &text[text.iter().position(|&byte| byte == b'\n')?..];
    field_bytes(str::from_utf8(rest).ok()?, key)
}

/// Reads a line such as `VmHWM:     1234 kB`. The kernel's kB are 1,024 bytes.
#[cfg(any(target_os = "linux", test))]
fn field_bytes(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// The system keeps this count over exec(2), so it may be that of whoever started the program.
#[cfg(unix)]
#[expect(unsafe_code, reason = "getrusage(2) has no safe wrapper in the dependencies")]
fn peak_by_rusage() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is valid for one `rusage`; the call fills it whole when it returns 0.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    let peak = u64::try_from(usage.ru_maxrss).ok()?;
    // macOS counts bytes, Linux and the BSDs count KiB.
    if cfg!(target_vendor = "apple") { Some(peak) } else { peak.checked_mul(1_024) }
}

/// Larger blocks are mapped on their own and handed back when freed.
pub(crate) const LARGEST_KEPT: i32 = 64 << 20;

/// Asks the allocator to keep freed memory for the next tensor instead of handing it back.
///
/// A step frees and takes the same sizes again; by default every large one is mapped and zeroed by the
/// kernel anew. All threads share one heap that grows and shrinks in one piece: those of threads are cut into
/// pieces of 64 MiB, of which tensors that do not fit the rest leave up to a fifth unused.
#[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper in the dependencies")]
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Free memory at the end of the heap beyond this is handed back.
        const MOST_KEPT: i32 = 256 << 20;
        // SAFETY: the calls only set numbers in the allocator; it is called before threads start.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, MOST_KEPT);
        }
    }
}

/// Gives the system back what is free now: between reading rows, scoring, steps, checkpoints and what is
/// written at the end, whose memory lies elsewhere, so that a run's peak is that of the largest of them.
#[expect(unsafe_code, reason = "malloc_trim(3) has no safe wrapper in the dependencies")]
pub fn give_freed_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it only hands pages back that no allocation uses.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(unix))]
fn peak_by_rusage() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tgraft\nVmHWM:\t  204800 kB\nVmRSS:\t  1024 kB\nRssAnon:\t     512 kB\n";

    #[test]
    fn fields_are_read_in_bytes() {
        assert_eq!(field_bytes(STATUS, "VmHWM"), Some(209_715_200));
        assert_eq!(field_bytes(STATUS, "RssAnon"), Some(524_288));
        assert_eq!(field_bytes(STATUS, "Vm"), None);
        assert_eq!(field_bytes("VmHWM: much", "VmHWM"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_touched_buffer_shows_in_both_counts() {
        const SIZE: usize = 64 << 20;
        let before = anonymous_bytes().unwrap();
        let buffer = std::hint::black_box(vec![1u8; SIZE]);
        let grown = anonymous_bytes().unwrap() - before;
        // Other tests run beside this one and may free memory meanwhile.
        assert!(grown > SIZE as u64 / 2, "grew by {grown} bytes only");
        assert!(peak_resident_bytes().unwrap() >= SIZE as u64);
        drop(buffer);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn getrusage_counts_what_proc_does_and_perhaps_what_ran_before() {
        // Threads hand their counts in late.
        const APART: u64 = 32 << 20;
        let (by_proc, by_rusage) = (status_bytes("VmHWM").unwrap(), peak_by_rusage().unwrap());
        let told = format!("/proc says {by_proc}, getrusage says {by_rusage}");
        assert!(by_rusage + APART >= by_proc && by_proc > 1 << 20, "{told}");
    }
}
