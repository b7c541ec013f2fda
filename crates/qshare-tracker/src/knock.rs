//! Knocking at nodes from a second port, so that they know what their routers let in.
//!
//! What goes out is small (three datagrams of 17 bytes), goes only to the IP address at which the
//! asker is seen, and is counted: for each session by its requests, for all of them together here.
//! Nothing that comes in at the second port is answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_net::udp_socket;
use qshare_wire::datagram::Datagram;
use qshare_wire::knock::{Knock, Knocked};
use qshare_wire::limits::{CANDIDATE_PORT_MIN, DATAGRAM_MAX_BYTES};
use qshare_wire::{Refusal, Refused};
use quinn::SendStream;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::contacts::canonical;
use crate::request::respond;
use crate::session::Client;

/// When datagrams of one knock leave, after the one before: one or two may be lost.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(300),
];
/// How long an answer is waited for, in all.
const WAIT: Duration = Duration::from_secs(1);
/// Knocks that wait for an answer, all sessions together.
const WAITING_MAX: usize = 512;
/// Knocks that begin within a second, all sessions together.
const PER_SECOND_MAX: u32 = 200;

/// The second port, and who waits for what comes there. Clones are the same.
#[derive(Clone)]
pub(crate) struct Knocker(Arc<Shared>);

struct Shared {
    socket: UdpSocket,
    port: u16,
    state: Mutex<State>,
}

struct State {
    waiting: HashMap<u64, Waiting>,
    /// The second that is counted, since when, and what began in it.
    second: (Instant, u32),
}

struct Waiting {
    cookie: [u8; 8],
    answered: oneshot::Sender<SocketAddr>,
}

impl fmt::Debug for Knocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knocker")
            .field("port", &self.0.port)
            .finish()
    }
}

impl Knocker {
    /// Binds the second port beside the one that the tracker listens on: the next one, so that a
    /// firewall can be told to let it in; another if somebody has that.
    pub(crate) fn bind(listen: SocketAddr) -> Option<Knocker> {
        let at = |port| SocketAddr::new(listen.ip(), port);
        let bound = match listen.port().checked_add(1) {
            Some(next) => udp_socket(at(next)).or_else(|_| udp_socket(at(0))),
            None => udp_socket(at(0)),
        };
        let socket = bound.map_err(|error| error.to_string()).and_then(|socket| {
            let usable = socket.set_nonblocking(true);
            usable
                .and_then(|()| UdpSocket::from_std(socket))
                .and_then(|socket| Ok((socket.local_addr()?.port(), socket)))
                .map_err(|error| error.to_string())
        });
        match socket {
            Ok((port, socket)) => Some(Knocker(Arc::new(Shared {
                socket,
                port,
                state: Mutex::new(State {
                    waiting: HashMap::new(),
                    second: (Instant::now(), 0),
                }),
            }))),
            Err(cause) => {
                warn!(%cause, "no second port: nodes are not told what their routers let in");
                None
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// Takes what comes in. Never returns.
    pub(crate) async fn run(self) {
        let mut buffer = [0; DATAGRAM_MAX_BYTES];
        loop {
            let (length, from) = match self.0.socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // Somebody's host said that nobody is there. A durable failure must not spin.
                    debug!(%error, "at the second port");
                    sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            if let Some(Datagram::Heard { id, cookie }) = Datagram::parse(&buffer[..length]) {
                self.0.lock().handle_heard(id, cookie, canonical(from));
            }
        }
    }

    /// Waits for an answer under an id that nobody else uses; None when there is no room.
    fn expect(
        &self,
        id: u64,
        cookie: [u8; 8],
    ) -> Option<(Expected, oneshot::Receiver<SocketAddr>)> {
        let answer = self.0.lock().expect(Instant::now(), id, cookie)?;
        let expected = Expected {
            shared: Arc::clone(&self.0),
            id,
        };
        Some((expected, answer))
    }

    async fn send(&self, to: SocketAddr, datagram: &Datagram<'_>) {
        // The socket may be one of IPv6 that serves both.
        let v6 = self.0.socket.local_addr().is_ok_and(|at| at.is_ipv6());
        let to = match to.ip() {
            std::net::IpAddr::V4(ip) if v6 => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), to.port())
            }
            _ => to,
        };
        if let Err(error) = self.0.socket.send_to(&datagram.to_bytes(), to).await {
            debug!(%to, %error, "not sent from the second port");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expect(
        &mut self,
        now: Instant,
        id: u64,
        cookie: [u8; 8],
    ) -> Option<oneshot::Receiver<SocketAddr>> {
        if now.saturating_duration_since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        if self.waiting.len() >= WAITING_MAX || self.second.1 >= PER_SECOND_MAX {
            return None;
        }
        let Entry::Vacant(vacant) = self.waiting.entry(id) else {
            return None;
        };
        self.second.1 += 1;
        let (answered, answer) = oneshot::channel();
        vacant.insert(Waiting { cookie, answered });
        Some(answer)
    }

    fn handle_heard(&mut self, id: u64, cookie: [u8; 8], from: SocketAddr) {
        let Entry::Occupied(waiting) = self.waiting.entry(id) else {
            return;
        };
        if waiting.get().cookie == cookie {
            let _ = waiting.remove().answered.send(from);
        }
    }
}

/// An answer that may come. It is no longer waited for when this is dropped.
struct Expected {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.id);
    }
}

