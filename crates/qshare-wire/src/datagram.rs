//! Datagrams beside QUIC on the same UDP sockets: hole-punching probes, relayed packets, knocks and
//! address proofs.
//!
//! The first byte of a QUIC packet has the *fixed bit* (0x40, RFC 9000 section 17; qshare does not
//! grease it, RFC 9287) or the long-header bit (0x80) set. That of these datagrams has neither,
//! which tells them apart. Integers are big-endian; ids, handles, nonces and cookies have 8 bytes:
//!
//! ```text
//! 0      1             9          17                33
//! ├──────┼─────────────┼──────────┼─────────────────┤
//! │ 0x11 │ id          │ nonce    │ mac             │  Probe
//! │ 0x12 │ id          │ nonce    │ mac             │  Answer to the probe of that nonce
//! │ 0x13 │ handle      │ secret (16)       │ cookie  │  Bind: this is my address
//! │ 0x14 │ handle      │ cookie   │                    Challenge: repeat the bind with this cookie
//! │ 0x15 │ handle      │                               Bound: the address is proven
//! │ 0x16 │ handle      │ a QUIC packet …               Relayed
//! │ 0x17 │ id          │ cookie   │                    Knock: does this reach you?
//! │ 0x18 │ id          │ cookie   │                    Heard: it does
//! │ 0x19 │ id          │ cookie   │                    AddressProbe: do you receive here?
//! │ 0x1a │ id          │ cookie   │                    AddressEcho: I do
//! └──────┴─────────────┴───────────────────
//! ```
//!
//! Nodes that a tracker introduced to each other exchange probes and answers. All other datagrams
//! are between a node and its tracker. No answer is longer than its request.

use crate::limits::DATAGRAM_MAX_BYTES;

/// Bytes in front of a relayed packet.
pub const RELAY_HEADER_BYTES: usize = 9;

const PROBE: u8 = 0x11;
const ANSWER: u8 = 0x12;
const BIND: u8 = 0x13;
const CHALLENGE: u8 = 0x14;
const BOUND: u8 = 0x15;
const RELAYED: u8 = 0x16;
const KNOCK: u8 = 0x17;
const HEARD: u8 = 0x18;
const ADDRESS_PROBE: u8 = 0x19;
const ADDRESS_ECHO: u8 = 0x1a;

/// Returns whether a datagram that begins with this byte is one of these, rather than QUIC's.
pub const fn is_non_quic(first_byte: u8) -> bool {
    first_byte & 0xc0 == 0
}

/// A probe, or the answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The introduction that it belongs to.
    pub id: u64,
    /// Matches an answer to its probe.
    pub nonce: [u8; 8],
    /// First half of HMAC-SHA-256 under the introduction's key over what comes before it and the
    /// sender's NodeId.
    pub mac: [u8; 16],
}

/// A datagram beside QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// Node to node: do you hear me?
    Probe(Probe),
    /// Node to node: I heard you.
    Answer(Probe),
    /// Node to relay: packets of this handle come from, and go to, the address that this came from.
    Bind {
        /// The end of the channel.
        handle: u64,
        /// From the ticket.
        secret: [u8; 16],
        /// From the challenge; zeros at first.
        cookie: [u8; 8],
    },
    /// Relay to node: prove that you receive at this address.
    Challenge {
        /// The end of the channel.
        handle: u64,
        /// Repeated in the reply.
        cookie: [u8; 8],
    },
    /// Relay to node: the address is proven.
    Bound {
        /// The end of the channel.
        handle: u64,
    },
    /// A packet of a connection between two nodes, through the relay.
    Relayed {
        /// The node's own end of the channel.
        handle: u64,
        /// The QUIC packet.
        packet: &'a [u8],
    },
    /// Tracker to node, from the second port: does this reach you?
    Knock {
        /// From the node's request.
        id: u64,
        /// Repeated in the reply.
        cookie: [u8; 8],
    },
    /// Node to the tracker's second port: the knock arrived; or, unsolicited, a datagram of which
    /// the tracker reports the source.
    Heard {
        /// From the node's request.
        id: u64,
        /// From the knock; zeros if there was none.
        cookie: [u8; 8],
    },
    /// Acceptor of a connection to its dialler, at a changed address: do you receive here?
    AddressProbe {
        /// Names the connection: 8 bytes of its TLS exporter, big-endian.
        id: u64,
        /// Fresh for each proof.
        cookie: [u8; 8],
    },
    /// Dialler to acceptor, from that address: the probe arrived.
    AddressEcho {
        /// From the probe.
        id: u64,
        /// From the probe.
        cookie: [u8; 8],
    },
}

