//! Every message of the wire: whatever the bytes, decoding ends with a message or an error, and a
//! decoded message survives encoding.
//!
//! The first byte of an input chooses the message, the rest is the frame's body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qshare_wire::collection::{FolderInfo, FolderRequest, MemberInterest};
use qshare_wire::hello::Hello;
use qshare_wire::introduction::{Introduce, Introduction};
use qshare_wire::knock::{Knock, Knocked};
use qshare_wire::mailbox::{
    MailboxAnswer, MailboxClaim, MailboxClaimed, MailboxComplete, MailboxConfirm, MailboxForward,
    MailboxOpen, MailboxSealed,
};
use qshare_wire::peer::{
    ChunkData, ChunkRequest, HashRequest, Hashes, Have, HaveMore, Interest, Ping,
};
use qshare_wire::private::{AnnounceTopics, Unlock, Unlocked, WatchTopic};
use qshare_wire::siblings::Siblings;
use qshare_wire::tracker::{
    Announce, AnnounceAck, EntriesEvicted, Find, Found, Holders, HoldersChanged, Watch,
};
use qshare_wire::{FRAME_HEADER_BYTES, Frame, FrameHeader, Message, Refused};

const DECODERS: &[fn(&[u8])] = &[
    decode::<Hello>,
    decode::<FolderRequest>,
    decode::<FolderInfo>,
    decode::<MemberInterest>,
    decode::<Announce>,
    decode::<AnnounceAck>,
    decode::<Find>,
    decode::<Found>,
    decode::<Watch>,
    decode::<Holders>,
    decode::<HoldersChanged>,
    decode::<Introduce>,
    decode::<Introduction>,
    decode::<Knock>,
    decode::<Knocked>,
    decode::<Interest>,
    decode::<Have>,
    decode::<HaveMore>,
    decode::<HashRequest>,
    decode::<Hashes>,
    decode::<ChunkRequest>,
    decode::<ChunkData>,
    decode::<Ping>,
    decode::<Refused>,
    decode::<EntriesEvicted>,
    decode::<Siblings>,
    decode::<AnnounceTopics>,
    decode::<WatchTopic>,
    decode::<Unlock>,
    decode::<Unlocked>,
    decode::<MailboxClaim>,
    decode::<MailboxClaimed>,
    decode::<MailboxOpen>,
    decode::<MailboxAnswer>,
    decode::<MailboxConfirm>,
    decode::<MailboxSealed>,
    decode::<MailboxForward>,
    decode::<MailboxComplete>,
];

fn decode<M: Message>(body: &[u8]) {
    let frame = Frame {
        kind: M::TYPE,
        body: body.to_vec(),
    };
    let Ok(message) = frame.decode::<M>() else {
        return;
    };
    let bytes = Frame::encode(&message).expect("a decoded message can be encoded");
    let (header, body) = bytes
        .split_first_chunk::<FRAME_HEADER_BYTES>()
        .expect("a header");
    let header = FrameHeader::parse(*header);
    assert_eq!(
        (header.kind, header.length_bytes as usize),
        (M::TYPE, body.len())
    );
    let again = Frame {
        kind: header.kind,
        body: body.to_vec(),
    };
    let again = again
        .decode::<M>()
        .expect("an encoded message can be decoded");
    assert_eq!(Frame::encode(&again).as_ref(), Ok(&bytes), "{}", M::NAME);
}

fuzz_target!(|data: &[u8]| {
    if let Some((choice, body)) = data.split_first() {
        DECODERS[usize::from(*choice) % DECODERS.len()](body);
    }
});
