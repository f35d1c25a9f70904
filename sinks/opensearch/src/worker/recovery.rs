//! What to do after a failure at the log. Sorted once, by what the log says the failure asks for.

use std::time::Duration;

use runtime::log::{Class, LogError};

/// How many times in a row this member's place may be disputed before it joins anew.
const PATIENCE: u32 = 10;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The same call again, after a pause; polling goes on.
    Again,
    /// Drop the consumer without a further call, join the group anew, and read from what is committed.
    Rejoin,
    /// Another instance has this one's place.
    Leave,
    /// Someone must act.
    Fail,
}

/// What a failure at the log asks for, after `failures` in a row.
///
/// The sink has no transactions, and a commit that failed is harmless to repeat: `Abort` means that this member's
/// generation is over, and the next poll brings the news. If it does not, for long, the member joins anew.
pub(super) fn remedy(class: Class, failures: u32) -> Remedy {
    match class {
        Class::Retry => Remedy::Again,
        Class::Abort if failures < PATIENCE => Remedy::Again,
        Class::Abort | Class::Restart => Remedy::Rejoin,
        Class::Fenced => Remedy::Leave,
        Class::Fatal => Remedy::Fail,
    }
}

/// The pause after so many failures in a row at the log: 100 ms, doubling up to 10 s.
pub(super) fn pause(failures: u32) -> Duration {
    Duration::from_millis(100)
        .saturating_mul(1 << failures.min(7))
        .min(Duration::from_secs(10))
}

/// Whether a call that failed may be made again as if nothing had happened.
pub(super) fn passes(error: &LogError) -> bool {
    remedy(error.class(), 0) == Remedy::Again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_failure_has_its_remedy() {
        for (class, first, after_many) in [
            (Class::Retry, Remedy::Again, Remedy::Again),
            (Class::Abort, Remedy::Again, Remedy::Rejoin),
            (Class::Restart, Remedy::Rejoin, Remedy::Rejoin),
            (Class::Fenced, Remedy::Leave, Remedy::Leave),
            (Class::Fatal, Remedy::Fail, Remedy::Fail),
        ] {
            assert_eq!(
                (remedy(class, 0), remedy(class, PATIENCE)),
                (first, after_many),
                "{class:?}"
            );
        }
    }

    #[test]
    fn pauses_grow_to_ten_seconds() {
        let pauses: Vec<u128> = (0..9).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(
            pauses,
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]
        );
    }
}
