//! What is printed about a share.

use std::io::{IsTerminal, stderr};

use qshare_node::Share;
use qshare_node::content::Link;

use super::qr;
use super::report::{EventJson, SharedJson};
use crate::args::ShareArgs;
use crate::argument::printed_name;
use crate::console::Console;
use crate::exit::Failure;
use crate::output;
use crate::sharing::ShownCode;

/// What is printed about a share, in this process or in a running node.
pub(super) struct Presented {
    /// As it is printed.
    pub(super) name: String,
    pub(super) json: SharedJson,
    pub(super) is_folder: bool,
    pub(super) is_public: bool,
    /// Whether the node also serves the content of a private share to everybody.
    pub(super) is_also_public: bool,
    /// Counts the contents that it has had, from 1.
    pub(super) version: u64,
    /// The receiver's whole command with the code.
    pub(super) command: Option<String>,
}

impl Presented {
    /// Returns what is printed about a share of this process.
    pub(super) fn of(share: &Share, link: &Link, code: Option<&ShownCode>) -> Presented {
        let version = share.version();
        Presented {
            name: printed_name(share.name()),
            json: SharedJson::new(share, link, code.map(|code| code.text.clone())),
            is_folder: version.folder.is_some(),
            is_public: share.key().is_none(),
            is_also_public: version.is_also_public,
            version: version.number,
            command: code.map(|code| code.command.clone()),
        }
    }
}

/// Prints the first lines of a share, or of a new version of it.
pub(super) fn present(
    share: &Presented,
    args: &ShareArgs,
    console: &Console,
) -> Result<(), Failure> {
    let Presented { name, json, .. } = share;
    if share.is_also_public {
        console.note(&format!(
            "{name}: this node also shares the same content publicly, so everybody can fetch it"
        ));
    }
    if args.json.on {
        return match share.version {
            1 => console.json(json),
            _ => console.json(&EventJson::Version {
                shared: json.clone(),
            }),
        };
    }
    let what = match (share.is_public, &share.command) {
        (true, _) => "listed by its name for everybody",
        (false, None) => "only those who have the link can fetch it",
        (false, Some(_)) => "only those who have the code or the link can fetch it",
    };
    console.note(&format!(
        "sharing {name} ({}), {what}. On another machine:\n",
        match share.is_folder {
            false => output::bytes(json.bytes),
            true => format!(
                "{}, {}",
                output::count(json.files, "file"),
                output::bytes(json.bytes)
            ),
        }
    ));
    let is_terminal = stderr().is_terminal() && std::io::stdout().is_terminal();
    if let Some(command) = &share.command {
        match is_terminal {
            true => console.result(&format!("  {command}\n\nor, with the link:\n"))?,
            false => console.result(command)?,
        }
    }
    // A link needs no quotes in a shell.
    match is_terminal {
        true => console.result(&format!("  qshare get {}\n", json.link))?,
        false => console.result(&json.link)?,
    }
    if let Some(address) = &json.http {
        console.note("in a browser, without qshare:\n");
        match is_terminal {
            true => console.result(&format!("  {address}\n"))?,
            false => console.result(address)?,
        }
    }
    let scanned = json.http.as_ref().unwrap_or(&json.link);
    qr::print(scanned, args.qr, console);
    Ok(())
}
