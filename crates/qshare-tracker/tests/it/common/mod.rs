//! A tracker and nodes with sessions to it, over real QUIC on loopback.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use qshare_content::{AssetName, ContentId, ContentInfo, Hash, NodeId, Query, Topic};
use qshare_net::framed::{self, ReadError};
use qshare_net::{
    DialError, DialTarget, Endpoint, EndpointConfig, Greeting, GroupSecret, Identity, Session,
    TransportConfig, dial,
};
use qshare_tracker::{Tracker, TrackerConfig};
use qshare_wire::hello::Role;
use qshare_wire::introduction::{Introduce, Introduction};
use qshare_wire::private::{AnnounceTopics, TopicEntry, WatchTopic};
use qshare_wire::tracker::{
    Announce, AnnounceAck, AnnounceStage, Entry, EntryKey, EntryKind, Find, Found, Holders,
    HoldersChanged, Watch,
};
use qshare_wire::{ALPN_PEER, CloseCode, Message};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

/// Deadline of every wait. No wait takes this long, so a test that hangs fails where it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// Polling interval where no event can be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(crate) fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(crate) fn config() -> TrackerConfig {
    let mut config = TrackerConfig::new(Identity::ephemeral().unwrap());
    config.listen = localhost(0);
    config
}

pub(crate) fn start() -> Tracker {
    Tracker::start(config()).unwrap()
}

/// A node: an identity and an endpoint, which opens sessions with trackers.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) greeting: Greeting,
}

impl Node {
    pub(crate) fn new(group: Option<GroupSecret>) -> Node {
        Node::at(Ipv4Addr::LOCALHOST, group, TransportConfig::default())
    }

    /// Creates a node in the network that this loopback address stands for.
    pub(crate) fn in_network(address: [u8; 4]) -> Node {
        Node::at(address.into(), None, TransportConfig::default())
    }

    /// Creates a node with small receive windows: 16 KiB for the connection, 1 KiB for a stream.
    /// The tracker can send it little that the node does not read.
    pub(crate) fn that_reads_nothing(address: [u8; 4]) -> Node {
        let transport = TransportConfig {
            receive_window_bytes: 16 << 10,
            stream_receive_window_bytes: 1 << 10,
            ..TransportConfig::default()
        };
        Node::at(address.into(), None, transport)
    }

    fn at(address: Ipv4Addr, group: Option<GroupSecret>, transport: TransportConfig) -> Node {
        let identity = Identity::ephemeral().unwrap();
        let config = EndpointConfig {
            listen: SocketAddr::from((address, 0)),
            accept_alpn: ALPN_PEER,
            transport,
        };
        Node {
            endpoint: Endpoint::bind(&identity, &config).unwrap(),
            greeting: Greeting {
                group,
                ..Greeting::new(Role::Node)
            },
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.endpoint.local_addr().unwrap().port()
    }

    pub(crate) async fn try_join(&self, tracker: &Tracker) -> Result<Joined, DialError> {
        let target = DialTarget::Tracker(Some(tracker.id()));
        let session = dial(
            &self.endpoint,
            &self.greeting,
            target,
            tracker.listen(),
            DEADLINE,
        );
        Ok(Joined {
            session: session.await?,
            sequence: 0,
        })
    }

    pub(crate) async fn join(&self, tracker: &Tracker) -> Joined {
        self.try_join(tracker).await.unwrap()
    }
}

/// A session with a tracker.
pub(crate) struct Joined {
    pub(crate) session: Session,
    pub(crate) sequence: u64,
}

impl Joined {
    pub(crate) async fn batch(
        &mut self,
        stage: AnnounceStage,
        entries: Vec<Entry>,
        removed: Vec<EntryKey>,
    ) -> AnnounceAck {
        let announce = Announce {
            sequence: self.sequence,
            stage,
            entries,
            removed,
            extensions: Vec::new(),
        };
        self.acknowledged(&announce).await
    }

    /// Sends a message with the next sequence number, and waits for the answer.
    async fn acknowledged(&mut self, message: &impl Message) -> AnnounceAck {
        framed::write(&mut self.session.control_send, message)
            .await
            .unwrap();
        let read = framed::read::<AnnounceAck>(&mut self.session.control_recv);
        let ack = within(read).await.unwrap();
        assert_eq!(ack.sequence, self.sequence);
        self.sequence += 1;
        ack
    }

    /// Announces topics, each with whether it is complete, and removes others.
    pub(crate) async fn announce_topics(&mut self, topics: &[(Topic, bool)], removed: &[Topic]) {
        let topics = topics
            .iter()
            .map(|&(topic, complete)| TopicEntry { topic, complete });
        let announce = AnnounceTopics {
            sequence: self.sequence,
            topics: topics.collect(),
            removed: removed.to_vec(),
            extensions: Vec::new(),
        };
        assert_eq!(self.acknowledged(&announce).await.refused, 0);
    }

