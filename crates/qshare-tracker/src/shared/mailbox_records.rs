//! Mailboxes of codes in Redis: a number is unique over all trackers of the registry.
//!
//! A mailbox's value is
//!
//! ```text
//! SHA-256 of the token 32 │ o (open) or the code of the reason of its end 1 │ tracker 32 │
//! stream 8 │ sharer 32 │ network
//! ```
//!
//! The tracker is the one to which the sharer's stream leads, or zeros; the stream is a random
//! number of that tracker. An open mailbox has expired if its time to live is no more than the rest
//! of its number. Scripts in `scripts` change all of it atomically.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_content::fair::{Network, User};
use qshare_wire::mailbox::MailboxFault;
use redis::Value;

use super::layout::{Layout, bytes_of, millis, strings_of};
use super::link::{Link, RegistryFault};
use super::scripts::{Call, ScriptName};

/// Where the parts of a value begin.
const STATE_AT: usize = 32;
const TRACKER_AT: usize = 33;
const STREAM_AT: usize = 65;

/// How long mailboxes and their numbers last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MailboxTimes {
    /// A mailbox ends this long after its first claim.
    pub(crate) lifetime: Duration,
    /// A number is used again this long after its mailbox has ended.
    pub(crate) rest: Duration,
}

/// A claim of a mailbox in Redis.
pub(crate) struct RecordClaim {
    pub(crate) number: u32,
    pub(crate) token_hash: [u8; 32],
    /// Names the sharer's stream.
    pub(crate) stream: u64,
    pub(crate) owner: User<NodeId>,
}

/// The answer to a claim.
pub(crate) enum RecordClaimed {
    /// It is granted; the time until it expires, and the mailboxes that had to yield, each with the
    /// tracker that has its stream.
    Granted(Duration, Vec<(u32, Option<NodeId>)>),
    /// Somebody else has the number.
    Taken,
    /// There is no room.
    Full,
}

/// What Redis knows of a number.
pub(crate) enum RecordState {
    Unknown,
    /// It is claimed; the tracker to which the sharer's stream leads.
    Claimed(Option<NodeId>),
    Ended(MailboxFault),
}

/// The mailboxes of a registry.
pub(crate) struct MailboxRecords {
    link: Arc<Link>,
    base: Vec<u8>,
    us: NodeId,
    times: MailboxTimes,
    /// Most mailboxes over all trackers, those that ended a while ago included.
    max: usize,
}

impl MailboxRecords {
    pub(super) fn new(
        link: Arc<Link>,
        layout: &Layout,
        us: NodeId,
        times: MailboxTimes,
        max: usize,
    ) -> MailboxRecords {
        MailboxRecords {
            link,
            base: layout.mailboxes(),
            us,
            times,
            max,
        }
    }

    fn keys(&self, number: u32) -> Vec<Vec<u8>> {
        let key = [&self.base[..], b"k", &number.to_be_bytes()].concat();
        vec![key, self.base.clone()]
    }

    async fn run(
        &self,
        script: ScriptName,
        number: u32,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Value, RegistryFault> {
        let call = Call::script(script, self.keys(number), arguments);
        let mut values = self.link.run(&[call]).await?;
        values.pop().ok_or(RegistryFault::Malformed)
    }

    pub(crate) async fn claim(&self, claim: &RecordClaim) -> Result<RecordClaimed, RegistryFault> {
        let arguments = vec![
            claim.token_hash.to_vec(),
            self.us.0.to_vec(),
            claim.stream.to_be_bytes().to_vec(),
            claim.owner.id.0.to_vec(),
            encode_network(claim.owner.network),
            millis(self.times.lifetime),
            millis(self.times.rest),
            self.max.max(1).to_string().into(),
            claim.number.to_be_bytes().to_vec(),
        ];
        let run = self.run(ScriptName::ClaimMailbox, claim.number, arguments);
        let value = run.await?;
        let Value::Array(parts) = &value else {
            return Err(RegistryFault::Malformed);
        };
        match parts.as_slice() {
            [Value::Int(0)] => Ok(RecordClaimed::Taken),
            [Value::Int(2)] => Ok(RecordClaimed::Full),
            [Value::Int(1), Value::Int(left), ..] => {
                let left = Duration::from_millis(u64::try_from(*left).unwrap_or(0));
                let evicted = strings_of(&value);
                let evicted = evicted.chunks_exact(2).filter_map(|pair| {
                    let number = u32::from_be_bytes(pair[0].try_into().ok()?);
                    Some((number, tracker_of(pair[1])))
                });
                Ok(RecordClaimed::Granted(left, evicted.collect()))
            }
            _ => Err(RegistryFault::Malformed),
        }
    }

    /// Ends a mailbox, if the token is right.
    pub(crate) async fn end(
        &self,
        number: u32,
        token_hash: [u8; 32],
        why: MailboxFault,
    ) -> Result<(), RegistryFault> {
        let code = u8::try_from(why.code()).unwrap_or(u8::MAX);
        let arguments = vec![
            token_hash.to_vec(),
            vec![code],
            millis(self.times.rest),
            number.to_be_bytes().to_vec(),
        ];
        self.run(ScriptName::EndMailbox, number, arguments).await?;
        Ok(())
    }

    /// Records that a stream has ended.
    pub(crate) async fn leave(&self, number: u32, stream: u64) -> Result<(), RegistryFault> {
        let arguments = vec![stream.to_be_bytes().to_vec()];
        self.run(ScriptName::LeaveMailbox, number, arguments)
            .await?;
        Ok(())
    }

    pub(crate) async fn state(&self, number: u32) -> Result<RecordState, RegistryFault> {
        let run = self.run(ScriptName::StateOfMailbox, number, Vec::new());
        let Value::Array(parts) = run.await? else {
            return Err(RegistryFault::Malformed);
        };
        let (value, left_ms) = match parts.as_slice() {
            [Value::BulkString(_), Value::Int(left)] => (bytes_of(&parts[0]), *left),
            [Value::Nil | Value::Boolean(false), ..] => return Ok(RecordState::Unknown),
            _ => return Err(RegistryFault::Malformed),
        };
        let value = value.ok_or(RegistryFault::Malformed)?;
        let rest_ms = i64::try_from(self.times.rest.as_millis()).unwrap_or(i64::MAX);
        Ok(match value.get(STATE_AT) {
            Some(b'o') if left_ms <= rest_ms => RecordState::Ended(MailboxFault::Expired),
            Some(b'o') => {
                let tracker = value.get(TRACKER_AT..STREAM_AT);
                RecordState::Claimed(tracker.and_then(tracker_of))
            }
            Some(&code) => {
                let why = MailboxFault::from_code(code.into());
                RecordState::Ended(why.unwrap_or(MailboxFault::Ended))
            }
            None => return Err(RegistryFault::Malformed),
        })
    }
}

/// Returns the tracker of a mailbox; None for zeros.
fn tracker_of(bytes: &[u8]) -> Option<NodeId> {
    let tracker = NodeId(bytes.try_into().ok()?);
    (tracker.0 != [0; 32]).then_some(tracker)
}

/// Encodes a network: its kind, and the bytes that identify it.
pub(super) fn encode_network(network: Network) -> Vec<u8> {
    match network {
        Network::V4(bytes) => [&b"4"[..], &bytes].concat(),
        Network::V6(bytes) => [&b"6"[..], &bytes].concat(),
        Network::Address(IpAddr::V4(at)) => [&b"a"[..], &at.octets()].concat(),
        Network::Address(IpAddr::V6(at)) => [&b"b"[..], &at.octets()].concat(),
    }
}
