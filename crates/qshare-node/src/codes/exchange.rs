//! The sharer's side of all runs of one code, without IO.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{Code, NodeId};
use qshare_net::{PakeSharer, SealedLink};
use qshare_wire::mailbox::MailboxFault;
use qshare_wire::{Refusal, Refused};
use tokio::sync::{mpsc, watch};
use tracing::debug;
use zeroize::Zeroizing;

use super::attempts::{Attempts, TooMany};
use super::event::CodeEvent;
use super::offer::LinkProvider;
use super::uses::Uses;

/// Retry time while as many runs are open as guesses are left.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// One code, its guesses and its runs. Runs of all trackers and neighbours meet here.
pub(super) struct Exchange {
    us: NodeId,
    code: Code,
    link: LinkProvider,
    uses: Arc<Mutex<Uses>>,
    events: mpsc::UnboundedSender<CodeEvent>,
    state: Mutex<State>,
    /// Why the code has ended, once it has.
    ended: watch::Sender<Option<MailboxFault>>,
}

#[derive(Default)]
struct State {
    attempts: Attempts,
    runs: HashMap<u64, Run>,
}

struct Run {
    receiver: NodeId,
    pake: PakeSharer,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    pub(super) fn new(
        us: NodeId,
        code: Code,
        link: LinkProvider,
        uses: Arc<Mutex<Uses>>,
        events: mpsc::UnboundedSender<CodeEvent>,
    ) -> Exchange {
        Exchange {
            us,
            code,
            link,
            uses,
            events,
            state: Mutex::default(),
            ended: watch::Sender::new(None),
        }
    }

    pub(super) fn code(&self) -> &Code {
        &self.code
    }

    /// Begins a run of a receiver; returns its number and this side's message.
    ///
    /// # Errors
    ///
    /// The refusal to send.
    pub(super) fn open(
        &self,
        now: Instant,
        receiver: NodeId,
        exchange: &[u8],
    ) -> Result<(u64, Vec<u8>), Refused> {
        self.refuse_if_ended()?;
        let mut state = lock(&self.state);
        let begun = state.attempts.begin(now);
        let State { attempts, runs } = &mut *state;
        runs.retain(|run, _| attempts.is_open(*run));
        let run = begun.map_err(|TooMany| {
            let mut busy = Refused::new(Refusal::Busy);
            busy.retry_after_ms = BUSY_RETRY.as_millis() as u32;
            busy
        })?;
        match PakeSharer::answer(&self.code, self.us, receiver, exchange) {
            Ok((pake, answer)) => {
                runs.insert(run, Run { receiver, pake });
                Ok((run, answer))
            }
            Err(error) => {
                attempts.end(run);
                Err(Refused::because(Refusal::Invalid, error.to_string()))
            }
        }
    }

    /// Verifies the confirmation of a run, and seals the link. The run ends.
    ///
    /// # Errors
    ///
    /// The refusal to send. Nothing that depends on the key goes into it.
    pub(super) fn confirm(&self, run: u64, proof: &[u8; 32]) -> Result<SealedLink, Refused> {
        // The state is locked to the end, so that the count of uses and of guesses is exact.
        let mut state = lock(&self.state);
        self.refuse_if_ended()?;
        let Some(Run { receiver, pake }) = state.runs.remove(&run) else {
            return Err(Refused::because(Refusal::Invalid, "the run has ended"));
        };
        state.attempts.end(run);
        let Ok(verified) = pake.verify(proof) else {
            let left = state.attempts.fail();
            debug!(peer = %receiver, left, "wrong words");
            self.tell(CodeEvent::AttemptFailed {
                node: receiver,
                left,
            });
            if left == 0 {
                self.end(MailboxFault::Guessed);
            }
            return Err(Refused::new(MailboxFault::WrongWords.into()));
        };
        let mut uses = lock(&self.uses);
        if !uses.may_use() {
            self.end(MailboxFault::UsedUp);
            return Err(Refused::new(MailboxFault::UsedUp.into()));
        }
        let link = Zeroizing::new((self.link)().to_string());
        let sealed = verified.seal(&link);
        let sealed = sealed.map_err(|_| Refused::new(Refusal::Failed))?;
        let left = uses.count(sealed.receipt);
        self.tell(CodeEvent::Redeemed {
            node: receiver,
            left,
        });
        if !uses.may_use() {
            self.end(MailboxFault::UsedUp);
        }
        Ok(sealed)
    }

