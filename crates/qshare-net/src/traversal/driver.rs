//! Runs hole punching ([`super::punch`]) and relay channels on the endpoint's socket, and handles
//! the socket's datagrams that are not QUIC packets.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_wire::datagram::Datagram;
use qshare_wire::introduction::RelayTicket;
use qshare_wire::limits::DATAGRAM_MAX_BYTES;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::debug;

use super::channels::Channels;
use super::punch::{Introduced, Output, Puncher};
use crate::Endpoint;
use crate::endpoint::widen_buffers;
use crate::socket::{NonQuic, NonQuicSender, Route, Verdict};

/// Interval at which unused extra sockets are closed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(30);

/// NAT traversal on one endpoint. Clones share it.
#[derive(Clone)]
pub struct Traversal {
    driver: Arc<Driver>,
}

struct Driver {
    sender: NonQuicSender,
    /// Where extra sockets are bound.
    bind: SocketAddr,
    state: Mutex<State>,
    /// Notified when something becomes due earlier than before.
    wake: Notify,
}

struct State {
    puncher: Puncher,
    /// Channels that report the address that answered, by introduction.
    listeners: HashMap<u64, mpsc::Sender<SocketAddr>>,
    channels: Channels,
    /// Sockets on which no peer was heard yet, by introduction.
    birthday_sockets: HashMap<u64, BirthdaySockets>,
    prune_at: Option<Instant>,
    /// Expected knocks by id, and whether each has arrived.
    knocks: HashMap<u64, Arc<AtomicBool>>,
}

/// The extra sockets of one introduction, by their number.
#[derive(Default)]
struct BirthdaySockets {
    open: Vec<Arc<UdpSocket>>,
    /// Tasks that end with the sockets.
    listening: JoinSet<()>,
    have_failed: bool,
}

