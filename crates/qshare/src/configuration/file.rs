//! Reads a configuration file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::catalogue::{Catalogue, Form, Opt, Place};
use super::fault::{Fault, FaultKind};

/// The largest file that is read. A full file has some 20 KiB.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Which file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// The file that the user named, which must exist.
    Given(PathBuf),
    /// The file in the user's configuration directory, if it exists.
    Usual,
}

/// The settings of a configuration file.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// The file; None if there is none.
    pub(crate) file: Option<PathBuf>,
    settings: Vec<Setting>,
}

/// One key of the file with its value.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The section; None at the top of the file.
    section: Option<String>,
    key: String,
    /// The line of the key, from 1.
    pub(crate) line: usize,
    /// The arguments that have the same effect.
    pub(crate) arguments: Vec<OsString>,
    /// The value as texts: of a list, its elements.
    pub(crate) values: Vec<String>,
}

impl Configuration {
    /// Reads a configuration file and checks every value in it.
    ///
    /// # Errors
    ///
    /// Returns a [`Fault`] if the file cannot be read, or any key or value in it is wrong, also one
    /// for another command than the present one.
    pub(crate) fn load(named: &Named, catalogue: &Catalogue) -> Result<Configuration, Fault> {
        let (file, must_exist) = match named {
            Named::Given(file) => (file.clone(), true),
            Named::Usual => match usual_file() {
                Some(file) => (file, false),
                None => return Ok(Configuration::default()),
            },
        };
        let fault = |kind| Fault {
            file: Some(file.clone()),
            line: None,
            kind,
        };
        let bytes = match read(&file) {
            Err(error) if !must_exist && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Configuration::default());
            }
            read => read.map_err(|error| fault(FaultKind::Read(error)))?,
        };
        if bytes.len() as u64 > FILE_MAX_BYTES {
            return Err(fault(FaultKind::TooLarge(FILE_MAX_BYTES)));
        }
        let text = String::from_utf8(bytes).map_err(|_| fault(FaultKind::NotUtf8))?;
        let settings = parse(&text, catalogue).map_err(|(line, kind)| Fault {
            file: Some(file.clone()),
            line,
            kind,
        })?;
        Ok(Configuration {
            file: Some(file),
            settings,
        })
    }

    /// Returns the setting of an option of a command: that of its section, else the common one.
    pub(crate) fn setting(&self, command: &str, key: &str) -> Option<&Setting> {
        let of_section = |section: Option<&str>| {
            self.settings
                .iter()
                .find(|setting| setting.section.as_deref() == section && setting.key == key)
        };
        of_section(Some(command)).or_else(|| of_section(None))
    }
}

/// Returns the file in the user's configuration directory.
fn usual_file() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.config_dir().join("qshare").join("config.toml"))
}

/// Reads at most one byte more than allowed.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?
        .take(FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A fault with its line.
type Located = (Option<usize>, FaultKind);

fn parse(text: &str, catalogue: &Catalogue) -> Result<Vec<Setting>, Located> {
    let line_at = |offset: usize| {
        let before = text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    };
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| line_at(span.start));
        (line, FaultKind::Syntax(error.message().to_owned()))
    })?;
    let mut settings = Vec::new();
    for (key, value) in document.get_ref() {
        let line = line_at(key.span().start);
        let name = key.get_ref().as_ref();
        let DeValue::Table(section) = value.get_ref() else {
            let option = match catalogue.place_of(name) {
                Place::Common(option) => option,
                Place::Sections(others) => return Err((Some(line), unknown(name, None, &others))),
                Place::Nowhere => return Err((Some(line), unknown(name, None, &[]))),
            };
            settings.push(setting(option, None, line, value).map_err(|kind| (Some(line), kind))?);
            continue;
        };
        let known = catalogue.commands().find(|command| command.name == name);
        let Some(command) = known else {
            return Err((Some(line), FaultKind::UnknownSection(name.to_owned())));
        };
        for (key, value) in section {
            let line = line_at(key.span().start);
            let at = |kind| (Some(line), kind);
            let key = key.get_ref().as_ref();
            let Some(option) = command.option(key) else {
                let others = match catalogue.place_of(key) {
                    Place::Sections(others) => others,
                    Place::Common(_) | Place::Nowhere => Vec::new(),
                };
                return Err(at(unknown(key, Some(name), &others)));
            };
            settings.push(setting(option, Some(name), line, value).map_err(at)?);
        }
    }
    Ok(settings)
}

