//! A sorted map that is seldom of more than one entry: that one stands in place, and only a second one
//! needs memory of its own.
//!
//! It never gives an order to anything but its keys, and saves as the map it stands for.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sorted map, small and without memory of its own while it has one entry at most.
#[derive(Debug, Clone)]
pub(crate) struct Few<K, V>(Form<K, V>);

#[derive(Debug, Clone)]
enum Form<K, V> {
    /// One entry or none.
    One(Option<(K, V)>),
    /// At least one; with the last of them it becomes the other form again.
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Form::One(None))
    }
}

impl<K: Ord, V> Few<K, V> {
    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Form::One(one) => usize::from(one.is_some()),
            Form::Many(many) => many.len(),
        }
    }

    /// Whether it has none.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.0, Form::One(None))
    }

    /// What stands under a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match &self.0 {
            Form::One(one) => one.as_ref().filter(|(its, _)| its == key).map(|(_, value)| value),
            Form::Many(many) => many.get(key),
        }
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match &mut self.0 {
            Form::One(one) => one.as_mut().filter(|(its, _)| its == key).map(|(_, value)| value),
            Form::Many(many) => many.get_mut(key),
        }
    }

    /// Puts something under a key, in the place of what stood there.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match &mut self.0 {
            Form::One(one) => match one.take() {
                Some(first) if first.0 != key => {
                    self.0 = Form::Many(BTreeMap::from([first, (key, value)]));
                }
                _ => *one = Some((key, value)),
            },
            Form::Many(many) => drop(many.insert(key, value)),
        }
    }

    /// Takes out what stands under a key.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        match &mut self.0 {
            Form::One(one) => one.take_if(|(its, _)| its == key).map(|(_, value)| value),
            Form::Many(many) => {
                let value = many.remove(key);
                if many.is_empty() {
                    self.0 = Form::One(None);
                }
                value
            }
        }
    }

    /// The smallest key and what stands under it.
    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        match &self.0 {
            Form::One(one) => one.as_ref().map(|(key, value)| (key, value)),
            Form::Many(many) => many.first_key_value(),
        }
    }

    /// The entries by their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (one, many) = match &self.0 {
            Form::One(one) => (one.as_ref(), None),
            Form::Many(many) => (None, Some(many)),
        };
        one.map(|(key, value)| (key, value)).into_iter().chain(many.into_iter().flatten())
    }

    /// Takes out all entries, by their keys.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        let (one, many) = match std::mem::take(self).0 {
            Form::One(one) => (one, None),
            Form::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// By their entries: one that has had more may stand in the other form.
impl<K: Ord, V: PartialEq> PartialEq for Few<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Ord, V: Eq> Eq for Few<K, V> {}

impl<K: Ord, V> FromIterator<(K, V)> for Few<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut few = Self::default();
        entries.into_iter().for_each(|(key, value)| few.insert(key, value));
        few
    }
}

impl<K: Ord + Serialize, V: Serialize> Serialize for Few<K, V> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

impl<'de, K: Ord + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Few<K, V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(d).map(|map| map.into_iter().collect())
    }
}

/// For `#[serde(with = "few::keys")]`: a set, which saves as a list.
pub(crate) mod keys {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Few;

    /// Writes the list.
    pub(crate) fn serialize<K: Ord + Serialize, S: Serializer>(
        few: &Few<K, ()>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(few.iter().map(|(key, ())| key))
    }

    /// Reads a list.
    pub(crate) fn deserialize<'de, K: Ord + Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Few<K, ()>, D::Error> {
        Vec::deserialize(d).map(|keys| keys.into_iter().map(|key| (key, ())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_map_it_stands_for(steps in prop::collection::vec((0_u8..5, any::<Option<u8>>()), 0..40)) {
            let (mut few, mut map) = (Few::default(), BTreeMap::new());
            for (key, value) in steps {
                if let Some(value) = value {
                    few.insert(key, value);
                    map.insert(key, value);
                } else {
                    prop_assert_eq!(few.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(few.get(&key), map.get(&key));
                prop_assert_eq!(few.get_mut(&key), map.get_mut(&key));
                prop_assert_eq!((few.len(), few.is_empty()), (map.len(), map.is_empty()));
                prop_assert_eq!(few.first(), map.first_key_value());
                prop_assert!(few.iter().eq(map.iter()));
                let saved = serde_json::to_string(&few).unwrap();
                prop_assert_eq!(&saved, &serde_json::to_string(&map).unwrap());
                prop_assert_eq!(serde_json::from_str::<Few<u8, u8>>(&saved).unwrap(), few.clone());
            }
            prop_assert!(few.take().eq(map));
            prop_assert!(few.is_empty());
        }
    }
}
