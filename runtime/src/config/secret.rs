//! Values that must not be shown.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// What stands in place of a secret wherever one would be shown.
pub const MASK: &str = "***";

/// The name under which the loader hands a secret over. A key that is marked secret in `defaults.toml` fits a field of
/// type [`Secret`] and no other, and the other way round: the mark and the type cannot drift apart.
pub(super) const WRAPPER: &str = "__secret";

/// A string that neither Debug nor `--print-config` shows. Empty where it is not set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { MASK })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wrapped {
            __secret: String,
        }
        Wrapped::deserialize(deserializer).map(|wrapped| Self(wrapped.__secret))
    }
}

/// Whether a librdkafka setting of this name holds a secret itself.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("password")
        || name.ends_with(".pem")
        || name.contains("secret")
        || name == "sasl.oauthbearer.config"
        || name == "sasl.jaas.config"
}
