//! Stopping the hashing of a share whose future was dropped.

use qshare_node::Cancel;

/// Stops hashing when it is dropped, unless it was [disarmed](Self::disarm).
pub(crate) struct CancelOnDrop(Option<Cancel>);

impl CancelOnDrop {
    pub(crate) fn new(cancel: &Cancel) -> CancelOnDrop {
        CancelOnDrop(Some(cancel.clone()))
    }

    /// Lets the share go on: later versions of the path are hashed with the same flag.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}
