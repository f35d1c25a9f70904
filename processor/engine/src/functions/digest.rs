//! A merging t-digest: a distribution as some weighted means, fine at its ends.
//!
//! Written out because states depend on it. It needs only operations that are exact by IEEE 754 (so no arcsine: the
//! weight that a mean may have comes from the derivative of the usual scale function), and it depends on the order of what
//! is taken in, which is that of the log.
//!
//! State, format 1: the numbers of −∞, +∞ and NaN, then, if there is any other value, least and greatest and each mean
//! with its weight, in ascending order. Numbers are of variable length, floats of 8 bytes, little-endian.

use std::cmp::Ordering;

use datafusion_common::Result;

use super::codec::{Reader, write_varint};
use super::hash::canonical;
use super::table::State;

/// Twice π over the compression, 400: a mean around quantile q holds at most this × √(q (1 − q)) of all values. Below 250
/// values each is kept.
const SHARE: f64 = 2.0 * std::f64::consts::PI / 400.0;
/// Up to so many means only equal values are put together: of few values that come often, a mean of two would stand for
/// neither.
const KEPT_MEANS: usize = 384;
/// How much is collected before it is merged.
const PENDING: usize = 512;
/// More than this many means do not come out of a merge.
const MOST_MEANS: usize = 4_096;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mean {
    value: f64,
    weight: u64,
}

/// The distribution of some floats.
#[derive(Debug, Default)]
pub(super) struct Digest {
    /// Ascending.
    means: Vec<Mean>,
    pending: Vec<Mean>,
    /// The least and the greatest finite value.
    ends: Option<(f64, f64)>,
    below: u64,
    above: u64,
    nans: u64,
}

impl Digest {
    pub(super) fn insert(&mut self, value: f64) {
        if value.is_finite() {
            self.push(Mean {
                value: canonical(value),
                weight: 1,
            });
            self.widen(canonical(value), canonical(value));
        } else if value.is_nan() {
            self.nans += 1;
        } else if value > 0.0 {
            self.above += 1;
        } else {
            self.below += 1;
        }
    }

    fn push(&mut self, mean: Mean) {
        self.pending.push(mean);
        if self.pending.len() >= PENDING {
            self.settle();
        }
    }

    fn widen(&mut self, least: f64, greatest: f64) {
        self.ends = Some(match self.ends {
            None => (least, greatest),
            Some((a, b)) => (a.min(least), b.max(greatest)),
        });
    }

    /// Merges what is pending with the means, and neighbours as far as they may be.
    fn settle(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.means.append(&mut self.pending);
        self.means.sort_by(order);
        let total = self
            .means
            .iter()
            .map(|mean| mean.weight as f64)
            .sum::<f64>();
        self.means = joined(&self.means, total, |one, other| one == other);
        if self.means.len() > KEPT_MEANS {
            self.means = joined(&self.means, total, |_, _| true);
        }
        // Of equal values the lighter one comes first.
        self.means.sort_by(order);
    }

    /// The value at a quantile of 0 to 1, between two values by linear interpolation; NaN stands above all numbers.
    /// `None` if there is no value.
    pub(super) fn quantile(mut self, quantile: f64) -> Option<f64> {
        self.settle();
        let finite: u64 = self.means.iter().map(|mean| mean.weight).sum();
        let count = self.below + finite + self.above + self.nans;
        // Where it stands among the values in order, counted from 0.
        let at = quantile * count.checked_sub(1)? as f64;
        let below = self.below as f64;
        let (low, high) = (at.floor(), at.ceil());
        let infinite = |at: f64| {
            if at < below {
                Some(f64::NEG_INFINITY)
            } else if at < below + finite as f64 {
                None
            } else if at < below + (finite + self.above) as f64 {
                Some(f64::INFINITY)
            } else {
                Some(f64::NAN)
            }
        };
        // Between a number and what is none, what is none prevails.
        match (infinite(low), infinite(high)) {
            (None, None) => Some(self.finite_at(at - below)),
            (Some(a), Some(b)) if a == b => Some(a),
            (Some(a), None) => Some(a),
            (None | Some(_), Some(b)) => Some(b),
        }
    }

    /// The value at a place among the finite ones.
    fn finite_at(&self, at: f64) -> f64 {
        let (least, greatest) = self.ends.unwrap_or_default();
        let (mut left, mut left_at) = (least, 0.0);
        let mut before = 0.0;
        for mean in &self.means {
            // The middle of the places that the mean stands for.
            let place = before + (mean.weight as f64 - 1.0) / 2.0;
            if place >= at {
                return between(left, left_at, mean.value, place, at).clamp(least, greatest);
            }
            (left, left_at) = (mean.value, place);
            before += mean.weight as f64;
        }
        between(left, left_at, greatest, before - 1.0, at).clamp(least, greatest)
    }
}