    /// Ends a run whose receiver has left. It is no guess.
    pub(super) fn abort(&self, run: u64) {
        let mut state = lock(&self.state);
        state.attempts.end(run);
        state.runs.remove(&run);
    }

    /// Ends the code. A second reason is ignored.
    pub(super) fn end(&self, why: MailboxFault) {
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(why);
            is_first
        });
    }

    /// Waits until the code has ended.
    pub(super) async fn ended(&self) -> MailboxFault {
        let mut ended = self.ended.subscribe();
        let why = ended.wait_for(Option::is_some).await;
        // The sender lives as long as this.
        why.ok().and_then(|why| *why).unwrap_or(MailboxFault::Ended)
    }

    pub(super) fn tell(&self, event: CodeEvent) {
        // Nobody may be listening any more.
        let _ = self.events.send(event);
    }

    fn refuse_if_ended(&self) -> Result<(), Refused> {
        match *self.ended.borrow() {
            Some(why) => Err(Refused::new(why.into())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::{ContentInfo, Hash};
    use qshare_net::{PakeAwaitingLink, PakeError, PakeReceiver};

    use super::*;

    const SHARER: NodeId = NodeId([2; 32]);
    const RECEIVER: NodeId = NodeId([1; 32]);

    struct Offered {
        exchange: Exchange,
        events: mpsc::UnboundedReceiver<CodeEvent>,
    }

    fn offer(uses: Option<u32>) -> Offered {
        let (events, heard) = mpsc::unbounded_channel();
        let link: LinkProvider = Arc::new(|| link().parse().unwrap());
        let uses = Arc::new(Mutex::new(Uses::new(uses)));
        let exchange = Exchange::new(SHARER, code("7-zebra-zoo"), link, uses, events);
        Offered {
            exchange,
            events: heard,
        }
    }

    fn link() -> String {
        let info = ContentInfo {
            length: 5,
            root: Hash([7; 32]),
        };
        format!("qshare:{},s=5,r={}", info.id(), info.root)
    }

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    /// A receiver that is about to confirm.
    struct Confirming {
        run: u64,
        proof: [u8; 32],
        awaiting: PakeAwaitingLink,
    }

    fn begin(exchange: &Exchange, typed: &str) -> Result<Confirming, Refused> {
        let receiver = PakeReceiver::start(&code(typed), RECEIVER);
        let (run, answer) = exchange.open(Instant::now(), RECEIVER, receiver.message())?;
        let (awaiting, proof) = receiver.answer(SHARER, &answer).unwrap();
        Ok(Confirming {
            run,
            proof,
            awaiting,
        })
    }

    fn finish(exchange: &Exchange, confirming: Confirming) -> Result<String, Refused> {
        let sealed = exchange.confirm(confirming.run, &confirming.proof)?;
        let opened = confirming.awaiting.open(&sealed.proof, sealed.sealed);
        Ok(opened.unwrap().link.to_string())
    }

    fn fault(refused: &Refused) -> Option<MailboxFault> {
        MailboxFault::of(refused)
    }

    #[test]
    fn the_right_words_get_the_link_as_often_as_it_may_be_used() {
        let mut offered = offer(Some(2));
        let exchange = &offered.exchange;
        for left in [1, 0] {
            let confirming = begin(exchange, "7-zebra-zoo").unwrap();
            assert_eq!(finish(exchange, confirming).unwrap(), link());
            let Ok(CodeEvent::Redeemed { node, left: told }) = offered.events.try_recv() else {
                panic!("no event");
            };
            assert_eq!((node, told), (RECEIVER, Some(left)));
        }
        let refused = begin(exchange, "7-zebra-zoo").err().unwrap();
        assert_eq!(fault(&refused), Some(MailboxFault::UsedUp));
    }

    #[test]
    fn of_two_receivers_at_once_one_gets_a_code_for_one() {
        let offered = offer(Some(1));
        let exchange = &offered.exchange;
        let first = begin(exchange, "7-zebra-zoo").unwrap();
        let second = begin(exchange, "7-zebra-zoo").unwrap();
        assert!(finish(exchange, second).is_ok());
        let refused = finish(exchange, first).unwrap_err();
        assert_eq!(fault(&refused), Some(MailboxFault::UsedUp));
    }

    #[tokio::test]
    async fn three_wrong_guesses_end_the_code() {
        let mut offered = offer(None);
        let exchange = &offered.exchange;
        for left in [2, 1, 0] {
            let confirming = begin(exchange, "7-zebra-zone").unwrap();
            let refused = finish(exchange, confirming).unwrap_err();
            assert_eq!(fault(&refused), Some(MailboxFault::WrongWords));
            let event = offered.events.try_recv();
            assert!(
                matches!(event, Ok(CodeEvent::AttemptFailed { left: told, .. }) if told == left)
            );
        }
        assert_eq!(exchange.ended().await, MailboxFault::Guessed);
        let refused = begin(exchange, "7-zebra-zoo").err().unwrap();
        assert_eq!(fault(&refused), Some(MailboxFault::Guessed));
    }

    #[test]
    fn guesses_that_run_at_once_are_no_more_than_three() {
        let offered = offer(None);
        let exchange = &offered.exchange;
        let mut open: Vec<Confirming> = (0..3)
            .map(|_| begin(exchange, "7-zebra-zone").unwrap())
            .collect();
        let busy = begin(exchange, "7-zebra-zoo").err().unwrap();
        assert_eq!(busy.refusal(), Refusal::Busy);
        assert!(busy.retry_after_ms > 0);
        // One of them leaves, which is no guess.
        exchange.abort(open.remove(0).run);
        let right = begin(exchange, "7-zebra-zoo").unwrap();
        for guess in open {
            assert!(finish(exchange, guess).is_err());
        }
        assert_eq!(finish(exchange, right).unwrap(), link());
    }

    #[test]
    fn a_run_confirms_once_and_only_with_its_own_proof() {
        let offered = offer(None);
        let exchange = &offered.exchange;
        let one = begin(exchange, "7-zebra-zoo").unwrap();
        let other = begin(exchange, "7-zebra-zoo").unwrap();
        // A tracker that swaps the runs of two receivers gets no link for either.
        let swapped = exchange.confirm(one.run, &other.proof).err().unwrap();
        assert_eq!(fault(&swapped), Some(MailboxFault::WrongWords));
        let again = exchange.confirm(one.run, &one.proof).err().unwrap();
        assert_eq!(again.refusal(), Refusal::Invalid);
    }

    #[test]
    fn a_sealed_link_of_another_run_does_not_open() {
        let offered = offer(None);
        let exchange = &offered.exchange;
        let one = begin(exchange, "7-zebra-zoo").unwrap();
        let other = begin(exchange, "7-zebra-zoo").unwrap();
        let sealed = exchange.confirm(one.run, &one.proof).unwrap();
        let opened = other.awaiting.open(&sealed.proof, sealed.sealed);
        assert_eq!(opened.err(), Some(PakeError::Proof));
    }

    #[test]
    fn a_message_that_is_none_is_no_guess() {
        let offered = offer(None);
        for _ in 0..10 {
            let refused = offered.exchange.open(Instant::now(), RECEIVER, &[0; 33]);
            assert_eq!(refused.unwrap_err().refusal(), Refusal::Invalid);
        }
        assert!(begin(&offered.exchange, "7-zebra-zoo").is_ok());
    }
}
