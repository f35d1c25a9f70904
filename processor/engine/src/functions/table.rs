//! One state per group, kept as the bytes of one column: what this crate's own aggregates have in common.
//!
//! The bytes are part of the log: a state that one version wrote is merged by the next. Each begins with the version of
//! its format; what does not follow the format is an error, never a panic.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err, internal_err};
use datafusion_expr::function::StateFieldsArgs;
use datafusion_expr::utils::format_state_name;
use datafusion_expr::{EmitTo, GroupsAccumulator};

use super::codec::Reader;

/// The state of one group.
pub(super) trait State: Default + Send + 'static {
    /// The version of the bytes: their first byte.
    const VERSION: u8;

    /// Writes the state behind the version. The bytes depend on what was taken in alone.
    fn write(&mut self, out: &mut Vec<u8>);

    /// Takes another state in.
    fn merge(&mut self, bytes: Reader<'_>) -> Result<()>;

    /// How much it keeps outside of itself, about.
    fn heap_bytes(&self) -> usize;
}

/// What an aggregate does with its states.
pub(super) trait Logic: Send + 'static {
    /// The state.
    type State: State;

    /// The function's name, for errors.
    fn name(&self) -> &'static str;

    /// Takes rows in, each into the state of its group.
    fn update(
        &self,
        states: &mut [Self::State],
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
    ) -> Result<()>;

    /// The groups' values.
    fn finish(&self, states: Vec<Self::State>) -> Result<ArrayRef>;
}

/// The states of all groups.
pub(super) struct Table<L: Logic> {
    logic: L,
    states: Vec<L::State>,
}

impl<L: Logic> Table<L> {
    pub(super) fn boxed(logic: L) -> Box<dyn GroupsAccumulator> {
        let states = Vec::new();
        Box::new(Self { logic, states })
    }

    fn grow(&mut self, total: usize) {
        self.states.resize_with(total, L::State::default);
    }
}

impl<L: Logic> GroupsAccumulator for Table<L> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.grow(total);
        self.logic.update(&mut self.states, values, groups, filter)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        let name = self.logic.name();
        let Some(states) = values
            .first()
            .and_then(|values| values.as_binary_opt::<i32>())
        else {
            return exec_err!("{name}: the state is not a column of bytes");
        };
        for (row, group) in groups.iter().enumerate() {
            if states.is_null(row) {
                return exec_err!("{name}: the state is null");
            }
            let bytes = Reader::new(name, L::State::VERSION, states.value(row))?;
            self.states[*group].merge(bytes)?;
        }
        Ok(())
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut states = emit_to.take_needed(&mut self.states);
        let mut column = BinaryBuilder::with_capacity(states.len(), 32 * states.len());
        let mut bytes = Vec::new();
        for state in &mut states {
            bytes.clear();
            bytes.push(L::State::VERSION);
            state.write(&mut bytes);
            column.append_value(&bytes);
        }
        Ok(vec![Arc::new(column.finish())])
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.logic.finish(emit_to.take_needed(&mut self.states))
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        internal_err!("{} is always grouped", self.logic.name())
    }

    fn size(&self) -> usize {
        let heap: usize = self.states.iter().map(State::heap_bytes).sum();
        heap + self.states.capacity() * size_of::<L::State>()
    }
}

/// The one column of bytes that a [`Table`] has as its state.
pub(super) fn state_fields(args: &StateFieldsArgs<'_>) -> Vec<FieldRef> {
    let name = format_state_name(args.name, "state");
    vec![Arc::new(Field::new(name, DataType::Binary, false))]
}

/// Calls `each` with the row and group of every row that is not null and that the filter lets through.
pub(super) fn each_row(
    values: &dyn Array,
    groups: &[usize],
    filter: Option<&BooleanArray>,
    mut each: impl FnMut(usize, usize),
) {
    let nulls = values.logical_nulls();
    if nulls.is_none() && filter.is_none() {
        for (row, group) in groups.iter().enumerate() {
            each(row, *group);
        }
        return;
    }
    for (row, group) in groups.iter().enumerate() {
        let known = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let kept = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        if known && kept {
            each(row, *group);
        }
    }
}

/// The parts of `AggregateUDFImpl` that every function over a [`Table`] has alike.
macro_rules! grouped_only {
    () => {
        fn signature(&self) -> &datafusion_expr::Signature {
            &self.signature
        }

        fn accumulator(
            &self,
            _: datafusion_expr::function::AccumulatorArgs<'_>,
        ) -> datafusion_common::Result<Box<dyn datafusion_expr::Accumulator>> {
            datafusion_common::internal_err!("{} is always grouped", self.name())
        }

        fn groups_accumulator_supported(
            &self,
            _: datafusion_expr::function::AccumulatorArgs<'_>,
        ) -> bool {
            true
        }
    };
}
pub(super) use grouped_only;