    /// Asks for an introduction.
    pub(crate) async fn introduce(&self, to: NodeId) -> Result<Introduction, ReadError> {
        let request = Introduce {
            node: to,
            candidates: Vec::new(),
            extensions: Vec::new(),
        };
        let asked = framed::ask::<Introduce, Introduction>(&self.session.connection, &request);
        within(asked).await.map(|(introduction, ..)| introduction)
    }

    /// Watches a topic. Returns the first answer and the stream of changes.
    pub(crate) async fn watch_topic(&self, topic: Topic) -> (Holders, (SendStream, RecvStream)) {
        let request = WatchTopic {
            topic,
            limit: 16,
            extensions: Vec::new(),
        };
        let asked = framed::ask::<WatchTopic, Holders>(&self.session.connection, &request);
        let (holders, send, recv) = within(asked).await.unwrap();
        (holders, (send, recv))
    }

    pub(crate) async fn announce(&mut self, entries: Vec<Entry>) {
        let ack = self.batch(AnnounceStage::Delta, entries, Vec::new()).await;
        assert_eq!((ack.refused, ack.reason.as_str()), (0, ""));
    }

    pub(crate) async fn withdraw(&mut self, entry: &Entry) {
        let key = EntryKey {
            name: entry.name.clone(),
            content: entry.info.id(),
        };
        self.batch(AnnounceStage::Delta, Vec::new(), vec![key])
            .await;
    }

    pub(crate) async fn ask(&self, find: &Find) -> Result<Found, ReadError> {
        let (found, ..) = within(framed::ask(&self.session.connection, find)).await?;
        Ok(found)
    }

    pub(crate) async fn find(&self, text: &str) -> Found {
        self.ask(&find(text)).await.unwrap()
    }

    pub(crate) async fn watch(&self, content: ContentId) -> Result<(Holders, Watching), ReadError> {
        let request = Watch {
            content,
            limit: 16,
            extensions: Vec::new(),
        };
        let (holders, send, recv) = within(framed::ask(&self.session.connection, &request)).await?;
        Ok((holders, Watching { send, recv }))
    }

    /// Ends the connection.
    pub(crate) fn leave(&self, code: CloseCode) {
        let code = VarInt::from_u32(code.code());
        self.session.connection.close(code, b"");
    }

    /// Waits until the tracker closes the connection. Returns the close code and the reason.
    pub(crate) async fn closed(&self) -> (CloseCode, String) {
        self.ended().await.expect("the close was lost")
    }

    /// Waits until the connection ends. Returns the tracker's close code and reason, or None if the
    /// close was lost. The congestion window can prevent a closing endpoint from sending: an MTU
    /// probe fills the window while it is still small (quinn issue 2785).
    pub(crate) async fn ended(&self) -> Option<(CloseCode, String)> {
        match within(self.session.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => Some((
                CloseCode::from_code(close.error_code.into()).unwrap(),
                String::from_utf8(close.reason.to_vec()).unwrap(),
            )),
            ConnectionError::Reset => None,
            other => panic!("closed otherwise: {other}"),
        }
    }
}

/// An open watch.
pub(crate) struct Watching {
    send: SendStream,
    recv: RecvStream,
}

impl Watching {
    pub(crate) fn into_streams(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }

    pub(crate) fn stream(&mut self) -> &mut RecvStream {
        &mut self.recv
    }

    pub(crate) async fn next(&mut self) -> HoldersChanged {
        within(framed::read(&mut self.recv)).await.unwrap()
    }

    /// Reads changes until the tracker reports that `node` has left.
    pub(crate) async fn left(&mut self, node: NodeId) {
        while !self.next().await.left.contains(&node) {}
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing came of it in time")
}

/// Polls until `look` returns a value: for what no event reports.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let seen = tokio::time::timeout(DEADLINE, looking).await;
    seen.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

pub(crate) fn find(text: &str) -> Find {
    Find {
        query: text.parse().unwrap_or_else(|_| Query::Name(text.into())),
        after: None,
        limit: 100,
        holders: 8,
        extensions: Vec::new(),
    }
}

pub(crate) fn entry(name: &str, content: u8) -> Entry {
    Entry {
        name: AssetName::new(name).unwrap(),
        kind: EntryKind::File,
        info: ContentInfo {
            length: 5,
            root: Hash([content; 32]),
        },
        complete: true,
        flags: 0,
        metadata: Vec::new(),
    }
}

pub(crate) fn names(found: &Found) -> Vec<&str> {
    found
        .matches
        .iter()
        .map(|found| found.name.as_str())
        .collect()
}
