//! [`crate::memory::forget_startup_code`] by `/proc/self/smaps`.

use std::io;

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
        crate::linux::sys::check(result)?;
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
    use crate::memory::{give_back_in_background, give_back_now};

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
