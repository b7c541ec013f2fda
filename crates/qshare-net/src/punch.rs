//! Opening a way to an introduced node: small probes to wherever it may be, from both sides at
//! once, until one is answered.
//!
//! Pure: time and randomness are given, datagrams come out of [`Puncher::poll_output`].
//!
//! Whoever names addresses to us, they are not ours to flood: a node sends at most
//! [`PROBES_PER_SECOND_MAX`] datagrams of 33 bytes a second to one address,
//! [`PROBES_PER_ADDRESS_MAX`] in all to one that does not answer, and `PROBES_MAX` a second in
//! all. An answer counts only from the address that its probe went to.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use qshare_content::NodeId;
use qshare_wire::datagram::{Datagram, Probe};
use qshare_wire::limits::{PROBED_ADDRESSES_MAX, PROBES_PER_ADDRESS_MAX, PROBES_PER_SECOND_MAX};
use rand::Rng;
use sha2::Sha256;

/// How long an introduction is worth an effort, and answers its probes.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Introductions at once; further ones are not followed.
const ATTEMPTS_MAX: usize = 256;
/// Probes and answers a second to all addresses together.
const PROBES_MAX: u32 = 400;
/// An address that was left alone for this long counts as one never tried.
const FORGIVEN: Duration = Duration::from_secs(600);
/// Addresses whose probes are counted.
const ADDRESSES_MAX: usize = 4096;

/// Two nodes that a tracker told of each other.
#[derive(Debug, Clone)]
pub struct Introduced {
    /// The other one.
    pub peer: NodeId,
    /// Names the introduction in probes.
    pub id: u64,
    /// Authenticates probes.
    pub key: [u8; 16],
    /// Where the other one may be.
    pub addresses: Vec<SocketAddr>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this there.
    Send(SocketAddr, Vec<u8>),
    /// The peer of this introduction is there, and hears us.
    Answered(u64, SocketAddr),
    /// This introduction is over.
    Ended(u64),
}

/// A budget that fills up again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one of `burst` tokens that come back at `per_second`.
    fn take(&mut self, now: Instant, burst: f64, per_second: f64) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * per_second).min(burst);
        self.at = now;
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

/// What was sent to an address.
#[derive(Debug)]
struct Allowance {
    bucket: Bucket,
    unanswered: u32,
}

#[derive(Debug)]
struct Target {
    address: SocketAddr,
    sent: u32,
    next_at: Instant,
    /// Of the probes sent, newest last.
    nonces: VecDeque<[u8; 8]>,
}

/// Probes whose answers are still taken.
const NONCES_KEPT: usize = 32;

#[derive(Debug)]
struct Attempt {
    introduced: Introduced,
    begun: Instant,
    targets: Vec<Target>,
    answered: bool,
}

/// All introductions that are being followed.
#[derive(Debug)]
pub struct Puncher {
    us: NodeId,
    attempts: HashMap<u64, Attempt>,
    allowances: HashMap<SocketAddr, Allowance>,
    all: Bucket,
    outputs: VecDeque<Output>,
}

impl Puncher {
    /// One that follows none.
    pub fn new(us: NodeId, now: Instant) -> Puncher {
        Puncher {
            us,
            attempts: HashMap::new(),
            allowances: HashMap::new(),
            all: Bucket {
                tokens: f64::from(PROBES_MAX),
                at: now,
            },
            outputs: VecDeque::new(),
        }
    }

    /// Begins to probe; false when there is too much to do already.
    pub fn handle_introduced(&mut self, now: Instant, introduced: Introduced) -> bool {
        if self.attempts.len() >= ATTEMPTS_MAX || self.attempts.contains_key(&introduced.id) {
            return false;
        }
        let mut attempt = Attempt {
            begun: now,
            targets: Vec::new(),
            answered: false,
            introduced,
        };
        for address in attempt.introduced.addresses.clone() {
            attempt.add_target(now, address);
        }
        self.attempts.insert(attempt.introduced.id, attempt);
        self.handle_timeout(now);
        true
    }

