//! Every message round-trips. No bytes in a frame can make a reader misbehave.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Debug;
use std::net::SocketAddr;

use proptest::prelude::*;
use qshare_content::{
    AssetName, ContentId, ContentInfo, Hash, LENGTH_MAX_BYTES, NodeId, Query, Topic,
};
use qshare_wire::hello::{Hello, Role};
use qshare_wire::introduction::{EXTENSION_BIRTHDAY_PUNCH, Introduce, Introduction, RelayTicket};
use qshare_wire::knock::{Knock, Knocked};
use qshare_wire::mailbox::{
    EXCHANGE_MAX_BYTES, MailboxAnswer, MailboxClaim, MailboxClaimed, MailboxComplete,
    MailboxConfirm, MailboxFault, MailboxForward, MailboxOpen, MailboxSealed, MailboxStep,
    SEALED_MAX_BYTES,
};
use qshare_wire::peer::{ChunkData, ChunkRequest, HashRequest, Hashes, Have, HaveMore, Interest};
use qshare_wire::private::{AnnounceTopics, TopicEntry, Unlock, Unlocked, WatchTopic};
use qshare_wire::tracker::{
    Announce, AnnounceAck, AnnounceStage, Entry, EntryKey, EntryKind, Find, Found, Holder, Holders,
    HoldersChanged, Match, NodeContact, Readiness, Watch,
};
use qshare_wire::{
    Address, Candidate, CandidateKind, FRAME_HEADER_BYTES, Frame, FrameHeader, Message, Refusal,
    Refused, WireError,
};

fn read<M: Message>(bytes: &[u8]) -> Result<M, WireError> {
    let header = FrameHeader::parse(bytes[..FRAME_HEADER_BYTES].try_into().unwrap());
    Frame {
        kind: header.kind,
        body: bytes[FRAME_HEADER_BYTES..].to_vec(),
    }
    .decode()
}

fn round_trip<M: Message + Debug + PartialEq>(message: &M) {
    let bytes = Frame::encode(message).unwrap();
    assert_eq!(&read::<M>(&bytes).unwrap(), message);
    // The reader rejects the frame if it is truncated anywhere.
    for end in FRAME_HEADER_BYTES..bytes.len() {
        assert!(
            read::<M>(&bytes[..end]).is_err(),
            "{} cut at {end}",
            M::NAME
        );
    }
}

fn info() -> ContentInfo {
    ContentInfo {
        length: 5,
        root: Hash([7; 32]),
    }
}

fn name(text: &str) -> AssetName {
    AssetName::new(text).unwrap()
}

fn candidate() -> Candidate {
    let at: SocketAddr = "[2001:db8::7]:64500".parse().unwrap();
    Candidate {
        kind: CandidateKind::Observed,
        address: Address::Socket(at),
    }
}

fn holder() -> Holder {
    let contact = NodeContact {
        node: NodeId([1; 32]),
        candidates: vec![candidate()],
    };
    Holder {
        contact,
        complete: true,
    }
}

fn hello() -> Hello {
    Hello {
        versions: (1, 1),
        features: 0,
        role: Role::Node,
        agent: "test".into(),
        group_proof: Some([3; 32]),
        candidates: vec![Candidate {
            kind: CandidateKind::Local,
            address: Address::TrackerHost { port: 64500 },
        }],
        observed: Some("192.0.2.1:7000".parse().unwrap()),
        extensions: vec![(9, vec![1, 2])],
    }
}

fn announce() -> Announce {
    Announce {
        sequence: 3,
        stage: AnnounceStage::Delta,
        entries: vec![Entry {
            name: name("a/b"),
            kind: EntryKind::File,
            info: info(),
            complete: true,
            flags: 0,
            metadata: vec![1],
        }],
        removed: vec![EntryKey {
            name: name("c"),
            content: ContentId([2; 32]),
        }],
        extensions: vec![],
    }
}

fn found() -> Found {
    Found {
        readiness: Readiness::Ready,
        matches: vec![Match {
            name: name("a/b"),
            kind: EntryKind::File,
            info: info(),
            complete: 1,
            partial: 2,
            holders: vec![(0, true)],
            metadata: Vec::new(),
        }],
        nodes: vec![holder().contact],
        more: Some(vec![1]),
        near: vec![name("near")],
        extensions: vec![],
    }
}

