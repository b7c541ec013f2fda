//! Addresses at which browsers without qshare read what is shared in the foreground.

use std::net::SocketAddr;
use std::time::Duration;

use qshare_node::{Node, Share};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::gateway::{self, Gateway, Readable, TooMany};
use crate::sharing::link_to;
use crate::{http, suggest};

/// How long an address is valid. It ends with the command, too.
const VALID: Duration = Duration::from_secs(7 * 24 * 3600);

/// An HTTP server that serves shares at their addresses only, until it is dropped.
pub(super) struct HttpServer {
    gateway: Gateway,
    address: SocketAddr,
    _stop: DropGuard,
}

impl HttpServer {
    /// Listens, and begins to answer.
    pub(super) async fn start(
        node: &Node,
        listen: SocketAddr,
        console: &Console,
    ) -> Result<HttpServer, Failure> {
        let cannot = |error: std::io::Error| {
            let problem = format!("cannot listen on {listen} (TCP): {error}");
            Failure::new(
                Exit::Failed,
                format!("{problem}\nName another one: --http ADDRESS:PORT, port 0 for a free one"),
            )
        };
        let listener = TcpListener::bind(listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        if !address.ip().to_canonical().is_loopback() {
            console.note(
                "warning: plain HTTP lets everyone on the network path read the file and its \
                 address",
            );
        }
        let gateway = Gateway::new(node.clone());
        let stop = CancellationToken::new();
        let harden = axum::middleware::map_response(gateway::harden);
        let routes = gateway::routes(gateway.clone()).layer(harden);
        tokio::spawn(http::serve(listener, routes, stop.clone()));
        Ok(HttpServer {
            gateway,
            address,
            _stop: stop.drop_guard(),
        })
    }

    /// Returns an address for the present version of a share.
    pub(super) fn address_of(&self, node: &Node, share: &Share) -> Result<String, Failure> {
        let link = link_to(node, share);
        let readable = Readable {
            name: share.name().clone(),
            info: link.info,
            share_key: link.key,
            list: share.list(),
            remote: None,
            nodes: Vec::new(),
            holders: Vec::new(),
        };
        let made = self.gateway.make(readable, VALID);
        let made = made.map_err(|TooMany| {
            Failure::new(
                Exit::Failed,
                "there are too many addresses of earlier versions\nStart the command again",
            )
        })?;
        let host = suggest::host_for_others(self.address);
        let place = SocketAddr::new(host, self.address.port());
        Ok(format!("http://{place}{}", gateway::path_of(&made)))
    }
}
