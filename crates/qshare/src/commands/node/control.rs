//! Opens the control socket of a node.

use std::path::Path;

use qshare_node::Node;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::socket::{self, ControlSocket};
use crate::api::{Api, no_route, routes};
use crate::args::NodeArgs;
use crate::console::Console;
use crate::exit::Failure;
use crate::{http, messages};

/// The control socket, which is open until the value is dropped: it also answers while the node
/// stops.
pub(super) struct Control {
    socket: ControlSocket,
    _stop: DropGuard,
}

impl Control {
    /// Returns the path of the socket.
    pub(super) fn path(&self) -> &Path {
        self.socket.path()
    }
}

/// Serves the API on the control socket, if there is a place for it.
///
/// # Errors
///
/// When a socket that the user named cannot be opened. Without the default one the node is as
/// useful as before, so that is a note only.
pub(super) fn start(
    api: &Api,
    args: &NodeArgs,
    node: &Node,
    console: &Console,
) -> Result<Option<Control>, Failure> {
    if args.no_control {
        return Ok(None);
    }
    let given = args.socket.as_deref();
    let Some(path) = socket::place(given, &node.id()) else {
        return Ok(None);
    };
    match ControlSocket::bind(&path) {
        Ok((socket, listener)) => {
            let router = routes(api.clone()).fallback(no_route);
            let stop = CancellationToken::new();
            tokio::spawn(http::serve(listener, router, stop.clone()));
            Ok(Some(Control {
                socket,
                _stop: stop.drop_guard(),
            }))
        }
        Err(error) if given.is_some() => Err(messages::no_control_socket(&error)),
        Err(error) => {
            console.note(&messages::no_control_socket(&error).message);
            Ok(None)
        }
    }
}
