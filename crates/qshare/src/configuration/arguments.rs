//! Adds the configuration file's options to the arguments of this process.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::catalogue::Catalogue;
use super::fault::Fault;
use super::file::{Configuration, Named};

/// Returns the arguments of this process, followed by those of the configuration file that neither
/// they nor the environment set.
///
/// # Errors
///
/// Returns a [`Fault`] if the file cannot be used.
pub(crate) fn with_configuration(
    definition: &Command,
    arguments: Vec<OsString>,
) -> Result<Vec<OsString>, Fault> {
    let Some((matches, command, is_set)) = look(definition, &arguments) else {
        return Ok(arguments);
    };
    let catalogue = Catalogue::of(definition.clone());
    let configuration = Configuration::load(&named(&matches), &catalogue)?;
    let Some(command) = catalogue.command(&command) else {
        return Ok(arguments);
    };
    let mut added = Vec::new();
    for option in &command.options {
        let setting = configuration.setting(&command.name, option.key());
        if let Some(setting) = setting
            && is_set.iter().any(|(id, set)| id == option.id() && !set)
        {
            added.extend(setting.arguments.iter().cloned());
        }
    }
    let mut all = arguments;
    // What follows `--` is no option.
    let end = all.iter().position(|argument| argument == "--");
    let end = end.unwrap_or(all.len());
    all.splice(end..end, added);
    Ok(all)
}

fn named(matches: &ArgMatches) -> Named {
    match matches.try_get_one::<PathBuf>("configuration") {
        Ok(Some(file)) => Named::Given(file.clone()),
        _ => Named::Usual,
    }
}

/// Parses the arguments without checking them. Returns the matches and the name of the command, and
/// for each option of the innermost command whether it is set. None if there is no command, or help
/// is wanted: clap says so better than a fault of the file.
#[expect(clippy::type_complexity, reason = "used once")]
fn look(
    definition: &Command,
    arguments: &[OsString],
) -> Option<(ArgMatches, String, Vec<(String, bool)>)> {
    let mut definition = definition.clone().ignore_errors(true);
    let matches = definition.try_get_matches_from_mut(arguments).ok()?;
    let name = matches.subcommand_name()?.to_owned();
    let (mut innermost, mut at) = (&definition, &matches);
    while let Some((name, below)) = at.subcommand() {
        innermost = innermost.find_subcommand(name)?;
        at = below;
    }
    let set = |id: &str| match at.try_contains_id(id) {
        Ok(_) => matches!(
            at.value_source(id),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        ),
        Err(_) => false,
    };
    let options = innermost.get_arguments();
    let is_set = options.map(|arg| (arg.get_id().to_string(), set(arg.get_id().as_str())));
    let is_set = is_set.collect();
    Some((matches, name, is_set))
}
