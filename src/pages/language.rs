//! The languages of our pages, and which of them a browser prefers (RFC 9110 §12.5.4).

/// A language there are words for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    English,
    German,
    French,
    Spanish,
    Dutch,
}

/// Preferences looked at; browsers send a handful.
const RANGES_MAX: usize = 16;

impl Language {
    /// Every language.
    pub const ALL: [Self; 5] =
        [Self::English, Self::German, Self::French, Self::Spanish, Self::Dutch];

    /// As in `<html lang>` and in the configuration.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::Dutch => "nl",
        }
    }

    /// The one that an Accept-Language line likes best; `otherwise` if it names none of them.
    pub fn preferred(accepted: Option<&str>, otherwise: Self) -> Self {
        let mut best = (0, otherwise);
        for range in accepted.unwrap_or_default().split(',').take(RANGES_MAX) {
            let (tag, weight) = range.split_once(';').unwrap_or((range, ""));
            let weight = weight_of(weight);
            let found = match tag.trim() {
                "*" => Some(otherwise),
                tag => Self::of_tag(tag),
            };
            if let Some(language) = found
                && weight > best.0
            {
                best = (weight, language);
            }
        }
        best.1
    }

    /// `de-AT` is German.
    fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.split('-').next().unwrap_or_default();
        Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(primary))
    }
}

/// In thousandths; what cannot be read counts as not wanted.
fn weight_of(parameter: &str) -> u32 {
    let parameter = parameter.trim();
    if parameter.is_empty() {
        return 1000;
    }
    let number = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    let weight = number.and_then(|number| number.trim().parse::<f32>().ok());
    // Between 0 and 1, so the product fits.
    weight
        .filter(|weight| (0.0..=1.0).contains(weight))
        .map_or(0, |weight| (weight * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_liked_language_that_there_is() {
        for (accepted, expected) in [
            (None, Language::Dutch),
            (Some(""), Language::Dutch),
            (Some("de"), Language::German),
            (Some("de-AT,de;q=0.9,en;q=0.8"), Language::German),
            (Some("pl,FR-ca;q=0.7,en;q=0.3"), Language::French),
            (Some("en;q=0.1, es ; q=0.9"), Language::Spanish),
            (Some("ja,*;q=0.5,en;q=0.1"), Language::Dutch),
            (Some("de;q=0"), Language::Dutch),
            (Some("de;q=7, en;q=x, fr;q=0.001"), Language::French),
        ] {
            assert_eq!(Language::preferred(accepted, Language::Dutch), expected, "{accepted:?}");
        }
    }
}
