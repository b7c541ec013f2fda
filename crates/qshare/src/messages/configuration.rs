//! The wording of faults of the configuration.

use crate::configuration::{Fault, FaultKind};
use crate::exit::{Exit, Failure};
use crate::neutral::shown;

/// Describes a configuration that cannot be used.
pub(crate) fn configuration(fault: &Fault) -> Failure {
    let place = match (&fault.file, fault.line) {
        (Some(file), Some(line)) => format!("cannot use {}, line {line}", shown(file)),
        (Some(file), None) => format!("cannot use {}", shown(file)),
        (None, _) => "cannot use the environment".to_owned(),
    };
    let (cause, remedy) = match &fault.kind {
        FaultKind::Read(error) => (error.to_string(), "Name another file: --config FILE".into()),
        FaultKind::TooLarge(max) => (
            format!("it is larger than {max} bytes"),
            "Name a configuration file: --config FILE".into(),
        ),
        FaultKind::NotUtf8 => (
            "it is not UTF-8 text".into(),
            "Name a configuration file: --config FILE".into(),
        ),
        FaultKind::Syntax(reason) => (
            format!("it is not TOML: {reason}"),
            "A value is written as key = \"text\", key = 5, key = true or key = [\"a\", \"b\"]"
                .into(),
        ),
        FaultKind::UnknownSection(name) => (
            format!("no command with options is called {name:?}"),
            "Sections are named like commands, as [node]; `qshare config` lists them".into(),
        ),
        FaultKind::UnknownKey {
            key,
            section,
            others,
        } => unknown_key(key, section.as_deref(), others),
        FaultKind::Type { key, wanted } => (
            format!("{key} takes {wanted}"),
            "`qshare config --example` prints every option with its default".into(),
        ),
        FaultKind::Value { key, reason } => (
            format!("the value of {key} is refused: {reason}"),
            "`qshare config --example` prints every option with its default".into(),
        ),
    };
    Failure::new(Exit::Usage, format!("{place}: {cause}\n{remedy}"))
}

fn unknown_key(key: &str, section: Option<&str>, others: &[String]) -> (String, String) {
    let cause = match section {
        Some(section) => format!("`qshare {section}` has no option {key:?}"),
        None if others.is_empty() => format!("no command has an option {key:?}"),
        None => format!("{key:?} is not the same option for each command that has it"),
    };
    let remedy = match others {
        [] => "`qshare config` lists every option".to_owned(),
        others => {
            let sections: Vec<String> = others.iter().map(|name| format!("[{name}]")).collect();
            format!("Put it beneath {}", sections.join(" or "))
        }
    };
    (cause, remedy)
}

/// Describes a name that is no command.
pub(crate) fn no_such_command(name: &str) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("no command is called {name:?}\n`qshare --help` lists the commands"),
    )
}
