//! The server's side of all contents and clients: which request to answer next.

mod served;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use qshare_content::{ChunkIndex, ContentId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::{PeerKey, Ticket};
use served::Served;

/// A client that has not been served during this many starts per waiting client is served before
/// all others. By chance alone, a client waits that long once in 50 times (e⁻⁴). The order by
/// served counts is therefore hardly disturbed, and no client starves.
const STARTS_OVERLOOKED: u64 = 4;

/// A response that has been blocked for this long is parked: it no longer keeps other responses
/// from starting. Its client is slow or gone, and the response costs other clients no more than an
/// idle stream.
const PARKED_AFTER: Duration = Duration::from_secs(2);

/// Number of levels of slowness. A response that was blocked for [`PARKED_AFTER`] in total is of
/// level 1, for twice as long of level 2, and so on. The last level begins at 64 s; hardly any
/// chunk takes longer than two minutes.
const LEVELS: usize = 7;

/// Settings of a [`Serve`]. The defaults follow from the simulation in this crate's
/// `examples/simulate.rs`.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Waiting requests of one client; further ones are refused as busy.
    pub waiting_max_per_client: u32,
    /// Waiting requests that every client may have, even when other clients use up `waiting_max`.
    /// The value is the number that a client of this crate sends at once, so that clients that send
    /// as many requests as they can lock out no other client. Memory is bounded by this value times
    /// the number of accepted connections.
    pub waiting_always: u32,
    /// Waiting requests over all clients at which each client falls back to `waiting_always`. Below
    /// that, one client may have as many waiting requests as it leaves for the others.
    pub waiting_max: u32,
    /// Responses that may run at once while none of them is blocked. More responses would only
    /// divide the uplink: each chunk would be complete later, and would be passed on later. The
    /// node reads the bytes of the next response while those of the previous one are still in the
    /// stream's buffer.
    pub running_max: u32,
    /// Limit on active responses, including blocked ones. Responses that have been blocked for long
    /// have another limit of the same size.
    pub active_max: u32,
    /// Active responses that are always allowed at each level of slowness, that is, among those
    /// that have been blocked for a similar time (within a factor of two).
    pub active_always: u32,
    /// A response of at most this many bytes is small: waiting for it costs more than sending it.
    pub small_bytes: u64,
    /// Small responses that may be active in addition to the others, so that many files of a
    /// directory of small files are read at a time.
    pub small_active_max: u32,
    /// The retry time that is sent to a refused client.
    pub retry_after: Duration,
    /// Contents whose served counts are remembered; the least recently served is evicted.
    pub contents_max: usize,
}

impl Default for ServeConfig {
    fn default() -> ServeConfig {
        ServeConfig {
            waiting_max_per_client: 256,
            waiting_always: 8,
            waiting_max: 2048,
            running_max: 1,
            active_max: 10,
            active_always: 2,
            small_bytes: 16 * 1024,
            small_active_max: 64,
            retry_after: Duration::from_millis(200),
            contents_max: 64,
        }
    }
}

/// The request is refused because too many are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The retry time.
    pub retry_after: Duration,
}

/// The scheduler of a node's responses, over all contents and clients.
///
/// Few responses run at a time. Others may start while those are blocked by flow or congestion
/// control. A response that has been blocked for long in total yields its slot to responses that
/// have not been. So does the next response to the same client: slow clients wait for equally slow
/// ones, and delay no faster one.
///
/// The next request is chosen by the content that was served longest ago, then by its least served
/// chunk, then by the client with the fewest active responses, then by the client that was served
/// longest ago. Clients that know no other holder therefore soon have something to pass on.
///
/// Every `handle_*` is total: an unknown ticket is ignored.
#[derive(Debug)]
pub struct Serve {
    config: ServeConfig,
    rng: SmallRng,
    next_ticket: u64,
    starts: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    active: BTreeMap<Ticket, Active>,
    clients: BTreeMap<PeerKey, Client>,
    served: Served,
    queue_bytes: u64,
    /// When [`poll_start`](Self::poll_start) was last called.
    polled_at: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    client: PeerKey,
    content: ContentId,
    chunk: ChunkIndex,
    bytes: u64,
    /// Breaks ties.
    lot: u32,
}

#[derive(Debug)]
struct Active {
    client: PeerKey,
    content: ContentId,
    chunk: ChunkIndex,
    bytes: u64,
    blocked_since: Option<Instant>,
    /// How long the response was blocked before `blocked_since`, in total.
    blocked_before: Duration,
    /// The level of the client when the response started.
    level_before: usize,
}

