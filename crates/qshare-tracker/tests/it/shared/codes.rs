//! Codes over several trackers: sharers and receivers of different trackers meet.

use qshare_net::framed::{self, ReadError};
use qshare_wire::mailbox::{
    MailboxAnswer, MailboxClaim, MailboxClaimed, MailboxConfirm, MailboxFault, MailboxForward,
    MailboxOpen, MailboxSealed, MailboxStep,
};
use qshare_wire::{CloseCode, Refusal, Refused};
use quinn::{RecvStream, SendStream};

use super::{eventually, redis_or_skip, tracker_over};
use crate::common::{Joined, Node, within};

const NUMBER: u32 = 7;

type Streams = (SendStream, RecvStream);

async fn claim_with(sharer: &Joined, token: u8) -> Result<Streams, Refused> {
    let request = MailboxClaim {
        number: NUMBER,
        token: [token; 32],
        extensions: Vec::new(),
    };
    let asked = framed::ask::<MailboxClaim, MailboxClaimed>(&sharer.session.connection, &request);
    match within(asked).await {
        Ok((_, send, recv)) => Ok((send, recv)),
        Err(ReadError::Refused(refused)) => Err(refused),
        Err(error) => panic!("{error}"),
    }
}

async fn open(receiver: &Joined) -> Result<(MailboxAnswer, Streams), Refused> {
    let request = MailboxOpen {
        number: NUMBER,
        exchange: vec![1],
        extensions: Vec::new(),
    };
    let asked = framed::ask::<MailboxOpen, MailboxAnswer>(&receiver.session.connection, &request);
    match within(asked).await {
        Ok((answer, send, recv)) => Ok((answer, (send, recv))),
        Err(ReadError::Refused(refused)) => Err(refused),
        Err(error) => panic!("{error}"),
    }
}

/// Reads the next step of a receiver.
async fn step(sharer: &mut Streams) -> MailboxForward {
    within(framed::read::<MailboxForward>(&mut sharer.1))
        .await
        .unwrap()
}

async fn answer(sharer: &mut Streams, run: u64, step: MailboxStep) {
    let forward = MailboxForward { run, step };
    framed::write(&mut sharer.0, &forward).await.unwrap();
}

/// Reads the opening of a run and answers it.
async fn answer_opening(sharer: &mut Streams) -> u64 {
    let opened = step(sharer).await;
    assert!(
        matches!(opened.step, MailboxStep::Opened { .. }),
        "{opened:?}"
    );
    let part = MailboxStep::Answer { exchange: vec![2] };
    answer(sharer, opened.run, part).await;
    opened.run
}

/// Carries out a whole run.
async fn pair(sharer: &mut Streams, receiver: &Joined) {
    let (opened, run) = tokio::join!(open(receiver), answer_opening(sharer));
    let (answered, mut streams) = opened.unwrap();
    assert_eq!(answered.exchange, [2]);
    let confirm = MailboxConfirm { proof: [3; 32] };
    framed::write(&mut streams.0, &confirm).await.unwrap();
    let confirmed = step(sharer).await;
    let proof = [3; 32];
    assert_eq!(
        (confirmed.run, confirmed.step),
        (run, MailboxStep::Confirm { proof })
    );
    let sealed = MailboxStep::Sealed {
        proof: [4; 32],
        sealed: vec![5; 8_000],
    };
    answer(sharer, run, sealed).await;
    let sealed = within(framed::read::<MailboxSealed>(&mut streams.1)).await;
    assert_eq!(sealed.unwrap().sealed.len(), 8_000);
}

