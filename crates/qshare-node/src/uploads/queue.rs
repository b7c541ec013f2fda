//! The queue of chunk requests, and the choice of the next one to answer.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qshare_content::{ChunkIndex, ContentId};
use qshare_swarm::{Busy, PeerKey, Serve, ServeConfig, Ticket};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::sleep_until;
use tracing::trace;

/// The queue of all peers' chunk requests, around the scheduler [`Serve`].
pub(super) struct UploadQueue {
    state: Mutex<State>,
    /// Notified when the scheduler's time-out is earlier than the one that [`run`](Self::run) waits
    /// for.
    earlier: Notify,
    /// Bytes of the waiting and active requests, as last reported to followers.
    told_bytes: watch::Sender<u64>,
    running_max: u32,
}

struct State {
    serve: Serve,
    waiting: HashMap<Ticket, Waiter>,
    /// Notified, by client, when none of the client's requests waits any more.
    drained: HashMap<PeerKey, Arc<Notify>>,
    /// The time at which [`UploadQueue::run`] wakes.
    wake_at: Option<Instant>,
}

struct Waiter {
    client: PeerKey,
    /// Signalled when the request may be answered.
    start: oneshot::Sender<()>,
}

impl UploadQueue {
    pub(super) fn new(config: ServeConfig, seed: u64) -> UploadQueue {
        UploadQueue {
            running_max: config.running_max,
            state: Mutex::new(State {
                serve: Serve::new(config, seed),
                waiting: HashMap::new(),
                drained: HashMap::new(),
                wake_at: None,
            }),
            earlier: Notify::new(),
            told_bytes: watch::Sender::new(0),
        }
    }

    /// Wakes the scheduler when its time-outs are due. Never returns.
    pub(super) async fn run(&self) {
        loop {
            let mut earlier = pin!(self.earlier.notified());
            earlier.as_mut().enable();
            let wake_at = {
                let mut state = self.lock();
                // Not announced to `earlier`, which would wake this loop again at once, for ever.
                state.wake_at = None;
                self.start_and_plan(&mut state);
                state.wake_at
            };
            match wake_at {
                Some(at) => tokio::select! {
                    () = sleep_until(at.into()) => {}
                    () = earlier => {}
                },
                None => earlier.await,
            }
        }
    }

    /// Queues a request. The receiver is signalled when the request may be answered.
    ///
    /// # Errors
    ///
    /// When the client has as many requests waiting as it may have.
    pub(super) fn enqueue(
        self: &Arc<Self>,
        client: PeerKey,
        content: ContentId,
        chunk: ChunkIndex,
        bytes: u64,
    ) -> Result<(Turn, oneshot::Receiver<()>), Busy> {
        let (start, started) = oneshot::channel();
        let mut state = self.lock();
        let now = Instant::now();
        let ticket = state
            .serve
            .handle_request(now, client, content, chunk, bytes)?;
        state.waiting.insert(ticket, Waiter { client, start });
        self.start_next(&mut state);
        drop(state);
        let turn = Turn {
            queue: self.clone(),
            ticket,
            sent_bytes: 0,
        };
        Ok((turn, started))
    }

    /// Whether requests of a client wait.
    pub(super) fn is_waiting(&self, client: PeerKey) -> bool {
        self.lock().serve.is_waiting(client)
    }

    /// Returns the notification that none of a client's requests waits any more.
    pub(super) fn drained(&self, client: PeerKey) -> Arc<Notify> {
        self.lock().drained.entry(client).or_default().clone()
    }

    /// Returns the bytes of all requests that wait or are being answered.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().serve.queue_bytes()
    }

    /// Returns a watch that reports when [`bytes`](Self::bytes) has changed by more than a quarter.
    /// Smaller changes do not justify a message to every follower.
    pub(super) fn byte_changes(&self) -> watch::Receiver<u64> {
        self.told_bytes.subscribe()
    }

    /// Returns the number of answers that may run at once while none is blocked.
    pub(super) fn running_max(&self) -> u32 {
        self.running_max
    }

    pub(super) fn client_left(&self, client: PeerKey) {
        let mut state = self.lock();
        state.serve.handle_client_left(Instant::now(), client);
        state.drained.remove(&client);
        self.start_next(&mut state);
    }

    /// Starts the answers whose turn it is, and wakes [`run`](Self::run) if it sleeps for too long.
    fn start_next(&self, state: &mut State) {
        if self.start_and_plan(state) {
            self.earlier.notify_one();
        }
    }

    /// Starts the answers whose turn it is, and plans the next wake-up. Returns whether that is
    /// earlier than planned before.
    fn start_and_plan(&self, state: &mut State) -> bool {
        state.start_next();
        let mut is_earlier = false;
        if let Some((at, reason)) = state.serve.poll_timeout()
            && state.wake_at.is_none_or(|wake_at| at < wake_at)
        {
            trace!(reason, "time-out of the upload queue");
            state.wake_at = Some(at);
            is_earlier = true;
        }
        let bytes = state.serve.queue_bytes();
        self.told_bytes.send_if_modified(|told| {
            let changed = bytes.abs_diff(*told) > *told / 4;
            if changed {
                *told = bytes;
            }
            changed
        });
        is_earlier
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start_next(&mut self) {
        while let Some(ticket) = self.serve.poll_start(Instant::now()) {
            let waiter = self.stop_waiting(ticket);
            let told = waiter.is_some_and(|waiter| waiter.start.send(()).is_ok());
            if !told {
                // The request was dropped.
                self.serve.handle_finished(Instant::now(), ticket, 0);
            }
        }
    }

    /// Removes a request that the scheduler no longer counts as waiting.
    fn stop_waiting(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket)?;
        if !self.serve.is_waiting(waiter.client)
            && let Some(drained) = self.drained.get(&waiter.client)
        {
            drained.notify_waiters();
        }
        Some(waiter)
    }
}

