//! Extra sockets in addition to the main one. Each was opened for one node, whose packets reach
//! only that socket ([`crate::traversal::punch`]). quinn knows such a node by a virtual address.

use std::fmt::{self, Debug};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use tracing::debug;

use super::coalesce::CoalescingSocket;
use super::virtual_address::extra_address;
#[cfg(test)]
use super::virtual_address::is_extra;

/// Most extra sockets at once.
const SOCKETS_MAX: usize = 32;
/// A socket that received nothing for this long is closed: a live connection receives something
/// every 15 s (keep-alive), and times out after 30 s.
const UNUSED_AFTER: Duration = Duration::from_secs(60);
/// The shorter time-out that applies when another socket needs the slot; still longer than the
/// keep-alive interval.
const SPARE_AFTER: Duration = Duration::from_secs(20);
/// How long a socket stays open after its connection ended, so that the close packet is sent.
const GOODBYE: Duration = Duration::from_secs(3);

/// An extra socket for one node.
#[derive(Debug)]
pub(super) struct Extra {
    /// The virtual address by which quinn knows the node.
    pub(super) address: SocketAddr,
    /// The node's real address.
    pub(super) peer: SocketAddr,
    /// Sends and receives for quinn.
    quic: Arc<dyn AsyncUdpSocket>,
    /// Sends datagrams that are not QUIC's; drops them while the buffer is full.
    non_quic: UdpSocket,
    heard_at: Mutex<Instant>,
    /// When its connection ended.
    ended_at: OnceLock<Instant>,
    /// Whether the system's send buffer was full when quinn last sent.
    is_blocked: AtomicBool,
}

/// All extra sockets of an endpoint.
#[derive(Default)]
pub(super) struct Extras {
    list: Mutex<Vec<Arc<Extra>>>,
    /// Length of `list`, read without the lock before every packet.
    count: AtomicUsize,
    /// Number of sockets ever added; names the next one.
    named: AtomicU64,
    turn: AtomicUsize,
    /// The task that waits for packets, to be woken when a socket is added.
    receiver: Mutex<Option<Waker>>,
}

impl Extras {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Extra>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Adds a socket; returns the virtual address of the node at its other end.
    pub(super) fn add(&self, socket: UdpSocket, peer: SocketAddr) -> io::Result<SocketAddr> {
        let now = Instant::now();
        let non_quic = socket.try_clone()?;
        let quic = CoalescingSocket::new(TokioRuntime.wrap_udp_socket(socket)?);
        let mut list = self.list();
        list.retain(|extra| !extra.is_unused(now));
        if list.len() >= SOCKETS_MAX
            && let Some(oldest) = list.iter().min_by_key(|extra| *extra.heard_at()).cloned()
            && now.saturating_duration_since(*oldest.heard_at()) >= SPARE_AFTER
        {
            list.retain(|extra| !Arc::ptr_eq(extra, &oldest));
        }
        if list.len() >= SOCKETS_MAX {
            return Err(io::Error::other("too many sockets"));
        }
        let name = self.named.load(Ordering::Acquire);
        let address = extra_address(name);
        list.push(Arc::new(Extra {
            address,
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            quic,
            non_quic,
            heard_at: Mutex::new(now),
            ended_at: OnceLock::new(),
            is_blocked: AtomicBool::new(false),
        }));
        self.count.store(list.len(), Ordering::Release);
        self.named.store(name + 1, Ordering::Release);
        drop(list);
        if let Some(waker) = self.receiver().take() {
            waker.wake();
        }
        Ok(address)
    }

    /// Closes unused sockets; returns whether any is left.
    pub(super) fn prune(&self) -> bool {
        let now = Instant::now();
        let mut list = self.list();
        list.retain(|extra| !extra.is_unused(now));
        self.count.store(list.len(), Ordering::Release);
        !list.is_empty()
    }

    /// Returns the socket for the node with this virtual address.
    pub(super) fn get(&self, address: SocketAddr) -> Option<Arc<Extra>> {
        let list = self.list();
        // quinn may add a scope or flow of its own.
        let found = list.iter().find(|extra| extra.address.ip() == address.ip());
        found.cloned()
    }

