//! Finds the running node that a command means.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use qshare_node::content::NodeId;

use super::client::{Client, ClientError};
use crate::api::socket::{self, SUFFIX};

/// A node with a control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunningNode {
    pub(crate) node: NodeId,
    pub(crate) socket: PathBuf,
}

/// Why no node was found.
#[derive(Debug)]
pub(crate) enum FindNodeError {
    /// No node of this user runs.
    None,
    /// The named node does not run, or has no socket here.
    NotRunning(NodeId),
    /// Several nodes run, and none was chosen.
    Several(Vec<RunningNode>),
    /// Nothing listens on the named socket.
    NoSocket { path: PathBuf, cause: io::Error },
    /// The socket, or the program behind it, belongs to another user.
    NotOurs(PathBuf),
    /// Another failure.
    Client(ClientError),
}

/// Connects to the node that is meant: by a socket, by an ID, or the only one that runs.
pub(crate) async fn connect(
    socket: Option<&Path>,
    node: Option<NodeId>,
) -> Result<Client, FindNodeError> {
    if let Some(path) = socket {
        return open(path).await;
    }
    let mut alive = alive(None, node).await?;
    match alive.len() {
        0 => Err(node.map_or(FindNodeError::None, FindNodeError::NotRunning)),
        1 => alive
            .pop()
            .map(|(_, client)| client)
            .ok_or(FindNodeError::None),
        _ => Err(FindNodeError::Several(
            alive.into_iter().map(|(found, _)| found).collect(),
        )),
    }
}

/// Connects to all nodes that may be meant: by a socket, by an ID, or those that run.
pub(crate) async fn alive(
    socket: Option<&Path>,
    node: Option<NodeId>,
) -> Result<Vec<(RunningNode, Client)>, FindNodeError> {
    if let Some(path) = socket {
        let client = open(path).await?;
        let status = client.status().await.map_err(FindNodeError::Client)?;
        let found = status.node.parse().map(|node| RunningNode {
            node,
            socket: path.to_owned(),
        });
        let no_id = |_| ClientError::Unreadable("its node ID is not one".to_owned());
        let found = found.map_err(no_id).map_err(FindNodeError::Client)?;
        return Ok(vec![(found, client)]);
    }
    let mut running = running();
    if let Some(wanted) = node {
        running.retain(|found| found.node == wanted);
    }
    let mut alive = Vec::new();
    let mut foreign = None;
    for found in running {
        match open(&found.socket).await {
            Ok(client) => alive.push((found, client)),
            // A node left it behind when it crashed.
            Err(FindNodeError::NoSocket { .. }) => {}
            Err(FindNodeError::NotOurs(path)) => foreign = Some(path),
            Err(error) => return Err(error),
        }
    }
    match (alive.is_empty(), foreign) {
        (true, Some(path)) => Err(FindNodeError::NotOurs(path)),
        _ => Ok(alive),
    }
}

async fn open(path: &Path) -> Result<Client, FindNodeError> {
    match Client::open(path).await {
        Ok(client) => Ok(client),
        Err(ClientError::NotOurs(path)) => Err(FindNodeError::NotOurs(path)),
        Err(ClientError::Connect { path, cause }) => match cause.kind() {
            ErrorKind::PermissionDenied => Err(FindNodeError::NotOurs(path)),
            _ => Err(FindNodeError::NoSocket { path, cause }),
        },
        Err(error) => Err(FindNodeError::Client(error)),
    }
}

/// Returns all nodes whose socket exists, in the order of their IDs.
fn running() -> Vec<RunningNode> {
    let mut found = Vec::new();
    for dir in socket::dirs() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(Ok(node)) = id.map(str::parse) {
                let socket = entry.path();
                found.push(RunningNode { node, socket });
            }
        }
    }
    found.sort_by_key(|found| found.node);
    found.dedup_by_key(|found| found.node);
    found
}
