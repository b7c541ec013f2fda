//! How two nodes meet that cannot simply dial each other: probes after an introduction
//! ([`super::punch`]), and channels through a relay. What [`crate::socket`] takes out of the
//! socket ends here.

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

use super::punch::{Introduced, Output, Puncher};
use crate::Endpoint;
use crate::endpoint::widen_buffers;
use crate::socket::{NonQuic, NonQuicSender, Route, Verdict, virtual_address};

/// Channels at once; further ones are not opened.
const CHANNELS_MAX: usize = 1024;
/// Pause between two attempts to bind a channel that is not bound yet; grows.
const BIND_AGAIN: Duration = Duration::from_millis(100);
/// A channel that is bound is bound anew this often: the address may have changed, and nothing
/// else may be sent for long.
const BIND_REFRESH: Duration = Duration::from_secs(10);
/// How often it is seen whether sockets can be closed.
const PRUNE: Duration = Duration::from_secs(30);
/// Longest lifetime of a ticket that is believed.
const LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// Where a node meets others. Clones are the same.
#[derive(Clone)]
pub struct Traversal {
    shared: Arc<Shared>,
}

struct Shared {
    sender: NonQuicSender,
    /// Where extra sockets are bound.
    bind: SocketAddr,
    state: Mutex<State>,
    /// Something is due earlier than it was.
    wake: Notify,
}

struct State {
    puncher: Puncher,
    listeners: HashMap<u64, mpsc::Sender<SocketAddr>>,
    /// By virtual address.
    channels: HashMap<SocketAddr, Channel>,
    /// Virtual addresses by handle.
    peers: HashMap<u64, SocketAddr>,
    /// Extra sockets by introduction, while nobody was heard on them.
    sockets: HashMap<u64, Sockets>,
    prune_at: Option<Instant>,
    /// Knocks that are expected, by their id, and whether they came.
    knocks: HashMap<u64, Arc<AtomicBool>>,
}

/// Extra sockets of one introduction, in their order.
#[derive(Default)]
struct Sockets {
    open: Vec<Arc<UdpSocket>>,
    /// Tasks that end with the sockets.
    listening: JoinSet<()>,
    have_failed: bool,
}

struct Channel {
    route: Route,
    secret: [u8; 16],
    is_bound: bool,
    attempts: u32,
    next_at: Instant,
    expires: Instant,
}

impl Traversal {
    /// Takes over what travels beside QUIC on this endpoint's socket. [`Traversal::run`] must run.
    pub fn install(endpoint: &Endpoint) -> Traversal {
        let sender = endpoint.non_quic().clone();
        // Routers that make them necessary are of IPv4.
        let ip = match endpoint.local_addr().map(|address| address.ip()) {
            Ok(IpAddr::V4(ip)) => ip,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let shared = Arc::new(Shared {
            sender: sender.clone(),
            bind: SocketAddr::new(ip.into(), 0),
            state: Mutex::new(State {
                puncher: Puncher::new(endpoint.id(), Instant::now()),
                listeners: HashMap::new(),
                channels: HashMap::new(),
                peers: HashMap::new(),
                sockets: HashMap::new(),
                prune_at: None,
                knocks: HashMap::new(),
            }),
            wake: Notify::new(),
        });
        sender.install(Box::new(Handler(Arc::clone(&shared))));
        Traversal { shared }
    }

    /// Begins to probe for an introduced node; tells the address at which it answered. The
    /// receiver ends when nothing came of it.
    pub fn introduced(&self, introduced: Introduced) -> mpsc::Receiver<SocketAddr> {
        let (sender, receiver) = mpsc::channel(1);
        let mut state = self.shared.lock();
        let id = introduced.id;
        if state.puncher.handle_introduced(Instant::now(), introduced) {
            state.listeners.insert(id, sender);
            self.shared.drain(&mut state);
            self.shared.wake.notify_one();
        }
        receiver
    }

    /// A node has said goodbye: no great effort is made to find it.
    pub fn left(&self, peer: NodeId) {
        let mut state = self.shared.lock();
        state.puncher.handle_left(peer);
        self.shared.drain(&mut state);
    }

    /// Opens, or renews, the channel to a node through the relay at `relay`. The node is then
    /// dialled at, and dials from, the address returned; None when there are too many channels.
    pub fn open_channel(
        &self,
        peer: NodeId,
        relay: SocketAddr,
        ticket: &RelayTicket,
    ) -> Option<SocketAddr> {
        let now = Instant::now();
        let address = virtual_address(peer);
        let route = Route {
            relay,
            handle: ticket.handle,
        };
        let lifetime = Duration::from_secs(ticket.lifetime_seconds.into()).min(LIFETIME_MAX);
        let mut state = self.shared.lock();
        let state = &mut *state;
        match state.channels.get_mut(&address) {
            Some(known) if known.route == route && known.secret == ticket.secret => {
                known.expires = now + lifetime;
                // What is bound may have been forgotten since.
                known.next_at = now;
                known.attempts = 0;
            }
            known => {
                if known.is_none() && state.channels.len() >= CHANNELS_MAX {
                    return None;
                }
                let channel = Channel {
                    route,
                    secret: ticket.secret,
                    is_bound: false,
                    attempts: 0,
                    next_at: now,
                    expires: now + lifetime,
                };
                if let Some(older) = state.channels.insert(address, channel) {
                    state.peers.remove(&older.route.handle);
                }
                state.peers.insert(route.handle, address);
            }
        }
        self.shared.send_binds(state, now);
        self.shared.wake.notify_one();
        Some(address)
    }

    /// Whether the relay has confirmed the channel to this virtual address.
    pub fn is_bound(&self, address: SocketAddr) -> bool {
        let state = self.shared.lock();
        let channel = state.channels.get(&address);
        channel.is_some_and(|channel| channel.is_bound)
    }

    /// Answers a tracker's knocks under this id until the guard is dropped.
    pub(crate) fn expect_knock(&self, id: u64) -> ExpectedKnock {
        let heard = Arc::new(AtomicBool::new(false));
        self.shared.lock().knocks.insert(id, Arc::clone(&heard));
        ExpectedKnock {
            shared: Arc::clone(&self.shared),
            id,
            heard,
        }
    }

    /// Sends a datagram now, if the system has room for it.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &Datagram<'_>) {
        let _ = self.shared.sender.send(to, &datagram.to_bytes());
    }

