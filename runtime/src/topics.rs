//! What topics must be like for what they are used for, and whether they are.
//!
//! A topic with other settings than its use needs loses data without a word: a compacted one drops records of a key, one with
//! a retention drops old state, one with too few copies drops what its only broker had. So whoever relies on a topic asks
//! [`check`] before the first record, and `headway setup` shows all of them at once.

use std::fmt;

use crate::config::LogConfig;
use crate::log::{TopicDescription, TopicSpec};

/// What a topic is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Each record counts, until its time is up: never compacted.
    Records,
    /// The last record of each key counts, for ever: compacted, and never deleted by age.
    Latest,
    /// The last record of each key counts, for ever, and it does not matter whether earlier ones are there: compacted, or
    /// without any retention.
    Table,
    /// State: nothing is ever deleted but by those who keep it.
    State,
    /// Whoever reads it has no need of what compaction or age take away.
    Any,
}

/// How many brokers must have what is written. `None`: whatever the topics have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durability {
    /// How many copies there are.
    pub replication: Option<i32>,
    /// How many of them must have a record before it counts as written (`min.insync.replicas`).
    pub min_insync: Option<i32>,
}

impl Durability {
    /// What the configuration asks for.
    pub fn of(config: &LogConfig) -> Self {
        let asked = |value: i32| Some(value).filter(|value| *value > 0);
        Self {
            replication: asked(config.replication),
            min_insync: asked(config.min_insync_replicas),
        }
    }
}

/// A topic that a pipeline needs.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As it is created.
    pub spec: TopicSpec,
    /// What it is used for.
    pub role: Use,
    /// Whether another number of partitions than the one in `spec` is a fault.
    pub fixed: bool,
}

impl Wanted {
    /// A topic with the settings that its use needs.
    pub fn new(name: impl Into<String>, partitions: i32, role: Use) -> Self {
        let mut spec = TopicSpec::new(name, partitions);
        for (setting, value) in role.settings() {
            spec = spec.with(setting, value);
        }
        Self {
            spec,
            role,
            fixed: false,
        }
    }

    /// With another setting.
    #[must_use]
    pub fn with(mut self, setting: &str, value: &str) -> Self {
        self.spec = self.spec.with(setting, value);
        self
    }

    /// With exactly this number of partitions, or refused.
    #[must_use]
    pub fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// To be created with this durability.
    #[must_use]
    pub fn durable(mut self, durability: Durability) -> Self {
        self.spec.replication = durability.replication.unwrap_or(-1);
        if let Some(min_insync) = durability.min_insync {
            self.spec = self.spec.with(MIN_INSYNC, &min_insync.to_string());
        }
        self
    }
}

const MIN_INSYNC: &str = "min.insync.replicas";

impl Use {
    /// The settings that it needs.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Records => &[("cleanup.policy", "delete")],
            Self::Latest | Self::Table => &[("cleanup.policy", "compact")],
            Self::Any => &[],
            Self::State => &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "-1"),
                ("retention.bytes", "-1"),
            ],
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Records => {
                "each of its records counts, and compaction drops all but the last of a key"
            }
            Self::Latest => "the last record of each key must stay, however old, and only that",
            Self::Table => "the last record of each key must stay, however old",
            Self::Any => "it is read",
            Self::State => "it is the job's state, of which nothing may be lost",
        }
    }
}

/// What is wrong with a topic's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Whether it must not be used so; otherwise it is dangerous only.
    pub refused: bool,
    /// Which setting: what it is, what it must be, and why.
    pub what: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// A topic whose settings do not fit its use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic {topic} can't be used: {}. Change the topic with the brokers' tools, such as `kafka-configs.sh --alter` or `rpk topic alter-config`",
    .misfits.iter().map(|misfit| misfit.what.as_str()).collect::<Vec<_>>().join("; ")
)]
pub struct Unfit {
    /// The topic.
    pub topic: String,
    /// All that is wrong.
    pub misfits: Vec<Misfit>,
}

/// Everything in a topic's settings that does not fit its use. What the brokers do not tell is taken for good.
pub fn misfits(found: &TopicDescription, role: Use, durability: Durability) -> Vec<Misfit> {
    let mut all = Vec::new();
    let mut add = |refused: bool, what: String| all.push(Misfit { refused, what });
    // Without any retention nothing goes, compacted or not.
    let retained = |setting| {
        found
            .config
            .get(setting)
            .is_some_and(|value: &String| value.trim() == "-1")
    };
    let keeps_all = retained("retention.ms") && retained("retention.bytes");
    for (setting, wanted) in role.settings() {
        let Some(value) = found.config.get(*setting) else {
            continue;
        };
        let compacted = value.split(',').any(|policy| policy.trim() == "compact");
        let fits = match (role, *setting) {
            (Use::Records, _) => !compacted,
            (Use::Table, _) => keeps_all || value.trim() == *wanted,
            _ => value.trim() == *wanted,
        };
        if !fits {
            let otherwise = match role {
                Use::Table => ", or retention.ms and retention.bytes -1",
                _ => "",
            };
            add(
                true,
                format!(
                    "{setting} is {value} and must be {wanted}{otherwise}, as {}",
                    role.why()
                ),
            );
        }
    }
    if let Some(asked) = durability.replication
        && found.replication < asked
    {
        add(
            true,
            format!(
                "it has {} copies, and log.replication asks for {asked}: add replicas (`kafka-reassign-partitions.sh`), create it anew with `headway setup`, or ask for fewer",
                found.replication
            ),
        );
    }
    let in_sync = found
        .config
        .get(MIN_INSYNC)
        .and_then(|value| value.trim().parse::<i32>().ok());
    if let Some(in_sync) = in_sync {
        if in_sync > found.replication {
            add(
                true,
                format!(
                    "{MIN_INSYNC} is {in_sync}, but there are only {} copies, so that nothing can be written",
                    found.replication
                ),
            );
        }
        match durability.min_insync {
            Some(asked) if in_sync < asked => add(
                true,
                format!(
                    "{MIN_INSYNC} is {in_sync}, and log.min_insync_replicas asks for {asked}: a record could be lost with fewer brokers than that"
                ),
            ),
            None if in_sync < 2 && found.replication > 1 => add(
                false,
                format!(
                    "{MIN_INSYNC} is {in_sync} of {} copies: a record counts as written when one broker has it, and is lost with that one; 2 is safe",
                    found.replication
                ),
            ),
            _ => {}
        }
    }
    all
}

