//! The groups that a user was in at a login: few, short, each once. Plain values; where they come from
//! and what they allow is not known here.

use std::sync::Arc;

/// As many are kept; and so long, in characters.
pub const GROUPS_MAX: usize = 64;
pub const GROUP_CHARS_MAX: usize = 100;

/// Names of groups in order. Copies share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Groups(Option<Arc<[Box<str>]>>);

impl Groups {
    /// The first [`GROUPS_MAX`] of these names that can be kept; others, and those with characters that
    /// a line cannot hold, are left out. The second value says whether any was.
    pub fn of(names: impl IntoIterator<Item = String>) -> (Self, bool) {
        let (mut kept, mut left_out) = (Vec::<Box<str>>::new(), false);
        for name in names {
            let fits = name.chars().count() <= GROUP_CHARS_MAX && !name.contains(char::is_control);
            if name.is_empty() || kept.iter().any(|known| **known == *name) {
                continue;
            }
            if fits && kept.len() < GROUPS_MAX {
                kept.push(name.into());
            } else {
                left_out = true;
            }
        }
        kept.sort_unstable();
        (Self((!kept.is_empty()).then(|| kept.into())), left_out)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|names| names.iter()).map(|name| &**name)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether somebody else has a copy.
    pub fn is_shared(&self) -> bool {
        self.0.as_ref().is_some_and(|names| Arc::strong_count(names) > 1)
    }

    /// As the store keeps them: a line each; `None`: none.
    pub fn to_text(&self) -> Option<String> {
        self.0.as_ref().map(|names| names.join("\n"))
    }

    /// From what the store keeps.
    pub fn from_text(text: Option<&str>) -> Self {
        Self::of(text.unwrap_or_default().lines().map(str::to_owned)).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_few_short_and_in_order() {
        let of = |names: &[&str]| Groups::of(names.iter().map(|name| (*name).to_owned()));
        let (groups, left_out) = of(&["staff", "", "admins", "staff"]);
        assert_eq!((groups.iter().collect::<Vec<_>>(), left_out), (vec!["admins", "staff"], false));
        assert_eq!(groups.to_text().as_deref(), Some("admins\nstaff"));
        assert_eq!(Groups::from_text(groups.to_text().as_deref()), groups);
        assert_eq!(of(&[]), (Groups::default(), false));
        assert_eq!(Groups::from_text(None), Groups::default());
        let (groups, left_out) = of(&["a\nb", &"x".repeat(GROUP_CHARS_MAX + 1), "c"]);
        assert_eq!((groups.iter().collect::<Vec<_>>(), left_out), (vec!["c"], true));
        let many = (0..1_000).map(|number| number.to_string());
        let (groups, left_out) = Groups::of(many);
        assert_eq!((groups.iter().count(), left_out), (GROUPS_MAX, true));
    }
}
