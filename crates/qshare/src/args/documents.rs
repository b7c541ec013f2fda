//! The command lines in README.md, in the manual and in the help texts are valid.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::{definition, parse_from};

/// Splits a line into commands, and these into words, as a shell does: at operators and blanks
/// that are not quoted. Expansions stay as they are.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words) = (Vec::new(), Vec::new());
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            quote @ ('\'' | '"') => {
                let quoted = characters.by_ref().take_while(|&next| next != quote);
                word.get_or_insert_default().extend(quoted);
            }
            '#' if word.is_none() => break,
            ' ' => words.extend(word.take()),
            '|' | ';' | '&' | '<' | '>' | '(' | ')' => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
}

/// Returns the arguments of each `qshare` in a line, beginning with its own name.
fn invocations(line: &str) -> impl Iterator<Item = Vec<String>> {
    commands(line).into_iter().filter_map(|words| {
        let is_before = |word: &String| word.contains('=') || word == "sudo" || word == "exec";
        let words = words.into_iter().skip_while(is_before);
        let words: Vec<String> = words.collect();
        (words.first()? == "qshare").then_some(words)
    })
}

/// Returns the lines of a page's blocks of commands. Lines that a backslash continues are joined.
fn command_lines(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut block: Option<&str> = None;
    let mut begun = String::new();
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            block = block.is_none().then_some(language);
            continue;
        }
        // A transcript prompts with `NAME$ `; all else in it is output.
        let typed = match block {
            Some("" | "sh") => line,
            Some("console" | "console lab") => match (line.split_once("$ "), begun.is_empty()) {
                (Some((name, typed)), _) if !name.contains(' ') => typed,
                (_, false) => line,
                _ => continue,
            },
            _ => continue,
        };
        begun += typed.trim_start();
        match begun.strip_suffix('\\') {
            Some(whole) => begun = whole.to_owned(),
            None => lines.push(std::mem::take(&mut begun)),
        }
    }
    lines
}

/// Returns why a command line is not valid.
fn fault(words: Vec<String>) -> Option<String> {
    let line = words.join(" ");
    match parse_from(words) {
        Ok(_) => None,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            None
        }
        Err(error) => Some(format!("{line}\n{error}")),
    }
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manual = fs::read_dir(root.join("docs/manual")).unwrap();
    let manual = manual.map(|entry| entry.unwrap().path());
    let documents = ["README.md", "docs/nat.md", "docs/operating.md"];
    let mut pages: Vec<PathBuf> = documents.map(|name| root.join(name)).into();
    pages.extend(manual.filter(|path| path.extension().is_some_and(|end| end == "md")));
    pages
}

#[test]
fn commands_of_the_manual_are_valid() {
    let (mut count, mut faults) = (0, Vec::new());
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for words in command_lines(&page)
            .iter()
            .flat_map(|line| invocations(line))
        {
            count += 1;
            faults.extend(fault(words).map(|fault| format!("{}: {fault}", path.display())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 80, "only {count} commands were found");
}

#[test]
fn commands_in_help_texts_are_valid() {
    let (mut count, mut faults) = (0, Vec::new());
    for command in definition().get_subcommands() {
        let Some(help) = command.get_after_help() else {
            continue;
        };
        for line in help
            .to_string()
            .lines()
            .filter(|line| line.starts_with("  "))
        {
            // Two blanks separate an example from its explanation.
            let example = line.trim().split("  ").next().unwrap();
            for words in invocations(example) {
                count += 1;
                faults.extend(fault(words));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 30, "only {count} commands were found");
}

#[test]
fn a_line_is_split_as_a_shell_splits_it() {
    let line = "A=b sudo qshare get 'a b|c' -o \"d\"/ | head # qshare no";
    let found: Vec<_> = invocations(line).collect();
    assert_eq!(found, [["qshare", "get", "a b|c", "-o", "d/"]]);
    let none = ["qshare get --no-such-option"];
    let found = none.iter().flat_map(|line| invocations(line)).map(fault);
    assert!(found.flatten().count() == 1);
}
