//! The only writer of stdout and stderr. Results, notes, logs, progress bars and the prompt pass
//! through it, so that they do not overwrite each other and no text from outside controls the
//! terminal.

use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::MultiProgress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::neutral::{neutral, neutral_json, neutral_log, path_result};

/// Writes results to stdout and everything else to stderr. Clones write to the same screen.
#[derive(Clone)]
pub(crate) struct Console {
    quiet: bool,
    screen: Arc<Mutex<Screen>>,
}

/// Pictures on the whole terminal.
pub(crate) struct Pictures(());

impl Pictures {
    /// Replaces the picture. Lines are overwritten in place, so that nothing flickers.
    pub(crate) fn show(&self, lines: &[String]) {
        let mut text = "\x1b[H".to_owned();
        for line in lines {
            // To the end of the line, where the last picture may have had more.
            text += &format!("{}\x1b[K\r\n", neutral(line));
        }
        write_now(&(text + "\x1b[J"));
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        write_now("\x1b[?25h\x1b[?1049l");
    }
}

/// Writes control sequences to the terminal on stdout.
fn write_now(text: &str) {
    let mut out = stdout().lock();
    // Nobody is there to be told of a failure.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What else occupies the terminal.
enum Screen {
    Clear,
    /// Progress bars, which are cleared and redrawn around a line.
    Bars(MultiProgress),
    /// A prompt. Its thread receives lines and prints them above it.
    Prompt(Sender<String>),
}

impl Console {
    /// Creates a console; a quiet one drops notes.
    pub(crate) fn new(quiet: bool) -> Console {
        Console {
            quiet,
            screen: Arc::new(Mutex::new(Screen::Clear)),
        }
    }

    /// Returns whether notes are dropped.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints information on stderr, unless quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    /// Prints an error on stderr.
    pub(crate) fn error(&self, text: &str) {
        self.line(&format!("qshare: {text}"));
    }

    /// Prints text on stderr, even if quiet.
    pub(crate) fn line(&self, text: &str) {
        self.print(&neutral(text));
    }

    /// Prints a log line on stderr; it may have colours.
    pub(crate) fn log(&self, text: &str) {
        self.print(&neutral_log(text));
    }

    fn print(&self, text: &str) {
        // A failure to write stderr cannot be reported anywhere.
        match &*self.screen() {
            Screen::Clear => drop(writeln!(stderr(), "{text}")),
            Screen::Bars(bars) => bars.suspend(|| drop(writeln!(stderr(), "{text}"))),
            Screen::Prompt(lines) => drop(lines.send(format!("{text}\n"))),
        }
    }

    /// Prints a line for people on stdout. A closed pipe (`| head`) is not an error.
    pub(crate) fn result(&self, text: &str) -> Result<(), Failure> {
        self.write(neutral(text).as_bytes())
    }

    /// Prints an object as one line of JSON on stdout.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        self.write(neutral_json(&crate::output::json(value)).as_bytes())
    }

    /// Prints a path on stdout so that it can be opened.
    pub(crate) fn path(&self, path: &Path) -> Result<(), Failure> {
        self.write(&path_result(path, || stdout().is_terminal()))
    }

    fn write(&self, line: &[u8]) -> Result<(), Failure> {
        let print = || {
            let mut out = stdout().lock();
            out.write_all(line)?;
            out.write_all(b"\n")?;
            out.flush()
        };
        let printed = match &*self.screen() {
            Screen::Bars(bars) => bars.suspend(print),
            Screen::Clear | Screen::Prompt(_) => print(),
        };
        match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
                Exit::Disk,
                format!("cannot write to standard output: {error}"),
            )),
            _ => Ok(()),
        }
    }

    /// Returns whether nobody reads stdout any more, which is a pipe or a terminal that was closed.
    pub(crate) fn is_closed(&self) -> bool {
        let out = stdout();
        let mut looked = [PollFd::new(&out, PollFlags::empty())];
        let polled = poll(&mut looked, Some(&Timespec::default()));
        let closed = PollFlags::ERR | PollFlags::HUP;
        polled.is_ok() && looked.iter().any(|fd| fd.revents().intersects(closed))
    }

    /// Shows pictures on the whole terminal from now on, until the result is dropped.
    pub(crate) fn take_screen(&self) -> Pictures {
        // The other screen, which keeps what the terminal shows; no cursor.
        write_now("\x1b[?1049h\x1b[?25l");
        Pictures(())
    }

    /// Prints lines around these progress bars from now on.
    pub(crate) fn show_bars(&self, bars: MultiProgress) {
        *self.screen() = Screen::Bars(bars);
    }

    /// Sends lines to the thread that prints them above a prompt from now on.
    pub(crate) fn show_prompt(&self, lines: Sender<String>) {
        *self.screen() = Screen::Prompt(lines);
    }

    /// Writes to the terminal directly from now on.
    pub(crate) fn clear(&self) {
        *self.screen() = Screen::Clear;
    }

    /// Writes to the terminal directly from now on; the line of an open prompt stays unchanged.
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
