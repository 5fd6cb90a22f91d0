//! Groups that many users are in together take memory once. Plain data.

use std::collections::HashSet;

use crate::session::Groups;

/// Sets kept before those that nobody has any more are looked for.
const TIDY_MIN: usize = 64;

#[derive(Default)]
pub(super) struct GroupSets {
    known: HashSet<Groups>,
    tidy_at: usize,
}

impl GroupSets {
    /// The same groups, in the memory of whoever has them already.
    pub(super) fn shared(&mut self, groups: &Groups) -> Groups {
        if groups.is_empty() {
            return Groups::default();
        }
        if let Some(known) = self.known.get(groups) {
            return known.clone();
        }
        if self.known.len() >= self.tidy_at.max(TIDY_MIN) {
            self.known.retain(Groups::is_shared);
            self.tidy_at = self.known.len() * 2;
        }
        self.known.insert(groups.clone());
        groups.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_nobody_has_are_forgotten() {
        let mut sets = GroupSets::default();
        let of = |number: usize| Groups::from_text(Some(&number.to_string()));
        let kept: Vec<Groups> = (0..10).map(|number| sets.shared(&of(number))).collect();
        for number in 0..10_000 {
            sets.shared(&of(number));
        }
        assert!(sets.known.len() <= TIDY_MIN + 1, "{}", sets.known.len());
        assert!(kept.iter().all(|groups| sets.known.contains(groups)));
    }
}
