//! Room for channels: who yields one when there is none, and when channels end.

use std::time::Instant;

use qshare_content::NodeId;
use qshare_content::fair::{Claim, User};

use super::State;

impl State {
    /// Makes room for one more channel with `asked`, whose quota is divided among those who ask.
    pub(super) fn make_room_at(&mut self, asker: User<NodeId>, asked: NodeId) -> Option<()> {
        loop {
            let Some(participant) = self.clients.get_mut(&asked) else {
                return Some(());
            };
            match participant.askers.claim(asker, 1) {
                Claim::Granted => {
                    // Counted once the channel exists.
                    participant.askers.release(asker, 1);
                    return Some(());
                }
                Claim::Yields(heavy) => self.close_one_of(heavy, Some(asked))?,
                Claim::Refused => return None,
            }
        }
    }

    /// Makes room for one more channel among all.
    pub(super) fn make_room(&mut self, asker: User<NodeId>, asked: NodeId) -> Option<()> {
        loop {
            match self.shares.claim(asker, 1) {
                Claim::Granted => self.shares.release(asker, 1),
                Claim::Yields(heavy) => {
                    self.close_one_of(heavy, None)?;
                    continue;
                }
                Claim::Refused => return None,
            }
            let newcomers = [asker.id, asked]
                .iter()
                .filter(|&node| !self.clients.contains_key(node))
                .count();
            if self.clients.len() + newcomers <= self.limits.clients_max {
                return Some(());
            }
            // Too many nodes: the rule is the same as for too many channels.
            let heavy = self.shares.heaviest()?;
            let (ours, theirs) = match heavy.network == asker.network {
                true => (self.shares.used_by(asker), self.shares.used_by(heavy)),
                false => (
                    self.shares.used_by_network(asker.network),
                    self.shares.used_by_network(heavy.network),
                ),
            };
            if ours + 1 > theirs {
                return None;
            }
            self.close_one_of(heavy, None)?;
        }
    }

    /// Closes a channel that `asker` asked for (with `asked`): an unbound one, or the least
    /// recently used. None if there is none.
    pub(super) fn close_one_of(
        &mut self,
        asker: User<NodeId>,
        asked: Option<NodeId>,
    ) -> Option<()> {
        let theirs = self.channels.iter().filter(|(_, channel)| {
            channel.asker == asker && asked.is_none_or(|asked| asked == channel.asked)
        });
        let (&key, _) = theirs.min_by_key(|(_, channel)| (channel.is_bound, channel.used_at))?;
        self.close(key);
        Some(())
    }

    /// Closes channels whose tickets have expired.
    pub(in crate::relay) fn expire(&mut self, now: Instant) {
        let over: Vec<(NodeId, NodeId)> = self
            .channels
            .iter()
            .filter(|(_, channel)| {
                let end = self.ends.get(&channel.handles.0);
                end.is_none_or(|end| end.expires <= now)
            })
            .map(|(&key, _)| key)
            .collect();
        for key in over {
            self.close(key);
        }
    }

    pub(super) fn close(&mut self, key: (NodeId, NodeId)) {
        let Some(channel) = self.channels.remove(&key) else {
            return;
        };
        self.ends.remove(&channel.handles.0);
        self.ends.remove(&channel.handles.1);
        self.shares.release(channel.asker, 1);
        for node in [key.0, key.1] {
            if let Some(participant) = self.clients.get_mut(&node) {
                participant.channels -= 1;
                if node == channel.asked {
                    participant.askers.release(channel.asker, 1);
                }
                if participant.channels == 0 {
                    self.clients.remove(&node);
                }
            }
        }
    }

    /// Closes the channels of a node whose session has ended.
    pub(in crate::relay) fn left(&mut self, node: NodeId) {
        if !self.clients.contains_key(&node) {
            return;
        }
        let theirs: Vec<(NodeId, NodeId)> = self
            .channels
            .keys()
            .filter(|key| key.0 == node || key.1 == node)
            .copied()
            .collect();
        for key in theirs {
            self.close(key);
        }
    }
}