#[test]
fn every_message_round_trips_and_is_refused_when_cut_short() {
    let (content, extensions) = (ContentId([2; 32]), Vec::new());
    round_trip(&hello());
    round_trip(&Refused::because(Refusal::Busy, "later"));
    round_trip(&announce());
    round_trip(&AnnounceAck {
        sequence: 3,
        refused: 1,
        reason: "full".into(),
    });
    for query in [
        Query::Id(content),
        Query::IdPrefix("3fa9".parse().unwrap()),
        Query::OfNode(NodeId([1; 32]), name("a/b")),
        Query::Name("**/*.txt".into()),
    ] {
        round_trip(&Find {
            query,
            after: None,
            limit: 9,
            holders: 2,
            extensions: vec![],
        });
    }
    round_trip(&found());
    round_trip(&Watch {
        content,
        limit: 7,
        extensions: extensions.clone(),
    });
    round_trip(&Holders {
        readiness: Readiness::Warming,
        holders: vec![holder()],
    });
    round_trip(&Introduce {
        node: NodeId([3; 32]),
        candidates: vec![candidate()],
        extensions: Vec::new(),
    });
    round_trip(&Introduction {
        peer: NodeId([3; 32]),
        asked: true,
        candidates: vec![candidate()],
        id: u64::MAX,
        key: [7; 16],
        relay: Some(RelayTicket {
            handle: 5,
            secret: [8; 16],
            lifetime_seconds: 600,
        }),
        extensions: vec![(EXTENSION_BIRTHDAY_PUNCH, Vec::new())],
    });
    round_trip(&Knock {
        id: u64::MAX,
        port: Some(64500),
        offer: true,
        extensions: extensions.clone(),
    });
    round_trip(&Knocked {
        observed: ([198, 18, 1, 2], 40000).into(),
        second_port: 65001,
        came_from: None,
        extensions: Vec::new(),
    });
    round_trip(&HoldersChanged {
        joined: vec![holder()],
        left: vec![NodeId([4; 32])],
    });
    round_trip(&Interest {
        content,
        extensions: extensions.clone(),
    });
    round_trip(&Have {
        complete: false,
        bitmap: vec![5],
        queue_bytes: 1,
        extensions: vec![],
    });
    round_trip(&HaveMore {
        chunks: vec![1, 99],
        queue_bytes: 0,
    });
    round_trip(&HashRequest {
        content,
        page: 1,
        extensions: extensions.clone(),
    });
    round_trip(&Hashes {
        hashes: vec![Hash([1; 32])],
        path: vec![Hash([2; 32])],
    });
    round_trip(&ChunkRequest {
        content,
        height: 3,
        index: 9,
        path_levels: 2,
        extensions: extensions.clone(),
    });
    let topic = Topic([4; 32]);
    round_trip(&AnnounceTopics {
        sequence: 300,
        topics: vec![TopicEntry {
            topic,
            complete: true,
        }],
        removed: vec![topic],
        extensions: extensions.clone(),
    });
    round_trip(&WatchTopic {
        topic,
        limit: 16,
        extensions: extensions.clone(),
    });
    round_trip(&Unlock {
        topic,
        proof: [6; 32],
        extensions: extensions.clone(),
    });
    round_trip(&Unlocked {
        proof: [7; 32],
        extensions,
    });
    round_trip(&ChunkData {
        bytes: 9,
        path: vec![],
        sending: 2,
    });
}

#[test]
fn lists_beyond_their_bounds_are_refused() {
    let crowded = Hello {
        candidates: vec![candidate(); 9],
        ..hello()
    };
    assert!(matches!(
        Frame::encode(&crowded),
        Err(WireError::TooMany { .. })
    ));
    let chatty = Hello {
        extensions: vec![(0, vec![]); 17],
        ..hello()
    };
    assert!(matches!(
        Frame::encode(&chatty),
        Err(WireError::TooMany { .. })
    ));
}

#[test]
fn a_length_beyond_the_largest_file_is_refused() {
    let mut absurd = announce();
    absurd.entries[0].info.length = LENGTH_MAX_BYTES + 1;
    assert!(Frame::encode(&absurd).is_err());
    let mut absurd = found();
    absurd.matches[0].info.length = u64::MAX;
    assert!(Frame::encode(&absurd).is_err());
}

#[test]
fn a_match_that_refers_to_no_node_is_refused() {
    let mut dangling = found();
    dangling.matches[0].holders = vec![(1, true)];
    assert!(Frame::encode(&dangling).is_err());
}

