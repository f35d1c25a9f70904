//! `mode(x)`: the most frequent value of an integer, text, boolean, date or timestamp; of several the least. Nulls are
//! left out; null if nothing is left.
//!
//! State, format 1: each value in ascending order (an integer as its difference to the one before, a text with its length
//! before it) and how often it came; all numbers of variable length.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, exec_datafusion_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::codec::{Reader, write_varint};
use super::keys::{Key, is_text, is_whole};
use super::table::{Logic, State, Table, grouped_only, state_fields};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Mode {
    signature: Signature,
}

impl Mode {
    const NAME: &'static str = "mode";

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for Mode {
    grouped_only!();

    fn name(&self) -> &str {
        Self::NAME
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [data_type] if is_whole(data_type) || is_text(data_type) => Ok(data_type.clone()),
            _ => plan_err!("mode takes integers, texts, booleans, dates and timestamps"),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields(&args))
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_type().clone();
        Ok(if is_text(&data_type) {
            Table::boxed(Most::<Box<str>>::of(data_type))
        } else {
            Table::boxed(Most::<i64>::of(data_type))
        })
    }
}

struct Most<K> {
    data_type: DataType,
    keys: PhantomData<K>,
}

impl<K> Most<K> {
    fn of(data_type: DataType) -> Self {
        Self {
            data_type,
            keys: PhantomData,
        }
    }
}

impl<K: Key> Logic for Most<K> {
    type State = Counts<K>;

    fn name(&self) -> &'static str {
        Mode::NAME
    }

    fn update(
        &self,
        states: &mut [Counts<K>],
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        K::each(&values[0], groups, filter, |group, value| {
            let counts = &mut states[group].0;
            match counts.get_mut(value) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(K::own(value), 1);
                }
            }
        })
    }

    fn finish(&self, states: Vec<Counts<K>>) -> Result<ArrayRef> {
        let most = |counts: Counts<K>| {
            let mut best: Option<(K, u64)> = None;
            for (key, count) in counts.0 {
                if best.as_ref().is_none_or(|(_, most)| count > *most) {
                    best = Some((key, count));
                }
            }
            best.map(|(key, _)| key)
        };
        K::array(states.into_iter().map(most).collect(), &self.data_type)
    }
}

struct Counts<K>(BTreeMap<K, u64>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Key> State for Counts<K> {
    const VERSION: u8 = 1;

    fn write(&mut self, out: &mut Vec<u8>) {
        let mut last = None;
        for (key, count) in &self.0 {
            key.write(last, out);
            write_varint(*count, out);
            last = Some(key);
        }
    }

    fn merge(&mut self, mut bytes: Reader<'_>) -> Result<()> {
        let mut last: Option<K> = None;
        while !bytes.is_empty() {
            let key = K::read(last.as_ref(), &mut bytes)?;
            let count = bytes.varint()?;
            if count == 0 {
                return Err(bytes.malformed("a value came never"));
            }
            let value: &K::Ref = key.borrow();
            match self.0.get_mut(value) {
                Some(mine) => {
                    *mine = mine
                        .checked_add(count)
                        .ok_or_else(|| exec_datafusion_err!("mode: a count exceeds 2^64"))?;
                }
                None => {
                    self.0.insert(K::own(value), count);
                }
            }
            last = Some(key);
        }
        Ok(())
    }

    fn heap_bytes(&self) -> usize {
        let keys: usize = self.0.keys().map(Key::heap_bytes).sum();
        keys + self.0.len() * (size_of::<K>() + 16)
    }
}
