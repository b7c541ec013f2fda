//! Tells the service manager when this process is ready and when it stops (systemd's sd_notify).
//! Without one, nothing happens.

use sd_notify::NotifyState;
use tracing::debug;

/// Tells that the command does its work from now on.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// Tells that the command ends soon.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!(%error, "the service manager was not told");
    }
}
