//! Why a configuration cannot be used.

use std::io;
use std::path::PathBuf;

/// Why a configuration cannot be used, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The file; None for a variable of the environment.
    pub(crate) file: Option<PathBuf>,
    /// The line, from 1.
    pub(crate) line: Option<usize>,
    /// The reason.
    pub(crate) kind: FaultKind,
}

/// The reason.
#[derive(Debug)]
pub(crate) enum FaultKind {
    /// The file cannot be read.
    Read(io::Error),
    /// The file is larger than this many bytes.
    TooLarge(u64),
    /// The file is not UTF-8.
    NotUtf8,
    /// The file is not TOML, with the parser's reason.
    Syntax(String),
    /// A section is not named like a command that has options.
    UnknownSection(String),
    /// No command, or not the command of this section, has such an option. It is one of `others`.
    UnknownKey {
        /// The key.
        key: String,
        /// The section; None on top of the file.
        section: Option<String>,
        /// The commands that have such an option.
        others: Vec<String>,
    },
    /// The type of the value does not suit the option, which takes `wanted`.
    Type {
        /// The key, or the variable.
        key: String,
        /// What the option takes.
        wanted: &'static str,
    },
    /// The option's parser refuses the value for this reason.
    Value {
        /// The key, or the variable.
        key: String,
        /// The parser's reason.
        reason: String,
    },
}
