//! The terminal of a command that draws: keys as they are pressed, and how large it is.
//!
//! [`RawInput`] gives the terminal back as it was when dropped. Keys that would send a signal (Ctrl-C) arrive as bytes, so that
//! no signal ends the process between the two; what is written is still treated as text. It draws nothing.

use std::io;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};

/// Ctrl-C as it arrives.
pub const INTERRUPT: u8 = 3;

/// Standard input without lines and without echo, until dropped.
#[derive(Debug)]
pub struct RawInput(Termios);

impl RawInput {
    /// `None` where standard input is no terminal: there are no keys then.
    pub fn enter() -> io::Result<Option<Self>> {
        let input = io::stdin();
        if !isatty(&input) {
            return Ok(None);
        }
        let before = tcgetattr(&input)?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&input, OptionalActions::Drain, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawInput {
    fn drop(&mut self) {
        // The terminal may have gone; then there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// (columns, rows) of the terminal that standard output is.
pub fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}
