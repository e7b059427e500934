//! Parsed things that a reader returns to, held up to a total weight: an image chooses how large each of them is, so a
//! number of them alone would bound nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Values under numbers, such as the listing of a directory under its node.
#[derive(Debug)]
pub(super) struct Held<V> {
    inner: Mutex<Inner<V>>,
    weight_max: usize,
}

#[derive(Debug)]
struct Inner<V> {
    values: HashMap<u64, Value<V>>,
    weight: usize,
    clock: u64,
}

#[derive(Debug)]
struct Value<V> {
    value: Arc<V>,
    weight: usize,
    used: u64,
}

impl<V> Held<V> {
    /// Holds values of `weight_max` in all.
    pub(super) fn new(weight_max: usize) -> Self {
        let inner = Inner { values: HashMap::new(), weight: 0, clock: 0 };
        Self { inner: Mutex::new(inner), weight_max }
    }

    /// The value under `key`, which becomes the most recently used.
    pub(super) fn get(&self, key: u64) -> Option<Arc<V>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock = inner.clock.wrapping_add(1);
        let clock = inner.clock;
        let held = inner.values.get_mut(&key)?;
        held.used = clock;
        Some(Arc::clone(&held.value))
    }

    /// Holds `value`; the least recently used ones give way. A value heavier than all that may be held is not kept.
    pub(super) fn insert(&self, key: u64, value: &Arc<V>, weight: usize) {
        // A value costs its place even where it weighs nothing.
        let weight = weight.saturating_add(1);
        if weight > self.weight_max {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock = inner.clock.wrapping_add(1);
        if inner.weight.saturating_add(weight) > self.weight_max {
            inner.shrink_to(self.weight_max.saturating_sub(weight) / 2);
        }
        let held = Value { value: Arc::clone(value), weight, used: inner.clock };
        let before = inner.values.insert(key, held).map_or(0, |old| old.weight);
        inner.weight = inner.weight.saturating_add(weight).saturating_sub(before);
    }
}

impl<V> Inner<V> {
    /// Sorting once for half of what is held costs little per insertion, without a list to maintain.
    fn shrink_to(&mut self, weight: usize) {
        let mut by_age: Vec<(u64, u64)> = self.values.iter().map(|(key, held)| (held.used, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age {
            if self.weight <= weight {
                break;
            }
            let gone = self.values.remove(&key).map_or(0, |held| held.weight);
            self.weight = self.weight.saturating_sub(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_weight_is_bounded_and_the_oldest_go_first() {
        let held = Held::new(100);
        for key in 0..1000_u64 {
            held.insert(key, &Arc::new(key), 9);
            assert_eq!(held.get(0).as_deref(), Some(&0), "used again and again, so never the oldest");
            assert!(held.inner.lock().unwrap().weight <= 100);
        }
        assert_eq!(held.get(999).as_deref(), Some(&999));
        assert_eq!(held.get(500), None);
        held.insert(7, &Arc::new(7), 1000);
        assert_eq!(held.get(7), None, "heavier than all that may be held");
    }
}
