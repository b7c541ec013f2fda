//! Proving to a peer that this node may have a private content, and checking the peer's proof.

use std::time::Duration;

use qshare_content::Topic;
use qshare_net::{ShareBinding, ShareRole, framed};
use qshare_wire::private::{EXTENSION_RECEIVED, Unlock, Unlocked};
use tokio::time::timeout;

use super::connection::{Peer, PeerConnection};
use crate::access::Access;
use crate::error::{AskError, SourceFault};

/// Deadline for the answer to an `Unlock`.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

impl Peer {
    /// Makes sure that requests for a content may be sent on a connection: in a private share, both
    /// sides have proven there that they know its key. Nothing else about the content may be sent
    /// before this returns Ok.
    pub(crate) async fn unlock(
        &self,
        connection: &PeerConnection,
        access: &Access,
    ) -> Result<(), SourceFault> {
        match access {
            Access::Private { unlocked_by, .. } if !connection.is_unlocked(unlocked_by) => {
                self.ask_to_unlock(connection, access, false).await
            }
            Access::Private { .. } | Access::Public(_) => Ok(()),
        }
    }

    /// Tells the peer that this node has all of a private content now.
    pub(crate) async fn report_received(&self, access: &Access) -> Result<(), SourceFault> {
        let connection = self.connection();
        self.ask_to_unlock(&connection, access, true).await
    }

    async fn ask_to_unlock(
        &self,
        connection: &PeerConnection,
        access: &Access,
        received: bool,
    ) -> Result<(), SourceFault> {
        let Access::Private {
            key,
            unlocked_by: topic,
            ..
        } = access
        else {
            return Ok(());
        };
        let quic = &connection.connection;
        let binding = ShareBinding::of(quic, self.us, self.node).ok_or(SourceFault::Lost)?;
        let request = Unlock {
            topic: *topic,
            proof: binding.prove(ShareRole::Requester, key, topic),
            extensions: match received {
                true => vec![(EXTENSION_RECEIVED, Vec::new())],
                false => Vec::new(),
            },
        };
        let _busy = self.busy();
        let asked = framed::ask::<Unlock, Unlocked>(quic, &request);
        let (unlocked, ..) = timeout(ANSWER_DEADLINE, asked)
            .await
            .map_err(|_| AskError::TimedOut(ANSWER_DEADLINE))?
            .map_err(AskError::from)?;
        if !binding.verify(ShareRole::Holder, key, topic, &unlocked.proof) {
            return Err(SourceFault::Unproven);
        }
        connection.set_unlocked(*topic);
        Ok(())
    }
}

impl PeerConnection {
    /// Whether both sides have proven here that they know the key of a topic.
    fn is_unlocked(&self, topic: &Topic) -> bool {
        self.unlocked().contains(topic)
    }

    fn set_unlocked(&self, topic: Topic) {
        let mut unlocked = self.unlocked();
        // Bounded by the downloads of this node, which have ended by the time that there are more.
        if unlocked.len() >= UNLOCKED_MAX {
            unlocked.clear();
        }
        unlocked.insert(topic);
    }
}

/// Limit on the topics that are remembered for a connection. A forgotten one is unlocked again.
const UNLOCKED_MAX: usize = 4096;
