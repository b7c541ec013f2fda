//! Indexes of four-byte keys. What a key is ordered or found by lies in its value, and the caller
//! compares; so an index takes some six bytes for each value and no copies of names or ids.

use hashbrown::HashTable;

use crate::slab::Key;

/// Keys of one run: enough that runs are few, few enough that one is moved in a microsecond.
const RUN_LEN_MAX: usize = 512;

/// Keys in an order that the caller's comparisons define: sorted runs, in order. A search compares
/// with one key of some runs and some keys of one run: log₂ of the number of keys in all.
pub(crate) struct SortedIndex<T> {
    runs: Vec<Vec<Key<T>>>,
    len: usize,
}

/// A place between two keys of a [`SortedIndex`], valid until the index changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    run: usize,
    at: usize,
}

impl<T> Default for SortedIndex<T> {
    fn default() -> Self {
        SortedIndex {
            runs: Vec::new(),
            len: 0,
        }
    }
}

impl<T> SortedIndex<T> {
    /// The place after all keys that are `before` what is sought.
    pub(crate) fn place(&self, before: impl Fn(Key<T>) -> bool) -> Place {
        let run = self
            .runs
            .partition_point(|run| run.last().is_some_and(|&key| before(key)));
        let at = self
            .runs
            .get(run)
            .map_or(0, |run| run.partition_point(|&key| before(key)));
        Place { run, at }
    }

    /// The key after a place.
    pub(crate) fn get(&self, place: Place) -> Option<Key<T>> {
        self.runs.get(place.run)?.get(place.at).copied()
    }

    pub(crate) fn insert(&mut self, place: Place, key: Key<T>) {
        self.len += 1;
        let Place { mut run, mut at } = place;
        if run == self.runs.len() {
            // Behind all others: names are often announced in order.
            match self.runs.last_mut() {
                Some(last) if last.len() < RUN_LEN_MAX => last.push(key),
                _ => self.runs.push(vec![key]),
            }
            return;
        }
        if self.runs[run].len() == RUN_LEN_MAX {
            let upper = self.runs[run].split_off(RUN_LEN_MAX / 2);
            self.runs[run].shrink_to_fit();
            self.runs.insert(run + 1, upper);
            if at > RUN_LEN_MAX / 2 {
                run += 1;
                at -= RUN_LEN_MAX / 2;
            }
        }
        self.runs[run].insert(at, key);
    }

    /// Removes the key after a place.
    pub(crate) fn remove(&mut self, place: Place) {
        let Place { run, at } = place;
        let Some(keys) = self.runs.get_mut(run).filter(|keys| at < keys.len()) else {
            return;
        };
        keys.remove(at);
        self.len -= 1;
        let left = keys.len();
        if left == 0 {
            self.runs.remove(run);
        } else if left < RUN_LEN_MAX / 4 {
            keys.shrink_to(RUN_LEN_MAX / 4);
            let with_next = self.runs.get(run + 1).map(|next| left + next.len());
            if with_next.is_some_and(|len| len <= RUN_LEN_MAX / 2) {
                let next = self.runs.remove(run + 1);
                self.runs[run].extend(next);
            }
        }
    }

    /// The keys after a place, in order.
    pub(crate) fn after(&self, place: Place) -> impl Iterator<Item = Key<T>> {
        let (first, rest) = match self.runs.get(place.run) {
            Some(run) => (&run[place.at..], &self.runs[place.run + 1..]),
            None => (&[][..], &[][..]),
        };
        first.iter().chain(rest.iter().flatten()).copied()
    }

    /// The keys before a place, in reverse order.
    pub(crate) fn before(&self, place: Place) -> impl Iterator<Item = Key<T>> {
        let first = self
            .runs
            .get(place.run)
            .map_or(&[][..], |run| &run[..place.at]);
        let rest = &self.runs[..place.run.min(self.runs.len())];
        let rest = rest.iter().rev().flat_map(|run| run.iter().rev());
        first.iter().rev().chain(rest).copied()
    }

    /// How many keys lie between two places; an estimate where they are far from each other.
    pub(crate) fn count_between(&self, from: Place, to: Place) -> usize {
        if to <= from {
            return 0;
        }
        if from.run == to.run {
            return to.at - from.at;
        }
        let usual = self.len / self.runs.len().max(1);
        let first = self.runs.get(from.run).map_or(0, |run| run.len() - from.at);
        first + (to.run - from.run - 1) * usual + to.at
    }
}

/// Tables of one [`HashIndex`]: growing one of them moves a 256th of the keys, which takes less
/// than a millisecond with a million of them.
const TABLES: usize = 256;

