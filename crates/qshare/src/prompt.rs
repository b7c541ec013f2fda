//! The prompt: lines from a terminal (with editing and completion) or from a pipe. A thread of its
//! own reads them, because reading blocks.

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

use crate::argument::escape_glob;
use crate::console::Console;
use crate::terminal;

/// The text of the prompt.
pub(crate) const PROMPT: &str = "Enter the filename you want to download (or 'q' to quit): ";

/// What `help` prints.
pub(crate) const HELP: &str =
    "  NAME          download a file: a name, a glob, a content ID, id:PREFIX or a link
  get NAME      the same, for a file that is named like one of these commands
  discard NAME  give up an unfinished download and delete what was fetched
  ls [GLOB]     list the files that can be downloaded
  status        print shares, connections and the state of each download
  help          print these commands
  q             quit; unfinished downloads resume at the next start
The whole line is the name, with the spaces at its ends. Tab completes names.";

/// Time that Tab waits for the trackers; a longer wait would feel stuck.
const COMPLETION_PATIENCE: Duration = Duration::from_millis(400);
/// Maximum number of names remembered for completion; some megabytes.
const NAMES_MAX: usize = 10_000;
/// A longer line from a pipe is cut; no name is that long.
const LINE_MAX_BYTES: u64 = 16 * 1024;

/// What a line means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Get(String),
    Discard(String),
    Ls(Option<String>),
    Status,
    Help,
    Quit,
    Nothing,
}

impl Order {
    /// Parses a line without its end. A line that is no command is the name of a file, with all
    /// its spaces.
    pub(crate) fn parse(line: &str) -> Order {
        match line.trim() {
            "" => return Order::Nothing,
            "q" => return Order::Quit,
            "help" => return Order::Help,
            "status" => return Order::Status,
            "ls" => return Order::Ls(None),
            _ => {}
        }
        // One space separates a command from its name; any others belong to the name.
        match line.split_once(' ') {
            Some(("get", name)) if !name.is_empty() => Order::Get(name.into()),
            Some(("discard", name)) if !name.is_empty() => Order::Discard(name.into()),
            Some(("ls", glob)) => Order::Ls(Some(glob.into())),
            _ => Order::Get(line.into()),
        }
    }
}

/// Returns a line without its line end: `\n`, or `\r\n` as some programs write it.
fn without_line_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// An input from the prompt's thread.
#[derive(Debug)]
pub(crate) enum Input {
    Line {
        text: String,
        /// More lines arrived together with this one: a script, which is executed in order.
        more_follow: bool,
        /// Dropped when the prompt may ask for the next line.
        done: mpsc::Sender<()>,
    },
    /// A request for names that start with `beginning`.
    Complete {
        beginning: String,
        names: mpsc::Sender<Vec<String>>,
    },
    /// Ctrl-C at the prompt.
    Interrupt,
    /// The end of the input.
    End { from_terminal: bool },
}

/// Names for completion without a lookup. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    /// Adds names.
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

/// Returns a glob that matches all names that start with `beginning`, taken literally.
pub(crate) fn glob_of_beginning(beginning: &str) -> String {
    if beginning.is_empty() {
        return "**".into();
    }
    let literal = escape_glob(beginning);
    format!("{{{literal}*,{literal}*/**}}")
}

/// Starts the prompt's thread. It ends with the input, or when the receiver is dropped.
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

/// Sends a line and waits until it has been handled. Returns false if the receiver is gone.
fn submit(inputs: &UnboundedSender<Input>, text: String, more_follow: bool) -> bool {
    let (done, wait) = mpsc::channel();
    let sent = inputs.send(Input::Line {
        text,
        more_follow,
        done,
    });
    // Nothing is ever sent here; the wait ends when the receiver drops the sender.
    sent.is_ok() && wait.recv().is_err()
}

/// Reads lines from a terminal. Returns None if the terminal does not support editing.
fn edit_lines(console: &Console, names: Names, inputs: &UnboundedSender<Input>) -> Option<()> {
    let config = rustyline::Config::builder()
        // The prompt is on the terminal even when stdout is redirected.
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
        // Printing above the prompt blocks on the editor, so a thread does it.
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
                // In raw mode Ctrl-C is a key, not a signal.
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

/// Reads lines from a pipe, a file, or a terminal that does not support editing.
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
            // A typed line ends the prompt's line on the screen; a piped one does not.
            let _ = writeln!(stderr());
        }
        if !matches!(read, Ok(1..)) {
            return;
        }
        let more_follow = !input.buffer().is_empty();
        let text = String::from_utf8_lossy(&line);
        if !submit(inputs, without_line_end(&text).to_owned(), more_follow) {
            return;
        }
    }
}

/// Returns whether stdin is a device such as /dev/null, which services have.
fn is_null() -> bool {
    use rustix::fs::{FileType, fstat};
    !stdin().is_terminal()
        && fstat(stdin())
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice)
}

/// Completion of names with Tab.
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
        let start = ["get ", "discard ", "ls "]
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
            ("holiday photos.zip", get("holiday photos.zip")),
            (" lead.txt", get(" lead.txt")),
            ("trail.txt ", get("trail.txt ")),
            ("q", Order::Quit),
            (" q ", Order::Quit),
            ("get q", get("q")),
            ("get  a b ", get(" a b ")),
            ("get", get("get")),
            ("discard a b", Order::Discard("a b".into())),
            ("discard", get("discard")),
            ("ls", Order::Ls(None)),
            ("ls *.iso", Order::Ls(Some("*.iso".into()))),
            ("status", Order::Status),
            ("status report.txt", get("status report.txt")),
            ("help", Order::Help),
            ("quit", get("quit")),
            ("  ", Order::Nothing),
        ] {
            assert_eq!(Order::parse(line), order, "{line:?}");
        }
    }

    #[test]
    fn only_the_line_end_is_removed_from_a_line() {
        for (line, text) in [("a \n", "a "), ("a\r\n", "a"), (" a", " a"), ("\n", "")] {
            assert_eq!(without_line_end(line), text, "{line:?}");
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
    fn names_are_completed_from_remembered_ones() {
        let names = Names::default();
        names.learn(["b", "a2", "a1"].into_iter());
        assert_eq!(names.beginning_with("a"), ["a1", "a2"]);
        assert_eq!(names.beginning_with(""), ["a1", "a2", "b"]);
        assert!(names.beginning_with("c").is_empty());
    }
}
