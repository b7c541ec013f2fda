//! The claim request: a sharer's stream, for as long as its mailbox is open.

use qshare_content::fair::User;
use qshare_net::framed::{self, ReadError};
use qshare_wire::Refused;
use qshare_wire::mailbox::{
    MailboxClaim, MailboxClaimed, MailboxFault, MailboxForward, MailboxStep,
};
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::live::Claimed;
use crate::client::{Client, SessionError};
use crate::fair_budget::Reservation;
use crate::reply::{end_busy, respond, send_message};

/// Why the stream of a claim ends.
enum End {
    /// The sharer left, or the stream is lost.
    Left,
    /// The sharer ends the mailbox for this reason.
    Closed(MailboxFault),
    /// The mailbox is a day old.
    Expired,
    /// The stream or the mailbox is needed for others, or a newer stream took over.
    Replaced,
    /// The sharer broke the protocol.
    Broke(SessionError),
}

/// Serves a claim until either side ends it.
pub(crate) async fn claim(
    client: &Client,
    request: MailboxClaim,
    stream: &Reservation,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), SessionError> {
    let owner = User {
        network: client.user.network,
        id: client.node,
    };
    let (claimed, mut steps) = match client.services.mailboxes.claim(owner, &request).await {
        Ok(claimed) => claimed,
        Err(refused) => {
            respond(client, send, &refused).await;
            return Ok(());
        }
    };
    let granted = MailboxClaimed {
        lifetime_seconds: u32::try_from(claimed.remaining.as_secs()).unwrap_or(u32::MAX),
        extensions: Vec::new(),
    };
    if !send_message(client, send, &granted).await {
        return Ok(());
    }
    let end = tokio::select! {
        end = read_steps(client, &claimed, recv) => end,
        () = write_steps(client, send, &mut steps) => End::Left,
        () = sleep(claimed.remaining) => End::Expired,
        () = claimed.replaced() => End::Replaced,
        () = stream.evicted() => End::Replaced,
    };
    match end {
        End::Left => {}
        End::Closed(why) => {
            claimed.end(why).await;
            let _ = send.finish();
        }
        End::Expired => {
            respond(client, send, &Refused::new(MailboxFault::Expired.into())).await;
        }
        End::Replaced => end_busy(client, send, "the tracker needs the mailbox for others").await,
        End::Broke(error) => return Err(error),
    }
    Ok(())
}

async fn read_steps(client: &Client, claimed: &Claimed, recv: &mut RecvStream) -> End {
    loop {
        let forward = match framed::read::<MailboxForward>(recv).await {
            Ok(forward) => forward,
            Err(ReadError::Wire(error)) => {
                return End::Broke(SessionError::Protocol(error.to_string()));
            }
            Err(_) => return End::Left,
        };
        match forward.step {
            MailboxStep::Close { code } => {
                let why = MailboxFault::from_code(code).filter(|why| why.is_final());
                return End::Closed(why.unwrap_or(MailboxFault::Ended));
            }
            step @ (MailboxStep::Answer { .. }
            | MailboxStep::Sealed { .. }
            | MailboxStep::Refused { .. }) => claimed.deliver(forward.run, step),
            MailboxStep::Opened { .. } | MailboxStep::Confirm { .. } | MailboxStep::Gone => {
                let reason = "a sharer sent a step of a receiver";
                return End::Broke(SessionError::Protocol(reason.to_owned()));
            }
        }
        sleep(client.charge(1.0)).await;
    }
}

/// Returns when the sharer takes no more steps.
async fn write_steps(
    client: &Client,
    send: &mut SendStream,
    steps: &mut mpsc::Receiver<MailboxForward>,
) {
    while let Some(step) = steps.recv().await {
        if !send_message(client, send, &step).await {
            return;
        }
    }
}
