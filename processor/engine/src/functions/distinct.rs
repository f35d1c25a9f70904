//! `count(DISTINCT x)` and `sum(DISTINCT x)`: exact, over the set of values that are not null.
//!
//! They take the place of DataFusion's when a query is compiled: its states list the values in the order of a hash table.
//! State, format 1: the values in ascending order, as `mode` writes them.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::codec::Reader;
use super::keys::{Key, is_text, is_whole};
use super::table::{Logic, State, Table, grouped_only, state_fields};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Of {
    Count,
    Sum,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Distinct {
    signature: Signature,
    of: Of,
}

impl Distinct {
    pub(super) fn new(of: Of) -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
            of,
        }
    }
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "count_distinct",
            Self::Sum => "sum_distinct",
        }
    }
}

impl AggregateUDFImpl for Distinct {
    grouped_only!();

    fn name(&self) -> &str {
        self.of.name()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match (self.of, args) {
            (Of::Count, [data_type]) if countable(data_type) => Ok(DataType::Int64),
            (Of::Count, _) => plan_err!("count(DISTINCT …) does not take this type"),
            (Of::Sum, [DataType::Int64]) => Ok(DataType::Int64),
            (Of::Sum, _) => plan_err!("sum(DISTINCT …) takes integers"),
        }
    }

    fn is_nullable(&self) -> bool {
        self.of == Of::Sum
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields(&args))
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let texts = args
            .expr_fields
            .first()
            .is_some_and(|field| is_text(field.data_type()));
        Ok(match (self.of, texts) {
            (Of::Count, true) => Table::boxed(Count::<Box<str>>(PhantomData)),
            (Of::Count, false) => Table::boxed(Count::<i64>(PhantomData)),
            (Of::Sum, _) => Table::boxed(Sum),
        })
    }
}

/// Whether the distinct values of a type can be counted.
pub(super) fn countable(data_type: &DataType) -> bool {
    is_whole(data_type) || is_text(data_type) || data_type.is_floating()
}

fn update<K: Key>(
    states: &mut [Set<K>],
    values: &[ArrayRef],
    groups: &[usize],
    filter: Option<&BooleanArray>,
) -> Result<()> {
    K::each(&values[0], groups, filter, |group, value| {
        states[group].insert(value);
    })
}

struct Count<K>(PhantomData<K>);

impl<K: Key> Logic for Count<K> {
    type State = Set<K>;

    fn name(&self) -> &'static str {
        Of::Count.name()
    }

    fn update(
        &self,
        states: &mut [Set<K>],
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        update(states, values, groups, filter)
    }

    fn finish(&self, states: Vec<Set<K>>) -> Result<ArrayRef> {
        let counts = states.into_iter().map(|set| set.all().len() as i64);
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }
}

struct Sum;

impl Logic for Sum {
    type State = Set<i64>;

    fn name(&self) -> &'static str {
        Of::Sum.name()
    }

    fn update(
        &self,
        states: &mut [Set<i64>],
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        update(states, values, groups, filter)
    }

    fn finish(&self, states: Vec<Set<i64>>) -> Result<ArrayRef> {
        // As sum does, it wraps around at 2^63.
        let sums = states.into_iter().map(|set| {
            let all = set.all();
            (!all.is_empty()).then(|| {
                all.iter()
                    .fold(0_i64, |sum, value| sum.wrapping_add(*value))
            })
        });
        Ok(Arc::new(sums.collect::<Int64Array>()))
    }
}

/// A set as a sorted list, and what is to be sorted into it.
struct Set<K> {
    sorted: Vec<K>,
    pending: Vec<K>,
}

impl<K> Default for Set<K> {
    fn default() -> Self {
        Self {
            sorted: Vec::new(),
            pending: Vec::new(),
        }
    }
}

impl<K: Key> Set<K> {
    fn insert(&mut self, value: &K::Ref) {
        let known = self
            .sorted
            .binary_search_by(|key| Borrow::<K::Ref>::borrow(key).cmp(value))
            .is_ok();
        if !known {
            self.pending.push(K::own(value));
            // A set that has doubled is sorted again: each value is moved a few times in all.
            if self.pending.len() > self.sorted.len().max(64) {
                self.settle();
            }
        }
    }

    fn settle(&mut self) {
        if !self.pending.is_empty() {
            self.sorted.append(&mut self.pending);
            self.sorted.sort();
            self.sorted.dedup();
        }
    }

    fn all(mut self) -> Vec<K> {
        self.settle();
        self.sorted
    }
}

impl<K: Key> State for Set<K> {
    const VERSION: u8 = 1;

    fn write(&mut self, out: &mut Vec<u8>) {
        self.settle();
        let mut last = None;
        for key in &self.sorted {
            key.write(last, out);
            last = Some(key);
        }
    }

    fn merge(&mut self, mut bytes: Reader<'_>) -> Result<()> {
        let mut theirs: Vec<K> = Vec::new();
        while !bytes.is_empty() {
            let key = K::read(theirs.last(), &mut bytes)?;
            theirs.push(key);
        }
        if self.sorted.is_empty() && self.pending.is_empty() {
            self.sorted = theirs;
        } else {
            for key in &theirs {
                self.insert(key.borrow());
            }
        }
        Ok(())
    }

    fn heap_bytes(&self) -> usize {
        let keys = self.sorted.iter().chain(&self.pending);
        let texts: usize = keys.map(Key::heap_bytes).sum();
        texts + (self.sorted.capacity() + self.pending.capacity()) * size_of::<K>()
    }
}
