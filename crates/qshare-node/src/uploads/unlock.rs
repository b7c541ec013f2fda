//! Answers requests to unlock a topic, and remembers what each connection has unlocked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::{ShareKey, Topic};
use qshare_net::{ShareBinding, ShareRole, framed};
use qshare_wire::private::{EXTENSION_RECEIVED, Unlock, Unlocked};
use qshare_wire::{Refusal, Refused};
use quinn::SendStream;
use tokio::time::timeout;

use super::pacing::PIECE_DEADLINE;
use crate::peers::{Peer, PeerConnection};
use crate::shares::ShareStore;

/// Limit on the topics that one connection may have unlocked at once. The oldest would have to be
/// found among thousands, so beyond the limit all are forgotten, and the client unlocks again what
/// it still fetches.
const UNLOCKED_MAX: usize = 4096;

/// The topics that a connection has unlocked.
#[derive(Default)]
pub(super) struct UnlockedTopics {
    topics: Mutex<BTreeSet<Topic>>,
}

impl UnlockedTopics {
    pub(super) fn contains(&self, topic: &Topic) -> bool {
        self.lock().contains(topic)
    }

    fn insert(&self, topic: Topic) {
        let mut topics = self.lock();
        if topics.len() >= UNLOCKED_MAX {
            topics.clear();
        }
        topics.insert(topic);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers requests to unlock a topic.
pub(super) struct UnlockAnswers {
    shares: Arc<ShareStore>,
    /// Verifies proofs for unknown topics, so that these take as long to refuse as wrong proofs.
    nobodys: ShareKey,
}

impl UnlockAnswers {
    pub(super) fn new(shares: Arc<ShareStore>) -> UnlockAnswers {
        UnlockAnswers {
            shares,
            nobodys: ShareKey::from_bytes(rand::random()),
        }
    }

    /// Verifies the client's proof, and answers with this node's. An unknown topic and a wrong
    /// proof are refused with the same bytes.
    pub(super) async fn answer(
        &self,
        peer: &Peer,
        connection: &PeerConnection,
        unlocked: &UnlockedTopics,
        request: Unlock,
        send: &mut SendStream,
    ) -> Result<(), Refused> {
        let not_here = || Refused::new(Refusal::NotHere);
        let topic = request.topic;
        let known = self.shares.key_of(&topic);
        let key = known.as_ref().unwrap_or(&self.nobodys);
        let binding = ShareBinding::of(&connection.connection, peer.node, peer.us());
        let binding = binding.ok_or_else(not_here)?;
        let is_proven = binding.verify(ShareRole::Requester, key, &topic, &request.proof);
        if !is_proven || known.is_none() {
            return Err(not_here());
        }
        unlocked.insert(topic);
        let mut extensions = request.extensions.iter();
        if extensions.any(|(number, _)| *number == EXTENSION_RECEIVED) {
            self.shares.audiences().received(&topic, peer.node);
        }
        let answer = Unlocked {
            proof: binding.prove(ShareRole::Holder, key, &topic),
            extensions: Vec::new(),
        };
        let _ = timeout(PIECE_DEADLINE, framed::write(send, &answer)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_a_connection_are_bounded() {
        let unlocked = UnlockedTopics::default();
        for number in 0..2 * UNLOCKED_MAX as u32 {
            let mut topic = Topic([0; 32]);
            topic.0[..4].copy_from_slice(&number.to_le_bytes());
            unlocked.insert(topic);
            assert!(unlocked.contains(&topic));
        }
        assert!(unlocked.lock().len() <= UNLOCKED_MAX);
    }
}