/// A request's place in the queue, given up when dropped.
pub(super) struct Turn {
    queue: Arc<UploadQueue>,
    ticket: Ticket,
    pub(super) sent_bytes: u64,
}

/// While held, an answer counts as blocked, so that other answers may start.
pub(super) struct Blocked<'a>(&'a Turn);

impl Turn {
    /// Withdraws the request. Returns whether its answer had not started.
    pub(super) fn withdraw(&self) -> bool {
        let mut state = self.queue.lock();
        let withdrawn = state.serve.handle_withdraw(self.ticket);
        if withdrawn {
            state.stop_waiting(self.ticket);
        }
        withdrawn
    }

    /// Marks the answer as blocked until the result is dropped.
    pub(super) fn block(&self) -> Blocked<'_> {
        let mut state = self.queue.lock();
        state.serve.handle_blocked(Instant::now(), self.ticket);
        self.queue.start_next(&mut state);
        Blocked(self)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        let Turn { queue, ticket, .. } = self.0;
        let mut state = queue.lock();
        state.serve.handle_unblocked(Instant::now(), *ticket);
        queue.start_next(&mut state);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        let now = Instant::now();
        state
            .serve
            .handle_finished(now, self.ticket, self.sent_bytes);
        state.stop_waiting(self.ticket);
        self.queue.start_next(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use qshare_content::{ContentInfo, tree};
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn queue(config: ServeConfig) -> Arc<UploadQueue> {
        Arc::new(UploadQueue::new(config, 1))
    }

    fn content() -> ContentId {
        let root = tree::leaf_hash(&[]);
        ContentInfo { length: 1, root }.id()
    }

    fn enqueue(queue: &Arc<UploadQueue>, client: u64, chunk: u32) -> (Turn, oneshot::Receiver<()>) {
        let chunk = ChunkIndex(chunk);
        queue
            .enqueue(PeerKey(client), content(), chunk, 1 << 20)
            .unwrap()
    }

    #[tokio::test]
    async fn a_client_hears_when_its_last_request_stops_waiting() {
        let queue = queue(ServeConfig::default());
        let (_first, mut started) = enqueue(&queue, 1, 0);
        let (second, _) = enqueue(&queue, 1, 1);
        assert!(started.try_recv().is_ok());
        assert!(queue.is_waiting(PeerKey(1)), "one runs at a time");
        let drained = queue.drained(PeerKey(1));
        let mut heard = pin!(drained.notified());
        heard.as_mut().enable();
        assert!(second.withdraw());
        assert!(!queue.is_waiting(PeerKey(1)));
        timeout(DEADLINE, heard).await.unwrap();
    }

    #[tokio::test]
    async fn the_next_answer_starts_when_a_turn_is_given_up() {
        let queue = queue(ServeConfig::default());
        let (first, mut first_started) = enqueue(&queue, 1, 0);
        let (_second, mut second_started) = enqueue(&queue, 2, 0);
        assert!(first_started.try_recv().is_ok());
        assert!(second_started.try_recv().is_err());
        drop(first);
        timeout(DEADLINE, &mut second_started)
            .await
            .unwrap()
            .unwrap();
    }

    /// Without any event, only the scheduler's own time-out can start the second answer.
    #[tokio::test]
    async fn the_schedulers_time_out_starts_what_waits_behind_a_blocked_answer() {
        let queue = queue(ServeConfig {
            active_max: 1,
            ..ServeConfig::default()
        });
        let running = tokio::spawn({
            let queue = queue.clone();
            async move { queue.run().await }
        });
        let (first, _) = enqueue(&queue, 1, 0);
        let _blocked = first.block();
        let (_second, mut started) = enqueue(&queue, 2, 0);
        assert!(started.try_recv().is_err());
        timeout(DEADLINE, &mut started).await.unwrap().unwrap();
        running.abort();
    }

    /// A loop that wakes itself would hold the network's thread until the time-out is due.
    #[tokio::test]
    async fn waiting_for_a_time_out_leaves_the_thread_to_others() {
        let queue = queue(ServeConfig {
            active_max: 1,
            ..ServeConfig::default()
        });
        let (first, _) = enqueue(&queue, 1, 0);
        let _blocked = first.block();
        let (_second, mut started) = enqueue(&queue, 2, 0);
        let mut running = pin!(queue.run());
        let mut context = Context::from_waker(Waker::noop());
        // The first call may find the wake-up that was requested before it.
        for _ in 0..2 {
            assert!(running.as_mut().poll(&mut context).is_pending());
        }
        assert!(
            started.try_recv().is_err(),
            "it returned only when the time-out was due"
        );
    }
}
