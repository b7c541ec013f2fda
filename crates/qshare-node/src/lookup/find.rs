//! One lookup: asks all trackers in parallel, and the local network, within a deadline.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{Query, TrackerAddress};
use qshare_net::close;
use qshare_wire::CloseCode;
use qshare_wire::limits::{MATCHES_MAX, WARMING};
use qshare_wire::tracker::Readiness;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::cursors::Cursors;
use super::lan::LanLookup;
use super::merge::merge;
use super::waiting::Waiting;
use crate::error::{AskError, FindError, TrackerFault};
use crate::trackers::{Established, SessionState, TrackerSession, Trackers, silent_for};
use crate::vocabulary::Findings;

/// Longest wait for a tracker that has just started and finds nothing.
const WARM_UP: Duration = WARMING.saturating_add(Duration::from_secs(1));
/// How long before its end a lookup takes what such a tracker says.
const TIME_TO_END: Duration = Duration::from_secs(1);
/// How long a tracker may take to answer before one of its siblings is asked as well.
const SIBLING_AFTER: Duration = Duration::from_millis(500);
/// How long it may take in addition once a sibling has said that it does not know everything. A
/// tracker gives up its registry after 600 ms, and answers from its memory.
const AFTER_SIBLING: Duration = Duration::from_millis(300);
/// How long it may take, beyond two round trips, before a session with a sibling is opened, so that
/// the sibling can be asked at once. Otherwise nodes of a tracker that hangs all begin their
/// handshakes when they need the answer.
const PREPARE_AFTER: Duration = Duration::from_millis(200);
/// A spare session in which nothing arrives for this long after a question is dead.
const SPARE_SILENCE: Duration = Duration::from_millis(1_500);
const WARM_UP_PAUSE: Duration = Duration::from_millis(250);
/// How long other trackers may take before a tracker that does not know everything is asked again:
/// one of them may hang.
const OTHERS_TIME: Duration = Duration::from_secs(3);
/// Other trackers of a registry that one lookup asks.
const OTHERS_MAX: usize = 3;

/// What a tracker has found, and whether it knows everything.
type Answer = (Findings, Readiness);

/// Looks files up. Clones are the same.
#[derive(Clone)]
pub(crate) struct Lookup {
    trackers: Arc<Trackers>,
    lan: Arc<LanLookup>,
}

impl Lookup {
    pub(crate) fn new(trackers: Arc<Trackers>, lan: Arc<LanLookup>) -> Lookup {
        Lookup { trackers, lan }
    }

    /// Asks all trackers, and the local network if no tracker finds the file. Waits up to
    /// `patience` until a tracker is reachable, and a little longer while a tracker that has just
    /// started finds nothing. A listing that is incomplete after `time` is truncated.
    ///
    /// # Errors
    ///
    /// [`FindError`] when there was no answer. Finding nothing is an answer.
    pub(crate) async fn find(
        &self,
        query: &Query,
        limit: usize,
        patience: Duration,
        time: Duration,
    ) -> Result<Findings, FindError> {
        if self.trackers.is_empty() && !self.lan.is_on() {
            return Err(FindError::NoTracker);
        }
        let (until, end) = (deadline(patience), deadline(time));
        let mut asked = JoinSet::new();
        for session in self.trackers.sessions() {
            let (session, query) = (session.clone(), query.clone());
            let trackers = self.trackers.clone();
            asked.spawn(async move {
                let answer = ask(&trackers, &session, &query, limit, until, end).await;
                (session.tracker.clone(), answer)
            });
        }
        let trackers_are_local = self
            .trackers
            .sessions()
            .all(|session| session.is_on_this_machine());
        let mut waiting = Waiting::new(asked.len(), trackers_are_local);
        let trackers_gave_up = CancellationToken::new();
        let mut around = pin!(self.lan.find(query, limit, until, &trackers_gave_up));
        let mut told: Option<Findings> = None;
        let mut neighbours: Option<Option<Findings>> = None;
        let mut failures = Failures::default();
        while !waiting.is_over() {
            let deadline = waiting.deadline();
            tokio::select! {
                biased;
                Some(answer) = asked.join_next(), if !asked.is_empty() => match answer {
                    Ok((_, Ok(found))) => {
                        let found_any = !found.files.is_empty();
                        waiting.handle_tracker(Instant::now(), found_any);
                        if !found_any {
                            trackers_gave_up.cancel();
                        }
                        told = Some(merge(told.unwrap_or_default(), found, limit));
                    }
                    Ok((tracker, Err(failure))) => {
                        waiting.handle_tracker_failed(failure.is_refusal());
                        failures.0.push((tracker, failure));
                    }
                    Err(lost) => return Err(FindError::Internal(lost.to_string())),
                },
                found = &mut around, if neighbours.is_none() => {
                    let found_any = found.as_ref().map(|found| !found.files.is_empty());
                    waiting.handle_neighbours(Instant::now(), found_any);
                    neighbours = Some(found);
                }
                () = sleep_until(deadline.unwrap_or(until)), if deadline.is_some() => break,
            }
        }
        // A refusal, or a tracker with an unexpected identity, is reported even if neighbours
        // answered.
        if told.is_none() && failures.any_refusal() {
            return Err(failures.into_error());
        }
        match (told, neighbours.flatten()) {
            (Some(told), Some(found)) => Ok(merge(told, found, limit)),
            (Some(found), None) | (None, Some(found)) => Ok(found),
            (None, None) => Err(failures.into_error()),
        }
    }
}