    /// A probe, or an answer to one of ours, came in.
    pub fn handle_probe(&mut self, now: Instant, from: SocketAddr, probe: Probe, is_answer: bool) {
        let Some(attempt) = self.attempts.get_mut(&probe.id) else {
            return;
        };
        let Introduced { key, peer, .. } = attempt.introduced;
        if probe.mac != mac(&key, &probe, is_answer, peer) {
            return;
        }
        if !is_answer {
            attempt.add_target(now, from);
            let mut answer = probe;
            answer.mac = mac(&key, &answer, true, self.us);
            let datagram = Datagram::Answer(answer);
            self.send(now, from, &datagram);
            self.handle_timeout(now);
            return;
        }
        let asked = attempt
            .targets
            .iter()
            .any(|target| target.address == from && target.nonces.contains(&probe.nonce));
        if !asked {
            return;
        }
        if let Some(allowance) = self.allowances.get_mut(&from) {
            allowance.unanswered = 0;
        }
        let first = !attempt.answered;
        attempt.answered = true;
        if first {
            self.outputs.push_back(Output::Answered(probe.id, from));
        }
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let over: Vec<u64> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| now >= attempt.begun + ATTEMPT)
            .map(|(&id, _)| id)
            .collect();
        for id in over {
            self.attempts.remove(&id);
            self.outputs.push_back(Output::Ended(id));
        }
        let mut due = Vec::new();
        for attempt in self.attempts.values_mut() {
            if attempt.answered {
                continue;
            }
            let Introduced { id, key, .. } = attempt.introduced;
            let pause_later = pause(now.saturating_duration_since(attempt.begun));
            for target in &mut attempt.targets {
                if target.next_at > now {
                    continue;
                }
                let mut probe = Probe {
                    id,
                    nonce: rand::rng().random(),
                    mac: [0; 16],
                };
                probe.mac = mac(&key, &probe, false, self.us);
                target.nonces.push_back(probe.nonce);
                if target.nonces.len() > NONCES_KEPT {
                    target.nonces.pop_front();
                }
                target.sent += 1;
                // The first few follow fast: one opens our router, the next may come through.
                let pause = pause_later.min(Duration::from_millis(25) * target.sent);
                target.next_at = now + pause.max(Duration::from_millis(25));
                due.push((target.address, Datagram::Probe(probe)));
            }
        }
        for (address, probe) in due {
            self.send(now, address, &probe);
        }
    }

    /// When to call [`Puncher::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = |attempt: &Attempt| {
            let over = attempt.begun + ATTEMPT;
            if attempt.answered {
                return over;
            }
            let due = attempt.targets.iter().map(|target| target.next_at);
            due.min().map_or(over, |due| due.min(over))
        };
        self.attempts.values().map(next).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn send(&mut self, now: Instant, to: SocketAddr, datagram: &Datagram<'_>) {
        if self.permits(now, to) {
            self.outputs
                .push_back(Output::Send(to, datagram.to_bytes()));
        }
    }

    fn permits(&mut self, now: Instant, to: SocketAddr) -> bool {
        // Half at once and half by and by are the whole in any one second.
        let half = f64::from(PROBES_PER_SECOND_MAX) / 2.0;
        if self.allowances.len() >= ADDRESSES_MAX && !self.allowances.contains_key(&to) {
            self.allowances
                .retain(|_, allowance| now < allowance.bucket.at + FORGIVEN);
            if self.allowances.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let fresh = Allowance {
            bucket: Bucket {
                tokens: half,
                at: now,
            },
            unanswered: 0,
        };
        let allowance = self.allowances.entry(to).or_insert(fresh);
        if now >= allowance.bucket.at + FORGIVEN {
            allowance.unanswered = 0;
        }
        let permitted = allowance.unanswered < PROBES_PER_ADDRESS_MAX
            && allowance.bucket.take(now, half, half)
            && self
                .all
                .take(now, f64::from(PROBES_MAX), f64::from(PROBES_MAX));
        if permitted {
            allowance.unanswered += 1;
        }
        permitted
    }
}

impl Attempt {
    fn add_target(&mut self, now: Instant, address: SocketAddr) {
        let known = self.targets.iter().any(|target| target.address == address);
        if !known && self.targets.len() < PROBED_ADDRESSES_MAX {
            self.targets.push(Target {
                address,
                sent: 0,
                next_at: now,
                nonces: VecDeque::new(),
            });
        }
    }
}

/// Time between two probes to one address, so long after the introduction.
fn pause(elapsed: Duration) -> Duration {
    Duration::from_millis(match elapsed.as_millis() {
        0..2000 => 100,
        2000..5000 => 250,
        _ => 500,
    })
}

