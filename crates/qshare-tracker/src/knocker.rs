//! The tracker's second port, from which it tests which packets a node's router lets in.
//!
//! A knock is three datagrams of 17 bytes. It is sent only to the IP address at which the asking
//! node was observed. The request budget limits the knocks of each session, and this module limits
//! those of all sessions together. Nothing that arrives at the second port is answered.

mod state;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_net::udp_socket;
use qshare_wire::datagram::Datagram;
use qshare_wire::limits::DATAGRAM_MAX_BYTES;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{debug, warn};

use self::state::PendingKnocks;
use crate::contacts::canonical;

/// The second port and its pending knocks. Clones share both.
#[derive(Clone)]
pub(crate) struct Knocker(Arc<SecondPort>);

struct SecondPort {
    socket: UdpSocket,
    port: u16,
    pending: Mutex<PendingKnocks>,
}

impl fmt::Debug for Knocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knocker")
            .field("port", &self.0.port)
            .finish()
    }
}

impl Knocker {
    /// Binds the port after the one that the tracker listens on, so that a firewall rule can name
    /// it, or any free port if that one is taken. None if no socket can be bound.
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
            Ok((port, socket)) => Some(Knocker(Arc::new(SecondPort {
                socket,
                port,
                pending: Mutex::new(PendingKnocks::new(Instant::now())),
            }))),
            Err(cause) => {
                warn!(%cause, "no second port: nodes cannot test whether their routers let packets in");
                None
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// Receives answers to knocks. Never returns.
    pub(crate) async fn run(self) {
        let mut buffer = [0; DATAGRAM_MAX_BYTES];
        loop {
            let (length, from) = match self.0.socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // An ICMP error of an earlier datagram. The pause keeps a lasting failure
                    // from spinning.
                    debug!(%error, "cannot receive at the second port");
                    sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            if let Some(Datagram::Heard { id, cookie }) = Datagram::parse(&buffer[..length]) {
                self.0.lock().handle_heard(id, cookie, canonical(from));
            }
        }
    }

    /// Registers a knock. None if too many are pending, or if the id is in use.
    pub(crate) fn expect_answer(&self, id: u64, cookie: [u8; 8]) -> Option<ExpectedAnswer> {
        let answer = self.0.lock().expect(Instant::now(), id, cookie)?;
        Some(ExpectedAnswer {
            second_port: Arc::clone(&self.0),
            id,
            answer,
        })
    }

    pub(crate) async fn send(&self, to: SocketAddr, datagram: &Datagram<'_>) {
        // A socket of IPv6 that serves both families takes IPv4 addresses only in mapped form.
        let is_v6 = self.0.socket.local_addr().is_ok_and(|at| at.is_ipv6());
        let to = match to.ip() {
            IpAddr::V4(ip) if is_v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        if let Err(error) = self.0.socket.send_to(&datagram.to_bytes(), to).await {
            debug!(%to, %error, "cannot send from the second port");
        }
    }
}

impl SecondPort {
    fn lock(&self) -> MutexGuard<'_, PendingKnocks> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pending knock. Dropping it cancels the knock.
pub(crate) struct ExpectedAnswer {
    second_port: Arc<SecondPort>,
    id: u64,
    answer: oneshot::Receiver<SocketAddr>,
}

impl ExpectedAnswer {
    /// Waits for the answer; returns its source address.
    pub(crate) async fn received(&mut self) -> Option<SocketAddr> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for ExpectedAnswer {
    fn drop(&mut self) {
        self.second_port.lock().forget(self.id);
    }
}