impl Traversal {
    /// Takes over the datagrams on this endpoint's socket that are not QUIC packets. The caller
    /// must run [`Traversal::run`].
    pub fn install(endpoint: &Endpoint) -> Traversal {
        let sender = endpoint.non_quic().clone();
        // Extra sockets serve symmetric NATs, which exist for IPv4 only.
        let ip = match endpoint.local_addr().map(|address| address.ip()) {
            Ok(IpAddr::V4(ip)) => ip,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let allowances = Arc::clone(endpoint.allowances());
        let driver = Arc::new(Driver {
            sender: sender.clone(),
            bind: SocketAddr::new(ip.into(), 0),
            state: Mutex::new(State {
                puncher: Puncher::new(endpoint.id(), allowances, Instant::now()),
                listeners: HashMap::new(),
                channels: Channels::default(),
                birthday_sockets: HashMap::new(),
                prune_at: None,
                knocks: HashMap::new(),
            }),
            wake: Notify::new(),
        });
        sender.install(Box::new(Handler(Arc::clone(&driver))));
        Traversal { driver }
    }

    /// Starts to probe for an introduced node. The receiver gets the address at which the node
    /// answered, and ends when the introduction is over.
    pub fn introduced(&self, introduced: Introduced) -> mpsc::Receiver<SocketAddr> {
        let (sender, receiver) = mpsc::channel(1);
        let mut state = self.driver.lock();
        let id = introduced.id;
        if state.puncher.handle_introduced(Instant::now(), introduced) {
            state.listeners.insert(id, sender);
            self.driver.drain(&mut state);
            self.driver.wake.notify_one();
        }
        receiver
    }

    /// Ends birthday punching towards a node that said goodbye.
    pub fn left(&self, peer: NodeId) {
        let mut state = self.driver.lock();
        state.puncher.handle_left(peer);
        self.driver.drain(&mut state);
    }

    /// Opens, or renews, the channel to a node through the relay at `relay`. Returns the virtual
    /// address at which the node is then dialled, and from which it dials; None when there are too
    /// many channels.
    pub fn open_channel(
        &self,
        peer: NodeId,
        relay: SocketAddr,
        ticket: &RelayTicket,
    ) -> Option<SocketAddr> {
        let now = Instant::now();
        let mut state = self.driver.lock();
        let address = state.channels.open(now, peer, relay, ticket)?;
        self.driver.send_binds(&mut state, now);
        self.driver.wake.notify_one();
        Some(address)
    }

    /// Answers a tracker's knocks with this id until the guard is dropped.
    pub(super) fn expect_knock(&self, id: u64) -> ExpectedKnock {
        let heard = Arc::new(AtomicBool::new(false));
        self.driver.lock().knocks.insert(id, Arc::clone(&heard));
        ExpectedKnock {
            driver: Arc::clone(&self.driver),
            id,
            heard,
        }
    }

    /// Sends a datagram now, if the system's buffer has room for it.
    pub(super) fn send(&self, to: SocketAddr, datagram: &Datagram<'_>) {
        let _ = self.driver.sender.send(to, &datagram.to_bytes());
    }

    /// Sends probes and binds when they are due. Never returns.
    pub async fn run(self) {
        loop {
            let next = {
                let mut state = self.driver.lock();
                let now = Instant::now();
                state.puncher.handle_timeout(now);
                self.driver.send_binds(&mut state, now);
                self.driver.drain(&mut state);
                self.driver.prune(&mut state, now);
                let binds = state.channels.poll_timeout().into_iter();
                let probes = state.puncher.poll_timeout();
                binds.chain(probes).chain(state.prune_at).min()
            };
            match next {
                None => self.driver.wake.notified().await,
                Some(at) => tokio::select! {
                    () = self.driver.wake.notified() => {}
                    () = sleep_until(at.into()) => {}
                },
            }
        }
    }
}

impl Driver {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out the puncher's outputs. If the system's buffer is full, a datagram counts as
    /// lost.
    fn drain(self: &Arc<Self>, state: &mut State) {
        while let Some(output) = state.puncher.poll_output() {
            match output {
                Output::Send(to, bytes) => _ = self.sender.send(to, &bytes),
                Output::Answered(id, address) => {
                    if let Some(listener) = state.listeners.get(&id) {
                        let _ = listener.try_send(address);
                    }
                }
                Output::SendFrom {
                    id,
                    index,
                    to,
                    bytes,
                } => {
                    let sockets = state.birthday_sockets.entry(id).or_default();
                    if let Some(socket) = sockets.get(self, index, id, to.ip()) {
                        let _ = SockRef::from(&**socket).send_to(&bytes, &to.into());
                    }
                }
                Output::CloseSockets(id) => _ = state.birthday_sockets.remove(&id),
                Output::Ended(id) => _ = state.listeners.remove(&id),
            }
        }
    }

    /// Closes extra sockets that are not used any more.
    fn prune(&self, state: &mut State, now: Instant) {
        if state.prune_at.is_some_and(|at| at <= now) {
            state.prune_at = self.sender.prune_sockets().then(|| now + PRUNE_INTERVAL);
        }
    }

