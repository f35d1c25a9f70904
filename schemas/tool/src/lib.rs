//! Contracts for a registry: which schema belongs to which topic, compared with what is there, registered.
//!
//! ```text
//!   shipped, files, folders ──▶ Contract {topic, text} ──▶ check: against the subject's last version
//!                                                      └─▶ register: all of them, or none where one is refused
//! ```

mod contract;

use schemas::{Admin, Evolved, Refused, RegistryError, can_replace, evolve};

pub use contract::{Contract, ContractError, TRIP_STATISTICS_TOPIC, named, shipped};

/// How a contract stands to the last version of its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no version yet.
    First,
    /// It can replace the version of this number, or is the same.
    Fits(u32),
    /// It can't replace the version of this number: which field, why, and what to do.
    Refused(u32, String),
}

/// Compares contracts with what a registry has. Changes nothing.
///
/// # Errors
/// A registry that can't be asked.
pub fn check(registry: &dyn Admin, contracts: &[Contract]) -> Result<Vec<Verdict>, RegistryError> {
    let verdict = |contract: &Contract| {
        let Some((id, last)) = registry.latest(&contract.subject())? else {
            return Ok(Verdict::First);
        };
        Ok(match can_replace(&last, &contract.text) {
            Ok(()) => Verdict::Fits(id),
            Err(Refused::Incompatible(why)) => Verdict::Refused(id, why),
            Err(other) => Verdict::Refused(id, other.to_string()),
        })
    };
    contracts.iter().map(verdict).collect()
}

/// Registers contracts, each under its topic's subject, with the rule BACKWARD or a stricter one. Check them first: one that
/// is refused ends it, with those before it registered.
///
/// # Errors
/// A registry that can't be asked, or refuses.
pub fn register(
    registry: &dyn Admin,
    contracts: &[Contract],
) -> Result<Vec<Evolved>, RegistryError> {
    contracts
        .iter()
        .map(|contract| evolve(registry, &contract.subject(), &contract.text))
        .collect()
}

/// What became of a contract that is registered, in words.
pub fn in_words(evolved: &Evolved) -> String {
    let what = match evolved {
        Evolved { id, .. } if evolved.known() => format!("schema {id}, as before"),
        Evolved {
            id,
            before: Some(before),
            ..
        } => format!("schema {id}, a new version after {before}"),
        Evolved { id, .. } => format!("schema {id}, the first version"),
    };
    match &evolved.rule_before {
        Some(rule) => format!("{what}; its rule was {rule} and is BACKWARD now"),
        None => what,
    }
}
