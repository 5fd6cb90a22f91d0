//! Records in numbered places, found by their key. Records lie in chunks that never move and the index
//! is in shards, so that growing never copies much at once. No locks, no knowledge of sessions.

use std::hash::RandomState;
use std::num::NonZeroU32;

use hashbrown::HashTable;

/// Records of a chunk.
const CHUNK: usize = 1024;
/// Parts of the index; each grows for itself.
const SHARDS: usize = 256;

/// Where a record is; as long as it is there it stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(NonZeroU32);

impl Place {
    fn of(index: usize) -> Self {
        // A record takes 16 bytes at least: memory is full long before.
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(number.unwrap_or_else(|| unreachable!("four thousand million records")))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// What an arena holds. Its default is a vacant place.
pub(super) trait Record: Default {
    type Key: Eq + ?Sized;

    /// `None`: nothing is here.
    fn key(&self) -> Option<&Self::Key>;

    fn hash(key: &Self::Key, state: &RandomState) -> u64;
}

pub(super) struct Arena<T> {
    chunks: Vec<Vec<T>>,
    vacant: Vec<Place>,
    index: Vec<HashTable<Place>>,
    state: RandomState,
    len: usize,
}

impl<T: Record> Arena<T> {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            vacant: Vec::new(),
            index: (0..SHARDS).map(|_| HashTable::new()).collect(),
            state: RandomState::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn find(&self, key: &T::Key) -> Option<Place> {
        let hash = T::hash(key, &self.state);
        self.index[shard(hash)]
            .find(hash, |place| at(&self.chunks, *place).key() == Some(key))
            .copied()
    }

    pub(super) fn by_key(&self, key: &T::Key) -> Option<&T> {
        self.find(key).map(|place| self.get(place))
    }

    /// The default record if nothing is there.
    pub(super) fn get(&self, place: Place) -> &T {
        at(&self.chunks, place)
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut T {
        let index = place.index();
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }

    /// Puts in a record whose key is not there yet.
    pub(super) fn insert(&mut self, record: T) -> Place {
        let hash = record.key().map(|key| T::hash(key, &self.state)).unwrap_or_default();
        let place = match self.vacant.pop() {
            Some(place) => {
                *self.get_mut(place) = record;
                place
            }
            None => self.push(record),
        };
        let (chunks, state) = (&self.chunks, &self.state);
        let hash_at = |place: &Place| at(chunks, *place).key().map_or(0, |key| T::hash(key, state));
        self.index[shard(hash)].insert_unique(hash, place, hash_at);
        self.len += 1;
        place
    }

    /// Takes the record out of its place; `None` if nothing was there.
    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        let hash = T::hash(self.get(place).key()?, &self.state);
        if let Ok(found) = self.index[shard(hash)].find_entry(hash, |known| *known == place) {
            found.remove();
        }
        self.len -= 1;
        self.vacant.push(place);
        Some(std::mem::take(self.get_mut(place)))
    }

    /// The records after `cursor`, in the order of their places.
    pub(super) fn after(&self, cursor: Option<Place>) -> impl Iterator<Item = (Place, &T)> {
        let first = cursor.map_or(0, |place| place.index() + 1);
        let places = first..self.chunks.iter().map(Vec::len).sum();
        let records =
            places.map(|index| (Place::of(index), &self.chunks[index / CHUNK][index % CHUNK]));
        records.filter(|(_, record)| record.key().is_some())
    }

    fn push(&mut self, record: T) -> Place {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let last = self.chunks.len() - 1;
        self.chunks[last].push(record);
        Place::of(full + self.chunks[last].len() - 1)
    }
}

fn at<T>(chunks: &[Vec<T>], place: Place) -> &T {
    let index = place.index();
    &chunks[index / CHUNK][index % CHUNK]
}

/// From bits that the shard itself uses least.
fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    #[derive(Default)]
    struct Word(Option<String>);

    impl Record for Word {
        type Key = str;

        fn key(&self) -> Option<&str> {
            self.0.as_deref()
        }

        fn hash(key: &str, state: &RandomState) -> u64 {
            state.hash_one(key)
        }
    }

    fn word(number: usize) -> Word {
        Word(Some(number.to_string()))
    }

    #[test]
    fn what_is_put_in_is_found_until_it_is_taken_out_and_its_place_is_used_again() {
        let mut arena = Arena::new();
        let places: Vec<Place> = (0..5_000).map(|number| arena.insert(word(number))).collect();
        for number in (0..5_000).step_by(2) {
            assert_eq!(arena.remove(places[number]).unwrap().0, Some(number.to_string()));
            assert!(arena.remove(places[number]).is_none());
        }
        assert_eq!(arena.len(), 2_500);
        for (number, place) in places.iter().enumerate() {
            let found = arena.find(&number.to_string());
            assert_eq!(found, (number % 2 == 1).then_some(*place), "{number}");
        }
        for number in 5_000..7_500 {
            arena.insert(word(number));
        }
        assert_eq!(arena.chunks.len(), 5, "vacant places are used first");
        assert_eq!(arena.after(None).count(), 5_000);
        let rest = arena.after(Some(places[4_997])).filter_map(|(_, word)| word.key()).count();
        assert_eq!(rest, 2);
    }
}
