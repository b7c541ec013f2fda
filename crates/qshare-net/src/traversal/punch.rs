//! Hole punching towards an introduced node: both sides send small probes to every address at which
//! the other may be, until one is answered.
//!
//! Pure: every call takes the time, and datagrams come out of [`Puncher::poll_output`].
//!
//! Peers and trackers name the addresses, so probes are limited per destination
//! ([`crate::Allowances`]): at most [`PROBES_PER_SECOND_MAX`] datagrams of 33 bytes a second to one
//! address, [`PROBES_PER_ADDRESS_MAX`] in all to one that does not answer, and 400 a second to all.
//! An answer counts only from the address that its probe went to. Where both nodes agreed to it,
//! `birthday` adds many more probes to one public address of the peer, with limits of its own.
//!
//! [`PROBES_PER_SECOND_MAX`]: qshare_wire::limits::PROBES_PER_SECOND_MAX
//! [`PROBES_PER_ADDRESS_MAX`]: qshare_wire::limits::PROBES_PER_ADDRESS_MAX

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_wire::datagram::{Datagram, Probe};
use qshare_wire::limits::PROBED_ADDRESSES_MAX;
use rand::Rng;

use super::birthday::{BirthdayBudget, BirthdayPunch, Due};
use super::probe_mac;
use crate::Allowances;

/// How long probes of an introduction are sent and answered.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Maximum of concurrent introductions; further ones are ignored.
const ATTEMPTS_MAX: usize = 256;
/// Maximum of concurrent introductions with birthday punching, each of which takes hundreds of
/// sockets and of NAT mappings.
const BIRTHDAY_ATTEMPTS_MAX: usize = 2;
/// An introduction: a tracker told two nodes of each other.
#[derive(Debug, Clone)]
pub struct Introduced {
    /// The other node.
    pub peer: NodeId,
    /// Names the introduction in probes.
    pub id: u64,
    /// Authenticates probes.
    pub key: [u8; 16],
    /// Addresses at which the other node may be.
    pub addresses: Vec<SocketAddr>,
    /// The address at which the tracker saw the other node, if both agreed to birthday punching and
    /// it is a public IPv4 address.
    pub birthday: Option<SocketAddr>,
}

/// An action for the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram to this address.
    Send(SocketAddr, Vec<u8>),
    /// Send a datagram from an extra socket of this introduction. Sockets are numbered from 0; open
    /// the socket if it is not open yet.
    SendFrom {
        /// The introduction.
        id: u64,
        /// The socket's number.
        index: u16,
        /// The destination.
        to: SocketAddr,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Close the extra sockets of this introduction, except those on which the peer was heard.
    CloseSockets(u64),
    /// The peer of this introduction answered a probe to this address.
    Answered(u64, SocketAddr),
    /// This introduction is over.
    Ended(u64),
}

#[derive(Debug)]
struct Target {
    address: SocketAddr,
    sent: u32,
    /// Probes that may still be sent; None where the tracker named the address. An address that is
    /// known only as the source of a probe gets [`PROBES_FOR_ONE`] for each, and the answer.
    credit: Option<u32>,
    next_at: Instant,
    /// Nonces of the probes sent, newest last.
    nonces: VecDeque<[u8; 8]>,
}

/// Probes to an address for each probe that came from there, if nothing else names the address:
/// with the answer three times what came, the amplification limit of QUIC (RFC 9000 section 8.1).
const PROBES_FOR_ONE: u32 = 2;
/// Most probes to one address whose answers are still accepted.
const NONCES_KEPT: usize = 32;

#[derive(Debug)]
struct Attempt {
    introduced: Introduced,
    begun: Instant,
    targets: Vec<Target>,
    answered: bool,
    birthday: Option<BirthdayPunch>,
}

/// All introductions for which probes are sent and answered.
#[derive(Debug)]
pub struct Puncher {
    us: NodeId,
    attempts: HashMap<u64, Attempt>,
    allowances: Arc<Mutex<Allowances>>,
    birthday: BirthdayBudget,
    outputs: VecDeque<Output>,
}