fn mac(key: &[u8; 16], probe: &Probe, is_answer: bool, sender: NodeId) -> [u8; 16] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(&probe.authenticated(is_answer));
    mac.update(&sender.0);
    let whole = mac.finalize().into_bytes();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn introduced(peer: NodeId, addresses: &[&str]) -> Introduced {
        Introduced {
            peer,
            id: 5,
            key: [7; 16],
            addresses: addresses.iter().map(|text| at(text)).collect(),
        }
    }

    fn sent(puncher: &mut Puncher) -> Vec<(SocketAddr, Vec<u8>)> {
        std::iter::from_fn(|| puncher.poll_output())
            .filter_map(|output| match output {
                Output::Send(to, bytes) => Some((to, bytes)),
                _ => None,
            })
            .collect()
    }

    fn receive(puncher: &mut Puncher, now: Instant, from: SocketAddr, bytes: &[u8]) {
        match Datagram::parse(bytes) {
            Some(Datagram::Probe(probe)) => puncher.handle_probe(now, from, probe, false),
            Some(Datagram::Answer(probe)) => puncher.handle_probe(now, from, probe, true),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_that_were_introduced_find_each_other_where_their_packets_come_from() {
        let now = Instant::now();
        let (mut a, mut b) = (Puncher::new(A, now), Puncher::new(B, now));
        assert!(a.handle_introduced(now, introduced(B, &["198.51.100.1:1000"])));
        assert!(b.handle_introduced(now, introduced(A, &["203.0.113.1:2000"])));
        // What a sends reaches nobody: b's router has given it another port, from which b's come.
        sent(&mut a);
        let (b_outside, a_outside) = (at("198.51.100.1:7777"), at("203.0.113.1:2000"));
        for (_, bytes) in sent(&mut b) {
            receive(&mut a, now, b_outside, &bytes);
        }
        for (to, bytes) in sent(&mut a) {
            assert_eq!(to, b_outside);
            receive(&mut b, now, a_outside, &bytes);
        }
        let back: Vec<Output> = std::iter::from_fn(|| b.poll_output()).collect();
        assert!(back.contains(&Output::Answered(5, a_outside)));
        for output in back {
            if let Output::Send(_, bytes) = output {
                receive(&mut a, now, b_outside, &bytes);
            }
        }
        let outputs: Vec<Output> = std::iter::from_fn(|| a.poll_output()).collect();
        assert!(
            outputs.contains(&Output::Answered(5, b_outside)),
            "{outputs:?}"
        );
    }

    #[test]
    fn an_address_that_does_not_answer_is_left_alone_whoever_names_it_how_often() {
        let mut now = Instant::now();
        let mut puncher = Puncher::new(A, now);
        let victim = "198.51.100.1:1000";
        let mut times = Vec::new();
        let end = now + Duration::from_secs(300);
        let mut id = 0;
        while now < end {
            id += 1;
            let mut again = introduced(B, &[victim]);
            again.id = id;
            puncher.handle_introduced(now, again);
            puncher.handle_timeout(now);
            times.extend(sent(&mut puncher).iter().map(|_| now));
            now += Duration::from_millis(50);
        }
        assert_eq!(times.len(), PROBES_PER_ADDRESS_MAX as usize);
        for (index, &time) in times.iter().enumerate() {
            let within = times[index..]
                .iter()
                .take_while(|&&other| other < time + Duration::from_secs(1));
            assert!(within.count() <= PROBES_PER_SECOND_MAX as usize);
        }
    }

    #[test]
    fn all_addresses_together_are_sent_no_more_than_so_much() {
        let now = Instant::now();
        let mut puncher = Puncher::new(A, now);
        for id in 0..200u64 {
            let mut many = introduced(B, &[]);
            many.id = id;
            many.addresses = (0..8u16)
                .map(|port| SocketAddr::from(([198, 51, 100, id as u8], 1024 + port)))
                .collect();
            puncher.handle_introduced(now, many);
        }
        assert_eq!(sent(&mut puncher).len(), PROBES_MAX as usize);
    }

    #[test]
    fn forged_replayed_and_reflected_answers_are_none() {
        let now = Instant::now();
        let mut a = Puncher::new(A, now);
        let mut b = Puncher::new(B, now);
        a.handle_introduced(now, introduced(B, &["198.51.100.1:1000"]));
        b.handle_introduced(now, introduced(A, &["203.0.113.1:2000"]));
        let there = at("198.51.100.1:1000");
        let (_, probe) = sent(&mut a).remove(0);
        // Our own probe, thrown back as an answer.
        let mut reflected = probe.clone();
        reflected[0] = 0x12;
        receive(&mut a, now, there, &reflected);
        // A true answer, from elsewhere, and altered.
        receive(&mut b, now, at("203.0.113.1:2000"), &probe);
        let answer = sent(&mut b)
            .into_iter()
            .find(|(_, bytes)| bytes[0] == 0x12)
            .unwrap()
            .1;
        receive(&mut a, now, at("192.0.2.66:1000"), &answer);
        let mut altered = answer.clone();
        altered[20] ^= 1;
        receive(&mut a, now, there, &altered);
        assert_eq!(a.poll_output(), None);
        receive(&mut a, now, there, &answer);
        assert_eq!(a.poll_output(), Some(Output::Answered(5, there)));
    }

    #[test]
    fn an_introduction_ends_by_itself() {
        let now = Instant::now();
        let mut puncher = Puncher::new(A, now);
        puncher.handle_introduced(now, introduced(B, &["198.51.100.1:1000"]));
        let mut last = now;
        while let Some(at) = puncher.poll_timeout() {
            last = at;
            puncher.handle_timeout(at);
        }
        assert_eq!(last, now + ATTEMPT);
    }
}
