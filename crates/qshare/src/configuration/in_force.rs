//! Which value of each option is in force, and where it comes from.

use std::ffi::OsString;
use std::path::PathBuf;

use super::catalogue::{CommandOptions, Form, Opt};
use super::fault::{Fault, FaultKind};
use super::file::Configuration;

/// The value of an option that a command without this option on its command line uses.
#[derive(Debug)]
pub(crate) struct InForce {
    /// The option's long name.
    pub(crate) key: String,
    /// What it takes.
    pub(crate) form: Form,
    /// The values as texts; empty if it has none.
    pub(crate) values: Vec<String>,
    /// Where they come from.
    pub(crate) source: Source,
}

/// Where a value comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A variable of the environment.
    Environment(String),
    /// A line of the configuration file, from 1.
    File(PathBuf, usize),
    /// The program.
    Default,
}

/// Returns the values of a command's options.
///
/// # Errors
///
/// Returns a [`Fault`] if the value of a variable is wrong.
pub(crate) fn in_force(
    command: &CommandOptions,
    configuration: &Configuration,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<InForce>, Fault> {
    let options = command.options.iter();
    let values = options.map(|option| {
        let variable = option.variable();
        let (values, source) = match environment(&variable).filter(|value| !value.is_empty()) {
            Some(value) => (
                of_variable(option, &variable, value)?,
                Source::Environment(variable),
            ),
            None => match (
                configuration.setting(&command.name, option.key()),
                &configuration.file,
            ) {
                (Some(setting), Some(file)) => (
                    setting.values.clone(),
                    Source::File(file.clone(), setting.line),
                ),
                _ => (option.defaults(), Source::Default),
            },
        };
        Ok(InForce {
            key: option.key().to_owned(),
            form: option.form(),
            values: values.iter().map(|value| redacted(value)).collect(),
            source,
        })
    });
    values.collect()
}

/// Returns the values in a variable of the environment.
fn of_variable(option: &Opt, variable: &str, value: OsString) -> Result<Vec<String>, Fault> {
    let text = value.to_string_lossy().into_owned();
    match option.form() {
        // As clap's `FalseyValueParser` reads it.
        Form::Switch => {
            let off = ["n", "no", "f", "false", "off", "0"];
            let on = !off.contains(&text.to_lowercase().as_str());
            return Ok(vec![on.to_string()]);
        }
        Form::Count => return Ok(vec![text]),
        Form::Optional | Form::One | Form::Many => {}
    }
    let mut argument = OsString::from(format!("--{}=", option.key()));
    argument.push(value);
    option.check(&[argument]).map_err(|reason| Fault {
        file: None,
        line: None,
        kind: FaultKind::Value {
            key: variable.to_owned(),
            reason,
        },
    })?;
    Ok(match option.delimiter() {
        Some(delimiter) => text.split(delimiter).map(str::to_owned).collect(),
        None => vec![text],
    })
}

/// Replaces the password in a URL, and what a link says.
fn redacted(value: &str) -> String {
    if value.starts_with("qshare:") {
        return "qshare:…".to_owned();
    }
    let Some((scheme, rest)) = value.split_once("://") else {
        return value.to_owned();
    };
    let authority = rest.find('/').unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn passwords_are_not_printed() {
        assert_eq!(
            redacted("redis://user:secret@host:1/0"),
            "redis://…@host:1/0"
        );
        assert_eq!(redacted("redis://host/a@b"), "redis://host/a@b");
        assert_eq!(redacted("qshare:2,K=SECRET"), "qshare:…");
        assert_eq!(redacted("TRACKERID@host:65000"), "TRACKERID@host:65000");
    }
}
