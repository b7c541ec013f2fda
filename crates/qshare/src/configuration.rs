//! The configuration file: values for options that neither the command line nor the environment
//! sets.
//!
//! Everything here is derived from clap's definition of the command line, so a new option of any
//! command is a key of the file without further code. Values are checked by the option's own
//! parser, then given to clap as arguments: an option of the file behaves as if it had been typed.

mod arguments;
mod catalogue;
mod example;
mod fault;
mod file;
mod in_force;

pub(crate) use arguments::with_configuration;
pub(crate) use catalogue::{Catalogue, variable_of};
pub(crate) use example::example;
pub(crate) use fault::{Fault, FaultKind};
pub(crate) use file::{Configuration, Named};
pub(crate) use in_force::{InForce, Source, in_force};