/// Returns the time after `patience`, at most a year from now.
fn deadline(patience: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(patience)
        .unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}

/// Why a tracker gave no answer.
#[derive(Debug)]
enum Failure {
    Session(TrackerFault),
    Lookup(AskError),
}

impl Failure {
    fn is_refusal(&self) -> bool {
        matches!(self, Failure::Session(fault) if fault.is_refusal())
    }
}

/// The trackers that gave no answer.
#[derive(Debug, Default)]
struct Failures(Vec<(TrackerAddress, Failure)>);

impl Failures {
    fn any_refusal(&self) -> bool {
        self.0.iter().any(|(_, failure)| failure.is_refusal())
    }

    fn into_error(self) -> FindError {
        let all_refuse = !self.0.is_empty() && self.0.iter().all(|(_, fault)| fault.is_refusal());
        let mut faults = Vec::new();
        for (tracker, failure) in self.0 {
            match failure {
                Failure::Lookup(cause) => return FindError::Failed { tracker, cause },
                Failure::Session(fault) => faults.push((tracker, fault)),
            }
        }
        match (faults.is_empty(), all_refuse) {
            (true, _) => FindError::NoTracker,
            (_, true) => FindError::Refused(faults),
            (_, false) => FindError::Unreachable(faults),
        }
    }
}

/// Asks one tracker. Waits for its session until `until`, and for its pages until `end`. If it is
/// away, silent, or does not know everything, other trackers of its registry are asked as well. If
/// that fails, returns what a tracker found before that did not know everything.
async fn ask(
    trackers: &Arc<Trackers>,
    session: &Arc<TrackerSession>,
    query: &Query,
    limit: usize,
    until: Instant,
    end: Instant,
) -> Result<Findings, Failure> {
    let begun = Instant::now();
    let before_end = end.checked_sub(TIME_TO_END).unwrap_or(begun);
    let warm_until = before_end.min(begun + WARM_UP);
    let mut told: Option<Findings> = None;
    let asked = async {
        loop {
            let soon = match session.has_others() {
                true => until.min(Instant::now() + SIBLING_AFTER),
                false => until,
            };
            let asked = match session.settled(soon).await {
                SessionState::Up(up) => {
                    let asked = ask_either(trackers, session, &up, query, limit, end).await;
                    // The session was lost meanwhile: retry while there is time.
                    let is_lost = up.connection.close_reason().is_some() && Instant::now() < until;
                    match asked {
                        Err(cause) if !is_lost => return Err(Failure::Lookup(cause)),
                        asked => asked.ok(),
                    }
                }
                SessionState::Refused(fault) => return Err(Failure::Session(fault)),
                SessionState::Away(fault) if Instant::now() >= until => {
                    let silent = TrackerFault::NoAnswer(until.saturating_duration_since(begun));
                    return Err(Failure::Session(fault.unwrap_or(silent)));
                }
                SessionState::Away(_) => None,
            };
            let has_answered = asked.is_some();
            if let Some(answer) = asked {
                if is_final(&answer, warm_until) {
                    return Ok(answer.0);
                }
                told = Some(answer.0);
            }
            // A sibling may know what this tracker does not know yet. If it hangs, a tracker that
            // was lost may be back before.
            let back = async {
                sleep(WARM_UP_PAUSE).await;
                match has_answered {
                    true => std::future::pending().await,
                    false => session.settled(until).await,
                }
            };
            let (at_others, is_back) = tokio::select! {
                answer = timeout(OTHERS_TIME, ask_others(trackers, session, query, limit, end)) => {
                    (answer.ok().flatten(), false)
                }
                _ = back => (None, true),
            };
            if let Some(answer) = at_others {
                if is_final(&answer, warm_until) {
                    return Ok(answer.0);
                }
                told = Some(answer.0);
            }
            if !is_back {
                sleep(WARM_UP_PAUSE).await;
            }
        }
    };
    match asked.await {
        Err(failure) if !failure.is_refusal() => told.ok_or(failure),
        asked => asked,
    }
}

