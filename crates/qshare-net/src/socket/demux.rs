//! Demultiplexing: separates QUIC packets from the other datagrams ([`qshare_wire::datagram`]) of
//! the one UDP socket.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use qshare_wire::datagram::{RELAY_HEADER_BYTES, is_address_proof, is_non_quic, relay_header};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tracing::trace;

use super::address_proof::AddressProofs;
use super::extra::{Extras, Poller};
use super::virtual_address::{is_extra, is_virtual};
use crate::pacing::{PacedPoller, Pacing};

/// The route of packets to a virtual address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The relay.
    pub relay: SocketAddr,
    /// This node's end of the channel.
    pub handle: u64,
}

/// The decision of a [`NonQuic`] handler about a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The datagram was handled, or is to be dropped.
    Done,
    /// The datagram holds, after the relay's header, a QUIC packet from this virtual address.
    RelayedFrom(SocketAddr),
}

/// Handles the datagrams on the endpoint's socket that are not QUIC packets. Called on the
/// endpoint's own task, so it must not block.
pub trait NonQuic: Send + Sync {
    /// Handles a datagram from `from`.
    fn handle(&self, from: SocketAddr, datagram: &[u8]) -> Verdict;
    /// Returns the route of packets to a virtual address; None drops them.
    fn route(&self, to: SocketAddr) -> Option<Route>;
}

pub(crate) struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// Whether the socket is IPv4 but presented to quinn as IPv6, because virtual addresses are
    /// IPv6 addresses.
    is_v4: bool,
    non_quic: OnceLock<Box<dyn NonQuic>>,
    address_proofs: Arc<AddressProofs>,
    extras: Arc<Extras>,
    pacing: Arc<Pacing>,
    /// Packets from relays that quinn has not taken yet; at most those of one receiving call.
    relayed: Mutex<VecDeque<(SocketAddr, Bytes)>>,
    relayed_count: AtomicUsize,
}

impl Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("inner", &self.inner)
            .finish()
    }
}

/// Sends datagrams that are not QUIC packets on an endpoint's socket. Does nothing once the
/// endpoint is gone.
#[derive(Debug, Clone)]
pub struct NonQuicSender(Weak<Socket>);

impl NonQuicSender {
    /// Installs the handler of received datagrams. Only the first call has an effect.
    pub fn install(&self, handler: Box<dyn NonQuic>) {
        if let Some(socket) = self.0.upgrade() {
            let _ = socket.non_quic.set(handler);
        }
    }

    /// Sends a datagram now.
    ///
    /// # Errors
    ///
    /// Only [`io::ErrorKind::WouldBlock`]: the system's buffer is full. After any other error, the
    /// datagram counts as lost by the network.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let Some(socket) = self.0.upgrade() else {
            return Ok(());
        };
        if is_extra(to.ip()) {
            if let Some(extra) = socket.extras.get(to) {
                extra.send_non_quic(datagram);
            }
            return Ok(());
        }
        socket.send_raw(to, datagram)
    }

    /// Adds a socket that receives from the node at `peer`; returns the virtual address at which
    /// the node can be dialled through it. The socket is closed when it has received nothing for a
    /// minute.
    ///
    /// # Errors
    ///
    /// When there are too many extra sockets, or the system refuses another one.
    pub fn add_socket(&self, socket: UdpSocket, peer: SocketAddr) -> io::Result<SocketAddr> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.0.upgrade().ok_or_else(gone)?.extras.add(socket, peer)
    }

    /// Closes unused added sockets; returns whether any is left.
    pub fn prune_sockets(&self) -> bool {
        self.0.upgrade().is_some_and(|socket| socket.extras.prune())
    }

    /// Records that the connection through an added socket has ended. Ignores other addresses.
    pub fn end_socket(&self, address: SocketAddr) {
        if is_extra(address.ip())
            && let Some(extra) = self.0.upgrade().and_then(|one| one.extras.get(address))
        {
            extra.end();
        }
    }

    /// Returns the real address of a node that is dialled through an added socket, and any other
    /// address unchanged.
    pub fn real_address(&self, address: SocketAddr) -> SocketAddr {
        let extra = match is_extra(address.ip()) {
            true => self
                .0
                .upgrade()
                .and_then(|socket| socket.extras.get(address)),
            false => None,
        };
        extra.map_or(address, |extra| extra.peer)
    }

    /// Waits until the system's buffer has room again.
    pub async fn writable(&self) {
        let Some(socket) = self.0.upgrade() else {
            return;
        };
        let mut poller = socket.create_io_poller();
        let _ = std::future::poll_fn(|context| poller.as_mut().poll_writable(context)).await;
    }
}

