//! Limits set for single users while Headcount runs, in memory. The store has them for good and
//! commits first; whose limit may be set is the admin API's business.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::session::{Ceiling, User, UserLimit};

/// Users with a limit of their own; more are not accepted. A rule of the configuration is the way
/// then.
pub const USER_LIMITS_MAX: usize = 10_000;

/// By user. Read at logins.
#[derive(Debug, Default)]
pub struct UserLimits(RwLock<HashMap<User, UserLimit>>);

impl UserLimits {
    /// Takes over what was committed, here or by another replica. It may come late or twice.
    pub fn put(&self, limits: &[UserLimit]) {
        if limits.is_empty() {
            return;
        }
        let mut known = self.0.write();
        for limit in limits {
            if known.get(&limit.user).is_some_and(|known| known.set_at > limit.set_at) {
                continue;
            }
            if limit.ceiling == Ceiling::Configured {
                known.remove(&limit.user);
            } else {
                known.insert(limit.user.clone(), limit.clone());
            }
        }
    }

    /// What is set for a user, if anything is.
    pub fn of(&self, user: &str) -> Option<UserLimit> {
        self.0.read().get(user).cloned()
    }

    /// How many sessions the user may have if that was set: `Some(None)` is unlimited.
    pub fn max_of(&self, user: &str) -> Option<Option<u32>> {
        match self.0.read().get(user)?.ceiling {
            Ceiling::Configured => None,
            Ceiling::Unlimited => Some(None),
            Ceiling::Sessions(max) => Some(Some(max)),
        }
    }

    /// Everything that is set, by name.
    pub fn all(&self) -> Vec<UserLimit> {
        let mut all: Vec<UserLimit> = self.0.read().values().cloned().collect();
        all.sort_by(|one, other| one.user.cmp(&other.user));
        all
    }

    /// Whether one more user can have one.
    pub fn has_room_for(&self, user: &str) -> bool {
        let known = self.0.read();
        known.len() < USER_LIMITS_MAX || known.contains_key(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Timestamp;

    fn limit(ceiling: Ceiling, at: i64) -> UserLimit {
        let (user, set_by) = ("alice".into(), "ops".to_owned());
        UserLimit { user, ceiling, set_at: Timestamp(at), set_by }
    }

    #[test]
    fn the_newest_counts_and_taking_back_leaves_nothing() {
        let limits = UserLimits::default();
        assert_eq!(limits.max_of("alice"), None);
        limits.put(&[limit(Ceiling::Sessions(3), 5)]);
        limits.put(&[limit(Ceiling::Unlimited, 4)]);
        assert_eq!(limits.max_of("alice"), Some(Some(3)), "the older one came late");
        limits.put(&[limit(Ceiling::Unlimited, 6)]);
        assert_eq!(limits.max_of("alice"), Some(None));
        assert_eq!(limits.all().len(), 1);
        limits.put(&[limit(Ceiling::Configured, 7)]);
        assert_eq!((limits.max_of("alice"), limits.all().len()), (None, 0));
    }
}
