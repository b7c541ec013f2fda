//! A vector with holes: values behind four-byte keys that stay valid until removed.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// Values of one segment. A slab grows by segments, so that growth moves at most one of them.
const SEGMENT_LEN: usize = 1024;

/// Position of a value in a [`Slab`]; four bytes, also inside an `Option`.
pub(crate) struct Key<T> {
    /// Position plus one.
    ordinal: NonZeroU32,
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The key of no value.
    pub(crate) const DANGLING: Key<T> = Key {
        ordinal: NonZeroU32::MAX,
        value: PhantomData,
    };

    /// The smallest key.
    pub(crate) const FIRST: Key<T> = Key {
        ordinal: NonZeroU32::MIN,
        value: PhantomData,
    };

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

    fn position(self) -> (usize, usize) {
        let position = self.ordinal.get() as usize - 1;
        (position / SEGMENT_LEN, position % SEGMENT_LEN)
    }
}

// Written out because a derive would require the same of `T`.
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
impl<T> std::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.ordinal)
    }
}
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
    segments: Vec<Vec<Option<T>>>,
    vacant: Vec<Key<T>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab {
            segments: Vec::new(),
            vacant: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, value: T) -> Key<T> {
        self.len += 1;
        if let Some(key) = self.vacant.pop() {
            let (segment, at) = key.position();
            self.segments[segment][at] = Some(value);
            return key;
        }
        if self
            .segments
            .last()
            .is_none_or(|last| last.len() == SEGMENT_LEN)
        {
            self.segments.push(Vec::new());
        }
        let segment = self.segments.len() - 1;
        let values = &mut self.segments[segment];
        values.push(Some(value));
        Key::of_position(segment * SEGMENT_LEN + values.len() - 1)
    }

    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        let (segment, at) = key.position();
        self.segments.get(segment)?.get(at)?.as_ref()
    }

    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let (segment, at) = key.position();
        let value = self.segments.get_mut(segment)?.get_mut(at)?.take()?;
        self.vacant.push(key);
        self.len -= 1;
        Some(value)
    }
}

impl<T> Index<Key<T>> for Slab<T> {
    type Output = T;

    fn index(&self, key: Key<T>) -> &T {
        let (segment, at) = key.position();
        self.segments[segment][at].as_ref().expect("a live key")
    }
}

impl<T> IndexMut<Key<T>> for Slab<T> {
    fn index_mut(&mut self, key: Key<T>) -> &mut T {
        let (segment, at) = key.position();
        self.segments[segment][at].as_mut().expect("a live key")
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
    fn keys_stay_valid_over_several_segments() {
        let mut slab = Slab::default();
        let keys: Vec<_> = (0..3 * SEGMENT_LEN + 7).map(|n| slab.insert(n)).collect();
        assert!(keys.iter().enumerate().all(|(n, &key)| slab[key] == n));
        assert_eq!(slab.len(), keys.len());
        assert_eq!(slab.get(Key::DANGLING), None);
    }

    #[test]
    fn an_optional_key_takes_four_bytes() {
        assert_eq!(size_of::<Option<Key<String>>>(), 4);
    }
}
