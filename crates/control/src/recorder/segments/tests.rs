use std::os::unix::fs::PermissionsExt as _;

use proptest::{collection::vec, prelude::*};
use rajut_telemetry::recording::Tuple;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rajut-segments-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).expect("a folder");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    age: Duration::from_hours(16),
};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn record(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(10)
}

fn all(segments: &Segments) -> (Vec<Vec<u8>>, u64) {
    let (mut after, mut records, mut damaged) = (0, Vec::new(), 0);
    while let Some(begun) = segments.next(after, UNIX_EPOCH) {
        let page = read(&segments.place(begun)).expect("readable");
        records.extend(page.records);
        damaged += page.damaged;
        after = begun;
    }
    (records, damaged)
}

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    // RFC 3720 B.4.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
}

#[test]
fn what_was_appended_is_there_after_the_process_has_ended() {
    let folder = Folder::new("reopen");
    let mut segments = Segments::open(&folder.0, LIMITS).expect("opens");
    segments.append(&[record(1), record(2)], at(0)).expect("appends");
    drop(segments);
    let mut segments = Segments::open(&folder.0, LIMITS).expect("opens");
    segments.append(&[record(3)], at(5)).expect("appends");
    assert_eq!(all(&segments), (vec![record(1), record(2), record(3)], 0));
    assert_eq!(folder.files().len(), 1, "it goes on in the same file");
    let mode = fs::metadata(&folder.files()[0])
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(segments.oldest(), Some(at(0)));
}

#[test]
fn a_torn_tail_is_cut_off_wherever_it_was_torn() {
    let folder = Folder::new("torn");
    let mut segments = Segments::open(&folder.0, LIMITS).expect("opens");
    segments.append(&[record(1), record(2)], at(0)).expect("appends");
    drop(segments);
    let file = folder.files().remove(0);
    let whole = fs::read(&file).expect("a file");
    let frame = (whole.len() - MAGIC.len()) / 2;
    for cut in 1..whole.len() {
        fs::write(&file, &whole[..cut]).expect("written");
        let mut segments = Segments::open(&folder.0, LIMITS).expect("opens");
        let expected = cut.saturating_sub(MAGIC.len()) / frame;
        let kept = [record(1), record(2)][..expected].to_vec();
        assert_eq!(all(&segments), (kept.clone(), 0), "cut at {cut}");
        segments.append(&[record(9)], at(0)).expect("appends");
        let more: Vec<Vec<u8>> = kept.into_iter().chain([record(9)]).collect();
        assert_eq!(all(&segments), (more, 0), "cut at {cut}");
        drop(segments);
        for left in folder.files() {
            fs::remove_file(left).expect("removed");
        }
    }
}

#[test]
fn zeroes_behind_the_end_are_cut_off() {
    let folder = Folder::new("zeroes");
    let mut segments = Segments::open(&folder.0, LIMITS).expect("opens");
    segments.append(&[record(1), Vec::new()], at(0)).expect("appends");
    drop(segments);
    let file = folder.files().remove(0);
    let mut bytes = fs::read(&file).expect("a file");
    bytes.extend([0; 4096]);
    fs::write(&file, &bytes).expect("written");
    let segments = Segments::open(&folder.0, LIMITS).expect("opens");
    assert_eq!((all(&segments), segments.cut()), ((vec![record(1)], 0), 4096));
}

#[test]
fn a_damage_ends_its_own_segment_and_is_counted() {
    let folder = Folder::new("damage");
    let mut segments = Segments::open(&folder.0, LIMITS).expect("opens");
    segments
        .append(&[record(1), record(2), record(3)], at(0))
        .expect("appends");
    // The next is begun since the first is old.
    segments.append(&[record(4)], at(3 * 3600)).expect("appends");
    let first = folder.files().remove(0);
    let mut bytes = fs::read(&first).expect("a file");
    let second = MAGIC.len() + PREFIX + record(1).len() + PREFIX;
    bytes[second] ^= 1;
    fs::write(&first, &bytes).expect("written");
    let behind = (bytes.len() - second + PREFIX) as u64;
    assert_eq!(all(&segments), (vec![record(1), record(4)], behind));
    // A length that would reach beyond everything, and no file of ours at all.
    bytes[second - PREFIX..second - 4].copy_from_slice(&u32::MAX.to_le_bytes());
    fs::write(&first, &bytes).expect("written");
    assert_eq!(all(&segments), (vec![record(1), record(4)], behind));
    fs::write(&first, b"\x1b[2Jsomething else").expect("written");
    assert_eq!(all(&segments).0, [record(4)]);
    drop(segments);
    let segments = Segments::open(&folder.0, LIMITS).expect("opens");
    assert_eq!(all(&segments).0, [record(4)]);
}