impl Active {
    /// Returns the level of the response, from the time for which it has been blocked so far.
    fn own_level(&self, now: Instant) -> usize {
        let since = |since| now.saturating_duration_since(since);
        let blocked = self.blocked_before + self.blocked_since.map_or(Duration::ZERO, since);
        let parked = blocked.as_millis() / PARKED_AFTER.as_millis();
        let doublings = parked.checked_ilog2().map_or(0, |twos| twos as usize + 1);
        doublings.min(LEVELS - 1)
    }

    fn level(&self, now: Instant) -> usize {
        self.own_level(now).max(self.level_before)
    }

    /// Returns the first time after `after` at which the response becomes parked, or one level
    /// slower, if it stays blocked; and the reason.
    fn next_change(&self, after: Instant) -> Option<(Instant, &'static str)> {
        let since = self.blocked_since?;
        let parked = (since + PARKED_AFTER, "response parked");
        let slower = (0..LEVELS - 1).map(|level| {
            let blocked = PARKED_AFTER * (1 << level);
            let left = blocked.saturating_sub(self.blocked_before);
            (since + left, "response slower")
        });
        std::iter::once(parked)
            .chain(slower)
            .filter(|&(at, _)| at > after)
            .min()
    }

    /// Whether the response is parked: blocked for so long that it no longer counts.
    fn is_parked(&self, now: Instant) -> bool {
        self.blocked_since
            .is_some_and(|since| now.saturating_duration_since(since) >= PARKED_AFTER)
    }
}

/// A client with waiting or active requests, or a slow one; other clients are forgotten.
#[derive(Debug, Default)]
struct Client {
    waiting: u32,
    active: u32,
    blocked: u32,
    /// The number of starts when it was last served, or joined.
    last_start: u64,
    /// The level of its last response; reduced by one with each that was not slow.
    level: usize,
}

/// The kinds of responses that may start now.
#[derive(Debug)]
struct Room {
    for_small: bool,
    for_large: bool,
    /// By level; the first is unused.
    for_slow: [bool; LEVELS],
    /// The levels of slow clients, computed once a response may start.
    slow: BTreeMap<PeerKey, usize>,
}

impl Serve {
    /// Creates a server without clients. `seed` breaks ties.
    pub fn new(config: ServeConfig, seed: u64) -> Serve {
        Serve {
            served: Served::new(config.contents_max),
            config,
            rng: SmallRng::seed_from_u64(seed),
            next_ticket: 0,
            starts: 0,
            waiting: BTreeMap::new(),
            active: BTreeMap::new(),
            clients: BTreeMap::new(),
            queue_bytes: 0,
            polled_at: None,
        }
    }

