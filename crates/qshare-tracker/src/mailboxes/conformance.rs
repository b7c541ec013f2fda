//! The suite that every store of mailboxes passes: the one in memory, and the one in a real Redis,
//! there through two trackers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::{Network, User};
use qshare_registry::GroupId;
use qshare_wire::mailbox::MailboxFault;
use tokio::time::sleep;

use super::memory::MemoryMailboxes;
use super::shared_store::SharedMailboxes;
use super::store::{
    Answer, Claim, ClaimError, Granted, MailboxState, MailboxStore, StoreAway, TIMES, TokenHash,
};
use crate::shared::{MailboxTimes, SharedRegistry, SharedRegistryConfig};

#[path = "../../tests/it/shared/redis_server.rs"]
#[expect(dead_code, reason = "the integration tests use more of it")]
mod redis_server;
use redis_server::RedisServer;

const DEADLINE: Duration = Duration::from_secs(20);

type Door = Arc<dyn MailboxStore>;

/// Times of mailboxes that expire soon, and whose numbers are soon free.
const SHORT_LIVED: MailboxTimes = MailboxTimes {
    lifetime: Duration::from_millis(300),
    rest: Duration::from_secs(3),
};
/// Times of mailboxes that do not expire during a test, and whose numbers are free soon after
/// their end.
const SHORT_REST: MailboxTimes = MailboxTimes {
    lifetime: Duration::from_secs(3600),
    rest: Duration::from_secs(3),
};

/// Two doors to one store.
struct Doors {
    doors: [Door; 2],
    /// Redis runs until this is dropped.
    redis: Option<RedisServer>,
}

async fn memory(times: MailboxTimes, max: usize) -> Option<Doors> {
    let store = Arc::new(MemoryMailboxes::new(times, max));
    Some(Doors {
        doors: [store.clone(), store],
        redis: None,
    })
}

fn registry(redis: &RedisServer, tracker: u8) -> Arc<SharedRegistry> {
    let config = SharedRegistryConfig {
        address: redis.url().parse().unwrap(),
        password: None,
        certificate_authority: None,
        advertise: None,
    };
    let (us, at) = (NodeId([tracker; 32]), ([127, 0, 0, 1], 1).into());
    let lease = Duration::from_secs(30);
    Arc::new(SharedRegistry::new(&config, GroupId::OPEN, us, at, lease).unwrap())
}

/// A store in Redis through trackers 1 and 2. None, with a message, without Redis.
async fn shared(times: MailboxTimes, max: usize) -> Option<Doors> {
    let redis = RedisServer::start()?;
    let door = async |tracker: u8| {
        let registry = registry(&redis, tracker);
        let begun = Instant::now();
        while registry.check().await.is_err() {
            assert!(begun.elapsed() < DEADLINE, "Redis does not answer");
            sleep(Duration::from_millis(20)).await;
        }
        let store = Patient(SharedMailboxes::new(&registry, times, max));
        Arc::new(store) as Door
    };
    Some(Doors {
        doors: [door(1).await, door(2).await],
        redis: Some(redis),
    })
}

/// A store whose Redis is there: an answer that came too late, on a busy machine, is asked for
/// again. Calls may be carried out twice.
struct Patient(SharedMailboxes);

/// Attempts of a [`Patient`] store: few enough to notice soon that Redis has gone.
const ATTEMPTS: usize = 5;

impl MailboxStore for Patient {
    fn claim(&self, claim: Claim) -> Answer<'_, Result<Granted, ClaimError>> {
        Box::pin(async move {
            let mut claimed = self.0.claim(claim).await;
            for _ in 1..ATTEMPTS {
                if claimed != Err(ClaimError::Away) {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
                claimed = self.0.claim(claim).await;
            }
            claimed
        })
    }

    fn end(&self, number: u32, token: TokenHash, why: MailboxFault) -> Answer<'_, ()> {
        self.0.end(number, token, why)
    }

    fn leave(&self, number: u32, stream: u64) -> Answer<'_, ()> {
        self.0.leave(number, stream)
    }

    fn state(&self, number: u32) -> Answer<'_, Result<MailboxState, StoreAway>> {
        Box::pin(async move {
            let mut state = self.0.state(number).await;
            for _ in 1..ATTEMPTS {
                if state.is_ok() {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
                state = self.0.state(number).await;
            }
            state
        })
    }
}

