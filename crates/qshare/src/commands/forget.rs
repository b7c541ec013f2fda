//! `qshare forget`: forget the remembered key of a tracker.

use qshare_node::KnownTrackers;

use crate::args::ForgetArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::neutral::shown;

pub(crate) fn run(args: &ForgetArgs, console: &Console) -> Result<(), Failure> {
    let dir = args.certs.resolve()?;
    let place = args.tracker.host_port();
    if KnownTrackers::in_dir(&dir).forget(&args.tracker)? {
        console.note(&format!(
            "forgot the key of {place}; its key is remembered again on next use"
        ));
        return Ok(());
    }
    Err(Failure::new(
        Exit::NotFound,
        format!(
            "cannot forget {place}: no key of a tracker there is remembered in {}",
            shown(&dir)
        ),
    ))
}
