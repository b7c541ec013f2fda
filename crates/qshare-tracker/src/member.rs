//! A connected node, as the tracker introduces others to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qshare_content::NodeId;
use qshare_content::fair::User;
use qshare_wire::hello::FEATURE_BIRTHDAY_PUNCH;
use quinn::{Connection, SendStream};

use crate::contacts::canonical;
use crate::fair_rate::FairRate;

/// The tracker's half of a control stream: acknowledgements, and introductions between them.
pub(crate) type Control = Arc<tokio::sync::Mutex<SendStream>>;

/// Limit on introductions that a node gets unasked: burst, and rate per second.
const INTRODUCTIONS_BURST: u32 = 100;
const INTRODUCTIONS_PER_SECOND: f64 = 20.0;
/// The same limit for introductions after which the node sends 2,048 probes. The node's hourly
/// probe budget suffices for four of them to one address.
const BIRTHDAY_INTRODUCTIONS_BURST: u32 = 8;
const BIRTHDAY_INTRODUCTIONS_PER_SECOND: f64 = 0.2;

/// The address at which a node is known to receive: that of its handshake, or one that a later
/// address proof confirmed. Clones share it.
///
/// The connection's own remote address follows every authenticated packet, whose source may be
/// forged. That address is never sent to others, and no decision depends on it.
#[derive(Clone)]
pub(crate) struct ObservedAddress(Arc<Mutex<SocketAddr>>);

impl ObservedAddress {
    pub(crate) fn new(proven: SocketAddr) -> ObservedAddress {
        ObservedAddress(Arc::new(Mutex::new(canonical(proven))))
    }

    pub(crate) fn get(&self) -> SocketAddr {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, proven: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = canonical(proven);
    }
}

/// A connected node, as others are introduced to it.
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) connection: Connection,
    pub(crate) observed: ObservedAddress,
    pub(crate) control: Control,
    /// Private addresses from its Hello.
    claimed: Vec<SocketAddr>,
    /// Features of its Hello.
    pub(crate) features: u64,
    /// Whether it was on the list of nodes that may announce when its session began.
    pub(crate) may_announce: bool,
    /// The address that answered a knock, if the node allows it to be sent to others.
    proven: Mutex<Option<SocketAddr>>,
    introductions: Mutex<FairRate>,
    birthday_introductions: Mutex<FairRate>,
    /// Entries that were evicted and not yet reported; None while no report is under way.
    evicted: Mutex<Option<u64>>,
}

impl Member {
    pub(crate) fn new(
        node: NodeId,
        connection: Connection,
        observed: ObservedAddress,
        control: Control,
        claimed: Vec<SocketAddr>,
        features: u64,
        may_announce: bool,
    ) -> Member {
        let now = Instant::now();
        Member {
            node,
            connection,
            observed,
            control,
            claimed,
            features,
            may_announce,
            proven: Mutex::default(),
            introductions: Mutex::new(FairRate::new(
                now,
                INTRODUCTIONS_PER_SECOND,
                INTRODUCTIONS_BURST,
            )),
            birthday_introductions: Mutex::new(FairRate::new(
                now,
                BIRTHDAY_INTRODUCTIONS_PER_SECOND,
                BIRTHDAY_INTRODUCTIONS_BURST,
            )),
            evicted: Mutex::default(),
        }
    }

    /// Returns the addresses of the node besides its observed address: the proven address first,
    /// then the claimed ones.
    pub(crate) fn claims(&self) -> Vec<SocketAddr> {
        self.proven()
            .into_iter()
            .chain(self.claimed.iter().copied())
            .collect()
    }

    /// Whether its Hello agrees to many probes.
    pub(crate) fn may_birthday_punch(&self) -> bool {
        self.features & FEATURE_BIRTHDAY_PUNCH != 0
    }

    /// Returns the address that answered a knock, if the node allows it to be sent to others.
    pub(crate) fn proven(&self) -> Option<SocketAddr> {
        *self.lock_proven()
    }

    /// Replaces the proven address; returns the former one.
    pub(crate) fn set_proven(&self, at: Option<SocketAddr>) -> Option<SocketAddr> {
        std::mem::replace(&mut *self.lock_proven(), at)
    }

    fn lock_proven(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts evicted entries; true if the caller must begin to report them.
    pub(crate) fn note_evicted(&self, entries: u64) -> bool {
        let mut evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = evicted.is_none();
        *evicted = Some(evicted.unwrap_or(0).saturating_add(entries));
        begins
    }

    /// Returns the evicted entries since the last call. None if there are none: the report ends.
    pub(crate) fn take_evicted(&self) -> Option<u64> {
        let mut evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = evicted.filter(|&entries| entries > 0);
        *evicted = entries.map(|_| 0);
        entries
    }

    /// Charges one introduction to an asker; returns false if the asker has used up its share of
    /// the node's rate.
    pub(crate) fn may_be_introduced(&self, asker: User<NodeId>) -> bool {
        try_take(&self.introductions, asker)
    }

    /// Charges an introduction after which the node sends many probes.
    pub(crate) fn may_be_sent_many_probes(&self, asker: User<NodeId>) -> bool {
        try_take(&self.birthday_introductions, asker)
    }
}

fn try_take(rate: &Mutex<FairRate>, asker: User<NodeId>) -> bool {
    let mut rate = rate.lock().unwrap_or_else(PoisonError::into_inner);
    rate.try_take(Instant::now(), asker)
}
