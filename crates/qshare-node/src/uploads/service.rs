//! Serves the requests of all connected nodes.

use std::sync::Arc;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_net::framed;
use qshare_wire::collection::{FolderRequest, MemberInterest};
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::mailbox::{MailboxComplete, MailboxOpen};
use qshare_wire::peer::{ChunkRequest, HashRequest, Interest};
use qshare_wire::private::Unlock;
use qshare_wire::tracker::Find;
use qshare_wire::{Frame, Message, Refusal, Refused};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;
use tracing::trace;

use super::answer::ChunkAnswers;
use super::counters::Counters;
use super::folders::FolderAnswers;
use super::hashes::HashAnswers;
use super::interest::{InterestAnswers, Interests};
use super::lookup::LookupAnswers;
use super::memory_budget::MemoryBudget;
use super::pacing::Pacing;
use super::queue::UploadQueue;
use super::reader::ReadAccess;
use super::unlock::{UnlockAnswers, UnlockedTopics};
use crate::codes::Codes;
use crate::config::Limits;
use crate::neighbours::Neighbours;
use crate::peers::{Peer, PeerConnection};
use crate::runtime::{BlockingBatch, BufferPool, Tasks};
use crate::shares::ShareStore;

/// Deadline for a complete request, from the opening of its stream.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Answers the requests of other nodes.
pub(crate) struct Uploads {
    chunks: ChunkAnswers,
    hashes: HashAnswers,
    interests: InterestAnswers,
    lookups: LookupAnswers,
    codes: Arc<Codes>,
    unlocks: UnlockAnswers,
    folders: FolderAnswers,
    queue: Arc<UploadQueue>,
    counters: Arc<Counters>,
    tasks: Tasks,
}

/// A peer that requests on one connection.
struct Client {
    peer: Arc<Peer>,
    connection: Arc<PeerConnection>,
    interests: Interests,
    /// Collections whose members are followed.
    member_interests: Interests,
    unlocked: UnlockedTopics,
}

/// What an [`Uploads`] works with.
pub(crate) struct UploadsConfig<'a> {
    pub(crate) us: NodeId,
    pub(crate) limits: &'a Limits,
    pub(crate) shares: Arc<ShareStore>,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) codes: Arc<Codes>,
    pub(crate) buffers: Arc<BufferPool>,
    pub(crate) batch: Arc<BlockingBatch>,
    pub(crate) pacing: Arc<qshare_net::Pacing>,
    pub(crate) has_trackers: bool,
    pub(crate) tasks: Tasks,
}

impl Uploads {
    pub(crate) fn new(config: UploadsConfig<'_>) -> Uploads {
        let UploadsConfig {
            us,
            limits,
            shares,
            neighbours,
            codes,
            buffers,
            batch,
            pacing,
            has_trackers,
            tasks,
        } = config;
        let queue = Arc::new(UploadQueue::new(limits.serve.clone(), rand::random()));
        let clients_max = limits.accepted_connections_max;
        let memory = MemoryBudget::new(limits.answers_max_bytes.into(), clients_max);
        let counters = Arc::new(Counters::new());
        Uploads {
            chunks: ChunkAnswers {
                access: ReadAccess {
                    shares: shares.clone(),
                    buffers,
                    batch,
                    memory: memory.clone(),
                },
                queue: queue.clone(),
                pacing: Pacing::new(limits.transport.send_window_bytes, pacing),
                counters: counters.clone(),
            },
            hashes: HashAnswers {
                shares: shares.clone(),
                memory,
                counters: counters.clone(),
            },
            interests: InterestAnswers {
                shares: shares.clone(),
                queue: queue.clone(),
                stopping: tasks.stopping().clone(),
            },
            lookups: LookupAnswers::new(us, shares.clone(), neighbours.clone()),
            codes,
            unlocks: UnlockAnswers::new(shares.clone()),
            folders: FolderAnswers::new(shares, neighbours, has_trackers),
            queue,
            counters,
            tasks,
        }
    }

    /// Starts to wake the scheduler at its time-outs.
    pub(crate) fn start(&self) {
        let queue = self.queue.clone();
        self.tasks
            .supervise("upload queue", async move { queue.run().await });
    }

    /// Answers all requests of a peer on a connection, until the connection is lost.
    pub(crate) fn serve(self: &Arc<Self>, peer: Arc<Peer>, connection: &Arc<PeerConnection>) {
        let (uploads, connection) = (self.clone(), connection.clone());
        self.tasks.spawn(async move {
            let client = Arc::new(Client {
                peer,
                connection: connection.clone(),
                interests: Interests::default(),
                member_interests: Interests::default(),
                unlocked: UnlockedTopics::default(),
            });
            while let Ok((send, recv)) = connection.connection.accept_bi().await {
                client.peer.touch();
                let (uploads, client) = (uploads.clone(), client.clone());
                tokio::spawn(async move { uploads.answer(&client, send, recv).await });
            }
        });
    }

    async fn answer(&self, client: &Client, mut send: SendStream, mut recv: RecvStream) {
        let request = framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES);
        let Ok(Ok(frame)) = timeout(REQUEST_DEADLINE, request).await else {
            return;
        };
        let answered = self.dispatch(client, frame, &mut send, recv).await;
        if let Err(refused) = answered {
            trace!(peer = %client.peer.node, ?refused, "refused");
            let _ = framed::write(&mut send, &refused).await;
        }
        let _ = send.finish();
    }

    async fn dispatch(
        &self,
        client: &Client,
        frame: Frame,
        send: &mut SendStream,
        mut recv: RecvStream,
    ) -> Result<(), Refused> {
        let Client {
            peer,
            connection,
            interests,
            member_interests,
            unlocked,
        } = client;
        match frame.kind {
            ChunkRequest::TYPE => {
                let request = decode(&frame)?;
                self.chunks
                    .answer(peer, unlocked, request, send, &mut recv)
                    .await
            }
            HashRequest::TYPE => {
                let request = decode(&frame)?;
                self.hashes.answer(peer, unlocked, request, send).await
            }
            Unlock::TYPE => {
                let request = decode(&frame)?;
                self.unlocks
                    .answer(peer, connection, unlocked, request, send)
                    .await
            }
            Interest::TYPE => {
                let request = decode(&frame)?;
                self.interests
                    .follow(peer, interests, unlocked, request, send, recv)
                    .await
            }
            MemberInterest::TYPE => {
                let request = decode(&frame)?;
                self.interests
                    .follow_members(member_interests, unlocked, request, send, recv)
                    .await
            }
            FolderRequest::TYPE => self.folders.answer(peer, decode(&frame)?, send).await,
            Find::TYPE => self.lookups.answer(peer, decode(&frame)?, send).await,
            MailboxOpen::TYPE => {
                let request = decode(&frame)?;
                self.codes.answer_open(peer, request, send, &mut recv).await
            }
            MailboxComplete::TYPE => self.codes.answer_complete(peer, &decode(&frame)?),
            _ => Err(Refused::because(Refusal::Invalid, "unknown request")),
        }
    }

    /// Forgets a peer that is gone.
    pub(crate) fn client_left(&self, peer: &Peer) {
        self.queue.client_left(peer.key);
    }

    /// Returns the payload bytes sent since the start.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.counters.sent_bytes()
    }

    /// Waits until nothing is being sent.
    pub(crate) async fn idle(&self) {
        self.counters.idle().await;
    }
}

fn decode<M: Message>(frame: &Frame) -> Result<M, Refused> {
    frame
        .decode()
        .map_err(|error| Refused::because(Refusal::Invalid, error.to_string()))
}
