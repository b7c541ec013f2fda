//! The terminal as the system sees it: how wide it is, and how it was before the prompt.

use std::io::{IsTerminal, stderr, stdin};
use std::sync::OnceLock;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// What stderr is taken for when it does not say: the width that most tools assume.
const DEFAULT_COLUMNS: usize = 80;
const DEFAULT_ROWS: usize = 24;

static BEFORE_PROMPT: OnceLock<Termios> = OnceLock::new();

/// (columns, rows) of the terminal that stderr is.
pub(crate) fn size() -> (usize, usize) {
    match tcgetwinsize(stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => (DEFAULT_COLUMNS, DEFAULT_ROWS),
    }
}

/// Remembers how the terminal is, before line editing changes it.
pub(crate) fn remember() {
    if stdin().is_terminal()
        && let Ok(modes) = tcgetattr(stdin())
    {
        let _ = BEFORE_PROMPT.set(modes);
    }
}

/// Undoes what line editing did. Needed when the process ends while the prompt waits: its thread
/// cannot be interrupted, and would leave a shell without echo behind.
pub(crate) fn restore() {
    if let Some(modes) = BEFORE_PROMPT.get() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, modes);
    }
}

/// Whether colours are welcome on stderr (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
