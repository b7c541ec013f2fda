//! Runs: one key exchange of a receiver at a mailbox.

use std::sync::Arc;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_wire::mailbox::{MailboxFault, MailboxForward, MailboxSealed, MailboxStep};
use qshare_wire::{Refusal, Refused};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::live::{AWAY_RETRY, BUSY_RETRY, Live, Mailboxes, TRACKER_LOST_RETRY, lock, refused};
use crate::shared::{HostedRun, OpenRun, ReceiverStep, RemoteRun, SharerStep};

/// Time for each step of the other side. No person is involved.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// The receiver's end of a run.
pub(super) enum Run {
    /// The sharer's stream is at this tracker.
    Here(LocalRun),
    /// It is at another one.
    Elsewhere(RemoteRun),
}

impl Run {
    /// Waits for the sharer's part of the key exchange. Returns the sharer and its message.
    ///
    /// # Errors
    ///
    /// Its refusal; that it is away; that it did not answer in time.
    pub(super) async fn answer(&mut self) -> Result<(NodeId, Vec<u8>), Refused> {
        match self {
            Run::Here(run) => match run.next().await? {
                MailboxStep::Answer { exchange } => Ok((run.sharer(), exchange)),
                _ => Err(Refused::new(Refusal::Failed)),
            },
            Run::Elsewhere(run) => match next_elsewhere(run).await? {
                SharerStep::Answer { sharer, exchange } => Ok((sharer, exchange)),
                _ => Err(Refused::new(Refusal::Failed)),
            },
        }
    }

    /// Sends the receiver's confirmation, and waits for the sharer's with the sealed link.
    ///
    /// # Errors
    ///
    /// As those of [`Run::answer`].
    pub(super) async fn confirm(&mut self, proof: [u8; 32]) -> Result<MailboxSealed, Refused> {
        match self {
            Run::Here(run) => {
                run.send(MailboxStep::Confirm { proof })?;
                match run.next().await? {
                    MailboxStep::Sealed { proof, sealed } => Ok(MailboxSealed { proof, sealed }),
                    _ => Err(Refused::new(Refusal::Failed)),
                }
            }
            Run::Elsewhere(run) => {
                run.confirm(proof).await;
                match next_elsewhere(run).await? {
                    SharerStep::Sealed { proof, sealed } => Ok(MailboxSealed { proof, sealed }),
                    _ => Err(Refused::new(Refusal::Failed)),
                }
            }
        }
    }
}

async fn next_elsewhere(run: &mut RemoteRun) -> Result<SharerStep, Refused> {
    // The other tracker's own deadline ends first, if it is alive.
    match timeout(STEP_DEADLINE + Duration::from_millis(500), run.next()).await {
        Ok(Some(SharerStep::Refused {
            code,
            retry_after_ms,
        })) => {
            let mut refused = Refused::new(Refusal::from_code(code));
            refused.retry_after_ms = retry_after_ms;
            Err(refused)
        }
        Ok(Some(step)) => Ok(step),
        Ok(None) | Err(_) => Err(refused(MailboxFault::Away, TRACKER_LOST_RETRY)),
    }
}

/// A run at a mailbox whose sharer is in session with this tracker.
pub(super) struct LocalRun {
    live: Arc<Live>,
    id: u64,
    from_sharer: mpsc::Receiver<MailboxStep>,
    is_over: bool,
}

impl LocalRun {
    pub(super) fn new(
        live: Arc<Live>,
        id: u64,
        from_sharer: mpsc::Receiver<MailboxStep>,
    ) -> LocalRun {
        LocalRun {
            live,
            id,
            from_sharer,
            is_over: false,
        }
    }

    /// Returns the sharer.
    pub(super) fn sharer(&self) -> NodeId {
        self.live.sharer
    }

    /// Sends the sharer a step.
    pub(super) fn send(&self, step: MailboxStep) -> Result<(), Refused> {
        let forward = MailboxForward { run: self.id, step };
        let sent = self.live.steps.try_send(forward);
        sent.map_err(|_| refused(Refusal::Busy, BUSY_RETRY))
    }

    /// Waits for the sharer's next step.
    ///
    /// # Errors
    ///
    /// Its refusal; that it is away; that it did not answer in time.
    pub(super) async fn next(&mut self) -> Result<MailboxStep, Refused> {
        match timeout(STEP_DEADLINE, self.from_sharer.recv()).await {
            Ok(Some(MailboxStep::Refused {
                code,
                retry_after_ms,
            })) => {
                self.is_over = true;
                let mut refused = Refused::new(Refusal::from_code(code));
                refused.retry_after_ms = retry_after_ms;
                Err(refused)
            }
            Ok(Some(step)) => {
                self.is_over = matches!(step, MailboxStep::Sealed { .. });
                Ok(step)
            }
            Ok(None) => {
                self.is_over = true;
                Err(refused(MailboxFault::Away, AWAY_RETRY))
            }
            Err(_) => Err(refused(MailboxFault::Away, AWAY_RETRY)),
        }
    }
}

impl Drop for LocalRun {
    fn drop(&mut self) {
        lock(&self.live.receivers).remove(&self.id);
        if !self.is_over {
            let _ = self.send(MailboxStep::Gone);
        }
    }
}

/// Carries out a run of another tracker's receiver at a mailbox of this tracker.
pub(crate) async fn host(mailboxes: &Mailboxes, open: OpenRun, mut remote: HostedRun) {
    // First: the receiver's tracker repeats the opening until it hears this.
    remote.send(SharerStep::Accepted).await;
    if let Err(refused) = host_steps(mailboxes, open, &mut remote).await {
        let refused = SharerStep::Refused {
            code: refused.refusal().code(),
            retry_after_ms: refused.retry_after_ms,
        };
        remote.send(refused).await;
    }
}

async fn host_steps(
    mailboxes: &Mailboxes,
    open: OpenRun,
    remote: &mut HostedRun,
) -> Result<(), Refused> {
    let OpenRun {
        number,
        receiver,
        receiver_ip,
        exchange,
        ..
    } = open;
    let mut run = mailboxes.begin_hosted_run(number, receiver, receiver_ip, exchange)?;
    let answer = tokio::select! {
        answer = run.next() => answer?,
        // Nothing but its end can come now. Dropping the run tells the sharer.
        _ = remote.next() => return Ok(()),
    };
    let MailboxStep::Answer { exchange } = answer else {
        return Err(Refused::new(Refusal::Failed));
    };
    let sharer = run.sharer();
    remote.send(SharerStep::Answer { sharer, exchange }).await;
    // A receiver that leaves here has made no guess; the sharer hears that it is gone.
    let step = timeout(STEP_DEADLINE, remote.next()).await;
    let Ok(ReceiverStep::Confirm { proof }) = step else {
        return Ok(());
    };
    run.send(MailboxStep::Confirm { proof })?;
    let MailboxStep::Sealed { proof, sealed } = run.next().await? else {
        return Err(Refused::new(Refusal::Failed));
    };
    remote.send(SharerStep::Sealed { proof, sealed }).await;
    Ok(())
}
