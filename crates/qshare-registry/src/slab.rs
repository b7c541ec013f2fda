//! A vector with holes: values behind four-byte keys that stay valid until removed.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// Where a value lies in a [`Slab`]; four bytes, also inside an `Option`.
pub(crate) struct Key<T> {
    /// Position plus one.
    ordinal: NonZeroU32,
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    fn of_position(position: usize) -> Key<T> {
        let ordinal = u32::try_from(position + 1)
            .ok()
            .and_then(NonZeroU32::new)
            .expect("the registry's limits keep a slab below 2^32 values");
        Key {
            ordinal,
            value: PhantomData,
        }
    }

    fn position(self) -> usize {
        self.ordinal.get() as usize - 1
    }
}

// Written out because a derive would ask the same of `T`.
impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.ordinal == other.ordinal
    }
}
impl<T> Eq for Key<T> {}
impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.ordinal.cmp(&other.ordinal)
    }
}

/// Values by [`Key`]. Keys are made here only, so indexing with a live one cannot fail.
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    vacant: Vec<Key<T>>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab {
            slots: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> Key<T> {
        match self.vacant.pop() {
            Some(key) => {
                self.slots[key.position()] = Some(value);
                key
            }
            None => {
                let key = Key::of_position(self.slots.len());
                self.slots.push(Some(value));
                key
            }
        }
    }

    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let value = self.slots.get_mut(key.position())?.take()?;
        self.vacant.push(key);
        Some(value)
    }
}

impl<T> Index<Key<T>> for Slab<T> {
    type Output = T;

    fn index(&self, key: Key<T>) -> &T {
        self.slots[key.position()].as_ref().expect("a live key")
    }
}

impl<T> IndexMut<Key<T>> for Slab<T> {
    fn index_mut(&mut self, key: Key<T>) -> &mut T {
        self.slots[key.position()].as_mut().expect("a live key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_place_is_used_again() {
        let mut slab = Slab::default();
        let one = slab.insert("one");
        let two = slab.insert("two");
        assert_eq!(slab.remove(one), Some("one"));
        assert_eq!(slab.remove(one), None);
        let three = slab.insert("three");
        assert!(three == one);
        assert_eq!((slab[two], slab[three], slab.len()), ("two", "three", 2));
    }

    #[test]
    fn an_optional_key_takes_four_bytes() {
        assert_eq!(size_of::<Option<Key<String>>>(), 4);
    }
}
