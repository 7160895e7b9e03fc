//! Texts of labels as numbers, so that a series is found by a key of fixed size.
//!
//! Who stands at the ends of a call is known when an endpoint, a cluster or a connection is made: its text is given a
//! number then, and a request carries the number. Each thread remembers the numbers that it has asked for; the table behind
//! them is locked when a thread meets a text for the first time (or one that found no room), and when series are told.
//!
//! Bounds: [`TEXTS_MAX`] texts of [`TEXT_MAX`] bytes each, for the life of the process; what finds no room is [`TextId::OTHER`].

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use rajut_types::Text;

/// Most texts of a process.
pub(crate) const TEXTS_MAX: usize = 8192;
/// Longest text.
pub(crate) const TEXT_MAX: usize = 2048;

/// The number of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct TextId(u32);

impl TextId {
    /// The empty text: not known.
    pub(crate) const UNKNOWN: Self = Self(0);
    /// A text that found no room.
    pub(crate) const OTHER: Self = Self(1);

    /// The number of a text. Allocates only where this thread meets it for the first time.
    pub(crate) fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self::UNKNOWN;
        }
        if text.len() > TEXT_MAX {
            return Self::OTHER;
        }
        KNOWN.with_borrow_mut(|known| {
            if let Some(id) = known.get(text) {
                return *id;
            }
            let (id, text) = ask(text);
            if let Some(text) = text {
                known.insert(text, id);
            }
            id
        })
    }

    /// Whether it stands for what found no room.
    pub(crate) fn is_other(self) -> bool {
        self == Self::OTHER
    }

    /// The number itself.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    /// The text.
    pub(crate) fn text(self) -> Text {
        match self {
            Self::UNKNOWN => Text::default(),
            Self::OTHER => OTHER.into(),
            Self(number) => {
                let texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
                texts.get(number as usize - RESERVED).cloned().unwrap_or_default()
            }
        }
    }
}

/// What is told for texts that found no room.
pub(crate) const OTHER: &str = "other";
/// Numbers without a place in the table.
const RESERVED: usize = 2;

// number - RESERVED → text; ≤ TEXTS_MAX, never removed.
static TEXTS: Mutex<Vec<Text>> = Mutex::new(Vec::new());

thread_local! {
    // text → its number; what this thread has asked for, ≤ TEXTS_MAX.
    static KNOWN: RefCell<HashMap<Text, TextId>> = RefCell::default();
}

/// The number of a text and its place in memory, if it has one.
fn ask(text: &str) -> (TextId, Option<Text>) {
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    // Few threads meet few texts, once each: a search is enough.
    let place = texts.iter().position(|known| **known == *text);
    let place = match place {
        Some(place) => place,
        None if texts.len() < TEXTS_MAX => {
            texts.push(text.into());
            texts.len() - 1
        }
        None => return (TextId::OTHER, None),
    };
    let number = u32::try_from(place + RESERVED).unwrap_or(TextId::OTHER.0);
    (TextId(number), texts.get(place).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number_on_every_thread() {
        let here = TextId::of("a text of this test");
        let there = std::thread::spawn(|| TextId::of("a text of this test"))
            .join()
            .unwrap();
        assert_eq!(here, there);
        assert_eq!(&*here.text(), "a text of this test");
        assert_ne!(here, TextId::of("another text of this test"));
        assert_eq!(TextId::of(""), TextId::UNKNOWN);
        assert_eq!(&*TextId::UNKNOWN.text(), "");
    }

    #[test]
    fn what_is_too_long_is_something_else() {
        assert!(TextId::of(&"x".repeat(TEXT_MAX + 1)).is_other());
        assert_eq!(&*TextId::OTHER.text(), OTHER);
    }
}
