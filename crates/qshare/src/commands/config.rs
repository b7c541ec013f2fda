//! `qshare config`: print the values in force and where they come from.

use serde::Serialize;

use crate::args::{self, ConfigArgs};
use crate::configuration::{Catalogue, Configuration, InForce, Named, Source, example, in_force};
use crate::console::Console;
use crate::exit::Failure;
use crate::messages;
use crate::neutral::shown;

pub(crate) fn run(args: &ConfigArgs, named: &Named, console: &Console) -> Result<(), Failure> {
    let catalogue = Catalogue::of(args::definition());
    if args.example {
        return console.result(example(&catalogue).trim_end());
    }
    for name in &args.commands {
        if catalogue.command(name).is_none() {
            return Err(messages::no_such_command(name));
        }
    }
    let configuration =
        Configuration::load(named, &catalogue).map_err(|fault| messages::configuration(&fault))?;
    if !args.json.on {
        let file = match &configuration.file {
            Some(file) => format!("# Configuration file: {}", shown(file)),
            None => "# No configuration file".to_owned(),
        };
        console.result(&file)?;
    }
    for command in catalogue.commands() {
        if !args.commands.is_empty() && !args.commands.contains(&command.name) {
            continue;
        }
        let values = in_force(command, &configuration, |name| std::env::var_os(name))
            .map_err(|fault| messages::configuration(&fault))?;
        if args.json.on {
            for value in &values {
                console.json(&ValueJson::new(&command.name, value))?;
            }
            continue;
        }
        console.result(&format!("\n[{}]", command.name))?;
        for line in lines(&values) {
            console.result(&line)?;
        }
    }
    Ok(())
}

/// Returns a line of TOML for each value, with its source as a comment in one column.
fn lines(values: &[InForce]) -> Vec<String> {
    let entries: Vec<String> = values
        .iter()
        .map(|value| match value.toml() {
            Some(text) => format!("{} = {text}", value.key),
            None => format!("#{} =", value.key),
        })
        .collect();
    let width = entries.iter().map(String::len).max().unwrap_or(0).min(40);
    let sources = values.iter().map(|value| match &value.source {
        Source::Environment(variable) => variable.clone(),
        Source::File(file, line) => format!("{}:{line}", shown(file)),
        Source::Default => "default".to_owned(),
    });
    let lines = entries.iter().zip(sources);
    lines
        .map(|(entry, source)| format!("{entry:width$}  # {source}"))
        .collect()
}

/// The value of an option, as `config --json` prints it.
#[derive(Debug, Serialize)]
struct ValueJson<'a> {
    command: &'a str,
    option: &'a str,
    /// A text, a list of texts, true or false, or null.
    value: serde_json::Value,
    /// `environment`, `file` or `default`.
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

impl<'a> ValueJson<'a> {
    fn new(command: &'a str, value: &'a InForce) -> ValueJson<'a> {
        let mut json = ValueJson {
            command,
            option: &value.key,
            value: value.json(),
            source: "default",
            variable: None,
            file: None,
            line: None,
        };
        match &value.source {
            Source::Environment(variable) => {
                json.source = "environment";
                json.variable = Some(variable);
            }
            Source::File(file, line) => {
                json.source = "file";
                json.file = Some(file.to_string_lossy().into_owned());
                json.line = Some(*line);
            }
            Source::Default => {}
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../docs/config.example.toml");

    fn catalogue() -> Catalogue {
        Catalogue::of(args::definition())
    }

    #[test]
    fn the_example_file_is_what_the_program_prints() {
        assert!(
            EXAMPLE.trim_end() == example(&catalogue()).trim_end(),
            "run: cargo run -- config --example > docs/config.example.toml"
        );
    }

    #[test]
    fn the_example_file_lists_every_option_and_its_defaults_are_accepted() {
        let catalogue = catalogue();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        // Options without a default are listed with the name of their value, which is no value.
        let has_default = |section: &str, key: &str| {
            let all = catalogue.commands();
            let all = all.filter(|command| section.is_empty() || command.name == section);
            let mut same = all
                .flat_map(|command| &command.options)
                .filter(|option| option.key() == key);
            same.any(|option| !option.defaults().is_empty())
        };
        let (mut listed, mut section) = (0, "");
        let lines = EXAMPLE.lines().map(|line| {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            }
            match line.split_once(" = ") {
                Some((key, _)) if line.starts_with('#') && has_default(section, &key[1..]) => {
                    listed += 1;
                    &line[1..]
                }
                _ => line,
            }
        });
        let text: Vec<&str> = lines.collect();
        assert!(listed > 10, "{listed}");
        std::fs::write(&file, text.join("\n")).unwrap();
        let loaded = Configuration::load(&Named::Given(file.clone()), &catalogue).unwrap();
        for command in catalogue.commands() {
            for value in in_force(command, &loaded, |_| None).unwrap() {
                let option = command.option(&value.key).unwrap();
                assert!(
                    EXAMPLE.contains(&format!("\n#{} = ", value.key)),
                    "{} is missing",
                    value.key
                );
                let from_file = matches!(value.source, Source::File(..));
                assert_eq!(from_file, !option.defaults().is_empty(), "{}", value.key);
                assert_eq!(value.values, option.defaults(), "{}", value.key);
            }
        }
    }
}
