//! Siblings: other trackers over the same registry, to which a node goes when its tracker is lost.

use qshare_content::NodeId;
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions};
use crate::limits::SMALL_BODY_MAX_BYTES;
use crate::{Address, Message, WireError};

/// Siblings in one message.
pub const SIBLINGS_MAX: usize = 16;

/// Another tracker of the same registry: id, then address. The address
/// [`Address::TrackerHost`] stands for the host of the tracker that sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// The tracker's id.
    pub tracker: NodeId,
    /// Where the sender has completed a handshake with it.
    pub address: Address,
}

/// `Siblings`, on the control stream: after Hello, and when they change. Replaces those of earlier
/// messages.
///
/// ```text
/// siblings list ≤ 16 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Siblings {
    /// The siblings, in no order.
    pub siblings: Vec<Sibling>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for Siblings {
    const TYPE: u16 = 56;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Siblings";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("siblings", self.siblings.len(), SIBLINGS_MAX)?;
        check_extensions::<Self>(&self.extensions)
    }
}
