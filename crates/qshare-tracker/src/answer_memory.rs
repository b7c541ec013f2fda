//! The memory of a session's answers until the node has acknowledged them.
//!
//! It is a part of the budget that all sessions share. A session takes it in steps of some answers,
//! since the accounts of the shared budget cost more than a small answer does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::fair_budget::{FairBudget, NoRoom, Reservation, SessionUser};

/// Bytes that a session takes at once: some 30 answers with one holder. While 20,000 sessions each
/// have an answer under way, that is 80 MB.
const STEP_BYTES: u64 = 4_096;

/// What a session's answers take.
pub(crate) struct AnswerMemory {
    budget: FairBudget,
    user: SessionUser,
    /// Cancelled when the session has to yield: it ends then.
    evicted: CancellationToken,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    used: u64,
    reserved: u64,
    reservation: Option<Reservation>,
}

/// The memory of one answer, released when this is dropped.
pub(crate) struct AnswerBytes {
    memory: Arc<AnswerMemory>,
    amount: u64,
}

impl AnswerMemory {
    pub(crate) fn new(
        budget: FairBudget,
        user: SessionUser,
        evicted: CancellationToken,
    ) -> Arc<AnswerMemory> {
        Arc::new(AnswerMemory {
            budget,
            user,
            evicted,
            held: Mutex::default(),
        })
    }

    /// Reserves memory for an answer, if necessary by evicting a heavier session.
    pub(crate) fn try_reserve(self: &Arc<Self>, amount: u64) -> Result<AnswerBytes, NoRoom> {
        let mut held = self.lock();
        let missing = (held.used + amount).saturating_sub(held.reserved);
        if missing > 0 {
            let steps = missing.next_multiple_of(STEP_BYTES);
            // Where a whole step does not fit, the rest may.
            self.grow(&mut held, steps)
                .or_else(|NoRoom| self.grow(&mut held, missing))?;
        }
        held.used += amount;
        Ok(AnswerBytes {
            memory: Arc::clone(self),
            amount,
        })
    }

    fn grow(&self, held: &mut Held, amount: u64) -> Result<(), NoRoom> {
        match &held.reservation {
            Some(reservation) => reservation.try_grow(amount)?,
            None => {
                let evicted = self.evicted.clone();
                held.reservation = Some(self.budget.try_reserve(self.user, amount, evicted)?);
            }
        }
        held.reserved += amount;
        Ok(())
    }

    fn release(&self, amount: u64) {
        let mut held = self.lock();
        held.used = held.used.saturating_sub(amount);
        if held.used == 0 {
            held.reserved = 0;
            held.reservation = None;
            return;
        }
        // After large answers the rest goes back.
        let spare = held.reserved.saturating_sub(held.used);
        if spare > 2 * STEP_BYTES
            && let Some(reservation) = &held.reservation
        {
            reservation.shrink(spare - STEP_BYTES);
            held.reserved -= spare - STEP_BYTES;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AnswerBytes {
    fn drop(&mut self) {
        self.memory.release(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair_budget::tests::users;

    fn memory(budget: &FairBudget, user: SessionUser) -> Arc<AnswerMemory> {
        AnswerMemory::new(budget.clone(), user, CancellationToken::new())
    }

    #[test]
    fn answers_take_steps_and_give_all_back() {
        let budget = FairBudget::new(1 << 20);
        let memory = memory(&budget, users(&[1])[0]);
        let small: Vec<AnswerBytes> = (0..30).map(|_| memory.try_reserve(100).unwrap()).collect();
        assert_eq!(budget.used(), STEP_BYTES);
        let large = memory.try_reserve(100_000).unwrap();
        assert!((103_000..108_000).contains(&budget.used()));
        drop(large);
        assert!(budget.used() <= 3_000 + STEP_BYTES);
        drop(small);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_last_bytes_are_used_and_the_heavier_session_yields() {
        let users = users(&[1, 2]);
        let budget = FairBudget::new(10_000);
        let heavy = memory(&budget, users[0]);
        let _kept = heavy.try_reserve(9_900).unwrap();
        let _rest = heavy.try_reserve(100).unwrap();
        assert!(heavy.try_reserve(1).is_err());
        let light = memory(&budget, users[1]);
        let answer = light.try_reserve(50).unwrap();
        assert!(heavy.evicted.is_cancelled() && !light.evicted.is_cancelled());
        assert!(heavy.try_reserve(1).is_err());
        drop((_kept, _rest, answer));
        assert_eq!(budget.used(), 0);
    }
}
