//! Opening a way to an introduced node: small probes to wherever it may be, from both sides at
//! once, until one is answered.
//!
//! Pure: time and randomness are given, datagrams come out of [`Puncher::poll_output`].
//!
//! Whoever names addresses to us, they are not ours to flood: a node sends at most
//! [`PROBES_PER_SECOND_MAX`] datagrams of 33 bytes a second to one address,
//! [`PROBES_PER_ADDRESS_MAX`] in all to one that does not answer, and `PROBES_MAX` a second in
//! all. An answer counts only from the address that its probe went to. Where both nodes agreed to
//! it, `birthday` adds many more, to one public address of the peer's, with bounds of its own.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use qshare_content::NodeId;
use qshare_wire::datagram::{Datagram, Probe};
use qshare_wire::limits::{PROBED_ADDRESSES_MAX, PROBES_PER_ADDRESS_MAX, PROBES_PER_SECOND_MAX};
use rand::Rng;
use sha2::Sha256;

use super::birthday::{BirthdayBudget, BirthdayPunch, Due};

/// How long an introduction is worth an effort, and answers its probes.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Introductions at once; further ones are not followed.
const ATTEMPTS_MAX: usize = 256;
/// Of these, introductions that are followed with many probes: they take many sockets, and many
/// entries in routers.
const BIRTHDAY_ATTEMPTS_MAX: usize = 2;
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
    /// Where the tracker saw the other one, if both agreed to many probes and it is a public IPv4
    /// address.
    pub birthday: Option<SocketAddr>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this there.
    Send(SocketAddr, Vec<u8>),
    /// Send it from one of the extra sockets of this introduction, numbered from 0; open it if it
    /// is not open yet.
    SendFrom {
        /// The introduction.
        id: u64,
        /// Which socket.
        index: u16,
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// The extra sockets of this introduction are of no more use, but for those that were heard on.
    CloseSockets(u64),
    /// The peer of this introduction is there, and hears us.
    Answered(u64, SocketAddr),
    /// This introduction is over.
    Ended(u64),
}

/// A budget that fills up again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    pub(super) tokens: f64,
    pub(super) at: Instant,
}