fn unknown(key: &str, section: Option<&str>, others: &[&str]) -> FaultKind {
    FaultKind::UnknownKey {
        key: key.to_owned(),
        section: section.map(str::to_owned),
        others: others.iter().map(|other| (*other).to_owned()).collect(),
    }
}

/// Converts a value of the file to the arguments that have the same effect, and checks them.
fn setting(
    option: &Opt,
    section: Option<&str>,
    line: usize,
    value: &Spanned<DeValue<'_>>,
) -> Result<Setting, FaultKind> {
    let key = option.key();
    let value = value.get_ref();
    let wrong_type = |wanted| FaultKind::Type {
        key: key.to_owned(),
        wanted,
    };
    let bare = || OsString::from(format!("--{key}"));
    let with = |value: &String| OsString::from(format!("--{key}={value}"));
    let (arguments, values) = match option.form() {
        Form::Switch => {
            let on = value.as_bool().ok_or(wrong_type("true or false"))?;
            let arguments = if on { vec![bare()] } else { Vec::new() };
            (arguments, vec![on.to_string()])
        }
        Form::Count => {
            let text = scalar(value).ok_or(wrong_type("a number"))?;
            let count: u8 = text.parse().map_err(|_| wrong_type("a number up to 255"))?;
            (vec![bare(); usize::from(count)], vec![count.to_string()])
        }
        Form::Optional => match value.as_bool() {
            Some(true) => (vec![bare()], vec!["true".to_owned()]),
            Some(false) => (Vec::new(), vec!["false".to_owned()]),
            None => {
                let text = scalar(value).ok_or(wrong_type("true, false or a value"))?;
                (vec![with(&text)], vec![text])
            }
        },
        Form::One => {
            let text = scalar(value).ok_or(wrong_type("one text or number"))?;
            (vec![with(&text)], vec![text])
        }
        Form::Many => {
            let values = match value.as_array() {
                Some(list) => list.iter().map(|value| scalar(value.get_ref())).collect(),
                None => scalar(value).map(|text| vec![text]),
            };
            let values: Vec<String> = values.ok_or(wrong_type("a list of texts"))?;
            (values.iter().map(with).collect(), values)
        }
    };
    option
        .check(&arguments)
        .map_err(|reason| FaultKind::Value {
            key: key.to_owned(),
            reason,
        })?;
    Ok(Setting {
        section: section.map(str::to_owned),
        key: key.to_owned(),
        line,
        arguments,
        values,
    })
}

