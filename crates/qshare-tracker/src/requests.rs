//! The requests of one session, from the acceptance of their streams on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_net::framed;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::request::{Begun, RequestStream};
use crate::turns::{LONG_STEPS, Turn};

/// Requests of a session that are answered before other tasks get the thread: some 0.1 ms.
const AT_ONCE_MAX: usize = 16;
/// The same for all sessions of a network together: some 6 ms. Identities are free, so a flood
/// comes from many sessions, each of which has its turn before that of another network.
const AT_ONCE_OF_NETWORK: usize = 1024;

/// A node that sends half as many requests as it has streams within this time gets more streams. A
/// stream is free again once the node has acknowledged the end of its answer, which it may delay by
/// 25 ms (RFC 9000 section 18.2, `max_ack_delay`), and a round trip has passed.
const STREAMS_WINDOW: Duration = Duration::from_millis(50);

/// The requests of one session.
pub(crate) struct Requests {
    client: Arc<Client>,
    /// The tasks of the session: of requests that wait for something, and of its control stream.
    pub(crate) tasks: JoinSet<()>,
    /// How many streams the node may have open at once.
    streams_allowed: u32,
    window_began: Instant,
    /// Streams that were accepted in the current window.
    accepted: u32,
}

impl Requests {
    pub(crate) fn new(client: Arc<Client>) -> Requests {
        Requests {
            tasks: JoinSet::new(),
            streams_allowed: client.services.limits.transport.streams_initial,
            window_began: Instant::now(),
            accepted: 0,
            client,
        }
    }

    /// Answers the request of a stream, and those that have arrived with it, or has tasks answer
    /// them. Returns whether other tasks should get the thread before the next request.
    #[must_use]
    pub(crate) fn take(&mut self, send: SendStream, recv: RecvStream) -> bool {
        let mut stream = RequestStream::new(send, recv);
        let (mut accepted, mut work) = (1, 0);
        let at_once = at_once(self.client.sessions_of_network());
        let yields = loop {
            if let Some((turn, steps)) = self.begin(stream) {
                work += steps;
                if work >= LONG_STEPS {
                    // A task keeps the turn until other tasks were served. The next requests of
                    // this session are accepted meanwhile, and wait for turns as others' do.
                    self.tasks.spawn(turn.end(work));
                    work = 0;
                }
            }
            if accepted >= at_once {
                break true;
            }
            // The end of the connection is seen by who accepts the next stream.
            match framed::now(self.client.connection.accept_bi()) {
                Some(Ok((send, recv))) => stream = RequestStream::new(send, recv),
                Some(Err(_)) | None => break false,
            }
            accepted += 1;
        };
        self.allow_streams(accepted as u32);
        yields
    }

    /// Begins a request; returns the turn of a lookup that was answered, and its steps of work.
    fn begin(&mut self, mut stream: RequestStream) -> Option<(Turn, u64)> {
        match stream.begin(&self.client) {
            Ok(Begun { turn, left: None }) => turn,
            Ok(Begun {
                turn,
                left: Some(left),
            }) => {
                let client = Arc::clone(&self.client);
                self.tasks.spawn(async move {
                    if let Err(error) = stream.finish(&client, left).await {
                        client.end(&error);
                    }
                });
                turn
            }
            // The connection is closed before the stream is dropped, which would look like the end
            // of an answer.
            Err(error) => {
                self.client.end(&error);
                None
            }
        }
    }

    /// Allows a node that uses many streams more of them.
    fn allow_streams(&mut self, accepted: u32) {
        let max = self.client.services.limits.transport.streams_max;
        if self.streams_allowed >= max {
            return;
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.window_began) >= STREAMS_WINDOW {
            self.window_began = now;
            self.accepted = 0;
        }
        self.accepted += accepted;
        let used = self.accepted.max(self.tasks.len() as u32);
        if used >= self.streams_allowed / 2 {
            self.streams_allowed = (self.streams_allowed * 2).min(max);
            let allowed = VarInt::from_u32(self.streams_allowed);
            self.client
                .connection
                .set_max_concurrent_bi_streams(allowed);
        }
    }
}

/// Returns how many requests of a session are answered before other tasks get the thread.
fn at_once(sessions_of_network: usize) -> usize {
    (AT_ONCE_OF_NETWORK / sessions_of_network.max(1)).clamp(1, AT_ONCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_sessions_of_a_network_share_the_thread() {
        assert_eq!(at_once(1), AT_ONCE_MAX);
        assert_eq!(at_once(64), AT_ONCE_MAX);
        assert_eq!(at_once(256), 4);
        assert_eq!(at_once(10_000), 1);
    }
}