    /// Adds a request of `client` for `bytes` bytes of `chunk`, of a content that the node holds.
    ///
    /// # Errors
    ///
    /// [`Busy`] if this client has as many requests waiting as it may. The request is then not
    /// kept.
    pub fn handle_request(
        &mut self,
        _now: Instant,
        client: PeerKey,
        content: ContentId,
        chunk: ChunkIndex,
        bytes: u64,
    ) -> Result<Ticket, Busy> {
        let waits_already = self.clients.get(&client).map_or(0, |client| client.waiting);
        let left = (self.config.waiting_max as usize).saturating_sub(self.waiting.len());
        let allowed = u32::try_from(left)
            .unwrap_or(u32::MAX)
            .max(self.config.waiting_always)
            .min(self.config.waiting_max_per_client);
        if waits_already >= allowed {
            return Err(Busy {
                retry_after: self.config.retry_after,
            });
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let starts = self.starts;
        let entry = self.clients.entry(client).or_insert_with(|| Client {
            last_start: starts,
            ..Client::default()
        });
        entry.waiting += 1;
        self.queue_bytes = self.queue_bytes.saturating_add(bytes);
        let lot = self.rng.random();
        self.waiting.insert(
            ticket,
            Waiting {
                client,
                content,
                chunk,
                bytes,
                lot,
            },
        );
        Ok(ticket)
    }

    /// Withdraws a request of a client. Returns true if its response had not started: the request
    /// is removed, and the caller must confirm that to the client. Returns false if the response
    /// goes on.
    pub fn handle_withdraw(&mut self, ticket: Ticket) -> bool {
        let Some(request) = self.waiting.remove(&ticket) else {
            return false;
        };
        self.queue_bytes = self.queue_bytes.saturating_sub(request.bytes);
        self.update_client(request.client, |client| client.waiting -= 1);
        true
    }

    /// Records that a response is blocked by flow or congestion control.
    pub fn handle_blocked(&mut self, now: Instant, ticket: Ticket) {
        if let Some(response) = self.active.get_mut(&ticket)
            && response.blocked_since.is_none()
        {
            response.blocked_since = Some(now);
            let client = response.client;
            self.update_client(client, |client| client.blocked += 1);
        }
    }

    /// Records that a blocked response can be written again.
    pub fn handle_unblocked(&mut self, now: Instant, ticket: Ticket) {
        if let Some(response) = self.active.get_mut(&ticket)
            && let Some(since) = response.blocked_since.take()
        {
            response.blocked_before += now.saturating_duration_since(since);
            let client = response.client;
            self.update_client(client, |client| client.blocked -= 1);
        }
    }

    /// Records that a response was written to its end, or was cut short after `bytes_sent` bytes.
    /// Also ends a ticket that was refused after its start, with 0 bytes.
    pub fn handle_finished(&mut self, now: Instant, ticket: Ticket, bytes_sent: u64) {
        let Some(response) = self.active.remove(&ticket) else {
            self.handle_withdraw(ticket);
            return;
        };
        self.queue_bytes = self.queue_bytes.saturating_sub(response.bytes);
        let is_whole = bytes_sent >= response.bytes;
        if !is_whole {
            self.served.take_back(&response.content, response.chunk);
        }
        let reached = response.own_level(now);
        self.update_client(response.client, |client| {
            client.level = reached.max(client.level.saturating_sub(usize::from(is_whole)));
            client.active -= 1;
            client.blocked -= u32::from(response.blocked_since.is_some());
        });
    }

    /// Removes a client that left; its tickets are void.
    pub fn handle_client_left(&mut self, _now: Instant, client: PeerKey) {
        let mut gone_bytes = 0u64;
        self.waiting.retain(|_, request| {
            let stays = request.client != client;
            if !stays {
                gone_bytes = gone_bytes.saturating_add(request.bytes);
            }
            stays
        });
        let served = &mut self.served;
        self.active.retain(|_, response| {
            let stays = response.client != client;
            if !stays {
                gone_bytes = gone_bytes.saturating_add(response.bytes);
                served.take_back(&response.content, response.chunk);
            }
            stays
        });
        self.queue_bytes = self.queue_bytes.saturating_sub(gone_bytes);
        self.clients.remove(&client);
    }

    /// Returns the request to answer now, or None if nothing waits or enough responses are active.
    pub fn poll_start(&mut self, now: Instant) -> Option<Ticket> {
        self.polled_at = Some(now);
        if self.waiting.is_empty() {
            return None;
        }
        let mut room = self.room(now);
        if !room.for_small && !room.for_large && !room.for_slow.contains(&true) {
            return None;
        }
        room.slow = self.slow_clients(now);
        let ticket = self
            .overlooked(&room)
            .or_else(|| self.least_served(&room))?;
        let request = self.waiting.remove(&ticket)?;
        self.starts += 1;
        self.served.add(request.content, request.chunk);
        let starts = self.starts;
        let level_before = room.slow.get(&request.client).copied().unwrap_or(0);
        self.update_client(request.client, |client| {
            client.waiting -= 1;
            client.active += 1;
            client.last_start = starts;
        });
        self.active.insert(
            ticket,
            Active {
                client: request.client,
                content: request.content,
                chunk: request.chunk,
                bytes: request.bytes,
                blocked_since: None,
                blocked_before: Duration::ZERO,
                level_before,
            },
        );
        Some(ticket)
    }

    /// Returns when to poll again even if nothing happens until then, and why.
    ///
    /// Time alone lets a response start when a blocked response becomes parked or one level slower:
    /// the first such time after the last [`poll_start`](Self::poll_start) is returned. None while
    /// nothing waits, or while fewer responses are active than allowed.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let places = self.config.active_max.min(self.config.small_active_max);
        if self.waiting.is_empty() || self.active.len() < places.max(1) as usize {
            return None;
        }
        let polled_at = self.polled_at?;
        self.active
            .values()
            .filter_map(|response| response.next_change(polled_at))
            .min()
    }

    /// Returns whether `client` has waiting requests.
    pub fn is_waiting(&self, client: PeerKey) -> bool {
        self.clients
            .get(&client)
            .is_some_and(|client| client.waiting > 0)
    }