impl Socket {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>) -> io::Result<Socket> {
        let is_v4 = inner.local_addr()?.is_ipv4();
        Ok(Socket {
            inner,
            is_v4,
            non_quic: OnceLock::new(),
            address_proofs: Arc::default(),
            extras: Arc::default(),
            pacing: Arc::default(),
            relayed: Mutex::default(),
            relayed_count: AtomicUsize::new(0),
        })
    }

    pub(crate) fn sender(self: &Arc<Self>) -> NonQuicSender {
        NonQuicSender(Arc::downgrade(self))
    }

    /// The rate limits of this socket.
    pub(crate) fn pacing(&self) -> &Arc<Pacing> {
        &self.pacing
    }

    /// The address proofs of this socket.
    pub(crate) fn address_proofs(&self) -> &Arc<AddressProofs> {
        &self.address_proofs
    }

    /// Sends one datagram that is not a QUIC packet to a real address.
    fn send_raw(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.pacing.up.charge(datagram.len(), datagram.len());
        self.send_to(Transmit {
            destination: to,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: None,
        })
    }

    /// Sends to a real address. quinn drops a connection silently on most errors, so only
    /// [`io::ErrorKind::WouldBlock`] reaches it.
    fn send_to(&self, mut transmit: Transmit<'_>) -> io::Result<()> {
        let ip = transmit.destination.ip();
        let wanted = match self.is_v4 {
            true => ip.to_canonical(),
            false => to_mapped(ip),
        };
        transmit.destination.set_ip(wanted);
        match self.inner.try_send(&transmit) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                trace!(to = %transmit.destination, %error, "not sent");
                Ok(())
            }
            sent => sent,
        }
    }

    /// Sends to a virtual address, through its relay.
    fn send_relayed(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let route = self.non_quic.get();
        let Some(route) = route.and_then(|handler| handler.route(transmit.destination)) else {
            return Ok(());
        };
        let header = relay_header(route.handle);
        let contents = transmit.contents;
        let segment = transmit.segment_size.unwrap_or(contents.len()).max(1);
        let segments = contents.len().div_ceil(segment);
        let mut bytes = Vec::with_capacity(contents.len() + segments * header.len());
        for packet in contents.chunks(segment) {
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(packet);
        }
        self.send_to(Transmit {
            destination: route.relay,
            ecn: None,
            contents: &bytes,
            segment_size: transmit.segment_size.map(|size| size + header.len()),
            src_ip: None,
        })
    }

    /// Removes the datagrams that are not QUIC packets from a buffer, and closes the gaps. All
    /// remaining datagrams but the last have the length of `stride`.
    fn sift(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
        let (mut at, mut kept) = (0, 0);
        while at < meta.len {
            let end = (at + meta.stride).min(meta.len);
            if is_non_quic(buffer[at]) {
                self.take_non_quic(from, &buffer[at..end]);
            } else {
                buffer.copy_within(at..end, kept);
                kept += end - at;
            }
            at = end;
        }
        meta.len = kept;
    }

    fn take_non_quic(&self, from: SocketAddr, datagram: &[u8]) {
        if datagram
            .first()
            .is_some_and(|&first| is_address_proof(first))
        {
            if let Some(reply) = self.address_proofs.handle(from, datagram) {
                let _ = self.send_raw(from, &reply);
            }
            return;
        }
        let Some(handler) = self.non_quic.get() else {
            return;
        };
        if let Verdict::RelayedFrom(peer) = handler.handle(from, datagram)
            && let Some(packet) = datagram.get(RELAY_HEADER_BYTES..)
            && !packet.is_empty()
        {
            let mut relayed = self.relayed.lock().unwrap_or_else(PoisonError::into_inner);
            relayed.push_back((peer, Bytes::copy_from_slice(packet)));
            self.relayed_count.store(relayed.len(), Ordering::Release);
        }
    }

    /// Passes the packets that came through relays to quinn.
    fn take_relayed(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let mut relayed = self.relayed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        while count < buffers.len().min(meta.len()) {
            let Some((from, packet)) = relayed.pop_front() else {
                break;
            };
            let Some(room) = buffers[count].get_mut(..packet.len()) else {
                continue;
            };
            room.copy_from_slice(&packet);
            meta[count] = RecvMeta {
                addr: from,
                len: packet.len(),
                stride: packet.len(),
                ecn: None,
                dst_ip: None,
            };
            count += 1;
        }
        self.relayed_count.store(relayed.len(), Ordering::Release);
        count
    }
}

