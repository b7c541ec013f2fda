//! The one door to stdout and stderr, so that results, notes, logs, progress bars and the prompt
//! do not write across each other.

use std::io::{self, Write, stderr, stdout};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::MultiProgress;

use crate::exit::{Exit, Failure};

/// Writes results to stdout, and everything else to stderr. Clones share it.
#[derive(Clone)]
pub(crate) struct Console {
    quiet: bool,
    screen: Arc<Mutex<Screen>>,
}

/// What else is on the terminal right now.
enum Screen {
    Clear,
    /// Progress bars, which step aside for a line.
    Bars(MultiProgress),
    /// A prompt; lines go to the thread that prints above it.
    Prompt(Sender<String>),
}

impl Console {
    /// A console; a quiet one drops notes.
    pub(crate) fn new(quiet: bool) -> Console {
        Console {
            quiet,
            screen: Arc::new(Mutex::new(Screen::Clear)),
        }
    }

    /// Whether notes are dropped.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says something on stderr that is good to know.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    /// Says on stderr what went wrong.
    pub(crate) fn error(&self, text: &str) {
        self.line(&format!("qshare: {text}"));
    }

    /// Prints a line on stderr, whatever else is there.
    pub(crate) fn line(&self, text: &str) {
        // Nobody is left to be told when stderr cannot be written.
        match &*self.screen() {
            Screen::Clear => drop(writeln!(stderr(), "{text}")),
            Screen::Bars(bars) => bars.suspend(|| drop(writeln!(stderr(), "{text}"))),
            Screen::Prompt(lines) => drop(lines.send(format!("{text}\n"))),
        }
    }

    /// Prints a result on stdout. A reader that has seen enough (`| head`) is no failure.
    pub(crate) fn result(&self, text: &str) -> Result<(), Failure> {
        let print = || {
            let mut out = stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush())
        };
        let printed = match &*self.screen() {
            Screen::Bars(bars) => bars.suspend(print),
            Screen::Clear | Screen::Prompt(_) => print(),
        };
        match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
                Exit::Disk,
                format!("cannot write the result to standard output: {error}"),
            )),
            _ => Ok(()),
        }
    }

    /// From here on lines step around these bars.
    pub(crate) fn show_bars(&self, bars: MultiProgress) {
        *self.screen() = Screen::Bars(bars);
    }

    /// From here on lines are printed above a prompt, by whoever receives them.
    pub(crate) fn show_prompt(&self, lines: Sender<String>) {
        *self.screen() = Screen::Prompt(lines);
    }

    /// The terminal is ours alone again.
    pub(crate) fn clear(&self) {
        *self.screen() = Screen::Clear;
    }

    /// The same; if there is a prompt, what is on its line stays there by itself.
    pub(crate) fn leave_prompt(&self) {
        let before = std::mem::replace(&mut *self.screen(), Screen::Clear);
        if matches!(before, Screen::Prompt(_)) {
            let _ = writeln!(stderr());
        }
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
