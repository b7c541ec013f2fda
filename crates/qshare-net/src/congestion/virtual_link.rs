//! A simulated bottleneck on a virtual clock, shared by senders that behave like quinn's
//! connections: paced at 1.25 windows a round trip, acknowledged every second packet, losses
//! detected by later packets. The same seed gives the same run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::bbr3::Bbr3;

pub(super) const PACKET: u64 = 1452;
const INITIAL_WINDOW: u64 = 64 << 10;
/// Packets that a sender puts into one call.
const CALL_PACKETS: u64 = 10;
/// Packets that each acknowledgement names, since earlier ones may be lost.
const REPORTED: usize = 24;
const ACK_DELAY: Duration = Duration::from_millis(25);

/// The interface of a simulated congestion controller.
pub(super) trait Controller {
    fn window(&self) -> u64;
    fn sent(&mut self, now: Instant, bytes: u64);
    fn acked(&mut self, now: Instant, sent_at: Instant, bytes: u64, limited: bool, trip: Duration);
    fn acks_end(&mut self, now: Instant, in_flight: u64, limited: bool);
    fn lost(&mut self, now: Instant, sent_at: Instant, bytes: u64, persistent: bool);
}

impl Controller for Bbr3 {
    fn window(&self) -> u64 {
        self.window_bytes()
    }

    fn sent(&mut self, now: Instant, bytes: u64) {
        self.handle_sent(now, bytes);
    }

    fn acked(&mut self, _: Instant, sent_at: Instant, bytes: u64, _: bool, trip: Duration) {
        self.handle_acked(sent_at, bytes, trip);
    }

    fn acks_end(&mut self, now: Instant, in_flight: u64, limited: bool) {
        self.handle_acks_end(now, in_flight, limited);
    }

    fn lost(&mut self, now: Instant, sent_at: Instant, bytes: u64, persistent: bool) {
        self.handle_lost(now, sent_at, bytes, persistent);
    }
}

/// CUBIC (RFC 9438), reduced to what a competing flow needs.
pub(super) struct Cubic {
    window: f64,
    threshold: f64,
    most: f64,
    since: Option<Instant>,
    recovery_from: Option<Instant>,
}

impl Cubic {
    pub(super) fn new() -> Cubic {
        Cubic {
            window: 10.0 * PACKET as f64,
            threshold: f64::MAX,
            most: 0.0,
            since: None,
            recovery_from: None,
        }
    }
}

impl Controller for Cubic {
    fn window(&self) -> u64 {
        self.window as u64
    }

    fn sent(&mut self, _: Instant, _: u64) {}

    fn acked(&mut self, now: Instant, sent_at: Instant, bytes: u64, limited: bool, trip: Duration) {
        if limited || self.recovery_from.is_some_and(|from| sent_at <= from) {
            return;
        }
        if self.window < self.threshold {
            self.window += bytes as f64;
            return;
        }
        let packet = PACKET as f64;
        let since = *self.since.get_or_insert(now);
        let k = (self.most / packet * 0.3 / 0.4).cbrt();
        let t = (now - since + trip).as_secs_f64();
        let cubic = (0.4 * (t - k).powi(3)) * packet + self.most;
        let reno = self.most * 0.7 + 0.53 * packet * t / trip.as_secs_f64();
        let target = cubic.max(reno).min(1.5 * self.window);
        if target > self.window {
            self.window += (target - self.window) / self.window * bytes as f64;
        }
    }

    fn acks_end(&mut self, _: Instant, _: u64, _: bool) {}

    fn lost(&mut self, now: Instant, sent_at: Instant, _: u64, _: bool) {
        if self.recovery_from.is_some_and(|from| sent_at <= from) {
            return;
        }
        self.recovery_from = Some(now);
        self.most = self.window;
        self.window = (self.window * 0.7).max(2.0 * PACKET as f64);
        self.threshold = self.window;
        self.since = None;
    }
}

/// The bottleneck's properties.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    /// Rate in bits a second.
    pub(super) rate: f64,
    pub(super) round_trip: Duration,
    /// Longest queueing delay.
    pub(super) queue: Duration,
    /// Share of packets that are lost at any load.
    pub(super) loss: f64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A packet leaves the bottleneck's other end.
    Arrival { flow: usize, number: u64 },
    /// The receiver's delayed acknowledgement is due.
    AckDue { flow: usize, timer: u64 },
    /// An acknowledgement arrives, by its index in the flow's list.
    Ack { flow: usize, acks: Vec<u64> },
    /// The pacer may have room, or a loss may be detected.
    Wake { flow: usize },
}