impl Socket {
    /// Receives from the main socket or an extra one.
    fn poll_any(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let ever = self.extras.ever();
            let mut received = Poll::Pending;
            if self.extras.is_empty() {
                received = self.inner.poll_recv(cx, bufs, meta);
            } else {
                let extras_first = self.extras.are_first();
                for extras in [extras_first, !extras_first] {
                    received = match extras {
                        true => self.extras.poll_recv(cx, bufs, meta),
                        false => self.inner.poll_recv(cx, bufs, meta),
                    };
                    if received.is_ready() {
                        break;
                    }
                }
            }
            if received.is_pending() {
                self.extras.wait_for_more(cx);
                if self.extras.ever() != ever {
                    continue;
                }
            }
            return received;
        }
    }
}

fn to_mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        ip => ip,
    }
}

/// Returns whether any datagram in a buffer is not a QUIC packet.
fn holds_non_quic(buffer: &[u8], stride: usize) -> bool {
    match buffer.len() <= stride {
        true => buffer.first().is_some_and(|&first| is_non_quic(first)),
        false => buffer
            .iter()
            .step_by(stride.max(1))
            .any(|&first| is_non_quic(first)),
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let one = self.inner.clone().create_io_poller();
        let any = Box::pin(Poller::new(self.extras.clone(), one));
        Box::pin(PacedPoller::new(self.pacing.clone(), any))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let ip = transmit.destination.ip();
        let length = transmit.contents.len();
        let segment = transmit.segment_size.unwrap_or(length);
        if !self.pacing.up.admit(length, segment) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if is_virtual(ip) {
            return self.send_relayed(transmit);
        }
        if is_extra(ip) {
            let extra = self.extras.get(transmit.destination);
            return extra.map_or(Ok(()), |extra| extra.send_quic(transmit));
        }
        self.send_to(transmit.clone())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.relayed_count.load(Ordering::Acquire) > 0 {
            let count = self.take_relayed(bufs, meta);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        let count = ready!(self.poll_any(cx, bufs, meta))?;
        for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(count) {
            self.pacing.down.charge(meta.len, meta.stride);
            let buffer = buffer.get_mut(..meta.len).unwrap_or_default();
            if holds_non_quic(buffer, meta.stride) {
                self.sift(buffer, meta);
            }
            if self.is_v4 {
                meta.addr.set_ip(to_mapped(meta.addr.ip()));
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        let mut address = self.inner.local_addr()?;
        address.set_ip(to_mapped(address.ip()));
        Ok(address)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        let paced = self.pacing.up.segments_max();
        self.inner.max_transmit_segments().min(paced)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::NodeId;

    use super::super::virtual_address::virtual_address;
    use super::*;

    #[derive(Debug)]
    struct NoSocket;

    impl UdpPoller for NoSocket {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncUdpSocket for NoSocket {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(NoSocket)
        }
        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
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
            Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
        }
    }

    /// Attributes every relayed packet to one node, and records the other datagrams.
    struct Recorder(Arc<Mutex<Vec<Vec<u8>>>>);

    impl NonQuic for Recorder {
        fn handle(&self, _: SocketAddr, datagram: &[u8]) -> Verdict {
            if datagram[0] == 0x16 {
                return Verdict::RelayedFrom(virtual_address(NodeId([9; 32])));
            }
            self.0.lock().unwrap().push(datagram.to_vec());
            Verdict::Done
        }
        fn route(&self, _: SocketAddr) -> Option<Route> {
            None
        }
    }

    fn socket() -> (Socket, Arc<Mutex<Vec<Vec<u8>>>>) {
        let socket = Socket::new(Arc::new(NoSocket)).unwrap();
        let seen = Arc::default();
        let recorder: Box<dyn NonQuic> = Box::new(Recorder(Arc::clone(&seen)));
        let _ = socket.non_quic.set(recorder);
        (socket, seen)
    }

    fn meta(len: usize, stride: usize) -> RecvMeta {
        RecvMeta {
            addr: SocketAddr::from(([192, 0, 2, 1], 5000)),
            len,
            stride,
            ecn: None,
            dst_ip: None,
        }
    }

    #[test]
    fn what_is_beside_quic_is_taken_out_of_a_bundle_and_the_rest_moves_together() {
        let (socket, seen) = socket();
        let mut buffer = *b"\x40aa\x11bb\xc0cc\x15d";
        let mut meta = meta(buffer.len(), 3);
        assert!(holds_non_quic(&buffer, meta.stride));
        socket.sift(&mut buffer, &mut meta);
        assert_eq!((meta.len, meta.stride), (6, 3));
        assert_eq!(&buffer[..6], b"\x40aa\xc0cc");
        assert_eq!(
            *seen.lock().unwrap(),
            [b"\x11bb".to_vec(), b"\x15d".to_vec()]
        );
    }

    #[test]
    fn a_datagram_of_quic_alone_is_left_alone() {
        assert!(!holds_non_quic(b"\x40aaaa\xffbbbb\x40c", 5));
        assert!(!holds_non_quic(b"", 0));
        assert!(holds_non_quic(b"\x40aaaa\xffbbbb\x00", 5));
    }

    #[test]
    fn relayed_packets_come_from_their_virtual_address() {
        let (socket, _) = socket();
        let datagram = [&relay_header(5)[..], b"\x40packet"].concat();
        let mut buffer = datagram.clone();
        let mut one = meta(buffer.len(), buffer.len());
        socket.sift(&mut buffer, &mut one);
        assert_eq!(one.len, 0);
        let (mut room, mut metas) = ([0; 64], [RecvMeta::default()]);
        let count = socket.take_relayed(&mut [IoSliceMut::new(&mut room)], &mut metas);
        assert_eq!((count, metas[0].len), (1, 7));
        assert!(is_virtual(metas[0].addr.ip()));
        assert_eq!(&room[..7], b"\x40packet");
        assert_eq!(socket.relayed_count.load(Ordering::Acquire), 0);
    }

    #[test]
    fn errors_of_the_system_do_not_reach_quinn() {
        let (socket, _) = socket();
        let to = SocketAddr::from(([192, 0, 2, 1], 5000));
        for destination in [to, virtual_address(NodeId([9; 32]))] {
            let transmit = Transmit {
                destination,
                ecn: None,
                contents: b"\x40",
                segment_size: None,
                src_ip: None,
            };
            socket.try_send(&transmit).unwrap();
        }
    }
}
