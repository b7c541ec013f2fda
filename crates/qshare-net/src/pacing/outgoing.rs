//! The limit on what a socket sends.
//!
//! quinn asks a connection's poller whether the socket is writable, and then sends. Only then is
//! the size of the packet known. Small packets (acknowledgements, and requests) always pass and are
//! charged; a larger one is refused while the rate is used up. The connection's next question then
//! gets it a place in a queue, so that connections take turns.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use quinn::UdpPoller;
use tokio::time::{Sleep, sleep_until};

use super::{BURST, Buckets, Pacing, RateLimit, wire_bytes};

/// Packets up to this size always pass: acknowledgements must not wait behind data.
const SMALL_BYTES: usize = 300;
/// Time for which a packet that was held back shows that the limit is what limits.
const RECENT: Duration = Duration::from_millis(100);
/// A full packet, to convert a burst into packets.
const PACKET_BYTES: u64 = 1480;

#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The limit in bytes per second; 0 for none. Read before each packet.
    limit: AtomicU64,
    /// Whether a packet was refused and its connection has not asked for a place yet.
    was_refused: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buckets: Option<Buckets>,
    /// Connections that wait to send, in order.
    queue: VecDeque<(u64, Waker)>,
    next_ticket: u64,
    /// Connections that were told that they may send, and have not done so yet.
    granted: u32,
    /// When a packet was last held back.
    refused_at: Option<Instant>,
}

impl Outgoing {
    pub(super) fn set(&self, now: Instant, limit: RateLimit) {
        let bytes = limit.bytes_per_second();
        let mut state = self.state();
        state.buckets = bytes.map(|bytes| Buckets::new(now, bytes as f64));
        self.limit.store(bytes.unwrap_or(0), Ordering::Relaxed);
        for (_, waker) in &state.queue {
            waker.wake_by_ref();
        }
    }

    pub(super) fn limit(&self) -> RateLimit {
        RateLimit::from_bytes(self.limit.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Returns whether a packet was held back within [`RECENT`].
    pub(super) fn is_limiting(&self, now: Instant) -> bool {
        let refused_at = self.state().refused_at;
        !self.is_off() && refused_at.is_some_and(|at| now.saturating_duration_since(at) < RECENT)
    }

    fn is_off(&self) -> bool {
        self.limit.load(Ordering::Relaxed) == 0
    }

    /// Returns whether a packet, or a batch of packets of `segment` bytes each, may be sent now,
    /// and counts it if so.
    pub(crate) fn admit(&self, payload: usize, segment: usize) -> bool {
        if self.is_off() {
            return true;
        }
        let now = Instant::now();
        let mut state = self.state();
        let State {
            buckets,
            queue,
            granted,
            refused_at,
            ..
        } = &mut *state;
        let Some(buckets) = buckets else {
            return true;
        };
        if payload > SMALL_BYTES {
            let is_next = queue.is_empty() || *granted > 0;
            if !is_next || !buckets.wait(now).is_zero() {
                self.was_refused.store(true, Ordering::Release);
                *refused_at = Some(now);
                return false;
            }
            *granted = granted.saturating_sub(1);
        }
        buckets.charge(now, wire_bytes(payload, segment) as f64);
        true
    }

    /// Counts packets that are sent in any case.
    pub(crate) fn charge(&self, payload: usize, segment: usize) {
        if !self.is_off()
            && let Some(buckets) = &mut self.state().buckets
        {
            buckets.charge(Instant::now(), wire_bytes(payload, segment) as f64);
        }
    }

    /// Returns the number of packets that may leave in one call, so that a call is no burst.
    pub(crate) fn segments_max(&self) -> usize {
        match self.limit() {
            RateLimit::NONE => usize::MAX,
            limit => (limit.bytes_within(BURST / 2) / PACKET_BYTES).max(1) as usize,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes a connection from the queue, and wakes the next.
    fn leave(&mut self, ticket: u64) {
        self.queue.retain(|(other, _)| *other != ticket);
        if let Some((_, waker)) = self.queue.front() {
            waker.wake_by_ref();
        }
    }
}

/// Tells a connection when it may send: when the rate allows it, and the system's buffer has room.
pub(crate) struct PacedPoller {
    pacing: Arc<Pacing>,
    inner: Pin<Box<dyn UdpPoller>>,
    ticket: Option<u64>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl PacedPoller {
    pub(crate) fn new(pacing: Arc<Pacing>, inner: Pin<Box<dyn UdpPoller>>) -> PacedPoller {
        PacedPoller {
            pacing,
            inner,
            ticket: None,
            sleep: None,
        }
    }

    /// Waits for the turn of a connection whose packet was refused.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let up = &self.pacing.up;
        let refused = up.was_refused.swap(false, Ordering::AcqRel);
        if self.ticket.is_none() && !refused {
            return Poll::Ready(());
        }
        let mut state = up.state();
        let ticket = *self.ticket.get_or_insert_with(|| {
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.queue.push_back((ticket, cx.waker().clone()));
            ticket
        });
        loop {
            let is_first = state
                .queue
                .front()
                .is_some_and(|(first, _)| *first == ticket);
            let wait = match &mut state.buckets {
                None => Duration::ZERO,
                Some(buckets) if is_first => buckets.wait(Instant::now()),
                Some(_) => {
                    let own = state.queue.iter_mut().find(|(other, _)| *other == ticket);
                    if let Some((_, waker)) = own {
                        waker.clone_from(cx.waker());
                    }
                    return Poll::Pending;
                }
            };
            if wait.is_zero() {
                state.leave(ticket);
                state.granted = state.granted.saturating_add(1).min(1);
                (self.ticket, self.sleep) = (None, None);
                return Poll::Ready(());
            }
            let until = tokio::time::Instant::now() + wait;
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(sleep_until(until)));
            sleep.as_mut().reset(until);
            if sleep.as_mut().poll(cx).is_pending() {
                // The waker in the queue also tells of a changed limit.
                if let Some((_, waker)) = state.queue.front_mut() {
                    waker.clone_from(cx.waker());
                }
                return Poll::Pending;
            }
        }
    }
}

impl UdpPoller for PacedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // A packet may have been refused before the limit was lifted.
        if (this.ticket.is_some() || !this.pacing.up.is_off()) && this.poll_turn(cx).is_pending() {
            return Poll::Pending;
        }
        this.inner.as_mut().poll_writable(cx)
    }
}

impl Drop for PacedPoller {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.pacing.up.state().leave(ticket);
        }
    }
}

