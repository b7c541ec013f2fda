//! `qshare forget`: drop a remembered tracker key.

use qshare_node::KnownTrackers;

use crate::args::ForgetArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};

pub(crate) fn run(args: &ForgetArgs, console: &Console) -> Result<(), Failure> {
    let dir = args.certs.resolve()?;
    let place = args.tracker.host_port();
    if KnownTrackers::in_dir(&dir).forget(&args.tracker)? {
        console.note(&format!(
            "{place} is forgotten; its key is remembered anew on next use"
        ));
        return Ok(());
    }
    Err(Failure::new(
        Exit::NotFound,
        format!(
            "no key of a tracker at {place} is remembered in {}",
            dir.display()
        ),
    ))
}
