//! Turns codes among the arguments into links, before anything is downloaded.

use std::time::Duration;

use qshare_node::{Node, NodeConfig, RedeemPatience, Redeemed};
use tokio_util::sync::CancellationToken;

use crate::args::Wait;
use crate::argument::Wanted;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages::{self, Reader};

/// How long a code is tried without --wait.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long `--wait` without a time tries.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Time for the short-lived node to leave.
const GOODBYE_MAX: Duration = Duration::from_millis(100);

/// Arguments without codes.
pub(crate) struct Resolved {
    /// The arguments; a link in the place of each code.
    pub(crate) wanted: Vec<Wanted>,
    /// The codes that were redeemed.
    pub(crate) redeemed: Vec<Redeemed>,
}

/// Redeems the codes among the arguments, in order. Makes a node of its own for that, which is gone
/// afterwards: a link may name other trackers than the command.
pub(crate) async fn resolve(
    wanted: Vec<Wanted>,
    config: impl FnOnce(&[Wanted]) -> Result<NodeConfig, Failure>,
    wait: Option<Wait>,
    console: &Console,
    stop: &CancellationToken,
) -> Result<Resolved, Failure> {
    if !wanted
        .iter()
        .any(|wanted| matches!(wanted, Wanted::Code(_)))
    {
        let redeemed = Vec::new();
        return Ok(Resolved { wanted, redeemed });
    }
    let mut config = config(&wanted)?;
    // The given port is for the download.
    config.listen.set_port(0);
    let node = Node::start(config).await.map_err(Failure::from)?;
    if wait.is_some() {
        console.note("waiting for the code");
    }
    let resolved = tokio::select! {
        resolved = resolve_on(&node, wanted, wait) => resolved,
        () = stop.cancelled() => Err(Failure::printed(Exit::Interrupted)),
    };
    node.shutdown(GOODBYE_MAX).await;
    resolved
}

async fn resolve_on(
    node: &Node,
    wanted: Vec<Wanted>,
    wait: Option<Wait>,
) -> Result<Resolved, Failure> {
    let mut resolved = Resolved {
        wanted: Vec::new(),
        redeemed: Vec::new(),
    };
    let patience = match wait {
        None => RedeemPatience::Brief(PATIENCE),
        Some(Wait::For(time)) => RedeemPatience::Wait(time.min(FOREVER)),
        Some(Wait::Forever) => RedeemPatience::Wait(FOREVER),
    };
    for wanted in wanted {
        let Wanted::Code(code) = &wanted else {
            resolved.wanted.push(wanted);
            continue;
        };
        let redeemed = node.redeem(code, patience).await;
        let redeemed = redeemed
            .map_err(|error| messages::redeem(&error, &node.status().trackers, Reader::Get))?;
        let link = Wanted::Link(Box::new(redeemed.link.clone()));
        resolved.wanted.push(link);
        resolved.redeemed.push(redeemed);
    }
    Ok(resolved)
}

/// Redeems a code at the prompt of a running node.
pub(crate) async fn at_prompt(
    node: &Node,
    code: &qshare_node::content::Code,
) -> Result<Redeemed, Failure> {
    let redeemed = node.redeem(code, RedeemPatience::Brief(PATIENCE)).await;
    redeemed.map_err(|error| messages::redeem(&error, &node.status().trackers, Reader::Prompt))
}

/// Tells the sharers that everything has arrived, so that a share for a limited number of receivers
/// can end.
pub(crate) async fn report_complete(node: &Node, redeemed: &[Redeemed]) {
    for redeemed in redeemed {
        if !node.report_complete(redeemed).await {
            tracing::debug!("the sharer of a code did not hear of the completion");
        }
    }
}
