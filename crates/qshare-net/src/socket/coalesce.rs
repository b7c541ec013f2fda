//! Coalescing: combines packets that quinn sends in groups of ten into fewer, larger system calls.
//!
//! A system call that sends costs about as much as encrypting ten packets, however many packets it
//! carries, and so does the receiving call at the other end. quinn hands over at most ten packets
//! at once and then yields. With segmentation offload (GSO), the system takes as many as fit into
//! 64 KiB. Full packets therefore wait here, bundled by destination, until a call is full or the
//! runtime has polled every task twice, which takes microseconds while a connection is sending.
//!
//! A call carries at most the bytes that are sent in a millisecond: on a slow link, larger calls
//! gain nothing, delay other packets, and overflow short queues. A receiving call takes at most the
//! bytes that stay in the CPU cache until quinn has copied them.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;

/// Most bytes of one call: the largest UDP datagram without its headers.
const CALL_MAX_BYTES: usize = 65_487;
/// Limit on waiting bundles. A further bundle forces out the oldest.
const BUNDLES_MAX: usize = 16;
/// Rounds of the runtime's task queue before waiting packets are sent. quinn's connections take two
/// turns for forty packets.
const ROUNDS: u32 = 2;

/// A call may carry the bytes that were recently sent within this time.
const CALL_MAX_TIME: Duration = Duration::from_millis(1);
/// Period over which sent bytes are counted.
const COUNTED: Duration = Duration::from_millis(8);

/// Limit on the bytes of a receiving call, estimated from the size of earlier datagrams. quinn
/// copies them once more, and should find them in the cache.
const TAKEN_MAX_BYTES: usize = 128 << 10;

/// A socket that delays full packets for microseconds, to send more of them in one call.
#[derive(Debug)]
pub(crate) struct CoalescingSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    waiting: Mutex<Waiting>,
    filled: Arc<Notify>,
    /// Mean length of the datagrams of the last receiving call, each of which may hold many
    /// packets.
    taken_bytes: AtomicUsize,
}

/// Waiting packets: one bundle for each destination, oldest first.
#[derive(Debug, Default)]
struct Waiting {
    bundles: Vec<Bundle>,
    /// Buffers of sent bundles, for reuse.
    spare: Vec<Vec<u8>>,
    rate: Rate,
}

/// Packets to one destination, all of the same length.
#[derive(Debug)]
struct Bundle {
    head: Head,
    contents: Vec<u8>,
}

/// The rate at which packets are sent.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    bytes: usize,
    /// Returns the bytes that a call may carry.
    call_bytes: usize,
}