    /// Sends what is due, when it is due. Never returns.
    pub async fn run(self) {
        loop {
            let next = {
                let mut state = self.shared.lock();
                let now = Instant::now();
                state.puncher.handle_timeout(now);
                self.shared.send_binds(&mut state, now);
                self.shared.drain(&mut state);
                self.shared.prune(&mut state, now);
                let binds = state.channels.values().map(|channel| channel.next_at);
                let punches = state.puncher.poll_timeout();
                binds.chain(punches).chain(state.prune_at).min()
            };
            match next {
                None => self.shared.wake.notified().await,
                Some(at) => tokio::select! {
                    () = self.shared.wake.notified() => {}
                    () = sleep_until(at.into()) => {}
                },
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what the puncher wants done. What the system has no room for is as good as
    /// lost on the way.
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
                    let sockets = state.sockets.entry(id).or_default();
                    if let Some(socket) = sockets.get(self, index, id, to.ip()) {
                        let _ = SockRef::from(&**socket).send_to(&bytes, &to.into());
                    }
                }
                Output::CloseSockets(id) => _ = state.sockets.remove(&id),
                Output::Ended(id) => _ = state.listeners.remove(&id),
            }
        }
    }

    /// Closes sockets that are not used any more.
    fn prune(&self, state: &mut State, now: Instant) {
        if state.prune_at.is_some_and(|at| at <= now) {
            state.prune_at = self.sender.prune_sockets().then(|| now + PRUNE);
        }
    }

    /// Waits until the peer is heard on an extra socket, which from then on is one of the
    /// endpoint's.
    async fn listen(shared: Weak<Shared>, id: u64, peer: IpAddr, socket: Arc<UdpSocket>) {
        let mut buffer = [0; DATAGRAM_MAX_BYTES];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                return;
            };
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let parsed = buffer.get(..length).and_then(Datagram::parse);
            let (probe, is_answer) = match parsed {
                Some(Datagram::Probe(probe)) => (probe, false),
                Some(Datagram::Answer(probe)) => (probe, true),
                _ => continue,
            };
            let mut state = shared.lock();
            let is_peers = from.ip() == peer && probe.id == id;
            if !is_peers || !state.puncher.is_genuine(&probe, is_answer) {
                continue;
            }
            let socket = SockRef::from(&*socket);
            widen_buffers(&socket);
            let added = socket
                .try_clone()
                .and_then(|socket| shared.sender.add_socket(socket.into(), from));
            match added {
                Ok(address) => {
                    debug!(%from, "heard on an extra socket");
                    let now = Instant::now();
                    state.prune_at.get_or_insert(now + PRUNE);
                    let puncher = &mut state.puncher;
                    puncher.handle_probe(now, address, probe, is_answer);
                    puncher.handle_heard(now, id, address);
                    shared.drain(&mut state);
                    shared.wake.notify_one();
                }
                Err(error) => debug!(%from, %error, "an extra socket is not kept"),
            }
            return;
        }
    }

    fn send_binds(&self, state: &mut State, now: Instant) {
        let State {
            channels, peers, ..
        } = state;
        channels.retain(|_, channel| {
            let lives = now < channel.expires;
            if !lives {
                peers.remove(&channel.route.handle);
            }
            lives
        });
        for channel in channels.values_mut() {
            if channel.next_at > now {
                continue;
            }
            channel.attempts += 1;
            let pause = if channel.is_bound && channel.attempts > 1 {
                BIND_REFRESH
            } else {
                (BIND_AGAIN * channel.attempts).min(BIND_REFRESH)
            };
            channel.next_at = now + pause;
            self.send_bind(channel, [0; 8]);
        }
    }

    fn send_bind(&self, channel: &Channel, cookie: [u8; 8]) {
        let bind = Datagram::Bind {
            handle: channel.route.handle,
            secret: channel.secret,
            cookie,
        };
        let _ = self.sender.send(channel.route.relay, &bind.to_bytes());
    }
}