/// Keys by the hash of something in their values.
pub(crate) struct HashIndex<T> {
    tables: Box<[HashTable<Key<T>>]>,
}

impl<T> Default for HashIndex<T> {
    fn default() -> Self {
        HashIndex {
            tables: (0..TABLES).map(|_| HashTable::new()).collect(),
        }
    }
}

impl<T> HashIndex<T> {
    pub(crate) fn get(&self, hash: u64, is_it: impl Fn(Key<T>) -> bool) -> Option<Key<T>> {
        self.tables[table(hash)]
            .find(hash, |&key| is_it(key))
            .copied()
    }

    /// Adds a key; `hash_of` gives the hashes of keys that were added before.
    pub(crate) fn insert(&mut self, hash: u64, key: Key<T>, hash_of: impl Fn(Key<T>) -> u64) {
        self.tables[table(hash)].insert_unique(hash, key, |&key| hash_of(key));
    }

    pub(crate) fn remove(&mut self, hash: u64, key: Key<T>) {
        let table = &mut self.tables[table(hash)];
        if let Ok(entry) = table.find_entry(hash, |&other| other == key) {
            entry.remove();
        }
        if table.is_empty() {
            *table = HashTable::new();
        }
    }
}

/// By bits that a table itself uses last.
fn table(hash: u64) -> usize {
    (hash >> 40) as usize % TABLES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::slab::Slab;

    proptest! {
        #[test]
        fn a_sorted_index_is_in_order_whatever_comes_and_goes(
            steps in prop::collection::vec((0..3000_u32, 0..4_u8), 0..4000)
        ) {
            let mut values: Slab<u32> = Slab::default();
            let mut index = SortedIndex::default();
            let mut model = std::collections::BTreeMap::new();
            for (value, step) in steps {
                let place = index.place(|key| values[key] < value);
                let known = model.get(&value).copied();
                prop_assert_eq!(index.get(place).filter(|&key| values[key] == value), known);
                match known {
                    None if step > 0 => {
                        let key = values.insert(value);
                        index.insert(place, key);
                        model.insert(value, key);
                    }
                    Some(key) if step == 0 => {
                        index.remove(place);
                        values.remove(key);
                        model.remove(&value);
                    }
                    _ => {}
                }
            }
            for from in [0, 700, 3000] {
                let place = index.place(|key| values[key] < from);
                let after: Vec<u32> = index.after(place).map(|key| values[key]).collect();
                let before: Vec<u32> = index.before(place).map(|key| values[key]).collect();
                prop_assert!(after.iter().eq(model.range(from..).map(|(value, _)| value)));
                prop_assert!(before.iter().eq(model.range(..from).rev().map(|(value, _)| value)));
            }
        }
    }

    #[test]
    fn runs_are_split_merged_and_counted() {
        let mut values: Slab<u32> = Slab::default();
        let mut index = SortedIndex::default();
        for value in (0..10_000).map(|n| n * 7919 % 10_000) {
            let place = index.place(|key| values[key] < value);
            index.insert(place, values.insert(value));
        }
        let at = |index: &SortedIndex<u32>, values: &Slab<u32>, value| {
            index.place(|key| values[key] < value)
        };
        let (from, to) = (at(&index, &values, 2_000), at(&index, &values, 7_000));
        assert!((4_000..6_000).contains(&index.count_between(from, to)));
        assert_eq!(index.count_between(to, from), 0);
        assert!(index.runs.len() > 10);
        for value in (0..9_990).map(|n| n * 7919 % 10_000) {
            let place = at(&index, &values, value);
            assert_eq!(index.get(place).map(|key| values[key]), Some(value));
            index.remove(place);
        }
        assert!(index.runs.len() <= 3, "{} runs", index.runs.len());
        assert_eq!(index.len, 10);
    }

    #[test]
    fn a_hash_index_finds_by_what_the_caller_compares() {
        let mut values: Slab<u64> = Slab::default();
        let mut index = HashIndex::default();
        let hash = |value: u64| value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let keys: Vec<_> = (0..5_000_u64)
            .map(|value| {
                let key = values.insert(value);
                index.insert(hash(value), key, |key| hash(values[key]));
                key
            })
            .collect();
        for (value, key) in (0..).zip(&keys).step_by(2) {
            index.remove(hash(value), *key);
        }
        for (value, &key) in (0..).zip(&keys) {
            let found = index.get(hash(value), |key| values[key] == value);
            assert_eq!(found, (value % 2 == 1).then_some(key));
        }
    }
}
