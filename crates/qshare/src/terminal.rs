//! The terminal: its size, and its modes before the prompt.

use std::io::{IsTerminal, stderr, stdin};
use std::sync::OnceLock;

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// The size of a terminal that does not report one; most tools assume the same.
const DEFAULT_COLUMNS: usize = 80;
const DEFAULT_ROWS: usize = 24;

static BEFORE_PROMPT: OnceLock<Termios> = OnceLock::new();

/// Returns (columns, rows) of the terminal on stderr.
pub(crate) fn size() -> (usize, usize) {
    match tcgetwinsize(stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => (DEFAULT_COLUMNS, DEFAULT_ROWS),
    }
}

/// Returns whether this process runs in the background of a terminal (`qshare node &`), whose
/// system would stop it as soon as it reads from there.
pub(crate) fn is_background() -> bool {
    let foreground = tcgetpgrp(stdin());
    stdin().is_terminal() && foreground.is_ok_and(|group| group != getpgrp())
}

/// Saves the terminal's modes before line editing changes them.
pub(crate) fn remember() {
    if stdin().is_terminal()
        && let Ok(modes) = tcgetattr(stdin())
    {
        let _ = BEFORE_PROMPT.set(modes);
    }
}

/// Restores the terminal's modes. The prompt's thread cannot be interrupted, so a process that ends
/// while it waits would otherwise leave the shell without echo.
pub(crate) fn restore() {
    if let Some(modes) = BEFORE_PROMPT.get() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, modes);
    }
}

/// Returns whether stderr takes colours (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
