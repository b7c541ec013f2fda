//! Reports to a follower which files of a collection this node can serve, and new ones as they
//! come.

use qshare_content::{Bitmap, ChunkIndex, Topic};
use qshare_net::framed;
use qshare_wire::collection::MemberInterest;
use qshare_wire::limits::HAVE_MORE_MAX;
use qshare_wire::peer::{Have, HaveMore};
use qshare_wire::{Refusal, Refused};
use quinn::{RecvStream, SendStream};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::AbortOnDropHandle;

use super::interest::{InterestAnswers, Interests};
use super::unlock::UnlockedTopics;
use crate::shares::SharedCollection;

impl InterestAnswers {
    /// Reports the members that this node has, and new ones as they come, until the follower closes
    /// its half of the stream or follows the same collection anew.
    pub(super) async fn follow_members(
        &self,
        interests: &Interests,
        unlocked: &UnlockedTopics,
        request: MemberInterest,
        send: &mut SendStream,
        mut recv: RecvStream,
    ) -> Result<(), Refused> {
        let named = request.collection;
        let collection = self.shares.collections().named(&named);
        let collection = collection
            .filter(|found| found.key.is_none() || unlocked.contains(&Topic(named.0)))
            .ok_or_else(|| Refused::new(Refusal::NotHere))?;
        let _receiving = self.shares.audiences().begin(&named);
        let following = interests.begin(named);
        let closed = AbortOnDropHandle::new(tokio::spawn(async move {
            // The follower sends nothing more; it closes, resets or is lost.
            let _ = recv.read_chunk(1, true).await;
        }));
        tokio::select! {
            biased;
            // Ends only when the stream is broken.
            _ = self.tell_members(&collection, send) => {}
            _ = closed => {}
            () = following.replaced().cancelled() => {}
            () = self.stopping.cancelled() => {}
        }
        Ok(())
    }

    async fn tell_members(
        &self,
        collection: &SharedCollection,
        send: &mut SendStream,
    ) -> Result<(), quinn::WriteError> {
        loop {
            // In this order, so that no member is missed.
            let mut batches = collection.availability.subscribe();
            let (members, is_complete) = collection.members();
            framed::write(send, &self.members_message(&members, is_complete)).await?;
            loop {
                match batches.recv().await {
                    Ok(batch) if batch.len() <= HAVE_MORE_MAX => {
                        if collection.folder.present().is_full() {
                            break;
                        }
                        let more = HaveMore {
                            chunks: batch.iter().map(|member: &ChunkIndex| member.0).collect(),
                            queue_bytes: self.queue.bytes(),
                        };
                        framed::write(send, &more).await?;
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    // Nothing comes any more.
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    fn members_message(&self, members: &Bitmap, complete: bool) -> Have {
        Have {
            complete,
            bitmap: match complete {
                true => Vec::new(),
                false => members.to_bytes(),
            },
            queue_bytes: self.queue.bytes(),
            extensions: Vec::new(),
        }
    }
}