/// Neighbours put together as far as they `may` be and as a mean may weigh. `total` is the weight of all.
fn joined(means: &[Mean], total: f64, may: impl Fn(f64, f64) -> bool) -> Vec<Mean> {
    let limit = |quantile: f64| total * SHARE * (quantile * (1.0 - quantile)).max(0.0).sqrt();
    let mut joined: Vec<Mean> = Vec::with_capacity(means.len().min(PENDING));
    // The weight before the last of `joined`.
    let mut before = 0.0;
    for mean in means {
        let Some(last) = joined.last_mut() else {
            joined.push(*mean);
            continue;
        };
        let weight = (last.weight + mean.weight) as f64;
        let (start, end) = (before / total, (before + weight) / total);
        if may(last.value, mean.value) && weight <= limit(start).min(limit(end)) {
            // A mean of the two that can't overflow, nor leave their range by rounding.
            let share = mean.weight as f64 / weight;
            let value = last.value * (1.0 - share) + mean.value * share;
            last.value = value.clamp(last.value, mean.value);
            last.weight += mean.weight;
        } else {
            before += last.weight as f64;
            joined.push(*mean);
        }
    }
    joined
}

fn between(left: f64, left_at: f64, right: f64, right_at: f64, at: f64) -> f64 {
    if right_at <= left_at {
        return right;
    }
    let share = (at - left_at) / (right_at - left_at);
    // Rounding must not leave what lies between: among equal values it is that value.
    (left * (1.0 - share) + right * share).max(left).min(right)
}

fn order(a: &Mean, b: &Mean) -> Ordering {
    a.value.total_cmp(&b.value).then(a.weight.cmp(&b.weight))
}

impl State for Digest {
    const VERSION: u8 = 1;

    fn write(&mut self, out: &mut Vec<u8>) {
        self.settle();
        for count in [self.below, self.above, self.nans] {
            write_varint(count, out);
        }
        if let Some((least, greatest)) = self.ends {
            out.extend_from_slice(&least.to_le_bytes());
            out.extend_from_slice(&greatest.to_le_bytes());
            for mean in &self.means {
                out.extend_from_slice(&mean.value.to_le_bytes());
                write_varint(mean.weight, out);
            }
        }
    }

    fn merge(&mut self, mut bytes: Reader<'_>) -> Result<()> {
        for count in [&mut self.below, &mut self.above, &mut self.nans] {
            *count =
                add(*count, bytes.varint()?).ok_or_else(|| bytes.malformed("too many values"))?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let (least, greatest) = (bytes.float()?, bytes.float()?);
        if !(least.is_finite() && greatest.is_finite() && least <= greatest) {
            return Err(bytes.malformed("its ends are no range"));
        }
        let mut theirs: Vec<Mean> = Vec::new();
        let mut weight = self.weight();
        while !bytes.is_empty() {
            let mean = Mean {
                value: bytes.float()?,
                weight: bytes.varint()?,
            };
            let ascends = theirs
                .last()
                .is_none_or(|last| order(last, &mean) != Ordering::Greater);
            if !ascends || !(least..=greatest).contains(&mean.value) || mean.weight == 0 {
                return Err(bytes.malformed("its means do not ascend within its ends"));
            }
            weight = add(weight, mean.weight).ok_or_else(|| bytes.malformed("too many values"))?;
            theirs.push(mean);
            if theirs.len() > MOST_MEANS {
                return Err(bytes.malformed("it has too many means"));
            }
        }
        if theirs.is_empty() {
            return Err(bytes.malformed("it has ends and no means"));
        }
        self.widen(least, greatest);
        if self.means.is_empty() && self.pending.is_empty() {
            self.means = theirs;
        } else {
            theirs.into_iter().for_each(|mean| self.push(mean));
        }
        Ok(())
    }

    fn heap_bytes(&self) -> usize {
        (self.means.capacity() + self.pending.capacity()) * size_of::<Mean>()
    }
}

impl Digest {
    /// How many finite values it holds.
    fn weight(&self) -> u64 {
        let all = self.means.iter().chain(&self.pending);
        all.map(|mean| mean.weight).sum()
    }
}

/// As floats count: beyond 2^52 values places could not be told apart.
fn add(a: u64, b: u64) -> Option<u64> {
    a.checked_add(b).filter(|sum| *sum < 1 << 52)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rounding_never_makes_a_state_that_cannot_be_read() {
        // Values of which a weighted mean with themselves, or with their neighbour, is easily a bit off.
        for values in [
            &[15.699_999_988_079_073][..],
            &[0.1, 0.1 + f64::EPSILON / 8.0, 0.3],
            &[-f64::MAX, f64::MAX],
            &[f64::MIN_POSITIVE / 3.0, -1e-300, 1e300, 7.1],
        ] {
            let mut all = Digest::default();
            for round in 0..60 {
                let mut digest = Digest::default();
                for at in 0..977 + round {
                    digest.insert(values[at * (round + 1) % values.len()]);
                }
                let mut bytes = vec![Digest::VERSION];
                digest.write(&mut bytes);
                all.merge(Reader::new("digest", Digest::VERSION, &bytes).unwrap())
                    .unwrap();
                let mut bytes = vec![Digest::VERSION];
                all.write(&mut bytes);
                let mut again = Digest::default();
                again
                    .merge(Reader::new("digest", Digest::VERSION, &bytes).unwrap())
                    .unwrap();
                assert!(bytes.len() < 4_096, "{}", bytes.len());
                let median = again.quantile(0.5).unwrap();
                let least = values.iter().copied().fold(f64::MAX, f64::min);
                let greatest = values.iter().copied().fold(f64::MIN, f64::max);
                assert!((least..=greatest).contains(&median));
            }
        }
    }
}