impl Rate {
    /// Counts bytes that are sent now.
    fn count(&mut self, now: Instant, bytes: usize) {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= COUNTED {
            let share = CALL_MAX_TIME.as_secs_f64() / elapsed.as_secs_f64();
            self.call_bytes = (self.bytes as f64 * share) as usize;
            self.since = Some(now);
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    destination: SocketAddr,
    src_ip: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    segment_size: usize,
}

impl CoalescingSocket {
    /// Wraps a socket, and spawns the task that flushes it on the current tokio runtime.
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>) -> Arc<CoalescingSocket> {
        let filled = Arc::new(Notify::new());
        let socket = Arc::new(CoalescingSocket {
            inner,
            waiting: Mutex::default(),
            filled: filled.clone(),
            taken_bytes: AtomicUsize::new(0),
        });
        tokio::spawn(flush_in_time(Arc::downgrade(&socket), filled));
        socket
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a bundle. The bundle stays queued only on [`io::ErrorKind::WouldBlock`]. After any
    /// other error, QUIC retransmits the lost packets.
    fn flush(&self, waiting: &mut Waiting, at: usize) -> io::Result<()> {
        let Some(Bundle { head, contents }) = waiting.bundles.get(at) else {
            return Ok(());
        };
        let several = contents.len() > head.segment_size;
        let sent = self.inner.try_send(&Transmit {
            destination: head.destination,
            ecn: head.ecn,
            contents,
            segment_size: several.then_some(head.segment_size),
            src_ip: head.src_ip,
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            sent => {
                let mut room = waiting.bundles.remove(at).contents;
                room.clear();
                waiting.spare.push(room);
                sent
            }
        }
    }

    /// Sends all bundles, oldest first; returns false when the system's buffer is full.
    fn flush_all(&self, waiting: &mut Waiting) -> bool {
        while !waiting.bundles.is_empty() {
            let sent = self.flush(waiting, 0);
            if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return false;
            }
        }
        true
    }
}

/// Sends bundles that have waited for [`ROUNDS`], until the socket is dropped.
async fn flush_in_time(socket: Weak<CoalescingSocket>, filled: Arc<Notify>) {
    loop {
        filled.notified().await;
        for _ in 0..ROUNDS {
            tokio::task::yield_now().await;
        }
        let Some(socket) = socket.upgrade() else {
            return;
        };
        let all = socket.flush_all(&mut socket.waiting());
        if !all {
            let mut poller = socket.inner.clone().create_io_poller();
            let _ = poll_fn(|context| poller.as_mut().poll_writable(context)).await;
            filled.notify_one();
        }
    }
}

impl Drop for CoalescingSocket {
    fn drop(&mut self) {
        self.filled.notify_one();
    }
}

impl AsyncUdpSocket for CoalescingSocket {
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
        waiting.rate.count(Instant::now(), length);
        let segments_max = self.inner.max_transmit_segments();
        let room = CALL_MAX_BYTES
            .min(segments_max.saturating_mul(segment_size))
            .min(waiting.rate.call_bytes.max(length));
        let mut bundle = waiting
            .bundles
            .iter()
            .position(|bundle| bundle.head.destination == head.destination);
        if let Some(at) = bundle {
            let Bundle {
                head: before,
                contents,
            } = &waiting.bundles[at];
            if *before != head || contents.len() + length > room {
                self.flush(&mut waiting, at)?;
                bundle = None;
            }
        }
        // Only full packets are likely to be followed by more. Other packets are sent at once,
        // after the waiting ones.
        let full = transmit.segment_size.is_some() && length.is_multiple_of(segment_size);
        let alone = !full || length + segment_size > room;
        if alone && bundle.is_none() {
            return self.inner.try_send(transmit);
        }
        let at = match bundle {
            Some(at) => at,
            None => {
                if waiting.bundles.len() >= BUNDLES_MAX {
                    self.flush(&mut waiting, 0)?;
                }
                let contents = waiting.spare.pop().unwrap_or_default();
                waiting.bundles.push(Bundle { head, contents });
                self.filled.notify_one();
                waiting.bundles.len() - 1
            }
        };
        let contents = &mut waiting.bundles[at].contents;
        contents.extend_from_slice(transmit.contents);
        if !full || contents.len() + segment_size > room {
            // The packets were accepted, so WouldBlock is not returned: the flushing task retries.
            let _ = self.flush(&mut waiting, at);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let usual_bytes = self.taken_bytes.load(Ordering::Relaxed).max(1);
        let most = (TAKEN_MAX_BYTES / usual_bytes).max(1);
        let most = most.min(bufs.len()).min(meta.len());
        let (bufs, meta) = (&mut bufs[..most], &mut meta[..most]);
        let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        let bytes: usize = meta.iter().take(count).map(|meta| meta.len).sum();
        if let Some(mean) = bytes.checked_div(count) {
            self.taken_bytes.store(mean, Ordering::Relaxed);
        }
        Poll::Ready(Ok(count))
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
    use std::sync::atomic::AtomicBool;
    use std::task::Waker;

    use super::*;

    const SEGMENT: usize = 1400;

    /// The destination, the bytes, and the length of a packet if there are several.
    type Call = (SocketAddr, Vec<u8>, Option<usize>);

    /// Records calls; refuses them while the network is busy.
    #[derive(Debug, Default)]
    struct Recorder {
        calls: Mutex<Vec<Call>>,
        is_busy: AtomicBool,
        /// Received datagrams have this length and fill a call; none arrive while it is 0.
        coming_bytes: AtomicUsize,
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
            bufs: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let length = self.coming_bytes.load(Ordering::Relaxed);
            if length == 0 {
                return Poll::Pending;
            }
            assert_eq!(bufs.len(), meta.len());
            meta.iter_mut().for_each(|meta| meta.len = length);
            Poll::Ready(Ok(meta.len()))
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

    fn send(socket: &CoalescingSocket, port: u16, contents: &[u8]) -> io::Result<()> {
        socket.try_send(&Transmit {
            destination: to(port),
            ecn: None,
            contents,
            segment_size: (contents.len() > SEGMENT).then_some(SEGMENT),
            src_ip: None,
        })
    }

    /// A socket that has sent much recently.
    fn fast(recorder: &Arc<Recorder>) -> Arc<CoalescingSocket> {
        let socket = CoalescingSocket::new(recorder.clone());
        socket.waiting().rate = Rate {
            since: Some(Instant::now() + Duration::from_secs(3600)),
            bytes: 0,
            call_bytes: usize::MAX,
        };
        socket
    }

    #[tokio::test]
    async fn calls_are_short_where_little_is_sent() {
        let recorder = Arc::new(Recorder::default());
        let socket = CoalescingSocket::new(recorder.clone());
        for _ in 0..3 {
            send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        }
        assert_eq!(lengths(&recorder), [(1, 10 * SEGMENT); 3]);
    }

    #[test]
    fn a_call_carries_what_leaves_in_a_millisecond() {
        let mut rate = Rate::default();
        let start = Instant::now();
        for ms in 0..=8 {
            rate.count(start + Duration::from_millis(ms), 50_000);
        }
        assert_eq!(rate.call_bytes, 50_000);
        rate.count(start + Duration::from_millis(8 + 1000), 1);
        assert!(rate.call_bytes < 100);
    }

    /// Lets the waiting packets be sent: no other task runs.
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
        let socket = fast(&recorder);
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
        let socket = fast(&recorder);
        send(&socket, 1, &[0; 40]).unwrap();
        assert_eq!(lengths(&recorder), [(1, 40)]);
        send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        send(&socket, 1, &[0; 50]).unwrap();
        send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        // On other systems, packets neither wait nor block others.
        send(&socket, 2, &[0; 60]).unwrap();
        send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        send(&socket, 1, &[0; 2 * SEGMENT + 7]).unwrap();
        assert_eq!(
            lengths(&recorder)[1..],
            [(1, 10 * SEGMENT), (1, 50), (2, 60), (1, 22 * SEGMENT + 7)]
        );
    }

    #[tokio::test]
    async fn those_who_send_to_several_in_turns_do_not_make_short_calls() {
        let recorder = Arc::new(Recorder::default());
        let socket = fast(&recorder);
        for _ in 0..2 {
            for port in 1..=8 {
                send(&socket, port, &[0; 20 * SEGMENT]).unwrap();
            }
        }
        assert!(lengths(&recorder).is_empty());
        rounds().await;
        let all = (1..=8).map(|port| (port, 40 * SEGMENT));
        assert_eq!(lengths(&recorder), all.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_oldest_leaves_when_too_many_wait() {
        let recorder = Arc::new(Recorder::default());
        let socket = fast(&recorder);
        let ports = 1..=BUNDLES_MAX as u16 + 1;
        for port in ports.clone() {
            send(&socket, port, &[0; 2 * SEGMENT]).unwrap();
        }
        assert_eq!(lengths(&recorder), [(1, 2 * SEGMENT)]);
        rounds().await;
        let all = ports.map(|port| (port, 2 * SEGMENT));
        assert_eq!(lengths(&recorder), all.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_call_carries_no_more_than_a_datagram_may() {
        let recorder = Arc::new(Recorder::default());
        let socket = fast(&recorder);
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
    async fn a_call_takes_in_many_small_datagrams_or_a_few_large_ones() {
        const BUFFERS: usize = 32;
        let recorder = Arc::new(Recorder::default());
        let socket = fast(&recorder);
        let take = |length| {
            recorder.coming_bytes.store(length, Ordering::Relaxed);
            let mut room = [const { [] }; BUFFERS];
            let mut bufs = room.each_mut().map(|room| IoSliceMut::new(room));
            let mut meta = [RecvMeta::default(); BUFFERS];
            let mut context = Context::from_waker(Waker::noop());
            match socket.poll_recv(&mut context, &mut bufs, &mut meta) {
                Poll::Ready(count) => Some(count.unwrap()),
                Poll::Pending => None,
            }
        };
        let taken = [
            SEGMENT,
            64 << 10,
            64 << 10,
            0,
            256 << 10,
            256 << 10,
            SEGMENT,
        ]
        .map(take);
        let expected = [32, 32, 2, 0, 2, 1, 1].map(|count| (count > 0).then_some(count));
        assert_eq!(taken, expected);
        assert_eq!(take(SEGMENT), Some(BUFFERS), "they are small again");
    }

    #[tokio::test]
    async fn nothing_is_lost_while_the_system_takes_nothing() {
        let recorder = Arc::new(Recorder::default());
        let socket = fast(&recorder);
        send(&socket, 1, &[0; 10 * SEGMENT]).unwrap();
        recorder.is_busy.store(true, Ordering::Relaxed);
        rounds().await;
        let refused = send(&socket, 1, &[0; 40 * SEGMENT]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let refused = send(&socket, 2, &[0; 60]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        recorder.is_busy.store(false, Ordering::Relaxed);
        rounds().await;
        assert_eq!(lengths(&recorder), [(1, 10 * SEGMENT)]);
    }
}