#[tokio::test]
async fn a_receiver_meets_a_sharer_of_another_tracker() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (sharer, stranger, receiver) = (Node::new(None), Node::new(None), Node::new(None));
    let (at_a, at_b) = (sharer.join(&a).await, receiver.join(&b).await);
    let unknown = open(&at_b).await.err().unwrap();
    assert_eq!(unknown.refusal(), Refusal::NotHere);
    let mut claimed = claim_with(&at_a, 1).await.unwrap();
    // The number is unique over both trackers.
    let other = stranger.join(&b).await;
    let taken = claim_with(&other, 2).await.err().unwrap();
    assert_eq!(MailboxFault::of(&taken), Some(MailboxFault::Taken));
    pair(&mut claimed, &at_b).await;
    // A receiver of the sharer's own tracker still does, too.
    let near = stranger.join(&a).await;
    pair(&mut claimed, &near).await;
    // What the sharer refuses, the receiver reads; what it counts, it counts over all trackers.
    let refused = MailboxStep::Refused {
        code: MailboxFault::WrongWords.code(),
        retry_after_ms: 0,
    };
    let (opened, run) = tokio::join!(open(&at_b), answer_opening(&mut claimed));
    let (_, mut streams) = opened.unwrap();
    framed::write(&mut streams.0, &MailboxConfirm { proof: [9; 32] })
        .await
        .unwrap();
    step(&mut claimed).await;
    answer(&mut claimed, run, refused).await;
    match within(framed::read::<MailboxSealed>(&mut streams.1)).await {
        Err(ReadError::Refused(refused)) => {
            assert_eq!(MailboxFault::of(&refused), Some(MailboxFault::WrongWords));
        }
        other => panic!("{other:?}"),
    }
    // The sharer hears of a receiver elsewhere that leaves.
    let (opened, run) = tokio::join!(open(&at_b), answer_opening(&mut claimed));
    drop(opened.unwrap());
    let gone = step(&mut claimed).await;
    assert_eq!((gone.run, gone.step), (run, MailboxStep::Gone));
    // The end of the mailbox is known everywhere.
    let close = MailboxStep::Close {
        code: MailboxFault::Guessed.code(),
    };
    answer(&mut claimed, 0, close).await;
    eventually("the other tracker knows that it ended", async || {
        let refused = open(&at_b).await.err()?;
        (MailboxFault::of(&refused) == Some(MailboxFault::Guessed)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_mailbox_follows_its_sharer_to_another_tracker() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let c = tracker_over(&redis).await;
    let (sharer, receiver) = (Node::new(None), Node::new(None));
    let (at_a, at_c) = (sharer.join(&a).await, receiver.join(&c).await);
    let first = claim_with(&at_a, 1).await.unwrap();
    at_a.leave(CloseCode::Protocol);
    drop(first);
    eventually("the sharer is away", async || {
        let refused = open(&at_c).await.err()?;
        (MailboxFault::of(&refused) == Some(MailboxFault::Away)).then_some(())
    })
    .await;
    let at_b = sharer.join(&b).await;
    let mut again = claim_with(&at_b, 1).await.unwrap();
    pair(&mut again, &at_c).await;
    // Its former tracker finds it, too.
    let near = receiver.join(&a).await;
    pair(&mut again, &near).await;
}

#[tokio::test]
async fn a_mailbox_is_there_again_after_redis_was_lost() {
    let mut redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (sharer, receiver) = (Node::new(None), Node::new(None));
    let (at_a, at_b) = (sharer.join(&a).await, receiver.join(&b).await);
    let mut claimed = claim_with(&at_a, 1).await.unwrap();
    redis.kill();
    // Without Redis the sharer's own tracker still joins the two, and the other one says how long
    // to wait.
    let near = Node::new(None).join(&a).await;
    pair(&mut claimed, &near).await;
    let refused = open(&at_b).await.err().unwrap();
    assert_eq!(refused.refusal(), Refusal::Busy);
    assert!(refused.retry_after_ms > 0);
    redis.restart();
    eventually("the mailbox is claimed again", async || {
        let (opened, run) = tokio::join!(open(&at_b), async {
            // Nothing comes here before the other tracker finds the mailbox.
            tokio::time::timeout(
                std::time::Duration::from_secs(1),
                answer_opening(&mut claimed),
            )
            .await
            .ok()
        });
        (opened.is_ok() && run.is_some()).then_some(())
    })
    .await;
}
