use std::io;

/// Why a network could not be built or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The plan contradicts itself.
    #[error("{0}")]
    Plan(String),
    /// A program that the lab needs is not installed.
    #[error("the lab needs the program `{program}` (Debian: apt-get install {package})")]
    MissingProgram {
        /// What was to be run.
        program: String,
        /// Its Debian package.
        package: &'static str,
    },
    /// A program that the lab needs failed.
    #[error("`{command}` failed: {message}")]
    Command {
        /// What was run.
        command: String,
        /// What it said.
        message: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was to be done.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl LabError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let what = what.into();
        move |source| LabError::System { what, source }
    }
}
