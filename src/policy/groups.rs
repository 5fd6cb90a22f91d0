//! The limits of groups: the strictest of those that a user's groups have. Pure, but for a memory of what
//! was put together before, so that a million sessions share a few limits.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Limit;
use crate::rules::matcher::Glob;
use crate::session::Groups;

/// Combinations remembered; others are put together anew each time.
const REMEMBERED_MAX: usize = 4096;

/// In the order of the configuration.
#[derive(Debug, Default)]
pub struct GroupLimits {
    limits: Vec<(Vec<Glob>, Arc<Limit>)>,
    /// By which of them apply, as bits.
    combined: Mutex<HashMap<u64, Arc<Limit>>>,
}

impl GroupLimits {
    /// So many can be told apart.
    pub const MAX: usize = 64;

    /// Of limits beyond [`Self::MAX`] none applies.
    pub fn new(mut limits: Vec<(Vec<Glob>, Arc<Limit>)>) -> Self {
        limits.truncate(Self::MAX);
        Self { limits, combined: Mutex::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Vec<Glob>, Arc<Limit>)> {
        self.limits.iter()
    }

    /// Whether any of them is for this group.
    pub fn names(&self, group: &str) -> bool {
        self.limits.iter().any(|(patterns, _)| is_one_of(patterns, group))
    }

    /// What applies to who is in these groups; `None`: none of them has a limit.
    pub(super) fn of(&self, groups: &Groups) -> Option<Arc<Limit>> {
        if self.limits.is_empty() || groups.is_empty() {
            return None;
        }
        let applies = |patterns: &[Glob]| groups.iter().any(|group| is_one_of(patterns, group));
        let which = self.limits.iter().enumerate().filter(|(_, (patterns, _))| applies(patterns));
        let which: Vec<usize> = which.map(|(at, _)| at).collect();
        if let [only] = which[..] {
            return Some(Arc::clone(&self.limits[only].1));
        }
        let bits = which.iter().fold(0_u64, |bits, at| bits | 1 << at);
        if let Some(known) = self.combined.lock().get(&bits) {
            return Some(Arc::clone(known));
        }
        let limit = Arc::new(strictest(which.iter().map(|at| &*self.limits[*at].1))?);
        let mut combined = self.combined.lock();
        if combined.len() < REMEMBERED_MAX {
            combined.insert(bits, Arc::clone(&limit));
        }
        Some(limit)
    }
}

fn is_one_of(patterns: &[Glob], group: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(group))
}

/// The one with the fewest sessions, the first of equals, with the shortest timeouts of all.
fn strictest<'a>(limits: impl Iterator<Item = &'a Limit> + Clone) -> Option<Limit> {
    let fewest = limits.clone().min_by_key(|limit| limit.max_sessions.unwrap_or(u32::MAX))?;
    let idle_timeout_ms = limits.clone().filter_map(|limit| limit.idle_timeout_ms).min();
    let absolute_timeout_ms = limits.filter_map(|limit| limit.absolute_timeout_ms).min();
    Some(Limit { idle_timeout_ms, absolute_timeout_ms, ..fewest.clone() })
}
