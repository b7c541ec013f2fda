//! The example file: every option with its help text, commented out.

use std::fmt::Write;

use super::catalogue::{Catalogue, Form, Opt, Place};

const HEAD: &str = "\
# Configuration of qshare: every option, with its default. All lines are comments; remove the `#`
# before those that you change. `qshare config --example` prints this file.
#
# qshare reads $XDG_CONFIG_HOME/qshare/config.toml (usually ~/.config/qshare/config.toml), or the
# file named by --config FILE or QSHARE_CONFIG. An option on the command line wins over a variable
# of the environment (--no-lan is QSHARE_NO_LAN), which wins over this file. A section's key
# replaces the common one; lists replace each other, too. `qshare config` prints the values in force
# and where each comes from. A relative path is relative to the directory that qshare is started in.
";

/// Width of comment lines, without `# `.
const WIDTH: usize = 98;

/// Returns the text of an example file.
pub(crate) fn example(catalogue: &Catalogue) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("\n# Common keys: they hold for every command that has the option.\n");
    let mut listed: Vec<&str> = Vec::new();
    for command in catalogue.commands() {
        for option in visible(&command.options) {
            if !listed.contains(&option.key())
                && let Place::Common(option) = catalogue.place_of(option.key())
            {
                listed.push(option.key());
                entry(&mut text, option);
            }
        }
    }
    for command in catalogue.commands() {
        let own: Vec<&Opt> = visible(&command.options)
            .filter(|option| !matches!(catalogue.place_of(option.key()), Place::Common(_)))
            .collect();
        if own.is_empty() {
            continue;
        }
        let _ = write!(text, "\n[{}]\n", command.name);
        own.into_iter().for_each(|option| entry(&mut text, option));
    }
    text
}

fn visible(options: &[Opt]) -> impl Iterator<Item = &Opt> {
    options.iter().filter(|option| !option.is_hidden())
}

fn entry(text: &mut String, option: &Opt) {
    text.push('\n');
    let mut line = String::new();
    for word in option.help().split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "# {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "# {line}");
    let _ = writeln!(text, "#{} = {}", option.key(), example_value(option));
}

/// Returns the default value, else the name of the value.
fn example_value(option: &Opt) -> String {
    let defaults = option.defaults();
    match option.form() {
        Form::Switch => "false".to_owned(),
        _ if !defaults.is_empty() => toml_value(option.form(), &defaults),
        form => toml_value(form, &[option.value_name()]),
    }
}

/// Returns values as TOML.
pub(super) fn toml_value(form: Form, values: &[String]) -> String {
    let one = |value: &String| match value.parse::<i64>() {
        Ok(number) if number.to_string() == *value => value.clone(),
        _ => toml::Value::String(value.clone()).to_string(),
    };
    match (form, values) {
        (Form::Switch | Form::Count, [value, ..]) => value.clone(),
        (Form::Optional, [value]) if value == "true" || value == "false" => value.clone(),
        (Form::Optional | Form::One, [value, ..]) => one(value),
        _ => {
            let values: Vec<String> = values.iter().map(one).collect();
            format!("[{}]", values.join(", "))
        }
    }
}

impl super::InForce {
    /// Returns the value as TOML; None if the option has none.
    pub(crate) fn toml(&self) -> Option<String> {
        match self.values.is_empty() {
            true => None,
            false => Some(toml_value(self.form, &self.values)),
        }
    }

    /// Returns the value as JSON: a text, a list of texts, true or false, or null.
    pub(crate) fn json(&self) -> serde_json::Value {
        let text = |value: &String| serde_json::Value::from(value.as_str());
        match (self.form, self.values.as_slice()) {
            (Form::Many, values) => values.iter().map(text).collect(),
            (_, []) => serde_json::Value::Null,
            (_, [value, ..]) => match value.as_str() {
                "true" => true.into(),
                "false" => false.into(),
                _ => text(value),
            },
        }
    }
}
