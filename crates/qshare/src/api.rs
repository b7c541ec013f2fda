//! The node's API: HTTP/JSON under `/api/1/` with server-sent events, as docs/api.md specifies it.
//! The control socket and the web page serve the same [`routes`].

mod capabilities;
mod downloads;
mod error;
mod events;
mod extract;
mod info;
mod limits;
mod link;
pub(crate) mod listen;
pub(crate) mod objects;
mod qr;
mod rates;
mod routes;
mod search;
mod shares;
pub(crate) mod socket;
#[cfg(test)]
mod tests;
mod uploads;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use qshare_node::{Download, DownloadRoster, Node};
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

pub(crate) use routes::{no_route, routes};

use crate::exit::Failure;
use crate::gateway::Gateway;
use objects::Notice;

/// Notices that a slow listener may lag behind before it misses some.
const NOTICES_KEPT: usize = 256;

/// The state behind all routes. Clones share it.
#[derive(Clone)]
pub(crate) struct Api(Arc<State>);

/// What an [`Api`] works with.
pub(crate) struct ApiConfig {
    pub(crate) node: Node,
    pub(crate) assets: PathBuf,
    pub(crate) downloads: PathBuf,
    /// The public ID of the group, if the node is in one.
    pub(crate) group_id: Option<String>,
    /// Receives every download that begins.
    pub(crate) begun: UnboundedSender<Download>,
    /// Stops the node.
    pub(crate) quit: CancellationToken,
}

pub(crate) struct State {
    pub(crate) node: Node,
    pub(crate) roster: DownloadRoster,
    assets: PathBuf,
    downloads: PathBuf,
    group_id: Option<String>,
    begun: UnboundedSender<Download>,
    quit: CancellationToken,
    started_at: SystemTime,
    rates: rates::History,
    notices: broadcast::Sender<Notice>,
    http: OnceLock<String>,
    gateway: Gateway,
}

impl std::ops::Deref for Api {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl Api {
    /// Begins to record the node's rates.
    ///
    /// # Errors
    ///
    /// When the node is a one-shot node, which has no roster.
    pub(crate) fn new(config: ApiConfig) -> Result<Api, Failure> {
        let no_roster = || Failure::internal("a node without a list of downloads has no API");
        let api = Api(Arc::new(State {
            roster: config.node.roster().ok_or_else(no_roster)?,
            gateway: Gateway::new(config.node.clone()),
            node: config.node,
            assets: absolute(config.assets),
            downloads: config.downloads,
            group_id: config.group_id,
            begun: config.begun,
            quit: config.quit,
            started_at: SystemTime::now(),
            rates: rates::History::default(),
            notices: broadcast::Sender::new(NOTICES_KEPT),
            http: OnceLock::new(),
        }));
        tokio::spawn(rates::record(api.clone()));
        Ok(api)
    }

    /// Returns the gateway, whose routes are served on TCP only.
    pub(crate) fn gateway(&self) -> Gateway {
        self.gateway.clone()
    }

    /// Passes a notice on to all listeners.
    pub(crate) fn notify(&self, notice: Notice) {
        // Nobody may listen.
        let _ = self.notices.send(notice);
    }

    /// Sets the URL of the web page, without its token.
    pub(crate) fn set_http(&self, url: String) {
        let _ = self.http.set(url);
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
