//! Asks for a code or link on the terminal, so that it appears neither in the list of processes nor
//! in the shell's history.

use std::io::{IsTerminal, stdin};

use qshare_node::content::code_words;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, CompletionType, Context, Editor, Helper};

use crate::exit::{Exit, Failure};

const PROMPT: &str = "Code or link: ";

/// Reads a code or link from the terminal. Tab completes the words of a code.
///
/// # Errors
///
/// A usage error where there is no terminal; Ctrl-C and the end of the input.
pub(crate) fn ask() -> Result<String, Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "cannot download: no name, code or link is given, and there is no terminal to ask on\n\
             Name one: qshare get NAME",
        ));
    }
    let config = rustyline::Config::builder()
        .behavior(Behavior::PreferTerm)
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .build();
    let failed = |error: ReadlineError| match error {
        ReadlineError::Interrupted => Failure::printed(Exit::Interrupted),
        ReadlineError::Eof => Failure::new(Exit::Usage, "cannot download: nothing was entered"),
        error => Failure::new(
            Exit::Failed,
            format!("cannot read from the terminal: {error}"),
        ),
    };
    let mut editor = Editor::<Words, DefaultHistory>::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Words));
    loop {
        let line = editor.readline(PROMPT).map_err(failed)?;
        if !line.trim().is_empty() {
            return Ok(line.trim().to_owned());
        }
    }
}

/// Completion of the words of a code.
struct Words;

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(line.get(..position).unwrap_or(line)))
    }
}

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}
impl Hinter for Words {
    type Hint = String;
}

/// Returns where the word that is being typed begins, and the words that it may become.
fn complete(typed: &str) -> (usize, Vec<String>) {
    let Some((before, word)) = typed.rsplit_once('-') else {
        return (typed.len(), Vec::new());
    };
    let start = before.len() + 1;
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let hyphen = match before.trim_start().split_once('-') {
        None if is_digits(before.trim_start()) => "-",
        Some((number, first)) if is_digits(number) && !first.contains('-') => "",
        _ => return (start, Vec::new()),
    };
    let words = code_words(word)
        .iter()
        .map(|word| format!("{word}{hyphen}"));
    (start, words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_words_of_a_code_are_completed() {
        assert_eq!(complete("7-zeb"), (2, vec!["zebra-".to_owned()]));
        assert_eq!(complete(" 7-Zeb"), (3, vec!["zebra-".to_owned()]));
        assert_eq!(
            complete("7-zebra-zo"),
            (8, vec!["zone".into(), "zoo".into()])
        );
        for other in ["7", "zeb", "a-zeb", "qshare:x-zeb", "7-zebra-zoo-a"] {
            assert!(complete(other).1.is_empty(), "{other}");
        }
    }
}
