//! `qshare id`: print this machine's node ID and tracker ID.

use qshare_node::{Identity, IdentityRole};

use crate::args::IdArgs;
use crate::console::Console;
use crate::exit::Failure;
use crate::output::IdentitiesJson;

pub(crate) fn run(args: &IdArgs, console: &Console) -> Result<(), Failure> {
    let dir = args.certs.resolve()?;
    let load = |role| Identity::load_or_create(&dir, role).map(|identity| identity.id());
    let node = load(IdentityRole::Node)?;
    // Most machines never run a tracker and need no identity for one.
    let has_tracker = dir
        .join(format!("{}.key", IdentityRole::Tracker.name()))
        .exists();
    let tracker = if has_tracker {
        Some(load(IdentityRole::Tracker)?)
    } else {
        None
    };
    if args.json.on {
        return console.json(&IdentitiesJson {
            node: node.to_string(),
            tracker: tracker.map(|id| id.to_string()),
            certs: dir.to_string_lossy().into_owned(),
        });
    }
    console.result(&format!("node     {node}"))?;
    match tracker {
        Some(tracker) => console.result(&format!("tracker  {tracker}")),
        None => Ok(()),
    }
}
