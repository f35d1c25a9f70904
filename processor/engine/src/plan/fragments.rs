//! A query's expressions, compiled: what scan, merge and finish are made of.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::row::RowConverter;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use crate::functions::mask::Mask;
use crate::window::Window;

/// A query's compiled expressions.
#[derive(Debug)]
pub(super) struct Fragments {
    /// The columns of source batches.
    pub(super) input: SchemaRef,
    /// Where event time stands in them.
    pub(super) event_time: usize,
    /// How event time is cut; `None`: each row gives a result.
    pub(super) window: Option<Window>,
    /// [`Fragments::input`] and, if some expression needs them, window_start and window_end.
    pub(super) windowed: SchemaRef,
    /// What of WHERE the source alone decides, over [`Fragments::windowed`].
    pub(super) filter: Option<Arc<dyn PhysicalExpr>>,
    /// What the rows are joined with then, in order.
    pub(super) lookups: Vec<Lookup>,
    /// The rest of WHERE, over the columns after the last lookup.
    pub(super) joined_filter: Option<Arc<dyn PhysicalExpr>>,
    /// The columns after the last lookup that keys and aggregates read: only these survive the filters.
    pub(super) kept: Vec<usize>,
    /// Those columns.
    pub(super) kept_schema: SchemaRef,
    /// The group keys without the window, or the SELECT list of a query without groups, over [`Fragments::kept_schema`].
    pub(super) keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Turns key columns into bytes; `None` if there are no keys.
    pub(super) key_rows: Option<RowConverter>,
    /// The window's start and the keys.
    pub(super) group_schema: SchemaRef,
    /// In the order of their states in partial rows.
    pub(super) aggregates: Vec<Aggregate>,
    /// The columns of GROUP BY, in the order that [`Fragments::grouped`] begins with.
    pub(super) group_columns: Vec<GroupColumn>,
    /// What HAVING and the SELECT list see: the columns of GROUP BY, then the aggregates.
    pub(super) grouped: SchemaRef,
    /// Over [`Fragments::grouped`].
    pub(super) having: Option<Arc<dyn PhysicalExpr>>,
    /// What `anomaly_score` is asked of, over the columns of [`Fragments::grouped`] before the scores, which are its
    /// last ones, in this order.
    pub(super) scored: Vec<Arc<dyn PhysicalExpr>>,
    /// For how long a group's history is kept without a window of its own, in milliseconds.
    pub(super) history_ms: i64,
    /// ORDER BY … LIMIT.
    pub(super) top: Option<Top>,
    /// The SELECT list, over [`Fragments::grouped`].
    pub(super) projection: Vec<Arc<dyn PhysicalExpr>>,
}

/// A join with a reference table.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) table: String,
    /// Whether rows without a match are left out.
    pub(super) inner: bool,
    /// What the columns of the table's key are to be, over the columns before.
    pub(super) keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The columns before, and those of the table that something reads.
    pub(super) joined: SchemaRef,
}

/// The first rows of each window in some order.
#[derive(Debug)]
pub(super) struct Top {
    /// Over [`Fragments::grouped`].
    pub(super) order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// How many.
    pub(super) rows: usize,
}

/// A column of GROUP BY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupColumn {
    WindowStart,
    WindowEnd,
    /// A position in [`Fragments::keys`].
    Key(usize),
}

/// An aggregate function with its arguments and FILTER, over [`Fragments::kept_schema`].
#[derive(Debug)]
pub(super) struct Aggregate {
    pub(super) function: Arc<AggregateFunctionExpr>,
    pub(super) args: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) filter: Option<Arc<dyn PhysicalExpr>>,
    /// How many columns its state has.
    pub(super) states: usize,
    /// For `mask_coordinate`.
    pub(super) mask: Option<Mask>,
}

impl Fragments {
    pub(super) fn pane_ms(&self) -> Option<i64> {
        self.window.and_then(Window::pane_ms)
    }

    pub(super) fn size_ms(&self) -> Option<i64> {
        self.window.and_then(Window::size_ms)
    }
}
