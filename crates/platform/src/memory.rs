//! Memory that a process holds without needing it: what the allocator keeps for later, and the code of the start.
//!
//! A long-lived process calls [`give_back_in_background`] once it has its threads, and [`give_back_now`] when it knows that
//! it has just let go of much (a configuration that was read, a burst that is over). [`forget_startup_code`] is for a
//! program of which a process runs a part only: the pages of its file that the start has touched are unmapped, those that
//! are needed again come back from the page cache, one fault for sixteen pages.
//!
//! Bounds: one thread more (jemalloc's), [`DECAY`] until unused pages are given back. What it does not do: limit anything.

use std::{io, time::Duration};

/// How long the allocator keeps unused pages once [`give_back_in_background`] was called: a pause between two requests
/// costs nothing, a quiet minute returns what the busy one took.
pub const DECAY: Duration = Duration::from_secs(5);

/// Has the allocator return unused pages by itself, also while the process is idle. Starts a thread: not before a process
/// that needs to be alone has entered its namespaces.
pub fn give_back_in_background() {
    allocator::give_back_in_background();
}

/// Returns what the allocator holds unused; some hundred microseconds.
pub fn give_back_now() {
    allocator::give_back_now();
}

#[cfg(feature = "jemalloc")]
mod allocator {
    use std::{ffi::CStr, mem::size_of, ptr};

    use super::DECAY;

    /// Every arena (`MALLCTL_ARENAS_ALL` of jemalloc's manual).
    const PURGE_ALL: &CStr = c"arena.4096.purge";

    pub(super) fn give_back_in_background() {
        let decay = isize::try_from(DECAY.as_millis()).unwrap_or(isize::MAX);
        // Arenas that come later, then those that are there: each worker has one.
        set(c"arenas.dirty_decay_ms", decay);
        let mut arenas: u32 = 0;
        get(c"arenas.narenas", &mut arenas);
        for arena in 0..arenas {
            let name = format!("arena.{arena}.dirty_decay_ms\0");
            if let Ok(name) = CStr::from_bytes_with_nul(name.as_bytes()) {
                set(name, decay);
            }
        }
        set(c"max_background_threads", 1_usize);
        set(c"background_thread", true);
    }

    pub(super) fn give_back_now() {
        call(c"thread.tcache.flush");
        call(PURGE_ALL);
    }

    /// The kinds of values that jemalloc's options have.
    trait Option: Copy {}
    impl Option for bool {}
    impl Option for usize {}
    impl Option for isize {}
    impl Option for u32 {}

    /// An option that this build of jemalloc lacks stays as it is: nothing depends on it but how much is held.
    fn set<T: Option>(name: &CStr, mut value: T) {
        // SAFETY: the name ends with a zero byte, the new value is a live `T` of the stated size that is only read, and no
        // old value is asked for; jemalloc refuses a size that is not the option's.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                (&raw mut value).cast(),
                size_of::<T>(),
            )
        };
        report(name, code);
    }

    fn get<T: Option>(name: &CStr, value: &mut T) {
        let mut size = size_of::<T>();
        // SAFETY: the name ends with a zero byte; the old value goes to a live `T` of the stated size, of whose type every
        // pattern that jemalloc writes is a value; nothing is set.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                (&raw mut *value).cast(),
                &raw mut size,
                ptr::null_mut(),
                0,
            )
        };
        report(name, code);
    }

    fn call(name: &CStr) {
        // SAFETY: the name ends with a zero byte; no value is passed in either direction.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                0,
            )
        };
        report(name, code);
    }

    fn report(name: &CStr, code: std::ffi::c_int) {
        if code != 0 {
            tracing::debug!(?name, code, "the allocator does not take this");
        }
    }
}

#[cfg(not(feature = "jemalloc"))]
mod allocator {
    /// The system's allocator gives large blocks back by itself, and has no thread for the others.
    pub(super) fn give_back_in_background() {}