#[test]
fn a_name_that_would_leave_the_directory_is_refused_on_arrival() {
    let bytes = Frame::encode(&announce()).unwrap();
    let at = bytes
        .windows(3)
        .position(|window| window == b"a/b")
        .unwrap();
    let mut evil = bytes.clone();
    evil[at..at + 3].copy_from_slice(b"../");
    assert!(read::<Announce>(&evil).is_err());
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let refused = Refused::because(Refusal::Failed, "é".repeat(500));
    assert!(refused.reason.len() <= 256 && refused.reason.ends_with('é'));
}

#[test]
fn mailbox_messages_round_trip_within_their_bounds() {
    let node = NodeId([5; 32]);
    round_trip(&MailboxClaim {
        number: 7,
        token: [1; 32],
        extensions: vec![],
    });
    round_trip(&MailboxClaimed {
        lifetime_seconds: 86_400,
        extensions: vec![],
    });
    round_trip(&MailboxOpen {
        number: 7,
        exchange: vec![2; 33],
        extensions: vec![],
    });
    round_trip(&MailboxAnswer {
        sharer: node,
        exchange: vec![2; 33],
        extensions: vec![],
    });
    round_trip(&MailboxConfirm { proof: [3; 32] });
    round_trip(&MailboxSealed {
        proof: [3; 32],
        sealed: vec![4; SEALED_MAX_BYTES],
    });
    round_trip(&MailboxComplete {
        receipt: [6; 32],
        extensions: vec![],
    });
    let steps = [
        MailboxStep::Opened {
            receiver: node,
            exchange: vec![2; EXCHANGE_MAX_BYTES],
        },
        MailboxStep::Answer {
            exchange: vec![2; 33],
        },
        MailboxStep::Confirm { proof: [3; 32] },
        MailboxStep::Sealed {
            proof: [3; 32],
            sealed: vec![4; 100],
        },
        MailboxStep::Refused {
            code: 21,
            retry_after_ms: 5,
        },
        MailboxStep::Gone,
        MailboxStep::Close { code: 17 },
    ];
    for step in steps {
        round_trip(&MailboxForward { run: 9, step });
    }
    for step in [
        MailboxStep::Answer {
            exchange: vec![2; EXCHANGE_MAX_BYTES + 1],
        },
        MailboxStep::Sealed {
            proof: [3; 32],
            sealed: vec![4; SEALED_MAX_BYTES + 1],
        },
    ] {
        let encoded = Frame::encode(&MailboxForward { run: 9, step });
        assert!(matches!(encoded, Err(WireError::TooMany { .. })));
    }
}

#[test]
fn a_mailboxs_refusal_is_told_from_others() {
    let refused = Refused::new(MailboxFault::Guessed.into());
    assert_eq!(MailboxFault::of(&refused), Some(MailboxFault::Guessed));
    let busy = Refused::new(Refusal::Busy);
    assert_eq!(MailboxFault::of(&busy), None);
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic_or_write_what_it_cannot_read(
        kind in prop::sample::select(vec![
            1u16, 2, 16, 17, 18, 19, 20, 21, 22, 28, 29, 32, 33, 34, 35, 36, 37, 38, 40, 41,
        ]),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        fn check<M: Message + Debug + PartialEq>(frame: &Frame) {
            if let Ok(message) = frame.decode::<M>() {
                let again = Frame::encode(&message).unwrap();
                assert_eq!(read::<M>(&again).unwrap(), message);
            }
        }
        let frame = Frame { kind, body };
        check::<Hello>(&frame);
        check::<Refused>(&frame);
        check::<Announce>(&frame);
        check::<AnnounceAck>(&frame);
        check::<Find>(&frame);
        check::<Found>(&frame);
        check::<Watch>(&frame);
        check::<Holders>(&frame);
        check::<HoldersChanged>(&frame);
        check::<Introduce>(&frame);
        check::<Introduction>(&frame);
        check::<Knock>(&frame);
        check::<Knocked>(&frame);
        check::<Interest>(&frame);
        check::<Have>(&frame);
        check::<HaveMore>(&frame);
        check::<HashRequest>(&frame);
        check::<Hashes>(&frame);
        check::<ChunkRequest>(&frame);
        check::<ChunkData>(&frame);
        check::<AnnounceTopics>(&frame);
        check::<WatchTopic>(&frame);
        check::<Unlock>(&frame);
        check::<Unlocked>(&frame);
    }
}
