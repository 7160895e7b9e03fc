//! [`crate::cpu`] by affinity masks.

use std::io;

use rustix::thread::CpuSet;

/// The numbers of the processors that the calling thread may run on.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|number| set.is_set(*number))
        .collect())
}

/// Keeps the calling thread on one processor, by its place among the [`allowed`] ones (wrapping around). Threads that it
/// starts later inherit this. Returns the processor's number.
pub fn pin_current_thread(place: usize) -> io::Result<usize> {
    let allowed = allowed()?;
    let number = *allowed
        .get(place.checked_rem(allowed.len()).unwrap_or(0))
        .ok_or_else(|| io::Error::other("the thread may run on no processor"))?;
    let mut set = CpuSet::new();
    set.set(number);
    rustix::thread::sched_setaffinity(None, &set)?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::available;

    #[test]
    fn a_pinned_thread_stays_on_its_processor() {
        let before = allowed().unwrap();
        assert!(available().get() <= before.len());
        for place in 0..before.len() * 2 {
            let expected = before[place % before.len()];
            std::thread::spawn(move || {
                assert_eq!(pin_current_thread(place).unwrap(), expected);
                assert_eq!(allowed().unwrap(), [expected]);
                assert_eq!(rustix::thread::sched_getcpu(), expected);
            })
            .join()
            .unwrap();
        }
        assert_eq!(allowed().unwrap(), before);
    }
}