impl Bucket {
    /// Takes one of `burst` tokens that come back at `per_second`.
    pub(super) fn take(&mut self, now: Instant, burst: f64, per_second: f64) -> bool {
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
    /// Probes that may still be sent; None where the tracker named the address. One that only a
    /// packet claims to come from gets no more than [`PROBES_FOR_ONE`] for each, and the answer.
    credit: Option<u32>,
    next_at: Instant,
    /// Of the probes sent, newest last.
    nonces: VecDeque<[u8; 8]>,
}

/// Probes to an address that nobody but the sender of a probe vouches for, for each that came from
/// there: with the answer no more than three times what came.
const PROBES_FOR_ONE: u32 = 2;
/// Probes whose answers are still taken.
const NONCES_KEPT: usize = 32;

#[derive(Debug)]
struct Attempt {
    introduced: Introduced,
    begun: Instant,
    targets: Vec<Target>,
    answered: bool,
    birthday: Option<BirthdayPunch>,
}

/// All introductions that are being followed.
#[derive(Debug)]
pub struct Puncher {
    us: NodeId,
    attempts: HashMap<u64, Attempt>,
    allowances: HashMap<SocketAddr, Allowance>,
    all: Bucket,
    birthday: BirthdayBudget,
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
            birthday: BirthdayBudget::new(now),
            outputs: VecDeque::new(),
        }
    }

    /// Begins to probe; false when there is too much to do already.
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

    /// A probe, or an answer to one of ours, came in.
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
        let birthday = attempt.birthday.as_ref();
        if !asked && !birthday.is_some_and(|birthday| birthday.asked(from, probe.nonce)) {
            return;
        }
        if let Some(birthday) = attempt.birthday.take() {
            self.birthday.forgive(birthday.seen_at().ip());
            self.outputs.push_back(Output::CloseSockets(probe.id));
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

    /// Whether the peer of the introduction that it names sent this.
    pub fn is_genuine(&self, probe: &Probe, is_answer: bool) -> bool {
        self.attempts.get(&probe.id).is_some_and(|attempt| {
            let Introduced { key, peer, .. } = attempt.introduced;
            mac_state(&key, probe, is_answer, peer)
                .verify_truncated_left(&probe.mac)
                .is_ok()
        })
    }

    /// The peer is heard at an address that was not known before: one of ours that was opened for
    /// it got through.
    pub fn handle_heard(&mut self, now: Instant, id: u64, address: SocketAddr) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.add_target(now, address, Some(PROBES_FOR_ONE));
            self.handle_timeout(now);
        }
    }

    /// The peer has said goodbye: it is not looked for any more with many probes.
    pub fn handle_left(&mut self, peer: NodeId) {
        for (&id, attempt) in &mut self.attempts {
            if attempt.introduced.peer == peer && attempt.birthday.take().is_some() {
                self.outputs.push_back(Output::CloseSockets(id));
            }
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

    /// Sends what is due in vain, but for one.
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
                probe.mac = mac(&attempt.introduced.key, &probe, false, *us);
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

    /// When to call [`Puncher::handle_timeout`] next.
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
    /// Adds an address, or to what may be sent to it.
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

/// Time between two probes to one address, so long after the introduction.
fn pause(elapsed: Duration) -> Duration {
    Duration::from_millis(match elapsed.as_millis() {
        0..2000 => 100,
        2000..5000 => 250,
        _ => 500,
    })
}

fn mac_state(key: &[u8; 16], probe: &Probe, is_answer: bool, sender: NodeId) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(&probe.authenticated(is_answer));
    mac.update(&sender.0);
    mac
}

fn mac(key: &[u8; 16], probe: &Probe, is_answer: bool, sender: NodeId) -> [u8; 16] {
    let whole = mac_state(key, probe, is_answer, sender)
        .finalize()
        .into_bytes();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

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
            birthday: None,
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
    fn an_address_that_a_probe_claims_to_come_from_gets_no_more_than_three_times_as_much() {
        let begun = Instant::now();
        let (mut a, mut b) = (Puncher::new(A, begun), Puncher::new(B, begun));
        a.handle_introduced(begun, introduced(B, &[]));
        b.handle_introduced(begun, introduced(A, &["203.0.113.1:2000"]));
        let probes = sent(&mut b);
        let victim = at("192.0.2.66:1000");
        for received in 1..=5 {
            receive(&mut a, begun, victim, &probes[0].1);
            let mut now = begun;
            while let Some(at) = a.poll_timeout().filter(|&at| at < begun + ATTEMPT) {
                now = now.max(at);
                a.handle_timeout(now);
            }
            let to_victim = sent(&mut a);
            assert!(to_victim.iter().all(|(to, _)| *to == victim));
            let bytes: usize = to_victim.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(
                (1..=3 * probes[0].1.len()).contains(&bytes),
                "{bytes} bytes for probe {received}"
            );
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

    /// A router as [`two_where_one_router_takes_a_port_for_each_destination_meet`] has two of.
    #[derive(Default)]
    struct Router {
        /// Outside port by inside socket and destination; one for all destinations if it is a cone.
        ports: HashMap<(u16, Option<SocketAddr>), u16>,
        /// What may come in: to this port, from there.
        open: std::collections::HashSet<(u16, SocketAddr)>,
        is_cone: bool,
    }

    impl Router {
        fn send(&mut self, socket: u16, to: SocketAddr) -> u16 {
            let key = (socket, (!self.is_cone).then_some(to));
            let taken: Vec<u16> = self.ports.values().copied().collect();
            let port = *self.ports.entry(key).or_insert_with(|| {
                loop {
                    let port = rand::rng().random_range(1024..=u16::MAX);
                    if !taken.contains(&port) {
                        return port;
                    }
                }
            });
            self.open.insert((port, to));
            port
        }

        /// The inside socket that a packet reaches.
        fn receive(&self, port: u16, from: SocketAddr) -> Option<u16> {
            let ours = |mapped: &&(u16, Option<SocketAddr>)| self.ports[*mapped] == port;
            let (socket, _) = self.ports.keys().find(ours)?;
            self.open.contains(&(port, from)).then_some(*socket)
        }
    }

    #[test]
    fn two_where_one_router_takes_a_port_for_each_destination_meet() {
        // The main socket of each, and the addresses of their routers.
        const MAIN: u16 = u16::MAX;
        let ips: [IpAddr; 2] = [[198, 51, 100, 1].into(), [203, 0, 113, 1].into()];
        let mut now = Instant::now();
        let mut routers = [false, true].map(|is_cone| Router {
            is_cone,
            ..Router::default()
        });
        // The tracker has seen both.
        let tracker = at("192.0.2.1:65000");
        let seen = [0, 1].map(|side: usize| {
            let port = routers[side].send(MAIN, tracker);
            SocketAddr::new(ips[side], port)
        });
        let mut nodes = [Puncher::new(A, now), Puncher::new(B, now)];
        for (side, peer) in [(0, B), (1, A)] {
            let mut met = introduced(peer, &[&seen[1 - side].to_string()]);
            met.birthday = Some(seen[1 - side]);
            assert!(nodes[side].handle_introduced(now, met));
        }
        // An extra socket that was heard on is known by an address of its own.
        let alias = |socket: u16| SocketAddr::new([10, 0, 0, 1].into(), socket);
        let end = now + ATTEMPT;
        let mut found = [None; 2];
        while found.contains(&None) && now < end {
            let due = nodes
                .iter()
                .filter_map(Puncher::poll_timeout)
                .min()
                .unwrap();
            now = now.max(due);
            nodes.iter_mut().for_each(|node| node.handle_timeout(now));
            let mut is_quiet = false;
            while !is_quiet {
                is_quiet = true;
                for side in 0..2 {
                    let Some(output) = nodes[side].poll_output() else {
                        continue;
                    };
                    is_quiet = false;
                    let (socket, to, bytes) = match output {
                        Output::Answered(_, address) => {
                            found[side] = Some(address);
                            continue;
                        }
                        Output::Send(to, bytes) if to.ip() == alias(0).ip() => {
                            (to.port(), seen[1 - side], bytes)
                        }
                        Output::Send(to, bytes) => (MAIN, to, bytes),
                        Output::SendFrom {
                            index, to, bytes, ..
                        } => (index, to, bytes),
                        Output::CloseSockets(_) | Output::Ended(_) => continue,
                    };
                    let from = SocketAddr::new(ips[side], routers[side].send(socket, to));
                    let other = 1 - side;
                    if to.ip() != ips[other] {
                        continue;
                    }
                    let Some(socket) = routers[other].receive(to.port(), from) else {
                        continue;
                    };
                    match socket {
                        MAIN => receive(&mut nodes[other], now, from, &bytes),
                        index => {
                            receive(&mut nodes[other], now, alias(index), &bytes);
                            nodes[other].handle_heard(now, 5, alias(index));
                        }
                    }
                }
            }
        }
        // The one behind the symmetric router has an extra socket, the other one a port of its.
        assert_eq!(found[0].map(|at| at.ip()), Some(alias(0).ip()));
        assert_eq!(found[1].map(|at| at.ip()), Some(ips[0]));
    }

    #[test]
    fn of_many_introductions_two_are_followed_with_many_probes() {
        let now = Instant::now();
        let mut puncher = Puncher::new(A, now);
        for id in 0..20 {
            let mut met = introduced(B, &[]);
            (met.id, met.birthday) = (id, Some(at("198.51.100.1:1000")));
            assert!(puncher.handle_introduced(now, met));
        }
        let later = now + Duration::from_millis(100);
        puncher.handle_timeout(later);
        let mut ids = Vec::new();
        while let Some(output) = puncher.poll_output() {
            if let Output::SendFrom { id, .. } = output {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids, [0, 1]);
        // Not any more once the peer has said goodbye.
        puncher.handle_left(B);
        puncher.handle_timeout(later + Duration::from_millis(10));
        let left: Vec<Output> = std::iter::from_fn(|| puncher.poll_output()).collect();
        let closed = |id| left.contains(&Output::CloseSockets(id));
        assert!(closed(0) && closed(1) && left.len() == 2, "{left:?}");
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
