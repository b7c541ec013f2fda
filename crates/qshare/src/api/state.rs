//! The state behind all routes.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use qshare_node::{Download, DownloadRoster, GroupSecret, Node};
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::objects::Notice;
use super::rates;
use crate::exit::Failure;
use crate::gateway::Gateway;
use crate::sharing::HandedShares;

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
    /// The shares that were handed to the node.
    pub(crate) handed: HandedShares,
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
    pub(super) assets: PathBuf,
    pub(super) downloads: PathBuf,
    pub(super) handed: HandedShares,
    pub(super) group_id: Option<String>,
    pub(super) begun: UnboundedSender<Download>,
    pub(super) quit: CancellationToken,
    pub(super) started_at: SystemTime,
    pub(super) rates: Arc<rates::History>,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) http: OnceLock<String>,
    pub(super) gateway: Gateway,
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
        let rates = Arc::new(rates::History::default());
        let recorded = rates::record(rates.clone(), config.node.clone(), config.quit.clone());
        tokio::spawn(recorded);
        let api = Api(Arc::new(State {
            roster: config.node.roster().ok_or_else(no_roster)?,
            gateway: Gateway::new(config.node.clone()),
            node: config.node,
            assets: absolute(config.assets),
            downloads: config.downloads,
            handed: config.handed,
            group_id: config.group_id,
            begun: config.begun,
            quit: config.quit,
            started_at: SystemTime::now(),
            rates: rates.clone(),
            notices: broadcast::Sender::new(NOTICES_KEPT),
            http: OnceLock::new(),
        }));
        Ok(api)
    }

    /// Passes a notice on to all listeners.
    pub(crate) fn notify(&self, notice: Notice) {
        // Nobody may listen.
        let _ = self.notices.send(notice);
    }

    /// Returns the gateway, whose routes are served on TCP only.
    pub(crate) fn gateway(&self) -> Gateway {
        self.gateway.clone()
    }

    /// Sets the URL of the web page, without its token.
    pub(crate) fn set_http(&self, url: String) {
        let _ = self.http.set(url);
    }
}

/// Returns the public ID of a group as the API shows it.
pub(crate) fn short_group_id(group: &GroupSecret) -> String {
    let id = group.group_id();
    id.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns a path that does not depend on the current directory.
pub(super) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