    /// Returns the bytes of all waiting and active requests, which a `Have` message advertises.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes
    }

    fn is_small(&self, bytes: u64) -> bool {
        bytes <= self.config.small_bytes
    }

    /// Returns the slow clients with their levels. The level of a client is the highest of those of
    /// its last response and of its active responses.
    fn slow_clients(&self, now: Instant) -> BTreeMap<PeerKey, usize> {
        let before = self
            .clients
            .iter()
            .map(|(&key, client)| (key, client.level));
        let under_way = self
            .active
            .values()
            .map(|active| (active.client, active.level(now)));
        let mut slow = BTreeMap::new();
        for (key, level) in before.chain(under_way).filter(|&(_, level)| level > 0) {
            let known = slow.entry(key).or_insert(level);
            *known = level.max(*known);
        }
        slow
    }

    fn room(&self, now: Instant) -> Room {
        let mut running = 0;
        let mut active = [0; LEVELS];
        let mut small = 0;
        for response in self.active.values() {
            let level = response.level(now);
            if response.is_parked(now) {
                continue;
            }
            if level == 0 && self.is_small(response.bytes) {
                small += 1;
                continue;
            }
            active[level] += 1;
            running += u32::from(level == 0 && response.blocked_since.is_none());
        }
        let active_max = self.config.active_max.max(1);
        let may_run = running < self.config.running_max.max(1);
        let slow: u32 = active.iter().skip(1).sum();
        let always = self.config.active_always.max(1);
        Room {
            for_small: small < self.config.small_active_max.max(1),
            for_large: may_run && active[0] < active_max,
            for_slow: active.map(|count| may_run && (slow < active_max || count < always)),
            slow: BTreeMap::new(),
        }
    }

    fn fits(&self, request: &Waiting, room: &Room) -> bool {
        match room.slow.get(&request.client).copied().unwrap_or(0) {
            0 if self.is_small(request.bytes) => room.for_small,
            0 => room.for_large,
            level => room.for_slow[level],
        }
    }

    /// Returns whether a response to this client could be written now. What blocks one stream of a
    /// connection usually blocks its other streams, too.
    fn can_start(&self, client: PeerKey) -> bool {
        self.clients
            .get(&client)
            .is_some_and(|client| client.blocked == 0)
    }

    /// Returns a request of the client that has been overlooked longest, if any client was
    /// overlooked for too long. Of that client's requests, it is the one for the least served
    /// chunk.
    fn overlooked(&self, room: &Room) -> Option<Ticket> {
        let waits = |client: &Client| client.waiting > 0;
        let waiting_clients = self.clients.values().filter(|client| waits(client)).count() as u64;
        let overlooked = self
            .clients
            .iter()
            .filter(|(_, client)| waits(client) && client.blocked == 0)
            .min_by_key(|(_, client)| client.last_start)
            .filter(|(_, client)| {
                self.starts - client.last_start > STARTS_OVERLOOKED * waiting_clients
            })
            .map(|(&key, _)| key)?;
        self.first_of(|request| request.client == overlooked && self.fits(request, room))
    }

    fn least_served(&self, room: &Room) -> Option<Ticket> {
        self.first_of(|request| self.can_start(request.client) && self.fits(request, room))
    }

    /// Only the oldest requests of each client compete, so that a client that sends hundreds at
    /// once has hardly better chances than a client that sends a few.
    fn first_of(&self, eligible: impl Fn(&Waiting) -> bool) -> Option<Ticket> {
        let competing_max = self.config.waiting_always.max(1);
        let mut competing: BTreeMap<PeerKey, u32> = BTreeMap::new();
        self.waiting
            .iter()
            .filter(|(_, request)| eligible(request))
            .filter(|(_, request)| {
                let count = competing.entry(request.client).or_default();
                *count += 1;
                *count <= competing_max
            })
            .min_by_key(|(_, request)| {
                let client = self.clients.get(&request.client);
                (
                    self.served.turn(&request.content),
                    self.served.count(&request.content, request.chunk),
                    client.map(|client| (client.active, client.last_start)),
                    request.lot,
                )
            })
            .map(|(&ticket, _)| ticket)
    }

    fn update_client(&mut self, key: PeerKey, update: impl FnOnce(&mut Client)) {
        if let Some(client) = self.clients.get_mut(&key) {
            update(client);
            if client.waiting == 0 && client.active == 0 && client.level == 0 {
                self.clients.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
