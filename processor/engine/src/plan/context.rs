//! The planner's view of a query: the columns of its source and of its reference tables, and the functions.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{
    AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_functions_aggregate::planner::AggregateFunctionPlanner;
use datafusion_optimizer::Analyzer;
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast;

use super::scan::UTC;
use crate::functions;

/// The names of the columns that a window function adds to its source.
pub(super) const WINDOW_COLUMNS: [&str; 2] = ["window_start", "window_end"];

static PLANNERS: LazyLock<Vec<Arc<dyn ExprPlanner>>> = LazyLock::new(|| {
    vec![
        Arc::new(AggregateFunctionPlanner),
        Arc::new(DatetimeFunctionPlanner),
        Arc::new(UnicodeFunctionPlanner),
    ]
});

/// A source with its window columns, and reference tables.
#[derive(Debug)]
pub(super) struct Context {
    name: String,
    table: Arc<Columns>,
    references: BTreeMap<String, Arc<Columns>>,
    options: ConfigOptions,
}

#[derive(Debug)]
struct Columns {
    schema: SchemaRef,
}

impl TableSource for Columns {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Context {
    /// `windowed`: whether the source has window columns. `references` are reference tables and their columns.
    pub(super) fn new<'a>(
        name: &str,
        columns: &Schema,
        windowed: bool,
        references: impl IntoIterator<Item = (&'a String, &'a SchemaRef)>,
    ) -> Self {
        let mut fields: Vec<Arc<Field>> = columns.fields().iter().cloned().collect();
        if windowed {
            fields.extend(window_fields());
        }
        let table = Arc::new(Columns {
            schema: Arc::new(Schema::new(fields)),
        });
        let references = references.into_iter().map(|(name, schema)| {
            let schema = Arc::clone(schema);
            (name.clone(), Arc::new(Columns { schema }))
        });
        Self {
            name: name.to_owned(),
            table,
            references: references.collect(),
            options: ConfigOptions::default(),
        }
    }

    /// Plans a query and coerces its types.
    pub(super) fn plan(&self, query: ast::Query) -> Result<LogicalPlan> {
        let options = ParserOptions::new()
            .with_collect_spans(true)
            .with_map_string_types_to_utf8view(false);
        let planner = SqlToRel::new_with_options(self, options);
        let plan = planner.sql_statement_to_plan(ast::Statement::Query(Box::new(query)))?;
        Analyzer::with_rules(vec![Arc::new(TypeCoercion::new())]).execute_and_check(
            plan,
            &self.options,
            |_, _| {},
        )
    }
}

/// window_start and window_end.
pub(super) fn window_fields() -> [Arc<Field>; 2] {
    WINDOW_COLUMNS.map(|name| {
        Arc::new(Field::new(
            name,
            DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
            false,
        ))
    })
}

impl ContextProvider for Context {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let table = if name.table() == self.name {
            Some(&self.table)
        } else {
            self.references.get(name.table())
        };
        match table {
            Some(table) => Ok(Arc::clone(table) as _),
            None => plan_err!("there is no source or reference table {name}"),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &PLANNERS
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        functions::scalar(name)
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        functions::aggregate(name)
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        functions::names()
            .filter(|name| !functions::is_aggregate(name))
            .map(str::to_owned)
            .collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        functions::names()
            .filter(|name| functions::is_aggregate(name))
            .map(str::to_owned)
            .collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