/// Returns whether a datagram that begins with this byte is an address probe or echo.
pub const fn is_address_proof(first_byte: u8) -> bool {
    matches!(first_byte, ADDRESS_PROBE | ADDRESS_ECHO)
}

impl Probe {
    /// Returns the bytes that the MAC covers besides the sender's id.
    pub fn authenticated(&self, is_answer: bool) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[0] = if is_answer { ANSWER } else { PROBE };
        bytes[1..9].copy_from_slice(&self.id.to_be_bytes());
        bytes[9..].copy_from_slice(&self.nonce);
        bytes
    }
}

/// Returns the header of a relayed packet.
pub fn relay_header(handle: u64) -> [u8; RELAY_HEADER_BYTES] {
    let mut header = [RELAYED; RELAY_HEADER_BYTES];
    header[1..].copy_from_slice(&handle.to_be_bytes());
    header
}

impl<'a> Datagram<'a> {
    /// Parses a datagram; None if its type is unknown or its length wrong.
    pub fn parse(bytes: &'a [u8]) -> Option<Datagram<'a>> {
        let (&kind, rest) = bytes.split_first()?;
        let (handle, rest) = rest.split_first_chunk::<8>()?;
        let handle = u64::from_be_bytes(*handle);
        let whole = |taken: &[u8]| taken.is_empty().then_some(());
        match kind {
            PROBE | ANSWER => {
                let (nonce, rest) = rest.split_first_chunk()?;
                let (mac, rest) = rest.split_first_chunk()?;
                whole(rest)?;
                let probe = Probe {
                    id: handle,
                    nonce: *nonce,
                    mac: *mac,
                };
                Some(match kind {
                    PROBE => Datagram::Probe(probe),
                    _ => Datagram::Answer(probe),
                })
            }
            BIND => {
                let (secret, rest) = rest.split_first_chunk()?;
                let (cookie, rest) = rest.split_first_chunk()?;
                whole(rest)?;
                Some(Datagram::Bind {
                    handle,
                    secret: *secret,
                    cookie: *cookie,
                })
            }
            CHALLENGE | KNOCK | HEARD | ADDRESS_PROBE | ADDRESS_ECHO => {
                let (cookie, rest) = rest.split_first_chunk()?;
                whole(rest)?;
                let (id, cookie) = (handle, *cookie);
                Some(match kind {
                    CHALLENGE => Datagram::Challenge { handle, cookie },
                    KNOCK => Datagram::Knock { id, cookie },
                    HEARD => Datagram::Heard { id, cookie },
                    ADDRESS_PROBE => Datagram::AddressProbe { id, cookie },
                    _ => Datagram::AddressEcho { id, cookie },
                })
            }
            BOUND => {
                whole(rest)?;
                Some(Datagram::Bound { handle })
            }
            RELAYED if !rest.is_empty() => Some(Datagram::Relayed {
                handle,
                packet: rest,
            }),
            _ => None,
        }
    }

    /// Returns the bytes of a datagram.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(DATAGRAM_MAX_BYTES);
        let head = |bytes: &mut Vec<u8>, kind: u8, handle: u64| {
            bytes.push(kind);
            bytes.extend_from_slice(&handle.to_be_bytes());
        };
        match self {
            Datagram::Probe(probe) | Datagram::Answer(probe) => {
                let is_answer = matches!(self, Datagram::Answer(_));
                bytes.extend_from_slice(&probe.authenticated(is_answer));
                bytes.extend_from_slice(&probe.mac);
            }
            Datagram::Bind {
                handle,
                secret,
                cookie,
            } => {
                head(&mut bytes, BIND, *handle);
                bytes.extend_from_slice(secret);
                bytes.extend_from_slice(cookie);
            }
            Datagram::Challenge { handle, cookie } => {
                head(&mut bytes, CHALLENGE, *handle);
                bytes.extend_from_slice(cookie);
            }
            Datagram::Bound { handle } => head(&mut bytes, BOUND, *handle),
            Datagram::Knock { id, cookie } => {
                head(&mut bytes, KNOCK, *id);
                bytes.extend_from_slice(cookie);
            }
            Datagram::Heard { id, cookie } => {
                head(&mut bytes, HEARD, *id);
                bytes.extend_from_slice(cookie);
            }
            Datagram::AddressProbe { id, cookie } => {
                head(&mut bytes, ADDRESS_PROBE, *id);
                bytes.extend_from_slice(cookie);
            }
            Datagram::AddressEcho { id, cookie } => {
                head(&mut bytes, ADDRESS_ECHO, *id);
                bytes.extend_from_slice(cookie);
            }
            Datagram::Relayed { handle, packet } => {
                bytes.extend_from_slice(&relay_header(*handle));
                bytes.extend_from_slice(packet);
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Datagram<'static>> {
        let probe = Probe {
            id: 7,
            nonce: [1; 8],
            mac: [2; 16],
        };
        let (handle, cookie) = (u64::MAX - 1, [5; 8]);
        vec![
            Datagram::Probe(probe),
            Datagram::Answer(probe),
            Datagram::Bind {
                handle,
                secret: [9; 16],
                cookie,
            },
            Datagram::Challenge { handle, cookie },
            Datagram::Bound { handle },
            Datagram::Relayed {
                handle,
                packet: b"packet",
            },
            Datagram::Knock { id: 3, cookie },
            Datagram::Heard { id: 3, cookie },
            Datagram::AddressProbe { id: 3, cookie },
            Datagram::AddressEcho { id: 3, cookie },
        ]
    }

    #[test]
    fn all_kinds_round_trip_and_none_looks_like_quic() {
        for datagram in all() {
            let bytes = datagram.to_bytes();
            assert!(is_non_quic(bytes[0]));
            assert!(bytes.len() <= DATAGRAM_MAX_BYTES);
            assert_eq!(Datagram::parse(&bytes), Some(datagram));
        }
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_none() {
        for datagram in all() {
            let bytes = datagram.to_bytes();
            for length in 0..bytes.len() {
                // A relayed packet may have any length but none.
                if !matches!(datagram, Datagram::Relayed { .. }) || length <= RELAY_HEADER_BYTES {
                    assert_eq!(Datagram::parse(&bytes[..length]), None);
                }
            }
            if !matches!(datagram, Datagram::Relayed { .. }) {
                assert_eq!(Datagram::parse(&[&bytes[..], &[0]].concat()), None);
            }
        }
    }

    #[test]
    fn an_answer_is_never_longer_than_what_it_answers() {
        let length = |at: usize| all()[at].to_bytes().len();
        assert!(length(1) <= length(0));
        assert!(length(3) <= length(2) && length(4) <= length(2));
        assert!(length(7) <= length(6) && length(9) <= length(8));
        // A relayed packet from an unproven address is answered with a challenge.
        let smallest = Datagram::Relayed {
            handle: 1,
            packet: &[0x40; 21],
        };
        assert!(length(3) <= smallest.to_bytes().len());
    }
}