    /// Waits until the peer is heard on an extra socket, and adds that socket to the endpoint.
    async fn listen(driver: Weak<Driver>, id: u64, peer: IpAddr, socket: Arc<UdpSocket>) {
        let mut buffer = [0; DATAGRAM_MAX_BYTES];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                return;
            };
            let Some(driver) = driver.upgrade() else {
                return;
            };
            let parsed = buffer.get(..length).and_then(Datagram::parse);
            let (probe, is_answer) = match parsed {
                Some(Datagram::Probe(probe)) => (probe, false),
                Some(Datagram::Answer(probe)) => (probe, true),
                _ => continue,
            };
            let mut state = driver.lock();
            let is_peers = from.ip() == peer && probe.id == id;
            if !is_peers || !state.puncher.is_genuine(&probe, is_answer) {
                continue;
            }
            let socket = SockRef::from(&*socket);
            widen_buffers(&socket);
            let added = socket
                .try_clone()
                .and_then(|socket| driver.sender.add_socket(socket.into(), from));
            match added {
                Ok(address) => {
                    debug!(%from, "peer heard on an extra socket");
                    let now = Instant::now();
                    state.prune_at.get_or_insert(now + PRUNE_INTERVAL);
                    let puncher = &mut state.puncher;
                    puncher.handle_probe(now, address, probe, is_answer);
                    puncher.handle_heard(now, id, address);
                    driver.drain(&mut state);
                    driver.wake.notify_one();
                }
                Err(error) => debug!(%from, %error, "cannot keep an extra socket"),
            }
            return;
        }
    }

    fn send_binds(&self, state: &mut State, now: Instant) {
        for (to, datagram) in state.channels.handle_timeout(now) {
            let _ = self.sender.send(to, &datagram);
        }
    }
}

impl BirthdaySockets {
    /// Returns the socket of this number, opened if it is the next one.
    fn get(
        &mut self,
        driver: &Arc<Driver>,
        index: u16,
        id: u64,
        peer: IpAddr,
    ) -> Option<&Arc<UdpSocket>> {
        if usize::from(index) >= self.open.len() && !self.have_failed {
            match open(driver.bind) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    self.open.push(socket.clone());
                    let driver = Arc::downgrade(driver);
                    self.listening
                        .spawn(Driver::listen(driver, id, peer, socket));
                }
                Err(error) => {
                    self.have_failed = true;
                    debug!(%error, open = self.open.len(), "cannot open more extra sockets");
                }
            }
        }
        self.open.get(usize::from(index))
    }
}

fn open(bind: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(bind)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// An expected knock. Once it is dropped, knocks with its id are no longer answered.
pub(super) struct ExpectedKnock {
    driver: Arc<Driver>,
    id: u64,
    heard: Arc<AtomicBool>,
}

impl ExpectedKnock {
    /// Returns whether the knock has arrived.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Drop for ExpectedKnock {
    fn drop(&mut self) {
        self.driver.lock().knocks.remove(&self.id);
    }
}

struct Handler(Arc<Driver>);

impl NonQuic for Handler {
    fn handle(&self, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let Some(parsed) = Datagram::parse(datagram) else {
            return Verdict::Done;
        };
        let driver = &self.0;
        let mut state = driver.lock();
        match parsed {
            Datagram::Probe(probe) | Datagram::Answer(probe) => {
                let is_answer = matches!(parsed, Datagram::Answer(_));
                state
                    .puncher
                    .handle_probe(Instant::now(), from, probe, is_answer);
                driver.drain(&mut state);
            }
            Datagram::Relayed { handle, .. } => {
                if let Some(address) = state.channels.sender(from, handle) {
                    return Verdict::RelayedFrom(address);
                }
            }
            Datagram::Challenge { handle, cookie } => {
                if let Some((to, bind)) = state.channels.handle_challenge(from, handle, cookie) {
                    let _ = driver.sender.send(to, &bind);
                }
            }
            Datagram::Bound { handle } => {
                state.channels.handle_bound(Instant::now(), from, handle);
            }
            Datagram::Knock { id, cookie } => {
                if let Some(knock) = state.knocks.get(&id) {
                    knock.store(true, Ordering::Relaxed);
                    let heard = Datagram::Heard { id, cookie };
                    let _ = driver.sender.send(from, &heard.to_bytes());
                }
            }
            // Only nodes send these, or the socket itself handles them.
            Datagram::Bind { .. }
            | Datagram::Heard { .. }
            | Datagram::AddressProbe { .. }
            | Datagram::AddressEcho { .. } => {}
        }
        Verdict::Done
    }

    fn route(&self, to: SocketAddr) -> Option<Route> {
        self.0.lock().channels.route(to)
    }
}
