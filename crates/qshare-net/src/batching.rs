//! Fewer, larger calls to the system: what quinn sends in pieces of ten packets leaves together.
//!
//! A call that sends costs about as much as encrypting ten packets, whatever it carries, and so
//! does taking in what it carried at the other end. quinn hands over at most ten packets at once
//! and then lets others run; with segmentation offload the system takes as many as fit into 64 KiB.
//! So full packets to one destination wait here until a call is full or the runtime has been
//! around once, which takes microseconds while anybody is sending.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;

/// Most bytes that one call may carry: a UDP datagram's, less the headers before it.
const CALL_MAX_BYTES: usize = 65_487;
/// Times that the runtime goes around before what waits is sent. quinn's connections take two turns
/// for forty packets.
const ROUNDS: u32 = 2;

/// A socket that holds packets back for a moment, to send more of them at once.
#[derive(Debug)]
pub(crate) struct Batching {
    inner: Arc<dyn AsyncUdpSocket>,
    waiting: Mutex<Waiting>,
    filled: Arc<Notify>,
}

/// Packets to one destination, all of the same length.
#[derive(Debug, Default)]
struct Waiting {
    head: Option<Head>,
    contents: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    destination: SocketAddr,
    src_ip: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    segment_size: usize,
}

impl Batching {
    /// Wraps a socket. Runs on the current tokio runtime for as long as the socket lives.
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>) -> Arc<Batching> {
        let filled = Arc::new(Notify::new());
        let socket = Arc::new(Batching {
            inner,
            waiting: Mutex::default(),
            filled: filled.clone(),
        });
        tokio::spawn(flush_all(Arc::downgrade(&socket), filled));
        socket
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits. Only "not now" leaves it waiting; QUIC sends again what else was lost.
    fn flush(&self, waiting: &mut Waiting) -> io::Result<()> {
        let Some(head) = waiting.head else {
            return Ok(());
        };
        let several = waiting.contents.len() > head.segment_size;
        let sent = self.inner.try_send(&Transmit {
            destination: head.destination,
            ecn: head.ecn,
            contents: &waiting.contents,
            segment_size: several.then_some(head.segment_size),
            src_ip: head.src_ip,
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            sent => {
                waiting.head = None;
                waiting.contents.clear();
                sent
            }
        }
    }
}

/// Sends what has waited for long enough, until the socket is gone.
async fn flush_all(socket: Weak<Batching>, filled: Arc<Notify>) {
    loop {
        filled.notified().await;
        for _ in 0..ROUNDS {
            tokio::task::yield_now().await;
        }
        let Some(socket) = socket.upgrade() else {
            return;
        };
        let blocked = socket.flush(&mut socket.waiting()).is_err();
        if blocked {
            let mut poller = socket.inner.clone().create_io_poller();
            let _ = poll_fn(|context| poller.as_mut().poll_writable(context)).await;
            filled.notify_one();
        }
    }
}

impl Drop for Batching {
    fn drop(&mut self) {
        self.filled.notify_one();
    }
}

impl AsyncUdpSocket for Batching {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let length = transmit.contents.len();
        let segment_size = transmit.segment_size.unwrap_or(length);
        let head = Head {
            destination: transmit.destination,
            src_ip: transmit.src_ip,
            ecn: transmit.ecn,
            segment_size,
        };
        let mut waiting = self.waiting();
        let segments_max = self.inner.max_transmit_segments();
        let room = CALL_MAX_BYTES.min(segments_max.saturating_mul(segment_size));
        if waiting.head != Some(head) || waiting.contents.len() + length > room {
            self.flush(&mut waiting)?;
        }
        // Only bundles of full packets have company coming: the rest leaves at once, behind them.
        let full = transmit.segment_size.is_some() && length.is_multiple_of(segment_size);
        if !full && waiting.head.is_none() {
            return self.inner.try_send(transmit);
        }
        if waiting.head.is_none() {
            waiting.head = Some(head);
            self.filled.notify_one();
        }
        waiting.contents.extend_from_slice(transmit.contents);
        if !full || waiting.contents.len() + segment_size > room {
            // It is ours now, so "not now" is no answer any more: the other task tries again.
            let _ = self.flush(&mut waiting);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const SEGMENT: usize = 1400;

    /// Where to, what, and how long its packets are if there are several.
    type Call = (SocketAddr, Vec<u8>, Option<usize>);

    /// Takes calls down; refuses them while the network is busy.
    #[derive(Debug, Default)]
    struct Recorder {
        calls: Mutex<Vec<Call>>,
        is_busy: AtomicBool,
    }

    impl AsyncUdpSocket for Recorder {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Ready)
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            if self.is_busy.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.calls.lock().unwrap().push((
                transmit.destination,
                transmit.contents.to_vec(),
                transmit.segment_size,
            ));
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(to(0))
        }

        fn max_transmit_segments(&self) -> usize {
            64
        }
    }

    #[derive(Debug)]
    struct Ready;

    impl UdpPoller for Ready {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn to(port: u16) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    fn send(socket: &Batching, port: u16, contents: &[u8]) -> io::Result<()> {
        socket.try_send(&Transmit {
            destination: to(port),
            ecn: None,
            contents,
            segment_size: (contents.len() > SEGMENT).then_some(SEGMENT),
            src_ip: None,
        })
    }

    /// Lets what waits be sent: nothing else runs.
    async fn rounds() {
        for _ in 0..2 * ROUNDS + 2 {
            tokio::task::yield_now().await;
        }
    }

    fn lengths(recorder: &Recorder) -> Vec<(u16, usize)> {
        let calls = recorder.calls.lock().unwrap();
        let told = calls.iter().map(|(to, bytes, _)| (to.port(), bytes.len()));
        told.collect()
    }

    #[tokio::test]
    async fn full_packets_to_one_destination_leave_together_and_in_order() {
        let recorder = Arc::new(Recorder::default());
        let socket = Batching::new(recorder.clone());
        for part in 0..3u8 {
            send(&socket, 1, &[part; 10 * SEGMENT]).unwrap();
        }
        assert!(lengths(&recorder).is_empty());
        rounds().await;
        assert_eq!(lengths(&recorder), [(1, 30 * SEGMENT)]);
        let calls = recorder.calls.lock().unwrap();
        let (_, bytes, segment_size) = &calls[0];
        assert_eq!(*segment_size, Some(SEGMENT));
        assert!(bytes.is_sorted() && bytes[10 * SEGMENT] == 1);
    }

    #[tokio::test]
    async fn what_has_no_company_leaves_at_once_and_never_overtakes() {
        let recorder = Arc::new(Recorder::default());
        let socket = Batching::new(recorder.clone());
        send(&socket, 1, &[0; 40]).unwrap();
        assert_eq!(lengths(&recorder), [(1, 40)]);
        send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        send(&socket, 1, &[0; 50]).unwrap();
        send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        send(&socket, 2, &[0; 60]).unwrap();
        send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        send(&socket, 1, &[0; 2 * SEGMENT + 7]).unwrap();
        assert_eq!(
            lengths(&recorder)[1..],
            [
                (1, 10 * SEGMENT),
                (1, 50),
                (1, 10 * SEGMENT),
                (2, 60),
                (1, 12 * SEGMENT + 7)
            ]
        );
    }

    #[tokio::test]
    async fn a_call_carries_no_more_than_a_datagram_may() {
        let recorder = Arc::new(Recorder::default());
        let socket = Batching::new(recorder.clone());
        for _ in 0..10 {
            send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        }
        rounds().await;
        let sent = lengths(&recorder);
        assert!(
            sent.iter().all(|&(_, length)| length <= CALL_MAX_BYTES),
            "{sent:?}"
        );
        assert_eq!(
            sent.iter().map(|(_, length)| length).sum::<usize>(),
            100 * SEGMENT
        );
    }

    #[tokio::test]
    async fn nothing_is_lost_while_the_system_takes_nothing() {
        let recorder = Arc::new(Recorder::default());
        let socket = Batching::new(recorder.clone());
        send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        recorder.is_busy.store(true, Ordering::Relaxed);
        rounds().await;
        let refused = send(&socket, 2, &[0; 10 * SEGMENT]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        recorder.is_busy.store(false, Ordering::Relaxed);
        rounds().await;
        assert_eq!(lengths(&recorder), [(1, 10 * SEGMENT)]);
    }
}
