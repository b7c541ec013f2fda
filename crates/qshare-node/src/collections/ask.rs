//! Asks holders for the manifest of a folder.

use std::sync::Arc;
use std::time::Duration;

use qshare_content::{AssetName, ContentInfo};
use qshare_net::framed;
use qshare_wire::collection::{FolderInfo, FolderRequest};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::error::AskError;
use crate::peers::Dialler;
use crate::vocabulary::Contact;

/// Holders that are asked.
const ASKED_MAX: usize = 8;
/// Deadline for one answer; listing a large directory takes some time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Attempts at a node that is busy with other folders.
const TRIES: u32 = 8;

/// A folder as some nodes share it.
#[derive(Debug, Clone)]
pub struct FolderFound {
    /// Length and root of its manifest.
    pub manifest: ContentInfo,
    /// Length and root of its modification times.
    pub times: Option<ContentInfo>,
    /// The nodes that answered with it.
    pub holders: Vec<Contact>,
}

/// Asks some holders for a folder. Returns its versions, the one with the most holders first.
pub(crate) async fn ask_for_folder(
    dialler: &Arc<Dialler>,
    folder: &AssetName,
    holders: Vec<Contact>,
) -> Vec<FolderFound> {
    let mut asked = JoinSet::new();
    for contact in holders.into_iter().take(ASKED_MAX) {
        let (dialler, folder) = (dialler.clone(), folder.clone());
        asked.spawn(async move {
            let info = timeout(ANSWER_DEADLINE, ask(&dialler, &folder, &contact)).await;
            (contact, info.ok().flatten())
        });
    }
    let mut found: Vec<FolderFound> = Vec::new();
    while let Some(answer) = asked.join_next().await {
        let Ok((mut contact, Some(info))) = answer else {
            continue;
        };
        // It has what it has listed.
        contact.complete = true;
        match found
            .iter_mut()
            .find(|known| known.manifest == info.manifest)
        {
            Some(known) => {
                known.times = known.times.or(info.times);
                known.holders.push(contact);
            }
            None => found.push(FolderFound {
                manifest: info.manifest,
                times: info.times,
                holders: vec![contact],
            }),
        }
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.holders.len()));
    found
}

async fn ask(dialler: &Arc<Dialler>, folder: &AssetName, contact: &Contact) -> Option<FolderInfo> {
    let request = FolderRequest {
        folder: folder.clone(),
        extensions: Vec::new(),
    };
    for _ in 0..TRIES {
        let peer = match dialler.reach(contact.node, &contact.addresses).await {
            Ok(peer) => peer,
            Err(fault) => {
                debug!(peer = %contact.node, %fault, "cannot be asked for a folder");
                return None;
            }
        };
        let _busy = peer.busy();
        let asked = framed::ask::<FolderRequest, FolderInfo>(&peer.quic(), &request).await;
        let retry_ms = match asked.map_err(AskError::from) {
            Ok((info, ..)) => return Some(info),
            Err(AskError::Refused(refused)) if refused.refusal() == qshare_wire::Refusal::Busy => {
                refused.retry_after_ms
            }
            Err(fault) => {
                debug!(peer = %contact.node, %fault, "does not list the folder");
                return None;
            }
        };
        tokio::time::sleep(Duration::from_millis(retry_ms.into())).await;
    }
    None
}
