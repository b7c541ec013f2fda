//! The prompt: lines from a terminal (edited, with completion) or from a pipe, read in a thread
//! of its own because reading blocks.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write, stderr, stdin};
use std::ops::Bound;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, CompletionType, Context, Editor, ExternalPrinter, Helper};
use tokio::sync::mpsc::UnboundedSender;

use crate::console::Console;
use crate::terminal;

/// What is asked.
pub(crate) const PROMPT: &str = "Enter the filename you want to download (or 'q' to quit): ";

/// What `help` prints.
pub(crate) const HELP: &str =
    "  NAME         download a file: a name, a glob, a content id, id:PREFIX or a link
  get NAME     the same, for a file that is called like one of these commands
  ls [GLOB]    list what can be downloaded
  status       what is shared, who is connected, what the downloads wait for and of whom
  help         this
  q            quit; unfinished downloads go on at the next start
Tab completes names.";

/// Longest that Tab waits for the trackers: longer feels stuck.
const COMPLETION_PATIENCE: Duration = Duration::from_millis(400);
/// Names remembered for completion; some megabytes at most.
const NAMES_MAX: usize = 10_000;
/// A line from a pipe that is longer than this is cut: it is no name.
const LINE_MAX_BYTES: u64 = 16 * 1024;

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Get(String),
    Ls(Option<String>),
    Status,
    Help,
    Quit,
    Nothing,
}

impl Order {
    /// Reads a line. Whatever is no command is the name of a file.
    pub(crate) fn parse(line: &str) -> Order {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        match (word, rest) {
            ("", _) => Order::Nothing,
            ("q", "") => Order::Quit,
            ("help", "") => Order::Help,
            ("status", "") => Order::Status,
            ("ls", "") => Order::Ls(None),
            ("ls", glob) => Order::Ls(Some(glob.into())),
            ("get", name) if !name.is_empty() => Order::Get(name.into()),
            _ => Order::Get(line.into()),
        }
    }
}

/// What comes from the prompt's thread.
#[derive(Debug)]
pub(crate) enum Input {
    Line {
        text: String,
        /// More lines came together with this one: a script, to be carried out in order.
        more_follow: bool,
        /// Dropped when the next line may be asked for.
        done: mpsc::Sender<()>,
    },
    /// Names that begin like this are wanted soon.
    Complete {
        beginning: String,
        names: mpsc::Sender<Vec<String>>,
    },
    /// Ctrl-C while a line was being typed.
    Interrupt,
    /// Nothing more will come.
    End { from_terminal: bool },
}

/// Names that Tab knows without asking. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    /// Remembers names that were seen.
    pub(crate) fn learn<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if known.len() < NAMES_MAX {
                known.insert(name.into());
            }
        }
    }

    fn beginning_with(&self, beginning: &str) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = known.range::<str, _>((Bound::Included(beginning), Bound::Unbounded));
        from.take_while(|name| name.starts_with(beginning))
            .cloned()
            .collect()
    }
}

/// A glob that matches all names that begin with `beginning`, whatever is in it.
pub(crate) fn glob_of_beginning(beginning: &str) -> String {
    if beginning.is_empty() {
        return "**".into();
    }
    let mut literal = String::new();
    for c in beginning.chars() {
        match c {
            '*' | '?' | '[' | ']' | '{' | '}' => literal.extend(['[', c, ']']),
            // Outside of alternatives a comma is itself, inside it separates them.
            ',' => literal.push_str("[,]"),
            c => literal.push(c),
        }
    }
    format!("{{{literal}*,{literal}*/**}}")
}

/// Starts asking. The thread ends with the input, or when nobody listens any more.
pub(crate) fn start(console: Console, names: Names, inputs: UnboundedSender<Input>) {
    terminal::remember();
    let on_terminal = stdin().is_terminal() && stderr().is_terminal();
    std::thread::spawn(move || {
        if !(on_terminal && edit_lines(&console, names, &inputs).is_some()) {
            read_lines(&console, &inputs);
        }
        let _ = inputs.send(Input::End {
            from_terminal: stdin().is_terminal(),
        });
    });
}

/// Hands a line over and waits until it is dealt with; false when nobody listens.
fn submit(inputs: &UnboundedSender<Input>, text: String, more_follow: bool) -> bool {
    let (done, wait) = mpsc::channel();
    let sent = inputs.send(Input::Line {
        text,
        more_follow,
        done,
    });
    // Nothing is ever sent: the wait ends when the other side drops its end.
    sent.is_ok() && wait.recv().is_err()
}

