//! The options that the command line defines, by command.

use std::ffi::OsString;

use clap::builder::ValueRange;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

/// Returns the variable of the environment that sets an option.
pub(crate) fn variable_of(long: &str) -> String {
    format!("QSHARE_{}", long.to_uppercase().replace('-', "_"))
}

/// Options that a file cannot set: it would name another file, or only print text.
const NEVER_IN_A_FILE: [&str; 3] = ["config", "help", "version"];

/// Options of one name and form that mean different things to different commands: an address for
/// users to a node, one for the operator to a tracker, and both at once are never meant.
const NEVER_COMMON: [&str; 1] = ["http"];

/// The options of every command that a configuration file can set.
#[derive(Debug)]
pub(crate) struct Catalogue {
    commands: Vec<CommandOptions>,
}

/// The options of one command and its subcommands, those of all commands included.
#[derive(Debug)]
pub(crate) struct CommandOptions {
    /// The command's name, which is its section in the file.
    pub(crate) name: String,
    /// Its options, in the order of the definition.
    pub(crate) options: Vec<Opt>,
}

/// One option.
#[derive(Debug)]
pub(crate) struct Opt(Arg);

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nothing: it is on or off.
    Switch,
    /// Nothing; it is counted (`-vv`).
    Count,
    /// A value that may be left out (`--wait[=SECONDS]`).
    Optional,
    /// One value.
    One,
    /// Any number of values.
    Many,
}

/// Where a key of the file belongs.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    /// On top of the file: several commands have the option, and it is the same for all.
    Common(&'a Opt),
    /// In the sections of these commands only: it differs between them, or only one has it.
    Sections(Vec<&'a str>),
    /// Nowhere: no command has such an option.
    Nowhere,
}

impl Catalogue {
    /// Reads the options out of a definition.
    pub(crate) fn of(mut definition: Command) -> Catalogue {
        definition.build();
        let commands = definition.get_subcommands().map(|command| {
            let mut options = Vec::new();
            add_options(command, &mut options);
            CommandOptions {
                name: command.get_name().to_owned(),
                options,
            }
        });
        Catalogue {
            commands: commands.collect(),
        }
    }

    /// Returns all commands that have options.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &CommandOptions> {
        self.commands
            .iter()
            .filter(|command| !command.options.is_empty())
    }

    /// Returns the options of a command.
    pub(crate) fn command(&self, name: &str) -> Option<&CommandOptions> {
        self.commands.iter().find(|command| command.name == name)
    }

    /// Returns where a key of the file belongs.
    pub(crate) fn place_of(&self, key: &str) -> Place<'_> {
        let having: Vec<(&str, &Opt)> = self
            .commands
            .iter()
            .filter_map(|command| Some((command.name.as_str(), command.option(key)?)))
            .collect();
        match having.as_slice() {
            [] => Place::Nowhere,
            [(_, first), others @ ..]
                if !others.is_empty() && others.iter().all(|(_, other)| first.is_same(other)) =>
            {
                Place::Common(first)
            }
            _ => Place::Sections(having.iter().map(|(name, _)| *name).collect()),
        }
    }
}

impl CommandOptions {
    /// Returns the option with this long name.
    pub(crate) fn option(&self, key: &str) -> Option<&Opt> {
        self.options.iter().find(|option| option.key() == key)
    }
}

fn add_options(command: &Command, options: &mut Vec<Opt>) {
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let known = options.iter().any(|option| option.key() == long);
        if !known && !NEVER_IN_A_FILE.contains(&long) {
            options.push(Opt(arg.clone()));
        }
    }
    for subcommand in command.get_subcommands() {
        add_options(subcommand, options);
    }
}

impl Opt {
    /// Returns the long name, without dashes.
    pub(crate) fn key(&self) -> &str {
        self.0.get_long().unwrap_or_default()
    }

    /// Returns clap's name of the option.
    pub(crate) fn id(&self) -> &str {
        self.0.get_id().as_str()
    }

    /// Returns the variable of the environment that sets it.
    pub(crate) fn variable(&self) -> String {
        variable_of(self.key())
    }

    /// Returns the form of its value.
    pub(crate) fn form(&self) -> Form {
        let values = self.0.get_num_args().unwrap_or(ValueRange::SINGLE);
        match self.0.get_action() {
            ArgAction::SetTrue | ArgAction::SetFalse => Form::Switch,
            ArgAction::Count => Form::Count,
            ArgAction::Append => Form::Many,
            _ if values.min_values() == 0 => Form::Optional,
            _ if values.max_values() > 1 || self.delimiter().is_some() => Form::Many,
            _ => Form::One,
        }
    }

    /// Returns the character that separates several values in one text.
    pub(crate) fn delimiter(&self) -> Option<char> {
        self.0.get_value_delimiter()
    }

    /// Returns the values that hold if nothing sets the option.
    pub(crate) fn defaults(&self) -> Vec<String> {
        let values = self.0.get_default_values().iter();
        values
            .map(|value| value.to_string_lossy().into_owned())
            .collect()
    }

    /// Returns the name of the value in help texts.
    pub(crate) fn value_name(&self) -> String {
        match self.0.get_value_names() {
            Some([name, ..]) => name.to_string(),
            _ => self.key().to_uppercase(),
        }
    }

    /// Returns the help text.
    pub(crate) fn help(&self) -> String {
        self.0
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// Returns whether help texts omit it.
    pub(crate) fn is_hidden(&self) -> bool {
        self.0.is_hide_set()
    }

    /// Returns whether a value for this option means the same to the other, which has the same
    /// name.
    fn is_same(&self, other: &Opt) -> bool {
        self.form() == other.form()
            && self.value_name() == other.value_name()
            && !NEVER_COMMON.contains(&self.key())
            && self.defaults() == other.defaults()
    }

    /// Checks arguments (`--key=value`) with the option's parser.
    ///
    /// # Errors
    ///
    /// Returns the parser's reason, which need not contain the value.
    pub(crate) fn check(&self, arguments: &[OsString]) -> Result<(), String> {
        let mut probe = Arg::new("value")
            .long(self.key().to_owned())
            .action(self.0.get_action().clone());
        if !matches!(self.form(), Form::Switch | Form::Count) {
            probe = probe
                .value_parser(self.0.get_value_parser().clone())
                .value_delimiter(self.delimiter());
            if let Some(count) = self.0.get_num_args() {
                probe = probe.num_args(count);
            }
        }
        // A value that is left out has clap's own meaning, which is right by definition.
        let with_value = arguments
            .iter()
            .filter(|argument| argument.to_string_lossy().contains('='));
        let command = Command::new("check")
            .no_binary_name(true)
            .disable_help_flag(true)
            .disable_version_flag(true)
            .arg(probe);
        match command.try_get_matches_from(with_value) {
            Ok(_) => Ok(()),
            Err(error) => Err(reason(&error)),
        }
    }
}

/// Returns the cause in an error of clap, without the value.
fn reason(error: &clap::Error) -> String {
    use std::error::Error as _;

    if let Some(source) = error.source() {
        return source.to_string();
    }
    match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("give one of {}", valid.join(", "))
        }
        _ => "not a valid value".to_owned(),
    }
}
