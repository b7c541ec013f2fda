//! `qshare man`: write manual pages.

use std::fs;
use std::io;
use std::path::Path;

use qshare_node::DiskError;

use crate::args::{self, ManArgs};
use crate::console::Console;
use crate::exit::Failure;
use crate::neutral::shown;
use crate::output;

pub(crate) fn run(args: &ManArgs, console: &Console) -> Result<(), Failure> {
    let failed =
        |doing, path: &Path, error: io::Error| Failure::from(&DiskError::new(doing, path, error));
    fs::create_dir_all(&args.dir).map_err(|error| failed("create", &args.dir, error))?;
    let mut definition = args::definition().disable_help_subcommand(true);
    definition.build();
    let pages = write_pages(definition, &args.dir)
        .map_err(|error| failed("write manual pages into", &args.dir, error))?;
    console.note(&format!(
        "wrote {} into {}",
        output::count(pages, "manual page"),
        shown(&args.dir)
    ));
    Ok(())
}

/// Writes the page of a command and of its subcommands, and returns their number.
fn write_pages(command: clap::Command, dir: &Path) -> io::Result<u64> {
    let mut pages = 1;
    for subcommand in command.get_subcommands() {
        pages += write_pages(subcommand.clone(), dir)?;
    }
    let page = clap_mangen::Man::new(command);
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::write(dir.join(page.get_filename()), text)?;
    Ok(pages)
}
