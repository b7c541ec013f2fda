//! `qshare group new`: make the secret of a private group.

use qshare_node::GroupSecret;

use crate::args::{GroupArgs, GroupCommand};
use crate::console::Console;
use crate::exit::Failure;
use crate::suggest::quoted;

pub(crate) fn run(args: &GroupArgs, console: &Console) -> Result<(), Failure> {
    let GroupCommand::New { file } = &args.command;
    GroupSecret::create(file)?;
    let shown = quoted(file.as_os_str());
    console.note(&format!(
        "{} holds the secret of a new group; whoever has it belongs to the group.\n\
         Give it to the tracker and to every node:\n  \
         qshare tracker --group {shown}\n  qshare node --group {shown}",
        file.display()
    ));
    Ok(())
}
