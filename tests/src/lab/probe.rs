//! Small UDP experiments that tell what a network does, without qshare.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::host::Host;

/// A packet that is not there by then was dropped. Only ever waited for when something fails.
const DEADLINE: Duration = Duration::from_secs(5);
/// A router may drop the first packet to somebody whose own was just dropped: its connection
/// tracking has not forgotten that one yet.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// What comes from another host may be later than what was sent after it, by no more than this.
const LATE: Duration = Duration::from_millis(500);
/// Attempts of a punch, and how long each waits for the other's.
const PUNCHES: usize = 10;
const PUNCH_WAIT: Duration = Duration::from_millis(200);

/// What a mapping, or a filter, depends on besides the inside's address (RFC 4787).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependence {
    /// Nothing.
    Endpoint,
    /// The outside's address.
    Address,
    /// The outside's address and port.
    AddressAndPort,
}

/// The behaviour of a NAT, or of a path without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// When two destinations see different sources.
    pub mapping: Dependence,
    /// From where an answer is let through, after one packet went out.
    pub filtering: Dependence,
}

/// Finds out how the way from `client` to the internet behaves, with the help of two others that
/// have public addresses.
pub fn behaviour(client: &Host, first: &Host, second: &Host) -> io::Result<Behaviour> {
    let socket = bind(client)?;
    let asked = bind(first)?;
    let other_port = bind(first)?;
    let other_host = bind(second)?;

    let outside = seen_by(&socket, &asked)?;
    // Filtering first: asking the others opens the filter to them.
    other_port.send_to(b"port", outside)?;
    other_host.send_to(b"host", outside)?;
    asked.send_to(b"last", outside)?;
    let mut arrived = Vec::new();
    let mut packet = [0; 4];
    while !(arrived.contains(b"port") && arrived.contains(b"host")) {
        match socket.recv_from(&mut packet) {
            Ok(_) => arrived.push(packet),
            Err(error) if is_timeout(&error) => break,
            Err(error) => return Err(error),
        }
        if packet == *b"last" {
            socket.set_read_timeout(Some(LATE))?;
        }
    }
    if !arrived.contains(b"last") && arrived.len() < 2 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let filtering = match (arrived.contains(b"port"), arrived.contains(b"host")) {
        (_, true) => Dependence::Endpoint,
        (true, false) => Dependence::Address,
        (false, false) => Dependence::AddressAndPort,
    };

    let mapping = if seen_by(&socket, &other_port)? != outside {
        Dependence::AddressAndPort
    } else if seen_by(&socket, &other_host)? != outside {
        Dependence::Address
    } else {
        Dependence::Endpoint
    };
    Ok(Behaviour { mapping, filtering })
}

/// Whether two hosts get through to each other, both sending at once to where `meeting` saw the
/// other, and then to where the other's packets come from.
pub fn punch(a: &Host, b: &Host, meeting: &Host) -> io::Result<bool> {
    let (socket_a, socket_b) = (bind(a)?, bind(b)?);
    let meeting = bind(meeting)?;
    let mut a_at = seen_by(&socket_a, &meeting)?;
    let mut b_at = seen_by(&socket_b, &meeting)?;
    socket_a.set_read_timeout(Some(PUNCH_WAIT))?;
    socket_b.set_read_timeout(Some(PUNCH_WAIT))?;
    let (mut a_heard, mut b_heard) = (false, false);
    for _ in 0..PUNCHES {
        socket_a.send_to(b"punch", b_at)?;
        socket_b.send_to(b"punch", a_at)?;
        if let Some(source) = receive(&socket_a)? {
            (a_heard, b_at) = (true, source);
        }
        if let Some(source) = receive(&socket_b)? {
            (b_heard, a_at) = (true, source);
        }
        if a_heard && b_heard {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A socket on this host, at its IPv4 address.
pub fn bind(host: &Host) -> io::Result<UdpSocket> {
    let socket = host.inside(|| UdpSocket::bind((host.address(), 0)))??;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket)
}

/// Where packets from one seem to come from at the other.
fn seen_by(from: &UdpSocket, to: &UdpSocket) -> io::Result<SocketAddr> {
    // Tells them from what an earlier question left.
    let question = from.local_addr()?.port().to_be_bytes();
    to.set_read_timeout(Some(ASK_AGAIN))?;
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        from.send_to(&question, to.local_addr()?)?;
        let mut packet = [0; 2];
        match to.recv_from(&mut packet) {
            Ok((_, source)) if packet == question => return Ok(source),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn receive(socket: &UdpSocket) -> io::Result<Option<SocketAddr>> {
    match socket.recv_from(&mut [0; 8]) {
        Ok((_, source)) => Ok(Some(source)),
        Err(error) if is_timeout(&error) => Ok(None),
        // An ICMP error that an earlier packet met.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error),
    }
}
