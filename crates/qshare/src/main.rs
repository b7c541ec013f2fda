//! The qshare program: it parses arguments, builds a configuration, runs a command and prints the
//! result.
//!
//! Results go to stdout, everything else to stderr. The network runs on a current-thread tokio
//! runtime on the main thread; blocking work (the prompt, hashing) has threads of its own.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments on arguments are help texts, where HOST[:PORT] is no link"
)]

mod api;
mod args;
mod argument;
mod choice;
mod code_prompt;
mod commands;
mod config;
mod configuration;
mod console;
mod control;
mod exit;
mod folder_source;
mod gateway;
mod http;
mod jobs;
mod logs;
mod messages;
mod neutral;
mod notices;
mod output;
mod progress;
mod prompt;
mod redeem;
mod service;
mod sharing;
mod signals;
mod suggest;
mod sums;
mod terminal;
mod web;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{Write, stderr};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;

use args::{Cli, Command, ParseError};
use console::Console;
use exit::{Exit, Failure};

fn main() -> ExitCode {
    if std::env::args_os().len() < 2 {
        Console::new(false).line(args::BEGINNING);
        return ExitCode::from(Exit::Usage.code());
    }
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(ParseError::Usage(error)) => return usage(&error),
        Err(ParseError::Configuration(fault)) => {
            let Failure { exit, message } = messages::configuration(&fault);
            Console::new(false).error(&message);
            return ExitCode::from(exit.code());
        }
    };
    let console = Console::new(cli.verbosity.quiet);
    logs::start(&cli.verbosity, &console);
    panic::set_hook(Box::new(report_panic));
    match panic::catch_unwind(AssertUnwindSafe(|| run(cli, &console))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Err(_) => {
            terminal::restore();
            ExitCode::from(Exit::Failed.code())
        }
        Ok(Err(Failure { exit, message })) => {
            if !message.is_empty() {
                console.error(&message);
            }
            ExitCode::from(exit.code())
        }
    }
}

fn run(cli: Cli, console: &Console) -> Result<(), Failure> {
    match cli.command {
        Command::Tracker(args) => commands::tracker::run(args, console),
        Command::Node(args) => commands::node::run(args, console),
        Command::Share(args) => commands::share::run(args, console),
        Command::Get(args) => commands::get::run(args, console),
        Command::Cat(args) => commands::get::run(args.into_get(), console),
        Command::Ls(args) => commands::ls::run(args, console),
        Command::Status(args) => commands::control::status::run(args, console),
        Command::Add(args) => commands::control::add::run(args, console),
        Command::Pause(args) => commands::control::which::pause(args, console),
        Command::Resume(args) => commands::control::which::resume(args, console),
        Command::Remove(args) => commands::control::which::remove(args, console),
        Command::Limit(args) => commands::control::limit::run(args, console),
        Command::Unshare(args) => commands::control::unshare::run(args, console),
        Command::Stop(args) => commands::control::stop::run(args, console),
        Command::Net(args) => commands::net::run(args, console),
        Command::Hash(args) => commands::hash::run(&args, console),
        Command::Id(args) => commands::id::run(&args, console),
        Command::Forget(args) => commands::forget::run(&args, console),
        Command::Group(args) => commands::group::run(&args, console),
        Command::Config(args) => commands::config::run(&args, &cli.config.named(), console),
        Command::Demo(args) => commands::demo::run(&args, console),
        Command::Completions(args) => commands::completions::run(&args, console),
        Command::Man(args) => commands::man::run(&args, console),
    }
}

/// Prints a panic of any thread or task as an internal error. Writes to stderr directly: the thread
/// that panicked may hold the console's lock.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let cause = panic.payload_as_str().unwrap_or("unknown cause");
    let message = messages::panicked(cause, panic.location());
    let _ = writeln!(stderr(), "qshare: {}", neutral::neutral(&message));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let _ = writeln!(stderr(), "{backtrace}");
    }
}

/// Prints clap's help, version or usage error. An error repeats arguments, so it passes the
/// console.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A closed pipe (`qshare --help | head`) is not an error.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    Console::new(false).line(text.trim_end());
    ExitCode::from(Exit::Usage.code())
}