/// Whether an answer is not that of a tracker that has just started and finds nothing.
fn is_final(answer: &Answer, warm_until: Instant) -> bool {
    is_conclusive(answer) || Instant::now() >= warm_until
}

/// Whether an answer has matches, or is that of a tracker that knows everything.
fn is_conclusive((found, readiness): &Answer) -> bool {
    *readiness != Readiness::Warming || !found.files.is_empty()
}

/// Asks a tracker and, if it does not answer soon, others of its registry as well. Returns the
/// first answer.
async fn ask_either(
    trackers: &Arc<Trackers>,
    session: &Arc<TrackerSession>,
    up: &Established,
    query: &Query,
    limit: usize,
    end: Instant,
) -> Result<Answer, AskError> {
    let mut asked = pin!(ask_pages(up, query, limit, end));
    let is_suspect = session.is_suspect() && session.has_others();
    let patience = if is_suspect {
        Duration::ZERO
    } else {
        SIBLING_AFTER
    };
    let prepare_after = PREPARE_AFTER + 2 * up.connection.rtt();
    let prepare = || trackers.prepare_spare(session);
    if let Some(answer) = wait_for(&mut asked, patience, prepare_after, prepare).await {
        return answer;
    }
    session.suspect();
    let at_others = pin!(ask_others(trackers, session, query, limit, end));
    either(asked, at_others).await
}

/// Returns the answer of a tracker or of others of its registry, whichever comes first. If the
/// others do not know everything, the tracker has [`AFTER_SIBLING`] more: it has the files of its
/// own nodes in memory also while the registry is away.
async fn either<E>(
    mut asked: impl Future<Output = Result<Answer, E>> + Unpin,
    mut at_others: impl Future<Output = Option<Answer>> + Unpin,
) -> Result<Answer, E> {
    tokio::select! {
        answer = &mut asked => match answer {
            Ok(answer) => Ok(answer),
            // The session is open again soon.
            Err(fault) => match timeout(SIBLING_AFTER, at_others).await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) | Err(_) => Err(fault),
            },
        },
        answer = &mut at_others => match answer {
            Some(answer) if is_conclusive(&answer) => Ok(answer),
            Some(answer) => match timeout(AFTER_SIBLING, asked).await {
                Ok(Ok(own)) => Ok(own),
                _ => Ok(answer),
            },
            None => asked.await,
        },
    }
}

/// Waits for an answer until `patience` has passed. If it is not there after `prepare_after`, calls
/// `prepare`.
async fn wait_for<T>(
    mut answer: impl Future<Output = T> + Unpin,
    patience: Duration,
    prepare_after: Duration,
    prepare: impl FnOnce(),
) -> Option<T> {
    let end = Instant::now() + patience;
    if prepare_after < patience {
        if let Ok(answer) = timeout(prepare_after, &mut answer).await {
            return Some(answer);
        }
        prepare();
    }
    timeout_at(end, answer).await.ok()
}

/// Asks other trackers of a registry. Returns the first answer with matches, else the first that is
/// final, else any.
async fn ask_others(
    trackers: &Arc<Trackers>,
    session: &Arc<TrackerSession>,
    query: &Query,
    limit: usize,
    end: Instant,
) -> Option<Answer> {
    let mut asked = JoinSet::new();
    for tracker in session.others().into_iter().take(OTHERS_MAX) {
        let (trackers, session) = (Arc::clone(trackers), Arc::clone(session));
        let query = query.clone();
        asked.spawn(async move {
            // The spare session of an earlier lookup may be one with a tracker that has been
            // started again since. Then a new one is opened.
            for _ in 0..2 {
                let spare = trackers.spare(&session, &tracker).await?;
                let connection = &spare.up.connection;
                let answer = tokio::select! {
                    answer = ask_pages(&spare.up, &query, limit, end) => answer,
                    () = silent_for(connection, SPARE_SILENCE) => {
                        close(connection, CloseCode::Idle);
                        return None;
                    }
                };
                if answer.is_ok() || spare.up.connection.close_reason().is_none() {
                    return answer.ok();
                }
            }
            None
        });
    }
    let mut empty: Option<Answer> = None;
    while let Some(answered) = asked.join_next().await {
        let Ok(Some(answer)) = answered else {
            continue;
        };
        if is_conclusive(&answer) {
            return Some(answer);
        }
        empty.get_or_insert(answer);
    }
    empty
}

