//! qshare on the command line: arguments become a configuration, a command runs, what came out
//! is printed.
//!
//! Results go to stdout, everything else to stderr. The network lives on a current-thread tokio
//! runtime on the main thread; what blocks (the prompt, hashing) has threads of its own.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments on arguments are help texts, where HOST[:PORT] is no link"
)]

mod args;
mod choice;
mod commands;
mod config;
mod console;
mod exit;
mod jobs;
mod logs;
mod output;
mod progress;
mod prompt;
mod signals;
mod suggest;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use console::Console;
use exit::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new(cli.verbosity.quiet);
    logs::start(&cli.verbosity, &console);
    let result = match cli.command {
        Command::Tracker(args) => commands::tracker::run(args, &console),
        Command::Node(args) => commands::node::run(args, &console),
        Command::Get(args) => commands::get::run(args, &console),
        Command::Ls(args) => commands::ls::run(args, &console),
        Command::Net(args) => commands::net::run(args, &console),
        Command::Hash(args) => commands::hash::run(&args, &console),
        Command::Id(args) => commands::id::run(&args, &console),
        Command::Forget(args) => commands::forget::run(&args, &console),
        Command::Group(args) => commands::group::run(&args, &console),
        Command::Demo(args) => commands::demo::run(&args, &console),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { exit, message }) => {
            if !message.is_empty() {
                console.error(&message);
            }
            ExitCode::from(exit.code())
        }
    }
}
