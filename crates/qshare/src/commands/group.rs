//! `qshare group new`: create the secret of a private group.

use qshare_node::GroupSecret;

use crate::args::{GroupArgs, GroupCommand};
use crate::console::Console;
use crate::exit::Failure;
use crate::neutral::shown;
use crate::suggest::quoted;

pub(crate) fn run(args: &GroupArgs, console: &Console) -> Result<(), Failure> {
    let GroupCommand::New { file } = &args.command;
    GroupSecret::create(file)?;
    let quoted = quoted(file.as_os_str());
    console.note(&format!(
        "{} holds the secret of a new group; everyone who has the file is a member.\n\
         Copy it to the tracker and to every node:\n  \
         qshare tracker --group {quoted}\n  qshare node --group {quoted}",
        shown(file)
    ));
    Ok(())
}