    /// Receives from any of the sockets, starting with a different one each time.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let all = self.list().clone();
        let first = self.turn.load(Ordering::Relaxed) / 2 % all.len().max(1);
        for extra in all[first..].iter().chain(&all[..first]) {
            let count = match extra.quic.poll_recv(cx, bufs, meta) {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => {
                    debug!(peer = %extra.peer, %error, "closing an extra socket");
                    self.remove(extra);
                    continue;
                }
                Poll::Pending => continue,
            };
            for meta in meta.iter_mut().take(count) {
                let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
                match from == extra.peer {
                    true => meta.addr = extra.address,
                    false => meta.len = 0,
                }
                meta.dst_ip = None;
            }
            *extra.heard_at() = Instant::now();
            return Poll::Ready(Ok(count));
        }
        Poll::Pending
    }

    /// Returns whether to poll these sockets before the main one; alternates.
    pub(super) fn are_first(&self) -> bool {
        self.turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
    }

    /// Returns how many sockets were ever added.
    pub(super) fn ever(&self) -> u64 {
        self.named.load(Ordering::Acquire)
    }

    /// Registers the task that is woken when a socket is added.
    pub(super) fn wait_for_more(&self, cx: &Context<'_>) {
        let mut receiver = self.receiver();
        match &mut *receiver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn receiver(&self) -> MutexGuard<'_, Option<Waker>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, gone: &Arc<Extra>) {
        let mut list = self.list();
        list.retain(|extra| !Arc::ptr_eq(extra, gone));
        self.count.store(list.len(), Ordering::Release);
    }
}

impl Extra {
    fn heard_at(&self) -> MutexGuard<'_, Instant> {
        self.heard_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the connection has ended; the socket is closed after [`GOODBYE`].
    pub(super) fn end(&self) {
        let _ = self.ended_at.set(Instant::now());
    }

    fn is_unused(&self, now: Instant) -> bool {
        let ended = self.ended_at.get();
        if ended.is_some_and(|&at| now.saturating_duration_since(at) >= GOODBYE) {
            return true;
        }
        now.saturating_duration_since(*self.heard_at()) >= UNUSED_AFTER
    }

    /// Sends for quinn.
    pub(super) fn send_quic(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.quic.try_send(&Transmit {
            destination: self.peer,
            src_ip: None,
            ..transmit.clone()
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_blocked.store(true, Ordering::Release);
                Err(error)
            }
            // Any other error counts as a lost packet.
            _ => Ok(()),
        }
    }

    /// Sends a datagram that is not QUIC's.
    pub(super) fn send_non_quic(&self, datagram: &[u8]) {
        let _ = self.non_quic.send_to(datagram, self.peer);
    }
}

/// Waits until packets can be sent on the main socket and on the extra sockets whose buffer was
/// full.
pub(super) struct Poller {
    extras: Arc<Extras>,
    one: Pin<Box<dyn UdpPoller>>,
    blocked: Vec<Blocked>,
}

type Blocked = (Arc<Extra>, Pin<Box<dyn UdpPoller>>);

impl Poller {
    pub(super) fn new(extras: Arc<Extras>, one: Pin<Box<dyn UdpPoller>>) -> Poller {
        Poller {
            extras,
            one,
            blocked: Vec::new(),
        }
    }
}

impl Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("one", &self.one)
            .finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.one.as_mut().poll_writable(cx))?;
        if self.extras.is_empty() {
            self.blocked.clear();
            return Poll::Ready(Ok(()));
        }
        let blocked = self.extras.list().clone();
        for extra in blocked {
            let known = |(other, _): &Blocked| Arc::ptr_eq(other, &extra);
            if extra.is_blocked.load(Ordering::Acquire) && !self.blocked.iter().any(known) {
                let poller = extra.quic.clone().create_io_poller();
                self.blocked.push((extra, poller));
            }
        }
        let mut is_ready = true;
        self.blocked.retain_mut(|(extra, poller)| {
            let done = poller.as_mut().poll_writable(cx).is_ready();
            if done {
                extra.is_blocked.store(false, Ordering::Release);
            }
            is_ready &= done;
            !done
        });
        match is_ready {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn age(extra: &Extra, by: Duration) {
        let mut heard_at = extra.heard_at();
        *heard_at = heard_at.checked_sub(by).unwrap();
    }

    #[tokio::test]
    async fn each_has_a_name_of_its_own_and_is_closed_when_nothing_comes_on_it() {
        let extras = Extras::default();
        let names: Vec<SocketAddr> = (1..4)
            .map(|port| extras.add(socket(), peer(port)).unwrap())
            .collect();
        for (port, &name) in (1..).zip(&names) {
            assert!(is_extra(name.ip()));
            assert_eq!(extras.get(name).unwrap().peer, peer(port));
        }
        age(&extras.get(names[1]).unwrap(), UNUSED_AFTER);
        assert!(extras.prune());
        assert!(extras.get(names[1]).is_none() && extras.get(names[2]).is_some());
    }

    #[tokio::test]
    async fn a_new_one_takes_the_place_of_one_that_is_silent_but_of_none_that_is_not() {
        let extras = Extras::default();
        let names: Vec<SocketAddr> = (0..SOCKETS_MAX)
            .map(|_| extras.add(socket(), peer(1)).unwrap())
            .collect();
        assert!(extras.add(socket(), peer(2)).is_err());
        age(&extras.get(names[5]).unwrap(), SPARE_AFTER);
        let newest = extras.add(socket(), peer(2)).unwrap();
        assert!(extras.get(newest).is_some() && extras.get(names[5]).is_none());
    }
}
