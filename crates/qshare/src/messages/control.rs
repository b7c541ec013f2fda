//! Wording of what goes wrong between a command and a running node.

use crate::api::objects::{Download, FailedBecause, Share};
use crate::api::socket::SocketError;
use crate::control::{ClientError, FindNodeError, NameError};
use crate::exit::{Exit, Failure};
use crate::neutral::{neutral_line, shown};
use crate::output;
use crate::sharing::PathError;

/// Describes a control socket that a node cannot open.
pub(crate) fn no_control_socket(error: &SocketError) -> Failure {
    let remedy = match error {
        SocketError::InUse(_) => "Stop that program, or name another socket: --socket PATH",
        SocketError::NotOurs(_) | SocketError::NotASocket(_) => {
            "Name another socket: --socket PATH"
        }
        SocketError::OpenDirectory(_) => {
            "Name a socket in a directory of your own: --socket PATH. A user's services have one in \
             XDG_RUNTIME_DIR"
        }
        SocketError::Io { .. } => "Name another socket: --socket PATH, or use --no-control",
    };
    Failure::new(
        Exit::Failed,
        format!("cannot open the control socket {error}\n{remedy}"),
    )
}

/// Describes a node that was not found.
pub(crate) fn no_node(error: FindNodeError) -> Failure {
    match error {
        FindNodeError::None => Failure::new(
            Exit::Unreachable,
            "no node is running\nStart one: qshare node. One that was started with --socket PATH is \
             found with --socket PATH",
        ),
        FindNodeError::NotRunning(node) => Failure::new(
            Exit::Unreachable,
            format!(
                "node {node} is not running, or has no control socket\nStart it: qshare node. Run \
                 the command without --node and --certs to see which nodes run"
            ),
        ),
        FindNodeError::Several(nodes) => {
            let lines = nodes.iter().map(|node| format!("  --node {}", node.node));
            let lines: Vec<String> = lines.collect();
            Failure::new(
                Exit::Usage,
                format!(
                    "{} nodes are running; choose one with --node, or with the --certs of its \
                     start:\n{}",
                    nodes.len(),
                    lines.join("\n")
                ),
            )
        }
        FindNodeError::NoSocket { path, cause } => Failure::new(
            Exit::Unreachable,
            format!(
                "no node listens on {}: {cause}\nStart one: qshare node --socket {}",
                shown(&path),
                crate::suggest::quoted(path.as_os_str())
            ),
        ),
        FindNodeError::NotOurs(path) => Failure::new(
            Exit::Refused,
            format!(
                "refused: the node at {} belongs to another user\nRun the command as that user",
                shown(&path)
            ),
        ),
        FindNodeError::Client(error) => client(error),
    }
}

/// Describes a request to a running node that failed.
pub(crate) fn client(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(FailedBecause {
            code,
            message,
            hint,
        }) => {
            let exit = match code.as_str() {
                "bad_request" | "too_large" => Exit::Usage,
                "not_found" | "ambiguous" => Exit::NotFound,
                "unreachable" | "stopping" | "busy" => Exit::Unreachable,
                "disk" => Exit::Disk,
                "unauthorized" | "forbidden" => Exit::Refused,
                _ => Exit::Failed,
            };
            let hint = hint.map_or_else(String::new, |hint| format!("\n{hint}"));
            Failure::new(exit, format!("{message}{hint}"))
        }
        ClientError::Connect { .. } | ClientError::Gone => Failure::new(
            Exit::Unreachable,
            "the node stopped before it answered\nStart it again: qshare node",
        ),
        ClientError::NotOurs(path) => no_node(FindNodeError::NotOurs(path)),
        ClientError::Unreadable(cause) => Failure::new(
            Exit::Failed,
            format!(
                "cannot understand the node: {}\nIts version may differ from this program's, which \
                 is {}",
                neutral_line(&cause),
                env!("CARGO_PKG_VERSION")
            ),
        ),
    }
}

/// Describes arguments that mean no downloads.
pub(crate) fn no_download(error: NameError) -> Failure {
    match error {
        // It may be a link, which is a secret.
        NameError::NotFound(text) if text.trim_start().starts_with("qshare:") => Failure::new(
            Exit::NotFound,
            "no download is named by that link\nName it as `qshare status` lists it",
        ),
        NameError::NotFound(text) => Failure::new(
            Exit::NotFound,
            format!("no download is named {text:?}\n`qshare status` lists them"),
        ),
        NameError::Ambiguous(text, downloads) => {
            let line = |download: &Download| {
                let size = output::bytes(download.size_bytes);
                format!("  {}  {size}  {}", download.id, download.path)
            };
            let lines: Vec<String> = downloads.iter().map(line).collect();
            Failure::new(
                Exit::NotFound,
                format!(
                    "{} downloads are named {text:?}; name one by its ID:\n{}",
                    downloads.len(),
                    lines.join("\n")
                ),
            )
        }
    }
}

/// Describes arguments that mean no shares.
pub(crate) fn no_share(error: NameError<Share>) -> Failure {
    match error {
        // It may be a link or a code, which are secrets.
        NameError::NotFound(_) => Failure::new(
            Exit::NotFound,
            "no share of that name, path, code or ID was handed to the node\n`qshare status` lists \
             them",
        ),
        NameError::Ambiguous(text, shares) => {
            let line = |share: &Share| {
                let id = share.id.as_deref().unwrap_or_default();
                let path = share.path.as_deref().unwrap_or_default();
                format!("  {id}  {}  {path}", output::bytes(share.size_bytes))
            };
            let lines: Vec<String> = shares.iter().map(line).collect();
            Failure::new(
                Exit::NotFound,
                format!(
                    "{} shares are named {text:?}; name one by its ID:\n{}",
                    shares.len(),
                    lines.join("\n")
                ),
            )
        }
    }
}

/// Describes a path that cannot be shared.
pub(crate) fn not_shareable(error: PathError) -> Failure {
    match &error {
        PathError::Unreadable { path, cause } => {
            Failure::new(Exit::Disk, format!("cannot share {}: {cause}", shown(path)))
        }
        PathError::NotAFile(path) => Failure::new(
            Exit::Usage,
            format!("cannot share {}: not a file or directory", shown(path)),
        ),
        PathError::Name { path, cause } => Failure::new(
            Exit::Usage,
            format!(
                "cannot share {} under its name: {cause}\nGive another one: --name NAME",
                shown(path)
            ),
        ),
    }
}

/// Describes a node that stopped while its status was shown.
pub(crate) fn node_stopped() -> Failure {
    Failure::new(
        Exit::Unreachable,
        "the node has stopped\nStart it again: qshare node",
    )
}