/// Knocks at the asker, or waits for what it sends.
pub(crate) async fn knock(client: &Client, request: Knock, send: &mut SendStream) {
    let observed = canonical(client.connection.remote_address());
    let Some(knocker) = &client.shared.knocker else {
        let refused = Refused::because(Refusal::NotHere, "it has no second port");
        respond(client, send, &refused).await;
        return;
    };
    let to = request
        .port
        .map(|port| SocketAddr::new(observed.ip(), port));
    if to.is_some_and(|to| !may_knock_at(to, observed)) {
        let refused = Refused::because(Refusal::NotAllowed, "it does not knock at that port");
        respond(client, send, &refused).await;
        return;
    }
    // Whoever is not knocked at has no cookie to repeat.
    let cookie = match to {
        Some(_) => rand::random(),
        None => [0; 8],
    };
    let Some((expected, answer)) = knocker.expect(request.id, cookie) else {
        let refused = Refused::because(Refusal::Busy, "it knocks at too many others");
        respond(client, send, &refused).await;
        return;
    };
    let knocking = async {
        if let Some(to) = to {
            let id = request.id;
            for pause in PAUSES {
                sleep(pause).await;
                knocker.send(to, &Datagram::Knock { id, cookie }).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let came_from = timeout(WAIT, async {
        tokio::select! {
            from = answer => from.ok(),
            () = knocking => None,
        }
    });
    let came_from = came_from.await.ok().flatten();
    drop(expected);
    if request.offer {
        // An answer from elsewhere went out through another door than the knock came in by.
        let proven = came_from.filter(|_| came_from == to);
        client.shared.directory.prove(client.id, proven);
    }
    let knocked = Knocked {
        observed,
        second_port: knocker.port(),
        came_from,
        extensions: Vec::new(),
    };
    respond(client, send, &knocked).await;
}

/// A node on this host could otherwise have its other services knocked at.
fn may_knock_at(to: SocketAddr, observed: SocketAddr) -> bool {
    to.port() >= CANDIDATE_PORT_MIN && (!to.ip().is_loopback() || to == observed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(now: Instant) -> State {
        State {
            waiting: HashMap::new(),
            second: (now, 0),
        }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_answer_counts_only_with_the_cookie_that_was_sent() {
        let now = Instant::now();
        let mut state = state(now);
        let mut answer = state.expect(now, 7, [1; 8]).unwrap();
        state.handle_heard(7, [2; 8], at("192.0.2.1:2"));
        state.handle_heard(8, [1; 8], at("192.0.2.1:2"));
        assert!(answer.try_recv().is_err());
        state.handle_heard(7, [1; 8], at("192.0.2.1:3"));
        assert_eq!(answer.try_recv(), Ok(at("192.0.2.1:3")));
    }

    #[test]
    fn nobody_takes_the_answer_of_another() {
        let now = Instant::now();
        let mut state = state(now);
        let _first = state.expect(now, 7, [1; 8]).unwrap();
        assert!(state.expect(now, 7, [2; 8]).is_none());
    }

    #[test]
    fn all_together_are_knocked_at_so_often_a_second_and_no_more() {
        let mut now = Instant::now();
        let mut state = state(now);
        for id in 0..u64::from(PER_SECOND_MAX) {
            assert!(state.expect(now, id, [0; 8]).is_some());
        }
        assert!(state.expect(now, u64::MAX, [0; 8]).is_none());
        now += Duration::from_secs(1);
        assert!(state.expect(now, u64::MAX, [0; 8]).is_some());
    }

    #[test]
    fn well_known_services_and_those_of_this_host_are_not_knocked_at() {
        let observed = at("192.0.2.1:40000");
        assert!(may_knock_at(at("192.0.2.1:64500"), observed));
        assert!(!may_knock_at(at("192.0.2.1:53"), observed));
        let observed = at("127.0.0.1:40000");
        assert!(may_knock_at(observed, observed));
        assert!(!may_knock_at(at("127.0.0.1:5353"), observed));
    }
}
