//! A process on a pseudo-terminal, with simulated key presses.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::Write;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::process::{Output, PATIENCE};

/// A process whose standard streams are a pseudo-terminal, except for an output that was
/// redirected.
pub struct OnTerminal {
    child: Child,
    keyboard: File,
    screen: Output,
    /// Length in bytes of the screen's text up to the end of the last match.
    seen: usize,
}

impl OnTerminal {
    /// Starts a command on a new terminal.
    pub fn start(command: &Command) -> OnTerminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let theirs: File = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty())
            .unwrap()
            .into();
        // `setsid` makes it the controlling terminal, which receives Ctrl-C and is /dev/tty.
        let mut on_terminal = Command::new("setsid");
        on_terminal
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on_terminal.env(name, value),
                None => on_terminal.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            on_terminal.current_dir(dir);
        }
        let child = on_terminal
            .env("TERM", "xterm")
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let keyboard = File::from(ours);
        let screen = Output::collect(keyboard.try_clone().unwrap());
        OnTerminal {
            child,
            keyboard,
            screen,
            seen: 0,
        }
    }

    /// Types `keys`.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `words` are shown after the previous match.
    pub fn shows(&mut self, words: &str) {
        let seen = self.seen;
        let shown = self.screen.find(|text| {
            let at = text.get(seen..)?.find(words)?;
            Some(seen + at + words.len())
        });
        let screen = self.screen.text();
        self.seen = shown.unwrap_or_else(|| panic!("{words:?} was not shown\n{screen}"));
    }

    /// Waits until the process ends and returns its exit code.
    pub fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "it does not end\n{}",
                self.screen.text()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Dropping the terminal sends SIGHUP to the processes on it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