impl Puncher {
    /// Follows no introduction yet. Probes count against `allowances`.
    pub fn new(us: NodeId, allowances: Arc<Mutex<Allowances>>, now: Instant) -> Puncher {
        Puncher {
            us,
            attempts: HashMap::new(),
            allowances,
            birthday: BirthdayBudget::new(now),
            outputs: VecDeque::new(),
        }
    }

    /// Begins to probe; returns false when there are too many introductions already.
    pub fn handle_introduced(&mut self, now: Instant, introduced: Introduced) -> bool {
        if self.attempts.len() >= ATTEMPTS_MAX || self.attempts.contains_key(&introduced.id) {
            return false;
        }
        let birthday_attempts = self
            .attempts
            .values()
            .filter(|other| other.birthday.is_some());
        let is_free = birthday_attempts.count() < BIRTHDAY_ATTEMPTS_MAX;
        let birthday = introduced.birthday.filter(|_| is_free);
        let mut attempt = Attempt {
            begun: now,
            targets: Vec::new(),
            answered: false,
            birthday: birthday.map(|seen_at| BirthdayPunch::new(now, seen_at)),
            introduced,
        };
        for address in attempt.introduced.addresses.clone() {
            attempt.add_target(now, address, None);
        }
        self.attempts.insert(attempt.introduced.id, attempt);
        self.handle_timeout(now);
        true
    }

    /// Takes a probe, or an answer to one of ours.
    pub fn handle_probe(&mut self, now: Instant, from: SocketAddr, probe: Probe, is_answer: bool) {
        if !self.is_genuine(&probe, is_answer) {
            return;
        }
        let Some(attempt) = self.attempts.get_mut(&probe.id) else {
            return;
        };
        let Introduced { key, .. } = attempt.introduced;
        if !is_answer {
            attempt.add_target(now, from, Some(PROBES_FOR_ONE));
            let mut answer = probe;
            answer.mac = probe_mac::sign(&key, &answer, true, self.us);
            let datagram = Datagram::Answer(answer);
            self.send(now, from, &datagram);
            self.handle_timeout(now);
            return;
        }
        let asked = attempt
            .targets
            .iter()
            .any(|target| target.address == from && target.nonces.contains(&probe.nonce));
        let birthday = attempt.birthday.as_ref();
        if !asked && !birthday.is_some_and(|birthday| birthday.asked(from, probe.nonce)) {
            return;
        }
        if let Some(birthday) = attempt.birthday.take() {
            self.birthday.forgive(birthday.seen_at().ip());
            self.outputs.push_back(Output::CloseSockets(probe.id));
        }
        let is_first = !attempt.answered;
        attempt.answered = true;
        self.allowances().handle_answered(now, from);
        if is_first {
            self.outputs.push_back(Output::Answered(probe.id, from));
        }
    }

    /// Returns whether the peer of the probe's introduction sent it.
    pub fn is_genuine(&self, probe: &Probe, is_answer: bool) -> bool {
        self.attempts.get(&probe.id).is_some_and(|attempt| {
            let Introduced { key, peer, .. } = attempt.introduced;
            probe_mac::verify(&key, probe, is_answer, peer)
        })
    }

