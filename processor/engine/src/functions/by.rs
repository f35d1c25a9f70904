//! `min_by(x, t)`, also `first_by`: the value of `x` in the row with the least `t`; of several the one that came first.
//! `max_by(x, t)`, also `last_by`: in the row with the greatest `t`; of several the one that came last.
//!
//! "Came" means the order of the log. `x` may have any type, and where it is null the result is null. Rows where `t` is
//! null are left out; null if none is left. Floats stand in their order with −0 equal to 0 and NaN above all.
//!
//! State: the value and its `t`, in columns of their own types; a null `t` means that no row came.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, make_comparator};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion_common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::format_state_name;
use datafusion_expr::{AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};

use super::hash::canonical;
use super::table::{each_row, grouped_only};

/// Which row wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Extreme {
    /// The least, the first of several.
    Least,
    /// The greatest, the last of several.
    Greatest,
}

impl Extreme {
    /// Whether a later row takes the place of an earlier one that it compares to so.
    fn replaces(self, later: Ordering) -> bool {
        match self {
            Self::Least => later == Ordering::Less,
            Self::Greatest => later != Ordering::Less,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct By {
    signature: Signature,
    extreme: Extreme,
    aliases: Vec<String>,
}

impl By {
    pub(super) fn new(extreme: Extreme) -> Self {
        let aliases: &[&str] = match extreme {
            Extreme::Least => &["first_by", "arg_min"],
            Extreme::Greatest => &["last_by", "arg_max"],
        };
        Self {
            signature: Signature::any(2, Volatility::Immutable),
            extreme,
            aliases: aliases.iter().map(ToString::to_string).collect(),
        }
    }
}

impl AggregateUDFImpl for By {
    grouped_only!();

    fn name(&self) -> &str {
        match self.extreme {
            Extreme::Least => "min_by",
            Extreme::Greatest => "max_by",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [value, by] if ordered(by) && *value != DataType::Null => Ok(value.clone()),
            _ => plan_err!(
                "{} takes a value and what to order by: a timestamp, date, number or text",
                self.name()
            ),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let [value, by] = args.input_fields else {
            return internal_err!("{} has two arguments", self.name());
        };
        let by_type = by_type(by.data_type());
        Ok(vec![
            Arc::new(Field::new(
                format_state_name(args.name, "value"),
                value.data_type().clone(),
                true,
            )),
            Arc::new(Field::new(
                format_state_name(args.name, "by"),
                by_type,
                true,
            )),
        ])
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let [value, by] = args.expr_fields else {
            return internal_err!("{} has two arguments", self.name());
        };
        Ok(Box::new(Winners {
            extreme: self.extreme,
            no_value: ScalarValue::try_from(value.data_type())?,
            no_by: ScalarValue::try_from(&by_type(by.data_type()))?,
            values: Vec::new(),
            bys: Vec::new(),
            best: Vec::new(),
        }))
    }
}

fn ordered(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_floating()
        || matches!(
            data_type,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8
        )
}

fn by_type(data_type: &DataType) -> DataType {
    if data_type.is_floating() {
        DataType::Float64
    } else {
        data_type.clone()
    }
}

/// The winning row of each group.
struct Winners {
    extreme: Extreme,
    no_value: ScalarValue,
    no_by: ScalarValue,
    values: Vec<ScalarValue>,
    bys: Vec<ScalarValue>,
    /// The winner of a batch, 1 + its row, while the batch is taken in; else 0.
    best: Vec<u32>,
}

impl Winners {
    fn take_in(
        &mut self,
        values: &ArrayRef,
        bys: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.values.resize(total, self.no_value.clone());
        self.bys.resize(total, self.no_by.clone());
        self.best.resize(total, 0);
        if u32::try_from(groups.len()).is_err() {
            return exec_err!("a batch has 2^32 rows");
        }
        let compare = make_comparator(bys, bys, SortOptions::default())?;
        let (extreme, best) = (self.extreme, &mut self.best);
        each_row(bys, groups, filter, |row, group| {
            let best = &mut best[group];
            if *best == 0 || extreme.replaces(compare(row, *best as usize - 1)) {
                *best = row as u32 + 1;
            }
        });
        // Each group that won a row is met at that row once.
        for (row, group) in groups.iter().enumerate() {
            if self.best[*group] as usize != row + 1 {
                continue;
            }
            self.best[*group] = 0;
            let by = ScalarValue::try_from_array(bys, row)?;
            let mine = &self.bys[*group];
            let wins = mine.is_null()
                || by
                    .partial_cmp(mine)
                    .is_some_and(|order| extreme.replaces(order));
            if wins {
                self.values[*group] = ScalarValue::try_from_array(values, row)?;
                self.values[*group].compact();
                self.bys[*group] = by;
            }
        }
        Ok(())
    }

    fn emit(&mut self, emit_to: EmitTo) -> Result<[ArrayRef; 2]> {
        let values = emit_to.take_needed(&mut self.values);
        let bys = emit_to.take_needed(&mut self.bys);
        self.best.truncate(self.bys.len());
        if values.is_empty() {
            return Ok([
                arrow::array::new_empty_array(&self.no_value.data_type()),
                arrow::array::new_empty_array(&self.no_by.data_type()),
            ]);
        }
        Ok([
            ScalarValue::iter_to_array(values)?,
            ScalarValue::iter_to_array(bys)?,
        ])
    }
}

/// Floats as doubles, −0 as 0 and every NaN as the one above all.
fn orderable(bys: &ArrayRef) -> Result<ArrayRef> {
    if !bys.data_type().is_floating() {
        return Ok(Arc::clone(bys));
    }
    let bys = cast(bys, &DataType::Float64)?;
    let bys: Float64Array = bys.as_primitive::<Float64Type>().unary(canonical);
    Ok(Arc::new(bys))
}

impl GroupsAccumulator for Winners {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let [values, bys] = values else {
            return internal_err!("two arguments are wanted");
        };
        self.take_in(values, &orderable(bys)?, groups, filter, total)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let [values, bys] = values else {
            return exec_err!("the state is not a value and what it is ordered by");
        };
        self.take_in(values, &orderable(bys)?, groups, None, total)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(self.emit(emit_to)?.into())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let [values, _] = self.emit(emit_to)?;
        Ok(values)
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        internal_err!("min_by and max_by are always grouped")
    }

    fn size(&self) -> usize {
        let scalars = self.values.iter().chain(&self.bys);
        scalars.map(ScalarValue::size).sum::<usize>() + 4 * self.best.capacity()
    }
}