impl Sockets {
    /// The socket of this number, opened if it is the next one.
    fn get(
        &mut self,
        shared: &Arc<Shared>,
        index: u16,
        id: u64,
        peer: IpAddr,
    ) -> Option<&Arc<UdpSocket>> {
        if usize::from(index) >= self.open.len() && !self.have_failed {
            match open(shared.bind) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    self.open.push(socket.clone());
                    let shared = Arc::downgrade(shared);
                    self.listening
                        .spawn(Shared::listen(shared, id, peer, socket));
                }
                Err(error) => {
                    self.have_failed = true;
                    debug!(%error, open = self.open.len(), "no more extra sockets");
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

impl State {
    /// The channel of a handle, if `from` is its relay.
    fn channel(&mut self, handle: u64, from: SocketAddr) -> Option<(SocketAddr, &mut Channel)> {
        let address = *self.peers.get(&handle)?;
        let channel = self.channels.get_mut(&address)?;
        (channel.route.relay == from).then_some((address, channel))
    }
}

/// A knock that may come.
pub(crate) struct ExpectedKnock {
    shared: Arc<Shared>,
    id: u64,
    heard: Arc<AtomicBool>,
}

impl ExpectedKnock {
    /// Whether it has come.
    pub(crate) fn was_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Drop for ExpectedKnock {
    fn drop(&mut self) {
        self.shared.lock().knocks.remove(&self.id);
    }
}

struct Handler(Arc<Shared>);

impl NonQuic for Handler {
    fn handle(&self, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let Some(parsed) = Datagram::parse(datagram) else {
            return Verdict::Done;
        };
        let shared = &self.0;
        let mut state = shared.lock();
        match parsed {
            Datagram::Probe(probe) | Datagram::Answer(probe) => {
                let is_answer = matches!(parsed, Datagram::Answer(_));
                state
                    .puncher
                    .handle_probe(Instant::now(), from, probe, is_answer);
                shared.drain(&mut state);
            }
            Datagram::Relayed { handle, .. } => {
                if let Some((address, _)) = state.channel(handle, from) {
                    return Verdict::RelayedFrom(address);
                }
            }
            Datagram::Challenge { handle, cookie } => {
                if let Some((_, channel)) = state.channel(handle, from) {
                    shared.send_bind(channel, cookie);
                }
            }
            Datagram::Bound { handle } => {
                if let Some((_, channel)) = state.channel(handle, from) {
                    channel.is_bound = true;
                    channel.next_at = Instant::now() + BIND_REFRESH;
                }
            }
            Datagram::Knock { id, cookie } => {
                if let Some(knock) = state.knocks.get(&id) {
                    knock.store(true, Ordering::Relaxed);
                    let heard = Datagram::Heard { id, cookie };
                    let _ = shared.sender.send(from, &heard.to_bytes());
                }
            }
            Datagram::Bind { .. }
            | Datagram::Heard { .. }
            | Datagram::AddressProbe { .. }
            | Datagram::AddressEcho { .. } => {}
        }
        Verdict::Done
    }

    fn route(&self, to: SocketAddr) -> Option<Route> {
        let state = self.0.lock();
        // quinn may have a scope or flow of its own in there.
        let key = SocketAddr::new(to.ip(), to.port());
        state.channels.get(&key).map(|channel| channel.route)
    }
}
