//! `qshare completions`: print a completion script.

use crate::args::{self, CompletionsArgs};
use crate::console::Console;
use crate::exit::Failure;

pub(crate) fn run(args: &CompletionsArgs, console: &Console) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::definition(), "qshare", &mut script);
    console.result(String::from_utf8_lossy(&script).trim_end())
}
