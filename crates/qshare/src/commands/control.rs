//! Commands on a running node.

pub(crate) mod add;
pub(crate) mod limit;
pub(crate) mod status;
pub(crate) mod stop;
mod table;
pub(crate) mod unshare;
pub(crate) mod which;

use std::path::Path;

use qshare_node::content::NodeId;
use qshare_node::{Identity, IdentityRole};

use crate::args::ControlArg;
use crate::control::{self, Client};
use crate::exit::{Exit, Failure};
use crate::messages;
use crate::neutral::shown;

/// Connects to the node that the arguments mean.
pub(crate) async fn connect(args: &ControlArg) -> Result<Client, Failure> {
    let node = node_of(args.node, args.certs.dir.as_deref())?;
    let client = control::connect(args.socket.as_deref(), node).await;
    client.map_err(messages::no_node)
}

/// Returns the ID of the node that is chosen by its ID or by the directory of its identity.
pub(crate) fn node_of(
    node: Option<NodeId>,
    certs: Option<&Path>,
) -> Result<Option<NodeId>, Failure> {
    Ok(match (node, certs) {
        (Some(node), _) => Some(node),
        (None, Some(dir)) => {
            let role = IdentityRole::Node;
            if !dir.join(format!("{}.key", role.name())).exists() {
                return Err(Failure::new(
                    Exit::Unreachable,
                    format!(
                        "no node was ever started with --certs {}\nStart one: qshare node --certs {}",
                        shown(dir),
                        crate::suggest::quoted(dir.as_os_str())
                    ),
                ));
            }
            Some(Identity::load_or_create(dir, role)?.id())
        }
        (None, None) => None,
    })
}