impl Debug for PacedPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacedPoller")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Writable;

    impl UdpPoller for Writable {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn limited(bytes: u64) -> (Arc<Pacing>, impl Fn() -> Pin<Box<PacedPoller>>) {
        let pacing = Arc::new(Pacing::default());
        pacing.set_up(RateLimit::from_bytes(bytes).unwrap());
        let made = pacing.clone();
        let make = move || Box::pin(PacedPoller::new(made.clone(), Box::pin(Writable)));
        (pacing, make)
    }

    fn poll(poller: &mut Pin<Box<PacedPoller>>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        poller.as_mut().poll_writable(&mut context).is_ready()
    }

    /// Waits until a poller is ready, as quinn's connection does.
    async fn ready(poller: &mut Pin<Box<PacedPoller>>) {
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx))
            .await
            .unwrap();
    }

    /// Waits until the rate allows a packet.
    async fn until_allowed(pacing: &Pacing) {
        loop {
            let now = Instant::now();
            let wait = pacing.up.state().buckets.as_mut().unwrap().wait(now);
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn exhaust(pacing: &Pacing) {
        while pacing.up.admit(14_000, 1400) {}
    }

    #[tokio::test]
    async fn data_waits_and_acknowledgements_do_not() {
        let (pacing, make) = limited(10_000);
        let mut poller = make();
        assert!(poll(&mut poller));
        exhaust(&pacing);
        assert!(pacing.up.admit(60, 60), "an acknowledgement passes");
        assert!(!poll(&mut poller), "whose data was refused waits");
        assert!(poll(&mut make()), "others may try");
    }

    #[tokio::test]
    async fn connections_take_turns_in_the_order_of_their_refusal() {
        let (pacing, make) = limited(1_000_000);
        let (mut one, mut two) = (make(), make());
        exhaust(&pacing);
        assert!(!poll(&mut one));
        assert!(!pacing.up.admit(1400, 1400));
        // The rate allows a packet, but it is the turn of the first.
        until_allowed(&pacing).await;
        assert!(!poll(&mut two));
        ready(&mut one).await;
        assert!(pacing.up.admit(1400, 1400));
        ready(&mut two).await;
        assert!(pacing.up.admit(1400, 1400));
    }

    #[tokio::test]
    async fn a_connection_that_ends_gives_its_place_up() {
        let (pacing, make) = limited(1_000_000);
        let (mut one, mut two) = (make(), make());
        exhaust(&pacing);
        assert!(!poll(&mut one));
        assert!(!pacing.up.admit(1400, 1400));
        assert!(!poll(&mut two));
        drop(one);
        ready(&mut two).await;
    }

    #[tokio::test]
    async fn lifting_the_limit_wakes_those_that_wait() {
        let (pacing, make) = limited(10_000);
        let mut poller = make();
        // Minutes at this rate.
        pacing.up.charge(10_000_000, 1400);
        exhaust(&pacing);
        assert!(!poll(&mut poller));
        let lift = async {
            tokio::task::yield_now().await;
            pacing.set_up(RateLimit::NONE);
        };
        tokio::join!(ready(&mut poller), lift);
        assert!(pacing.up.admit(14_000, 1400));
    }
}