/// Refuses a topic whose settings do not fit its use; what is dangerous only is logged.
///
/// # Errors
/// [`Unfit`] says which settings, why, and what to do.
pub fn check(found: &TopicDescription, role: Use, durability: Durability) -> Result<(), Unfit> {
    let (refused, dangerous): (Vec<_>, Vec<_>) = misfits(found, role, durability)
        .into_iter()
        .partition(|misfit| misfit.refused);
    for misfit in dangerous {
        tracing::warn!(
            topic = found.name,
            misfit = misfit.what,
            "a topic's settings are dangerous"
        );
    }
    if refused.is_empty() {
        return Ok(());
    }
    Err(Unfit {
        topic: found.name.clone(),
        misfits: refused,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn topic(replication: i32, settings: &[(&str, &str)]) -> TopicDescription {
        TopicDescription {
            name: "t".into(),
            id: "i".into(),
            partitions: 1,
            replication,
            config: settings
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
        }
    }

    fn verdicts(found: &TopicDescription, role: Use, durability: Durability) -> Vec<bool> {
        misfits(found, role, durability)
            .iter()
            .map(|misfit| misfit.refused)
            .collect()
    }

    #[test]
    fn what_a_use_creates_fits_it() {
        for role in [Use::Records, Use::Latest, Use::Table, Use::State, Use::Any] {
            for durability in [
                Durability::default(),
                Durability {
                    replication: Some(3),
                    min_insync: Some(2),
                },
            ] {
                let wanted = Wanted::new("t", 1, role).durable(durability);
                let mut found = topic(durability.replication.unwrap_or(1), &[]);
                found.config = wanted.spec.config;
                assert_eq!(check(&found, role, durability), Ok(()), "{role:?}");
            }
        }
    }

    #[test]
    fn settings_that_lose_data_are_refused() {
        let none = Durability::default();
        for (role, setting, value) in [
            (Use::Records, "cleanup.policy", "compact"),
            (Use::Records, "cleanup.policy", "delete,compact"),
            (Use::Latest, "cleanup.policy", "delete"),
            (Use::Latest, "cleanup.policy", "compact,delete"),
            (Use::Table, "cleanup.policy", "delete"),
            (Use::Table, "cleanup.policy", "compact,delete"),
            (Use::State, "cleanup.policy", "compact"),
            (Use::State, "retention.ms", "604800000"),
            (Use::State, "retention.bytes", "1000000000"),
        ] {
            let found = topic(1, &[(setting, value)]);
            let refused = check(&found, role, none).unwrap_err().to_string();
            assert!(
                refused.contains(&format!("{setting} is {value}")) && refused.contains("topic t"),
                "{refused}"
            );
        }
        let kept = [("cleanup.policy", "delete"), ("retention.ms", "1000")];
        assert_eq!(check(&topic(1, &kept), Use::Records, none), Ok(()));
        let unlimited = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
        ];
        assert_eq!(check(&topic(1, &unlimited), Use::Table, none), Ok(()));
        assert!(check(&topic(1, &unlimited[..2]), Use::Table, none).is_err());
    }

    #[test]
    fn too_few_copies_for_what_is_asked_are_refused_and_one_in_sync_is_warned_of() {
        let asked = |replication, min_insync| Durability {
            replication,
            min_insync,
        };
        let with = |copies, in_sync| topic(copies, &[(MIN_INSYNC, in_sync)]);
        for (found, durability, expected) in [
            (with(1, "1"), asked(None, None), &[][..]),
            (with(3, "2"), asked(None, None), &[]),
            (with(3, "2"), asked(Some(3), Some(2)), &[]),
            (with(3, "1"), asked(None, None), &[false]),
            (with(3, "1"), asked(Some(3), None), &[false]),
            (with(3, "1"), asked(None, Some(1)), &[]),
            (with(3, "1"), asked(None, Some(2)), &[true]),
            (with(1, "1"), asked(Some(3), Some(2)), &[true, true]),
            (with(1, "2"), asked(None, None), &[true]),
            (topic(2, &[]), asked(Some(3), Some(2)), &[true]),
        ] {
            let found = verdicts(&found, Use::Records, durability);
            assert_eq!(found, expected, "{durability:?}");
        }
    }
}