/// Lines from a terminal; None if it cannot be edited on.
fn edit_lines(console: &Console, names: Names, inputs: &UnboundedSender<Input>) -> Option<()> {
    let config = rustyline::Config::builder()
        // The prompt belongs on the terminal even when stdout goes elsewhere.
        .behavior(Behavior::PreferTerm)
        .completion_type(CompletionType::List)
        .bracketed_paste(false)
        .build();
    let mut editor = Editor::<Completion, DefaultHistory>::with_config(config).ok()?;
    editor.set_helper(Some(Completion {
        names,
        inputs: inputs.clone(),
    }));
    if let Ok(mut printer) = editor.create_external_printer() {
        // Printing above the prompt waits for the editor; only this thread does.
        let (lines, printed) = mpsc::channel::<String>();
        std::thread::spawn(move || {
            while let Ok(line) = printed.recv() {
                if printer.print(line).is_err() {
                    break;
                }
            }
        });
        console.show_prompt(lines);
    }
    loop {
        match editor.readline(PROMPT) {
            Ok(line) => {
                let _ = editor.add_history_entry(line.as_str());
                if !submit(inputs, line, false) {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {
                // Ctrl-C is a key here, not a signal.
                if inputs.send(Input::Interrupt).is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    console.clear();
    Some(())
}

/// Lines from a pipe or a file, or from a terminal that cannot be edited on.
fn read_lines(console: &Console, inputs: &UnboundedSender<Input>) {
    if is_null() {
        return;
    }
    let mut input = io::BufReader::new(stdin());
    loop {
        if !console.is_quiet() {
            let _ = write!(stderr(), "{PROMPT}").and_then(|()| stderr().flush());
        }
        let mut line = Vec::new();
        let read = io::Read::take(&mut input, LINE_MAX_BYTES).read_until(b'\n', &mut line);
        if !stdin().is_terminal() && !console.is_quiet() {
            // What is typed ends the prompt's line; what is piped does not.
            let _ = writeln!(stderr());
        }
        if !matches!(read, Ok(1..)) {
            return;
        }
        let more_follow = !input.buffer().is_empty();
        let text = String::from_utf8_lossy(&line).into_owned();
        if !submit(inputs, text, more_follow) {
            return;
        }
    }
}

/// Whether stdin is a device without a person at its end, as services have it.
fn is_null() -> bool {
    use rustix::fs::{FileType, fstat};
    !stdin().is_terminal()
        && fstat(stdin())
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice)
}

/// What Tab does.
struct Completion {
    names: Names,
    inputs: UnboundedSender<Input>,
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..position).unwrap_or(line);
        let start = ["get ", "ls "]
            .iter()
            .find(|command| typed.starts_with(**command))
            .map_or(0, |command| command.len());
        let beginning = typed.get(start..).unwrap_or("");
        let (names, found) = mpsc::channel();
        let request = Input::Complete {
            beginning: beginning.into(),
            names,
        };
        if self.inputs.send(request).is_ok()
            && let Ok(found) = found.recv_timeout(COMPLETION_PATIENCE)
        {
            self.names.learn(found.iter().map(String::as_str));
        }
        Ok((start, self.names.beginning_with(beginning)))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Hinter for Completion {
    type Hint = String;
}

#[cfg(test)]
mod tests {
    use qshare_node::content::NamePattern;

    use super::*;

    #[test]
    fn the_whole_line_is_the_name_unless_it_is_a_command() {
        let get = |name: &str| Order::Get(name.into());
        for (line, order) in [
            ("holiday photos.zip\n", get("holiday photos.zip")),
            ("q", Order::Quit),
            ("get q", get("q")),
            ("get  a b ", get("a b")),
            ("get", get("get")),
            ("ls", Order::Ls(None)),
            ("ls *.iso", Order::Ls(Some("*.iso".into()))),
            ("status", Order::Status),
            ("status report.txt", get("status report.txt")),
            ("help", Order::Help),
            ("quit", get("quit")),
            ("  \n", Order::Nothing),
        ] {
            assert_eq!(Order::parse(line), order, "{line:?}");
        }
    }

    #[test]
    fn a_beginning_matches_literally_at_every_depth() {
        for beginning in ["", "a", "a/b", "x*", "[1]", "{a,b}", "q?", "a,b", "]"] {
            let pattern = NamePattern::new(&glob_of_beginning(beginning)).unwrap();
            for rest in ["", "x", "x/y", "x/y/z"] {
                let name = format!("{beginning}{rest}");
                assert!(
                    name.is_empty() || pattern.matches(&name),
                    "{beginning:?} {name:?}"
                );
            }
            assert!(
                beginning.is_empty() || !pattern.matches("zzz"),
                "{beginning:?}"
            );
        }
    }

    #[test]
    fn names_are_completed_from_what_was_seen() {
        let names = Names::default();
        names.learn(["b", "a2", "a1"].into_iter());
        assert_eq!(names.beginning_with("a"), ["a1", "a2"]);
        assert_eq!(names.beginning_with(""), ["a1", "a2", "b"]);
        assert!(names.beginning_with("c").is_empty());
    }
}