struct Flow {
    controller: Box<dyn Controller>,
    starts: Duration,
    /// Rate of the application in bytes a second; None is unlimited.
    supply: Option<f64>,
    /// When that rate began, and the bytes sent before.
    supplied_from: (Duration, u64),
    sent_total: u64,
    next_number: u64,
    unacked: BTreeMap<u64, Instant>,
    smoothed: Option<Duration>,
    tokens: f64,
    tokens_at: Duration,
    /// At the receiver.
    unreported: usize,
    received: VecDeque<u64>,
    next_expected: u64,
    timer: u64,
    delivered: u64,
    lost: u64,
    wake_at: Option<Duration>,
    is_limited: bool,
}

pub(super) struct World {
    began: Instant,
    now: Duration,
    pub(super) path: Path,
    busy_until: Duration,
    flows: Vec<Flow>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    counter: u64,
    random: u64,
}

impl World {
    pub(super) fn new(path: Path, seed: u64) -> World {
        World {
            began: Instant::now(),
            now: Duration::ZERO,
            path,
            busy_until: Duration::ZERO,
            flows: Vec::new(),
            events: BinaryHeap::new(),
            counter: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }

    pub(super) fn bbr3(&mut self, seed: u64) -> Box<Bbr3> {
        let packet = PACKET as u16;
        Box::new(Bbr3::new(self.began, INITIAL_WINDOW, packet, seed))
    }

    /// Adds a sender; returns its number.
    pub(super) fn flow(&mut self, controller: Box<dyn Controller>, starts: Duration) -> usize {
        let flow = self.flows.len();
        self.flows.push(Flow {
            controller,
            starts,
            supply: None,
            supplied_from: (starts, 0),
            sent_total: 0,
            next_number: 0,
            unacked: BTreeMap::new(),
            smoothed: None,
            tokens: 10.0 * PACKET as f64,
            tokens_at: starts,
            unreported: 0,
            received: VecDeque::new(),
            next_expected: 0,
            timer: 0,
            delivered: 0,
            lost: 0,
            wake_at: None,
            is_limited: false,
        });
        self.push(starts, Event::Wake { flow });
        flow
    }

    /// Returns the share of packets that were lost.
    pub(super) fn loss(&self, flow: usize) -> f64 {
        let Flow {
            delivered, lost, ..
        } = self.flows[flow];
        lost as f64 / (delivered + lost) as f64
    }

    /// Sets the application's rate in bytes a second; None is unlimited.
    pub(super) fn set_supply(&mut self, flow: usize, supply: Option<f64>) {
        self.flows[flow].supply = supply;
        self.flows[flow].supplied_from = (self.now, self.flows[flow].sent_total);
    }

    /// Returns the current queueing delay.
    pub(super) fn queue(&self) -> Duration {
        self.busy_until.saturating_sub(self.now)
    }

    pub(super) fn run_until(&mut self, end: Duration) {
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at;
            self.handle(event);
        }
        self.now = end;
    }

