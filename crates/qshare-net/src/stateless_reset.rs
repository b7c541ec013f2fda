//! Stateless resets (RFC 9000 section 10.3): a process that was killed and started again answers
//! packets of its earlier connections with a reset that their peers accept.
//!
//! Without it, peers notice the restart after the idle time-out. The keys are derived from the
//! private key, because a restarted process has nothing else in common with the earlier one. A
//! reset reveals nothing, and only the owner of the private key can make one.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;

use crate::Identity;

/// The least time between two resets. 500 a second spread the reconnects of a restarted tracker's
/// nodes: a handshake takes the tracker about a millisecond.
const INTERVAL: Duration = Duration::from_millis(2);

const RESET_LABEL: &[u8] = b"qshare/stateless-reset/1";
const CONNECTION_ID_LABEL: &[u8] = b"qshare/connection-id/1";

/// Returns quinn's defaults, with reset tokens and connection IDs that an endpoint of the same
/// identity recognizes.
pub(crate) fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let key = identity.key();
    let secret = hmac::Key::new(hmac::HMAC_SHA256, key.secret_der());
    let reset_key = hmac::sign(&secret, RESET_LABEL);
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, reset_key.as_ref());
    let connection_ids = hmac::sign(&secret, CONNECTION_ID_LABEL);
    // Recognizes connection IDs; it hides nothing.
    let first = connection_ids.as_ref().first_chunk();
    let connection_ids = u64::from_le_bytes(first.copied().unwrap_or_default());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_ids)))
        .min_reset_interval(INTERVAL);
    config
}
