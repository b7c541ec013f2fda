//! What `qshare get` was asked to do.

use std::collections::BTreeMap;
use std::time::Duration;

use qshare_node::Redeemed;
use qshare_node::content::{AssetName, Hash};

use crate::args::{GetArgs, Wait};
use crate::argument::Wanted;

/// A download fails after this time without a usable source.
const SOURCE_PATIENCE: Duration = Duration::from_secs(10);

/// The parsed command.
pub(super) struct Request {
    pub(super) args: GetArgs,
    pub(super) wanted: Vec<Wanted>,
    /// The codes that were redeemed; their links are in `wanted`.
    pub(super) redeemed: Vec<Redeemed>,
    /// The digests that --sums lists.
    pub(super) sums: Option<BTreeMap<AssetName, Hash>>,
}

/// Returns how long a download goes on without a source.
pub(super) fn patience(args: &GetArgs) -> Option<Duration> {
    match args.wait {
        None => Some(SOURCE_PATIENCE),
        Some(Wait::For(time)) => Some(time.max(SOURCE_PATIENCE)),
        Some(Wait::Forever) => None,
    }
}
