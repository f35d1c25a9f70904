//! How far event time has come, over all partitions of a source.
//!
//! ```text
//!   partition 0   ──────────▶ 10:07
//!   partition 1   ────▶ 10:02            watermark = least of those that are not idle = 10:02
//!   partition 2   ▶ idle                 (all idle: the furthest advance-to)
//!   partition 3   announced, not seen    (then there is none at all)
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Event time that is further than any row: the input has ended.
pub const END_OF_TIME: i64 = i64::MAX;

/// What one partition last said of its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionTime {
    /// Its watermark; `None` before its first row.
    pub watermark: Option<i64>,
    /// Whether it no longer holds the others back.
    pub idle: bool,
    /// While it is idle: where its event time would be by the clock.
    pub advance_to: Option<i64>,
    /// Whether no more input will come from it.
    pub ended: bool,
}

/// A partition that holds event time back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub partition: i32,
    /// Whether it has said anything yet.
    pub seen: bool,
    /// How far it is; `None` before its first row.
    pub watermark: Option<i64>,
}

/// The watermark of a source: never goes back, whatever the partitions say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watermark {
    expected: i32,
    partitions: BTreeMap<i32, PartitionTime>,
    now: Option<i64>,
}

impl Watermark {
    /// Takes in what a partition says, and that the source has `expected` partitions. Returns the watermark.
    pub fn update(&mut self, partition: i32, expected: i32, time: PartitionTime) -> Option<i64> {
        self.expected = self.expected.max(expected);
        self.partitions.insert(partition, time);
        self.now = self.now.max(self.computed());
        self.now
    }

    /// The watermark in milliseconds since 1970; `None` while an expected partition has said nothing.
    pub fn now(&self) -> Option<i64> {
        self.now
    }

    /// Whether every expected partition has ended.
    pub fn ended(&self) -> bool {
        self.now == Some(END_OF_TIME)
    }

    /// How many partitions the source has announced.
    pub fn expected(&self) -> i32 {
        self.expected
    }

    /// What each partition last said.
    pub fn partitions(&self) -> &BTreeMap<i32, PartitionTime> {
        &self.partitions
    }

    /// Who holds event time below `until`: the partitions without which it would be there, or further.
    pub fn holding(&self, until: i64) -> Vec<Holding> {
        (0..self.expected)
            .filter_map(|partition| match self.partitions.get(&partition) {
                None => Some(Holding {
                    partition,
                    seen: false,
                    watermark: None,
                }),
                Some(time) if time.idle || time.ended => None,
                Some(time) if time.watermark >= Some(until) => None,
                Some(time) => Some(Holding {
                    partition,
                    seen: true,
                    watermark: time.watermark,
                }),
            })
            .collect()
    }

    fn computed(&self) -> Option<i64> {
        let seen = self.partitions.range(0..self.expected.max(0)).count();
        if seen < usize::try_from(self.expected).unwrap_or(0) {
            return None;
        }
        let times = self.partitions.values();
        if times.clone().all(|time| time.ended) {
            return Some(END_OF_TIME);
        }
        if times.clone().all(|time| time.idle || time.ended) {
            return times
                .filter_map(|time| time.advance_to.max(time.watermark))
                .max();
        }
        // None of a partition that is neither idle nor ended, but has no row yet, is less than every time.
        times
            .filter(|time| !time.idle && !time.ended)
            .map(|time| time.watermark)
            .min()
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn at(watermark: i64) -> PartitionTime {
        PartitionTime {
            watermark: Some(watermark),
            ..PartitionTime::default()
        }
    }

    #[test]
    fn an_unseen_partition_holds_it_back() {
        let mut watermark = Watermark::default();
        assert_eq!(watermark.update(0, 2, at(10)), None);
        assert_eq!(watermark.update(1, 2, at(7)), Some(7));
    }

    #[test]
    fn an_idle_partition_does_not() {
        let mut watermark = Watermark::default();
        watermark.update(0, 2, at(10));
        assert_eq!(
            watermark.update(
                1,
                2,
                PartitionTime {
                    idle: true,
                    ..PartitionTime::default()
                }
            ),
            Some(10)
        );
    }

    #[test]
    fn a_partition_without_a_row_yet_does() {
        let mut watermark = Watermark::default();
        watermark.update(0, 2, at(10));
        assert_eq!(watermark.update(1, 2, PartitionTime::default()), None);
    }

    #[test]
    fn who_holds_it_back_is_who_is_behind_and_neither_idle_nor_ended() {
        let mut watermark = Watermark::default();
        let idle = PartitionTime {
            idle: true,
            ..at(1)
        };
        let ended = PartitionTime {
            ended: true,
            ..at(2)
        };
        for (partition, time) in [(0, at(10)), (1, at(20)), (2, idle), (3, ended)] {
            watermark.update(partition, 6, time);
        }
        watermark.update(4, 6, PartitionTime::default());
        let held = |partition, seen, watermark| Holding {
            partition,
            seen,
            watermark,
        };
        assert_eq!(
            watermark.holding(15),
            [
                held(0, true, Some(10)),
                held(4, true, None),
                held(5, false, None)
            ]
        );
        assert_eq!(watermark.holding(10).len(), 2);
    }

    #[test]
    fn it_never_goes_back() {
        let mut watermark = Watermark::default();
        watermark.update(0, 1, at(10));
        assert_eq!(watermark.update(0, 1, at(5)), Some(10));
        // an added partition is announced: it holds time, but does not turn it back
        assert_eq!(watermark.update(0, 2, at(20)), Some(10));
        assert_eq!(watermark.update(1, 2, at(15)), Some(15));
    }

    #[test]
    fn when_all_are_idle_the_furthest_clock_counts() {
        let mut watermark = Watermark::default();
        watermark.update(
            0,
            2,
            PartitionTime {
                watermark: Some(10),
                idle: true,
                advance_to: Some(40),
                ended: false,
            },
        );
        assert_eq!(
            watermark.update(
                1,
                2,
                PartitionTime {
                    watermark: Some(5),
                    idle: true,
                    advance_to: Some(30),
                    ended: false
                }
            ),
            Some(40)
        );
    }

    #[test]
    fn when_all_have_ended_time_is_over() {
        let mut watermark = Watermark::default();
        watermark.update(
            0,
            2,
            PartitionTime {
                ended: true,
                ..at(10)
            },
        );
        assert_eq!(watermark.now(), None);
        watermark.update(
            1,
            2,
            PartitionTime {
                ended: true,
                ..PartitionTime::default()
            },
        );
        assert!(watermark.ended());
    }
}