fn claim(number: u32, token: u8, network: u8) -> Claim {
    Claim {
        number,
        token: TokenHash([token; 32]),
        stream: u64::from(token),
        owner: User {
            network: Network::V4([203, 0, network]),
            id: NodeId([token; 32]),
        },
    }
}

/// Polls until a number is in this state.
async fn becomes(store: &dyn MailboxStore, number: u32, wanted: MailboxState) {
    let begun = Instant::now();
    while store.state(number).await != Ok(wanted) {
        let state = store.state(number).await;
        assert!(begun.elapsed() < DEADLINE, "{number} stays {state:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn is_claimed(state: Result<MailboxState, StoreAway>) -> bool {
    matches!(state, Ok(MailboxState::Claimed(_)))
}

async fn a_number_belongs_to_its_first_claimer_who_may_take_it_back([a, b]: [Door; 2]) {
    let granted = a.claim(claim(7, 1, 1)).await.unwrap();
    assert!(granted.remaining > TIMES.lifetime - DEADLINE && granted.remaining <= TIMES.lifetime);
    assert_eq!(b.claim(claim(7, 2, 2)).await, Err(ClaimError::Taken));
    assert_eq!(a.claim(claim(7, 2, 1)).await, Err(ClaimError::Taken));
    let again = b.claim(claim(7, 1, 1)).await.unwrap();
    assert!(again.remaining <= granted.remaining);
    assert!(is_claimed(a.state(7).await) && is_claimed(b.state(7).await));
    assert_eq!(a.state(8).await, Ok(MailboxState::Unknown));
}

async fn of_many_claimers_at_once_one_gets_the_number(doors: [Door; 2]) {
    let mut claims = tokio::task::JoinSet::new();
    for token in 0..40 {
        let door = doors[usize::from(token) % 2].clone();
        claims.spawn(async move { door.claim(claim(7, token, token)).await });
    }
    let granted = claims.join_all().await;
    let is_granted = |claimed: &&Result<Granted, ClaimError>| claimed.is_ok();
    assert_eq!(granted.iter().filter(is_granted).count(), 1);
}

async fn a_mailbox_expires_and_its_number_rests([a, b]: [Door; 2]) {
    let claimed = Instant::now();
    a.claim(claim(7, 1, 1)).await.unwrap();
    becomes(&*b, 7, MailboxState::Ended(MailboxFault::Expired)).await;
    // Not even its owner gets it back.
    assert_eq!(b.claim(claim(7, 1, 1)).await, Err(ClaimError::Taken));
    becomes(&*b, 7, MailboxState::Unknown).await;
    assert!(claimed.elapsed() >= SHORT_LIVED.lifetime + SHORT_LIVED.rest);
    assert!(b.claim(claim(7, 2, 2)).await.is_ok());
}

async fn an_ended_mailbox_tells_why_until_its_number_is_free([a, b]: [Door; 2]) {
    a.claim(claim(7, 1, 1)).await.unwrap();
    // Only the owner ends it, and only once.
    b.end(7, TokenHash([2; 32]), MailboxFault::UsedUp).await;
    assert!(is_claimed(b.state(7).await));
    b.end(7, TokenHash([1; 32]), MailboxFault::Guessed).await;
    a.end(7, TokenHash([1; 32]), MailboxFault::UsedUp).await;
    let ended = MailboxState::Ended(MailboxFault::Guessed);
    assert_eq!(a.state(7).await, Ok(ended));
    assert_eq!(a.claim(claim(7, 1, 1)).await, Err(ClaimError::Taken));
    becomes(&*a, 7, MailboxState::Unknown).await;
    assert!(a.claim(claim(7, 2, 2)).await.is_ok());
}

async fn when_it_is_full_the_network_with_the_most_yields_ended_ones_first([a, b]: [Door; 2]) {
    for number in 0..4 {
        a.claim(claim(number, 1, 1)).await.unwrap();
        // Later ones yield later. Redis counts milliseconds, and two claims in one would be equal.
        sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(b.claim(claim(9, 1, 1)).await, Err(ClaimError::Full));
    a.end(2, TokenHash([1; 32]), MailboxFault::Ended).await;
    b.claim(claim(9, 2, 2)).await.unwrap();
    assert_eq!(a.state(2).await, Ok(MailboxState::Unknown));
    let granted = a.claim(claim(10, 2, 2)).await.unwrap();
    assert_eq!(a.state(0).await, Ok(MailboxState::Unknown));
    assert_eq!(granted.evicted, [0], "its stream is at this tracker");
    // Each network has two now.
    assert_eq!(b.claim(claim(11, 2, 2)).await, Err(ClaimError::Full));
    // Another node of the network gets its part at the cost of the heavier one, not of the other
    // network.
    b.claim(claim(11, 3, 2)).await.unwrap();
    assert_eq!(a.state(9).await, Ok(MailboxState::Unknown));
    let states = [1, 3, 10, 11].map(|number| a.state(number));
    for state in states {
        assert!(is_claimed(state.await));
    }
}

/// A test of each part of the suite, over a store with these times and this many mailboxes.
macro_rules! suite {
    ($make:ident: $($name:ident($times:ident, $max:literal))*) => {
        mod $make {
            $(#[tokio::test]
            async fn $name() {
                let Some(doors) = super::$make(super::$times, $max).await else {
                    return;
                };
                super::$name(doors.doors.clone()).await;
            })*
        }
    };
    ($($name:ident($times:ident, $max:literal))*) => {
        suite!(memory: $($name($times, $max))*);
        suite!(shared: $($name($times, $max))*);
    };
}

suite! {
    a_number_belongs_to_its_first_claimer_who_may_take_it_back(TIMES, 10)
    of_many_claimers_at_once_one_gets_the_number(TIMES, 1_000)
    a_mailbox_expires_and_its_number_rests(SHORT_LIVED, 10)
    an_ended_mailbox_tells_why_until_its_number_is_free(SHORT_REST, 10)
    when_it_is_full_the_network_with_the_most_yields_ended_ones_first(TIMES, 4)
}

#[tokio::test]
async fn the_shared_store_tells_which_tracker_has_the_stream() {
    let Some(Doors {
        doors: [a, b],
        redis: _redis,
    }) = shared(TIMES, 10).await
    else {
        return;
    };
    let at = |tracker| Ok(MailboxState::Claimed(Some(NodeId([tracker; 32]))));
    let nowhere = Ok(MailboxState::Claimed(None));
    let stream = |stream| Claim {
        stream,
        ..claim(7, 1, 1)
    };
    a.claim(stream(1)).await.unwrap();
    assert_eq!(b.state(7).await, at(1));
    assert_eq!(a.state(7).await, nowhere, "it has no stream any more");
    b.claim(stream(2)).await.unwrap();
    assert_eq!(a.state(7).await, at(2));
    // The former tracker notices late that its stream has ended.
    a.leave(7, 1).await;
    assert_eq!(a.state(7).await, at(2));
    b.leave(7, 2).await;
    assert_eq!(a.state(7).await, nowhere);
    assert!(a.claim(stream(3)).await.is_ok());
    assert_eq!(b.state(7).await, at(1));
}

#[tokio::test]
async fn without_redis_claims_fail_for_a_moment_and_nothing_else() {
    let Some(doors) = shared(TIMES, 10).await else {
        return;
    };
    let (mut redis, [a, b]) = (doors.redis.unwrap(), doors.doors);
    a.claim(claim(7, 1, 1)).await.unwrap();
    redis.kill();
    assert_eq!(a.claim(claim(8, 1, 1)).await, Err(ClaimError::Away));
    assert!(b.state(7).await.is_err());
    redis.restart();
    let begun = Instant::now();
    while a.claim(claim(7, 1, 1)).await.is_err() {
        assert!(begun.elapsed() < DEADLINE);
        sleep(Duration::from_millis(50)).await;
    }
    // Redis lost the mailbox, and its sharer has it again.
    assert_eq!(b.claim(claim(7, 2, 2)).await, Err(ClaimError::Taken));
}

#[tokio::test]
async fn everything_in_redis_expires() {
    let Some(doors) = shared(TIMES, 3).await else {
        return;
    };
    let redis = doors.redis.unwrap();
    let [a, b] = doors.doors;
    for number in 0..5 {
        let _ = a.claim(claim(number, number as u8, number as u8)).await;
    }
    b.end(1, TokenHash([1; 32]), MailboxFault::Ended).await;
    let redis::Value::Array(keys) = redis.command(&["KEYS", "*:m:*"]) else {
        panic!("no keys");
    };
    assert!(keys.len() > 5);
    // The registry's id stays.
    let without = "local n = 0 for _, k in ipairs(redis.call('KEYS', 'q:*:*')) do \
                   if redis.call('PTTL', k) < 0 then n = n + 1 end end return n";
    let left = redis.command(&["EVAL", without, "0"]);
    assert_eq!(left, redis::Value::Int(0));
}