/// Returns a text or a decimal number as text.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.as_ref().to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::builder::FalseyValueParser;
    use clap::{Arg, ArgAction, Command};

    use super::*;

    fn catalogue() -> Catalogue {
        let listen = |default| Arg::new("listen").long("listen").default_value(default);
        let trackers = Arg::new("given")
            .long("tracker")
            .action(ArgAction::Append)
            .value_delimiter(',');
        let lan = Arg::new("off")
            .long("no-lan")
            .action(ArgAction::SetTrue)
            .value_parser(FalseyValueParser::new());
        let size = Arg::new("size")
            .long("size")
            .value_parser(clap::value_parser!(u8));
        let wait = Arg::new("wait")
            .long("wait")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("7");
        let verbose = Arg::new("verbose")
            .long("verbose")
            .action(ArgAction::Count)
            .global(true);
        let node = Command::new("node").args([listen("a"), trackers.clone(), lan.clone()]);
        let get = Command::new("get").args([listen("b"), trackers, lan, size, wait]);
        let command = Command::new("x").arg(verbose).subcommands([node, get]);
        Catalogue::of(command)
    }

    fn arguments(text: &str, command: &str, key: &str) -> Vec<String> {
        let settings = parse(text, &catalogue()).unwrap();
        let configuration = Configuration {
            file: None,
            settings,
        };
        let setting = configuration.setting(command, key);
        let arguments = setting.map(|setting| setting.arguments.iter());
        arguments
            .into_iter()
            .flatten()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect()
    }

    fn refused(text: &str) -> (usize, FaultKind) {
        let (line, kind) = parse(text, &catalogue()).unwrap_err();
        (line.unwrap(), kind)
    }

    #[test]
    fn a_key_of_a_section_replaces_the_common_one() {
        let text = "tracker = ['a', 'b']\n[node]\ntracker = 'c'\n";
        assert_eq!(arguments(text, "node", "tracker"), ["--tracker=c"]);
        assert_eq!(
            arguments(text, "get", "tracker"),
            ["--tracker=a", "--tracker=b"]
        );
        let text = "no-lan = true\n[node]\nno-lan = false\n";
        assert_eq!(arguments(text, "get", "no-lan"), ["--no-lan"]);
        assert!(arguments(text, "node", "no-lan").is_empty());
    }

    #[test]
    fn every_form_of_option_has_a_value() {
        assert_eq!(arguments("verbose = 2", "node", "verbose").len(), 2);
        assert_eq!(arguments("[get]\nwait = true", "get", "wait"), ["--wait"]);
        assert_eq!(arguments("[get]\nwait = 30", "get", "wait"), ["--wait=30"]);
        assert_eq!(arguments("[get]\nsize = 30", "get", "size"), ["--size=30"]);
        assert_eq!(
            arguments("[get]\nsize = '30'", "get", "size"),
            ["--size=30"]
        );
    }

    #[test]
    fn wrong_keys_are_refused_with_their_line() {
        let (line, kind) = refused("\n\ntrackers = 'a'\n");
        assert_eq!(line, 3);
        assert!(matches!(kind, FaultKind::UnknownKey { section: None, .. }));
        let (line, kind) = refused("[node]\nsize = 1\n");
        assert_eq!(line, 2);
        assert!(matches!(kind, FaultKind::UnknownKey { others, .. } if others == ["get"]));
        // Its default differs between the commands.
        let (_, kind) = refused("listen = 'c'");
        assert!(matches!(kind, FaultKind::UnknownKey { others, .. } if others == ["node", "get"]));
        let (line, kind) = refused("no-lan = true\n[nodes]\n");
        assert_eq!(line, 2);
        assert!(matches!(kind, FaultKind::UnknownSection(name) if name == "nodes"));
        for key in ["help", "version", "config"] {
            refused(&format!("{key} = true"));
        }
    }

    #[test]
    fn wrong_values_are_refused_with_their_line() {
        let (line, kind) = refused("[get]\n\nsize = 300\n");
        assert_eq!(line, 3);
        assert!(matches!(kind, FaultKind::Value { .. }));
        for text in [
            "no-lan = 'yes'",
            "tracker = true",
            "tracker = [['a']]",
            "verbose = 1000",
            "[get]\nsize = [1]",
            "[get]\nsize = 0x10",
            "[get]\nsize = { a = 1 }",
            "[get]\nsize = 1979-05-27",
        ] {
            let (_, kind) = refused(text);
            assert!(matches!(kind, FaultKind::Type { .. }), "{text}: {kind:?}");
        }
        for text in ["tracker = 'a'\ntracker = 'b'", "tracker = ", "[node", "\0"] {
            let (_, kind) = refused(text);
            assert!(matches!(kind, FaultKind::Syntax(_)), "{text}: {kind:?}");
        }
    }
}
