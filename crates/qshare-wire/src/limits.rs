//! All limits of the protocol. Input beyond them is refused.

use std::time::Duration;

/// Time from a connection's establishment to the first frame of its first stream.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// QUIC keep-alive interval on connections that should stay up.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a tracker that was started again may not know everything: an idle node notices the
/// restart with its next keep-alive, and then connects and announces.
pub const WARMING: Duration = KEEP_ALIVE.saturating_add(Duration::from_secs(2));
/// QUIC idle time-out.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node's entries outlive a lost connection. They go at once after a goodbye.
pub const LEASE: Duration = Duration::from_secs(30);

/// Largest body of a small message: Hello, requests, refusals.
pub const SMALL_BODY_MAX_BYTES: usize = 16 * 1024;
/// Largest body of a message that carries a list.
pub const LIST_BODY_MAX_BYTES: usize = 1024 * 1024;

/// Extensions in one message.
pub const EXTENSIONS_MAX: usize = 16;
/// Bytes of one extension.
pub const EXTENSION_MAX_BYTES: usize = 1024;
/// Bytes of a text for people (agent, reason).
pub const TEXT_MAX_BYTES: usize = 256;

/// Candidate addresses of one node.
pub const CANDIDATES_MAX: usize = 8;
/// Smallest port of a node. Lower ones belong to well-known services, to which no node is led to
/// send.
pub const CANDIDATE_PORT_MIN: u16 = 1024;

/// Bytes of a datagram beside QUIC, except relayed packets.
pub const DATAGRAM_MAX_BYTES: usize = 64;
/// Probes and answers that a node sends to one address in a second.
pub const PROBES_PER_SECOND_MAX: u32 = 20;
/// Probes and answers that a node sends to one address that does not answer.
pub const PROBES_PER_ADDRESS_MAX: u32 = 200;
/// Addresses to which probes of one introduction go: candidates, and sources of probes.
pub const PROBED_ADDRESSES_MAX: usize = 2 * CANDIDATES_MAX;

/// Sockets that a node opens for birthday punching. With 256 of 64,512 ports open, 1,024 random
/// probes hit one in 98 of 100 cases, 2,048 in 99.97.
pub const BIRTHDAY_SOCKETS: u16 = 256;
/// Probes that each of these sockets sends: the first opens the NAT, the others replace those that
/// are lost or arrive too early.
pub const BIRTHDAY_ROUNDS: u16 = 3;
/// Probes to random ports of one IP address after one introduction.
pub const BIRTHDAY_PORTS: u16 = 2048;
/// Probes to random ports a second: fast enough that most succeed before the relay would be used.
pub const BIRTHDAY_PORTS_PER_SECOND: u32 = 1536;
/// Probes of both kinds a second, to all addresses together.
pub const BIRTHDAY_PROBES_PER_SECOND_MAX: u32 = 2560;
/// Probes of both kinds to one IP address in an hour, unless one is answered.
pub const BIRTHDAY_PROBES_PER_HOUR_MAX: u32 = 8192;

/// Entries of one announcement batch.
pub const ANNOUNCE_ENTRIES_MAX: usize = 2048;
pub use qshare_content::METADATA_MAX_BYTES;
/// Matches of one page of answers.
pub const MATCHES_MAX: usize = 1024;
/// Holders named in one answer.
pub const HOLDERS_MAX: usize = 256;
/// Holders named for each match of an answer.
pub const HOLDERS_PER_MATCH_MAX: usize = 16;
/// Similar names offered if nothing was found.
pub const NEAR_NAMES_MAX: usize = 8;
/// Bytes of a page's cursor.
pub const CURSOR_MAX_BYTES: usize = 2048;

/// Chunks in one `HaveMore`.
pub const HAVE_MORE_MAX: usize = 8192;
/// Hashes of an audit path: from a leaf to the root of the largest file.
pub const PATH_HASHES_MAX: usize = 31;
