//! The open request: one run of a receiver at a mailbox.

use qshare_net::framed;
use qshare_wire::Refused;
use qshare_wire::mailbox::{MailboxAnswer, MailboxConfirm, MailboxOpen};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::run::STEP_DEADLINE;
use crate::client::Client;
use crate::reply::{respond, send_message};

/// Passes the messages of a run on between its receiver and the sharer.
pub(crate) async fn open(
    client: &Client,
    request: MailboxOpen,
    send: &mut SendStream,
    recv: &mut RecvStream,
) {
    if let Err(refused) = run(client, request, send, recv).await {
        respond(client, send, &refused).await;
    }
}

async fn run(
    client: &Client,
    request: MailboxOpen,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Refused> {
    let mailboxes = &client.services.mailboxes;
    let MailboxOpen {
        number, exchange, ..
    } = request;
    let begun = mailboxes.begin_run(number, client.node, client.observed_ip(), exchange);
    let mut run = begun.await?;
    let (sharer, exchange) = run.answer().await?;
    let answer = MailboxAnswer {
        sharer,
        exchange,
        extensions: Vec::new(),
    };
    if !send_message(client, send, &answer).await {
        return Ok(());
    }
    // A receiver that leaves here has made no guess; the sharer hears that it is gone.
    let confirm = timeout(STEP_DEADLINE, framed::read::<MailboxConfirm>(recv)).await;
    let Ok(Ok(MailboxConfirm { proof })) = confirm else {
        return Ok(());
    };
    let sealed = run.confirm(proof).await?;
    respond(client, send, &sealed).await;
    Ok(())
}