    /// Returns the rate at which each flow was delivered in that time, in bits a second.
    pub(super) fn rates_during(&mut self, time: Duration) -> Vec<f64> {
        let before: Vec<_> = self.flows.iter().map(|flow| flow.delivered).collect();
        self.run_until(self.now + time);
        let flows = self.flows.iter().zip(before);
        flows
            .map(|(flow, before)| (flow.delivered - before) as f64 * 8.0 / time.as_secs_f64())
            .collect()
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.counter += 1;
        self.events.push(Reverse((at, self.counter, event)));
    }

    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { flow } => {
                self.flows[flow].wake_at = None;
                self.find_losses(flow);
                self.send(flow);
            }
            Event::Arrival { flow, number } => self.arrive(flow, number),
            Event::AckDue { flow, timer } => {
                if self.flows[flow].timer == timer {
                    self.report(flow);
                }
            }
            Event::Ack { flow, acks } => self.take_acks(flow, acks),
        }
    }

    fn arrive(&mut self, flow: usize, number: u64) {
        let state = &mut self.flows[flow];
        state.delivered += PACKET;
        state.unreported += 1;
        state.received.push_back(number);
        if state.received.len() > REPORTED {
            state.received.pop_front();
        }
        let is_out_of_order = number != state.next_expected;
        state.next_expected = state.next_expected.max(number + 1);
        if is_out_of_order || state.unreported >= 2 {
            self.report(flow);
        } else {
            state.timer += 1;
            let timer = state.timer;
            self.push(self.now + ACK_DELAY, Event::AckDue { flow, timer });
        }
    }

    fn report(&mut self, flow: usize) {
        let state = &mut self.flows[flow];
        state.timer += 1;
        let unreported = std::mem::take(&mut state.unreported);
        let acks = state.received.iter().copied().collect();
        if unreported > 0 && self.random() >= self.path.loss {
            let at = self.now + self.path.round_trip / 2;
            self.push(at, Event::Ack { flow, acks });
        }
    }

    fn take_acks(&mut self, flow: usize, acks: Vec<u64>) {
        let now = self.began + self.now;
        let state = &mut self.flows[flow];
        let mut newest = None;
        // quinn updates its RTT after the controller got the packets.
        let trip = state.smoothed.unwrap_or(Duration::from_millis(100));
        for number in acks {
            if let Some(sent_at) = state.unacked.remove(&number) {
                newest = Some((number, sent_at));
                state
                    .controller
                    .acked(now, sent_at, PACKET, state.is_limited, trip);
            }
        }
        let Some((newest, sent_at)) = newest else {
            return;
        };
        let in_flight = state.unacked.len() as u64 * PACKET;
        state.controller.acks_end(now, in_flight, state.is_limited);
        let trip = now - sent_at;
        state.smoothed = Some(match state.smoothed {
            Some(smoothed) => (7 * smoothed + trip) / 8,
            None => trip,
        });
        self.find_losses_before(flow, Some(newest));
        self.send(flow);
    }

    fn find_losses(&mut self, flow: usize) {
        self.find_losses_before(flow, None);
    }

    fn find_losses_before(&mut self, flow: usize, newest: Option<u64>) {
        let now = self.began + self.now;
        let state = &mut self.flows[flow];
        let trip = state.smoothed.unwrap_or(Duration::from_millis(300));
        let late = match newest {
            Some(newest) => state
                .unacked
                .range(..newest.saturating_sub(2))
                .map(|(number, sent)| (*number, *sent))
                .collect::<Vec<_>>(),
            // No acknowledgement arrived: a time-out.
            None => state
                .unacked
                .iter()
                .take_while(|(_, sent)| now - **sent > 3 * trip + ACK_DELAY)
                .map(|(number, sent)| (*number, *sent))
                .collect(),
        };
        let Some((_, last_sent)) = late.last().copied() else {
            return;
        };
        for (number, _) in &late {
            state.unacked.remove(number);
        }
        let bytes = late.len() as u64 * PACKET;
        state.lost += bytes;
        state.controller.lost(now, last_sent, bytes, false);
    }

    fn send(&mut self, flow: usize) {
        loop {
            let state = &mut self.flows[flow];
            if self.now < state.starts {
                return;
            }
            let window = state.controller.window();
            let in_flight = state.unacked.len() as u64 * PACKET;
            let trip = state.smoothed.unwrap_or(Duration::from_millis(100));
            let pace = 1.25 * window as f64 / trip.as_secs_f64();
            let capacity = (pace * 0.0016).clamp(10.0 * PACKET as f64, 256.0 * PACKET as f64);
            let passed = (self.now - state.tokens_at).as_secs_f64();
            state.tokens = (state.tokens + pace * passed).min(capacity);
            state.tokens_at = self.now;
            let paced = (state.tokens / PACKET as f64) as u64;
            let allowed = window.saturating_sub(in_flight + 1) / PACKET;
            let supplied = state.supply.map_or(u64::MAX, |supply| {
                let (since, before) = state.supplied_from;
                let made = supply * (self.now - since).as_secs_f64();
                (made as u64).saturating_sub(state.sent_total - before) / PACKET
            });
            let count = CALL_PACKETS.min(paced).min(allowed).min(supplied);
            state.is_limited = supplied == 0 && allowed > 0 && paced > 0;
            if count == 0 {
                let wait = if state.is_limited {
                    Duration::from_millis(1)
                } else if allowed > 0 {
                    Duration::from_secs_f64(((capacity - state.tokens) / pace).max(1e-5))
                } else {
                    3 * trip + ACK_DELAY
                };
                let at = self.now + wait;
                if state
                    .wake_at
                    .is_none_or(|planned| planned > at || planned <= self.now)
                {
                    state.wake_at = Some(at);
                    self.push(at, Event::Wake { flow });
                }
                return;
            }
            let now = self.began + self.now;
            state.tokens -= (count * PACKET) as f64;
            state.sent_total += count * PACKET;
            let first = state.next_number;
            state.next_number += count;
            for number in first..first + count {
                state.unacked.insert(number, now);
            }
            state.controller.sent(now, count * PACKET);
            for number in first..first + count {
                self.enqueue(flow, number);
            }
        }
    }

    fn enqueue(&mut self, flow: usize, number: u64) {
        let lost = self.random() < self.path.loss;
        if self.queue() > self.path.queue {
            return;
        }
        let passes = Duration::from_secs_f64(PACKET as f64 * 8.0 / self.path.rate);
        self.busy_until = self.busy_until.max(self.now) + passes;
        if !lost {
            let at = self.busy_until + self.path.round_trip / 2;
            self.push(at, Event::Arrival { flow, number });
        }
    }
}