#[test]
fn size_and_age_are_bounded_by_deleting_the_oldest() {
    let folder = Folder::new("bounds");
    let limits = Limits {
        bytes: 512 << 10,
        ..LIMITS
    };
    let mut segments = Segments::open(&folder.0, limits).expect("opens");
    let big = vec![7; 32 << 10];
    for second in 0..100 {
        segments
            .append(std::slice::from_ref(&big), at(second))
            .expect("appends");
        assert!(
            segments.size().1 <= limits.bytes + (64 << 10),
            "{:?}",
            segments.size()
        );
    }
    let (records, _) = all(&segments);
    assert!((8..17).contains(&records.len()), "{}", records.len());
    assert!(segments.oldest() > Some(at(50)), "the oldest went first");
    assert_eq!(folder.files().len(), segments.size().0);

    // After a day everything is too old, also what nobody appends to.
    segments.expire(at(24 * 3600));
    assert_eq!(segments.size(), (0, 0));
    assert!(folder.files().is_empty());
    segments.append(&[record(1)], at(24 * 3600)).expect("appends");
    segments.expire(at(30 * 3600));
    assert_eq!(all(&segments).0, [record(1)], "six hours of sixteen");
    // A clock that was set back begins no file that stands before the others.
    segments.append(&[record(2)], at(0)).expect("appends");
    segments
        .append(&[vec![0; RECORD_BYTES_MAX + 1]], at(0))
        .expect("left out");
    assert_eq!(all(&segments).0, [record(1), record(2)]);
}

#[test]
fn a_full_disk_keeps_what_was_whole_and_takes_more_when_there_is_room() {
    let folder = Folder::new("full");
    let mut segments = Segments::open(&folder.0, LIMITS).expect("opens");
    segments.append(&[record(1)], at(0)).expect("appends");
    segments.room = Some(20);
    let error = segments.append(&[record(2)], at(1)).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(all(&segments), (vec![record(1)], 0), "no half a frame");
    segments.room = Some(3);
    // A new segment can't even be begun.
    assert!(segments.append(&[record(2)], at(3 * 3600)).is_err());
    assert_eq!(folder.files().len(), 1);
    segments.room = None;
    segments.append(&[record(3)], at(3 * 3600)).expect("appends");
    assert_eq!(all(&segments), (vec![record(1), record(3)], 0));
}

#[test]
fn only_segments_that_may_hold_something_of_the_time_are_read() {
    let folder = Folder::new("since");
    let mut segments = Segments::open(&folder.0, LIMITS).expect("opens");
    for hours in [0, 2, 4] {
        segments.append(&[record(1)], at(hours * 3600)).expect("appends");
    }
    let begun = |hours: u64| millis(at(hours * 3600));
    assert_eq!(segments.next(0, at(3 * 3600)), Some(begun(2)));
    assert_eq!(segments.next(begun(2), at(3 * 3600)), Some(begun(4)));
    assert_eq!(segments.next(begun(4), UNIX_EPOCH), None);
    fs::write(folder.0.join("notes.txt"), "somebody's").expect("written");
    drop(segments);
    Segments::open(&folder.0, LIMITS)
        .expect("opens")
        .expire(at(1_000_000));
    assert_eq!(folder.files(), [folder.0.join("notes.txt")]);
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange_to_be_read(
        records in vec(vec(any::<u8>(), 1..200), 0..6),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = MAGIC.to_vec();
        for record in &records {
            let length = u32::try_from(record.len()).expect("short");
            bytes.extend(length.to_le_bytes());
            bytes.extend(crc32c(record).to_le_bytes());
            bytes.extend(record);
        }
        let whole = bytes.len();
        for (at, with) in &changes {
            let at = at.index(whole);
            bytes[at] ^= with;
        }
        bytes.truncate(MAGIC.len() + cut.index(whole - MAGIC.len() + 1));
        let mut rest = &bytes[MAGIC.len()..];
        let mut read = Vec::new();
        while let Some((record, behind)) = frame(rest) {
            // What a frame holds may be anything, too.
            drop(Tuple::decode(record));
            read.push(record.to_vec());
            rest = behind;
        }
        // What is read is what was written, up to the first change.
        prop_assert!(records.starts_with(&read), "{read:?} of {records:?}");
        let is_whole = bytes.len() == whole && changes.iter().all(|(_, with)| *with == 0);
        prop_assert!(!is_whole || (read == records && rest.is_empty()));
    }
}