    pub(super) fn give_back_now() {
        #[cfg(target_env = "gnu")]
        // SAFETY: it only gives pages of the heap back that hold nothing.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Unmaps the pages of the program's file that are mapped and unchanged: code and constants that only the start needed.
/// Gives the bytes that were mapped there before.
pub fn forget_startup_code() -> io::Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    let program = std::fs::read_link("/proc/self/exe")?;
    let mut forgotten = 0;
    for mapping in mappings(&maps, &program.to_string_lossy()) {
        // A page that was written to (relocated constants) is not in the file as it is here, and would be lost.
        if mapping.writable || mapping.anonymous != 0 || mapping.resident == 0 {
            continue;
        }
        let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(mapping.start);
        // SAFETY: the range is a mapping of this program's file that is not writable and has no page of its own, as the
        // kernel has just said; the kernel maps the same bytes again at the next touch. The program's own segments are
        // neither unmapped nor written to while it runs.
        let result = unsafe { libc::madvise(start, mapping.end - mapping.start, libc::MADV_DONTNEED) };
        crate::sys::check(result)?;
        forgotten += mapping.resident;
    }
    Ok(forgotten)
}

/// One mapping of a file, as `/proc/self/smaps` has it; sizes in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    writable: bool,
    resident: usize,
    anonymous: usize,
}

/// The mappings of the file `program`.
fn mappings(smaps: &str, program: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    let mut inside = false;
    for line in smaps.lines() {
        if let Some(mapping) = header(line) {
            inside = line.ends_with(program) && line.split_whitespace().nth(5).is_some();
            if inside {
                found.push(mapping);
            }
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(Ok(kib))) = (words.next(), words.next().map(str::parse::<usize>)) else {
            continue;
        };
        if let (true, Some(mapping)) = (inside, found.last_mut()) {
            match name {
                "Rss:" => mapping.resident = kib * 1024,
                "Anonymous:" => mapping.anonymous = kib * 1024,
                _ => {}
            }
        }
    }
    found
}

/// `55d0c8a00000-55d0c8b00000 r-xp 00000000 fe:00 1234  /usr/bin/rajut`
fn header(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    Some(Mapping {
        start: usize::from_str_radix(start, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        writable: permissions.contains('w'),
        ..Mapping::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_the_program_are_found_with_what_is_resident() {
        let smaps = "\
1000-3000 r--p 00000000 fe:00 12                         /usr/bin/rajut
Size:                  8 kB
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
3000-4000 rw-p 00002000 fe:00 12                         /usr/bin/rajut
Rss:                   4 kB
Anonymous:             4 kB
7000-8000 rw-p 00000000 00:00 0
Rss:                   4 kB
8000-9000 r-xp 00000000 fe:00 13                         /usr/lib/libc.so.6
Rss:                   4 kB
";
        let expected = [
            Mapping {
                start: 0x1000,
                end: 0x3000,
                writable: false,
                resident: 8192,
                anonymous: 0,
            },
            Mapping {
                start: 0x3000,
                end: 0x4000,
                writable: true,
                resident: 4096,
                anonymous: 4096,
            },
        ];
        assert_eq!(mappings(smaps, "/usr/bin/rajut"), expected);
    }

    #[test]
    fn a_program_goes_on_after_its_code_was_forgotten() {
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let program = std::fs::read_link("/proc/self/exe").unwrap();
            let mappings = mappings(&smaps, &program.to_string_lossy());
            let code = |mapping: &&Mapping| !mapping.writable && mapping.anonymous == 0;
            mappings
                .iter()
                .filter(code)
                .map(|mapping| mapping.resident)
                .sum::<usize>()
        };
        let before = resident();
        let forgotten = forget_startup_code().unwrap();
        assert!(forgotten > 0);
        assert!(resident() <= before, "{} > {before}", resident());
        give_back_in_background();
        give_back_now();
        assert_eq!("still here".len(), 10);
    }
}