async fn ask_pages(
    up: &Established,
    query: &Query,
    limit: usize,
    end: Instant,
) -> Result<Answer, AskError> {
    let started = Instant::now();
    let mut found = Findings::default();
    let mut cursors = Cursors::default();
    let mut after = None;
    let mut readiness = None;
    loop {
        let page_limit = (limit - found.files.len()).min(MATCHES_MAX) as u16;
        let page = match timeout_at(end, up.find(query, after, page_limit)).await {
            Ok(page) => page?,
            Err(_) => {
                found.truncated = true;
                let readiness = readiness.ok_or(AskError::TimedOut(started.elapsed()))?;
                return Ok((found, readiness));
            }
        };
        readiness = Some(page.readiness);
        found.files.extend(page.files);
        found.near = page.near;
        match page.more {
            None => return Ok((found, page.readiness)),
            Some(_) if found.files.len() >= limit => {
                found.truncated = true;
                return Ok((found, page.readiness));
            }
            Some(more) => {
                if !cursors.advance(&more) {
                    found.truncated = true;
                    return Ok((found, page.readiness));
                }
                after = Some(more);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use qshare_net::{DialError, GroupMismatch};

    use super::*;

    fn tracker() -> TrackerAddress {
        "t:1".parse().unwrap()
    }

    fn refused() -> Failure {
        let error = DialError::GroupRefused(GroupMismatch::Different);
        Failure::Session(TrackerFault::Dial(Arc::new(error)))
    }

    fn silent() -> Failure {
        Failure::Session(TrackerFault::NoAnswer(Duration::from_secs(4)))
    }

    fn error(failures: Vec<Failure>) -> FindError {
        let failures = failures.into_iter().map(|failure| (tracker(), failure));
        Failures(failures.collect()).into_error()
    }

    #[test]
    fn failures_are_told_apart() {
        assert!(matches!(error(vec![]), FindError::NoTracker));
        assert!(matches!(error(vec![refused()]), FindError::Refused(_)));
        let mixed = error(vec![refused(), silent()]);
        assert!(matches!(mixed, FindError::Unreachable(faults) if faults.len() == 2));
        let failed = error(vec![silent(), Failure::Lookup(AskError::OtherNode)]);
        assert!(matches!(failed, FindError::Failed { .. }));
    }

    #[tokio::test]
    async fn a_spare_session_is_prepared_only_for_a_late_answer() {
        let (soon, long) = (Duration::ZERO, Duration::from_secs(60));
        let mut is_prepared = false;
        let at_once = std::future::ready(());
        let answered = wait_for(at_once, long, soon, || is_prepared = true).await;
        assert!(answered.is_some() && !is_prepared);
        // This answer comes only once the spare session is being opened.
        let (answer, late) = tokio::sync::oneshot::channel();
        let answered = wait_for(late, long, soon, || answer.send(()).unwrap()).await;
        assert_eq!(answered, Some(Ok(())));
        // Without patience the sibling is asked at once, which opens the session, too.
        let never = std::future::pending::<()>();
        let answered = wait_for(never, soon, long, || is_prepared = true).await;
        assert!(answered.is_none() && !is_prepared);
    }

    #[tokio::test]
    async fn others_that_do_not_know_everything_do_not_end_the_wait_for_the_tracker() {
        use std::future::{pending, ready};

        let empty = |readiness| (Findings::default(), readiness);
        // The tracker answers a little later than the others.
        let asked = Box::pin(async {
            tokio::task::yield_now().await;
            Ok::<_, AskError>(empty(Readiness::Ready))
        });
        let answer = either(asked, ready(Some(empty(Readiness::Warming)))).await;
        assert_eq!(answer.unwrap().1, Readiness::Ready);
        // A final answer of others counts, and any if the tracker stays silent.
        for readiness in [Readiness::Ready, Readiness::Warming] {
            let silent = pending::<Result<Answer, AskError>>();
            let answer = either(silent, ready(Some(empty(readiness)))).await;
            assert_eq!(answer.unwrap().1, readiness);
        }
    }

    #[tokio::test]
    async fn others_that_are_silent_do_not_hold_up_a_lost_session() {
        use std::future::{pending, ready};

        let lost = ready(Err::<Answer, &str>("lost"));
        assert_eq!(either(lost, pending()).await.unwrap_err(), "lost");
    }

    #[test]
    fn endless_patience_is_no_overflow() {
        assert!(deadline(Duration::MAX) > Instant::now());
    }
}
