//! Functions of analysis, by `libm` instead of the platform's library: that one chooses its code by the CPU, and the last
//! bit of a sine with it.
//!
//! All take and give doubles. Null if an argument is; outside of a function's domain the result is NaN or infinite, as
//! IEEE 754 has it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::{binary, cast};
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{Result, ScalarValue, internal_err, plan_err};
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

type One = fn(f64) -> f64;
type Two = fn(f64, f64) -> f64;

/// Functions of one argument.
const ONE: [(&str, One); 18] = [
    ("acos", libm::acos),
    ("acosh", libm::acosh),
    ("asin", libm::asin),
    ("asinh", libm::asinh),
    ("atan", libm::atan),
    ("atanh", libm::atanh),
    ("cbrt", libm::cbrt),
    ("cos", libm::cos),
    ("cosh", libm::cosh),
    ("cot", |x| 1.0 / libm::tan(x)),
    ("exp", libm::exp),
    ("ln", libm::log),
    ("log10", libm::log10),
    ("log2", libm::log2),
    ("sin", libm::sin),
    ("sinh", libm::sinh),
    ("tan", libm::tan),
    ("tanh", libm::tanh),
];

/// Functions of two arguments.
const TWO: [(&str, Two); 2] = [("atan2", libm::atan2), ("power", libm::pow)];

/// All of them.
pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let one = ONE.iter().map(|(name, _)| *name);
    let two = TWO.iter().map(|(name, _)| *name);
    one.chain(two)
        .chain(["log"])
        .map(|name| Arc::new(ScalarUDF::from(Math::new(name))))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Math {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

impl Math {
    fn new(name: &'static str) -> Self {
        let aliases = if name == "power" {
            vec!["pow".to_owned()]
        } else {
            Vec::new()
        };
        Self {
            name,
            aliases,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    fn takes(&self, count: usize) -> bool {
        match self.name {
            "log" => count == 1 || count == 2,
            name if TWO.iter().any(|(two, _)| *two == name) => count == 2,
            _ => count == 1,
        }
    }
}

impl ScalarUDFImpl for Math {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let number = |arg: &DataType| arg.is_numeric() || *arg == DataType::Null;
        if !self.takes(args.len()) || !args.iter().all(number) {
            return plan_err!(
                "{} takes {}",
                self.name,
                match self.name {
                    "log" => "a number, or a base and a number",
                    _ if self.takes(2) => "two numbers",
                    _ => "a number",
                }
            );
        }
        Ok(vec![DataType::Float64; args.len()])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = args
            .args
            .iter()
            .map(|arg| Ok(cast(&arg.to_array(rows)?, &DataType::Float64)?))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let columns: Vec<&Float64Array> = arrays
            .iter()
            .map(|array| array.as_primitive::<Float64Type>())
            .collect();
        let result: Float64Array = match columns.as_slice() {
            [x] if self.name == "log" => x.unary(libm::log10),
            [base, x] if self.name == "log" => binary(base, x, logarithm)?,
            [x] => match ONE.iter().find(|(name, _)| *name == self.name) {
                Some((_, function)) => x.unary(function),
                None => return internal_err!("{} is no function of one number", self.name),
            },
            [x, y] => match TWO.iter().find(|(name, _)| *name == self.name) {
                Some((_, function)) => binary(x, y, function)?,
                None => return internal_err!("{} is no function of two numbers", self.name),
            },
            _ => return internal_err!("{} takes one or two numbers", self.name),
        };
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &result, 0,
            )?));
        }
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

fn logarithm(base: f64, x: f64) -> f64 {
    if base == 10.0 {
        libm::log10(x)
    } else if base == 2.0 {
        libm::log2(x)
    } else {
        libm::log(x) / libm::log(base)
    }
}