    /// Notes that the peer is heard through an extra socket, which `address` stands for.
    pub fn handle_heard(&mut self, now: Instant, id: u64, address: SocketAddr) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.add_target(now, address, Some(PROBES_FOR_ONE));
            self.handle_timeout(now);
        }
    }

    /// Ends birthday punching towards a peer that said goodbye.
    pub fn handle_left(&mut self, peer: NodeId) {
        for (&id, attempt) in &mut self.attempts {
            if attempt.introduced.peer == peer && attempt.birthday.take().is_some() {
                self.outputs.push_back(Output::CloseSockets(id));
            }
        }
    }

    /// Sends the probes that are due, and ends introductions that are over.
    pub fn handle_timeout(&mut self, now: Instant) {
        let over: Vec<u64> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| now >= attempt.begun + ATTEMPT)
            .map(|(&id, _)| id)
            .collect();
        for id in over {
            if let Some(Attempt {
                birthday: Some(_), ..
            }) = self.attempts.remove(&id)
            {
                self.outputs.push_back(Output::CloseSockets(id));
            }
            self.outputs.push_back(Output::Ended(id));
        }
        self.send_birthday(now);
        let mut due = Vec::new();
        for attempt in self.attempts.values_mut() {
            if attempt.answered {
                continue;
            }
            let Introduced { id, key, .. } = attempt.introduced;
            let pause_later = pause(now.saturating_duration_since(attempt.begun));
            for target in &mut attempt.targets {
                if target.next_at > now || target.credit == Some(0) {
                    continue;
                }
                target.credit = target.credit.map(|left| left - 1);
                let mut probe = Probe {
                    id,
                    nonce: rand::rng().random(),
                    mac: [0; 16],
                };
                probe.mac = probe_mac::sign(&key, &probe, false, self.us);
                target.nonces.push_back(probe.nonce);
                if target.nonces.len() > NONCES_KEPT {
                    target.nonces.pop_front();
                }
                target.sent += 1;
                // The first few follow fast: one opens our NAT, the next may get through.
                let pause = pause_later.min(Duration::from_millis(25) * target.sent);
                target.next_at = now + pause.max(Duration::from_millis(25));
                due.push((target.address, Datagram::Probe(probe)));
            }
        }
        for (address, probe) in due {
            self.send(now, address, &probe);
        }
    }

    /// Sends the probes of birthday punching that are due.
    fn send_birthday(&mut self, now: Instant) {
        let Puncher {
            attempts,
            birthday: budget,
            outputs,
            us,
            ..
        } = self;
        for (&id, attempt) in attempts {
            let Some(birthday) = &mut attempt.birthday else {
                continue;
            };
            if now >= birthday.ends() {
                attempt.birthday = None;
                outputs.push_back(Output::CloseSockets(id));
                continue;
            }
            for due in birthday.due(now) {
                if !budget.permits(now, birthday.seen_at().ip()) {
                    continue;
                }
                let mut probe = Probe {
                    id,
                    nonce: birthday.nonce(due),
                    mac: [0; 16],
                };
                probe.mac = probe_mac::sign(&attempt.introduced.key, &probe, false, *us);
                let bytes = Datagram::Probe(probe).to_bytes();
                outputs.push_back(match due {
                    Due::Port(to) => Output::Send(to, bytes),
                    Due::Socket(index, to) => Output::SendFrom {
                        id,
                        index,
                        to,
                        bytes,
                    },
                });
            }
        }
    }

    /// Returns when to call [`Puncher::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = |attempt: &Attempt| {
            let over = attempt.begun + ATTEMPT;
            if attempt.answered {
                return over;
            }
            let probed = |target: &&Target| target.credit != Some(0);
            let due = attempt.targets.iter().filter(probed);
            let due = due.map(|target| target.next_at);
            let birthday = attempt.birthday.as_ref();
            let birthday =
                birthday.map(|birthday| birthday.poll_timeout().unwrap_or(birthday.ends()));
            due.chain(birthday).min().map_or(over, |due| due.min(over))
        };
        self.attempts.values().map(next).min()
    }

    /// Returns the next action.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn allowances(&self) -> MutexGuard<'_, Allowances> {
        self.allowances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&mut self, now: Instant, to: SocketAddr, datagram: &Datagram<'_>) {
        if self.allowances().permit_probe(now, to) {
            self.outputs
                .push_back(Output::Send(to, datagram.to_bytes()));
        }
    }
}

impl Attempt {
    /// Adds an address, or raises the credit of a known one.
    fn add_target(&mut self, now: Instant, address: SocketAddr, credit: Option<u32>) {
        let known = self
            .targets
            .iter_mut()
            .find(|target| target.address == address);
        if let Some(target) = known {
            target.credit = target.credit.zip(credit).map(|(left, more)| left + more);
        } else if self.targets.len() < PROBED_ADDRESSES_MAX {
            self.targets.push(Target {
                address,
                sent: 0,
                credit,
                next_at: now,
                nonces: VecDeque::new(),
            });
        }
    }
}

/// Returns the pause between two probes to one address, by the time since the introduction.
fn pause(elapsed: Duration) -> Duration {
    Duration::from_millis(match elapsed.as_millis() {
        0..2000 => 100,
        2000..5000 => 250,
        _ => 500,
    })
}

#[cfg(test)]
mod tests;
