//! What the values of a field must be like.

use regex::Regex;

use super::super::field::{Field, Kind, Rules, Source};
use super::super::file::{At, FieldSpec};
use super::super::units;
use super::Compiler;

impl Compiler<'_> {
    pub(super) fn factor(&mut self, spec: &FieldSpec, kind: &Kind) -> Option<f64> {
        let At { line, value } = spec.unit.as_ref()?;
        if !matches!(kind, Kind::Int | Kind::Long | Kind::Float | Kind::Double) {
            self.problem(
                *line,
                format!(
                    "`fields.{}.unit` is for numbers, and the field is none: remove it",
                    spec.name
                ),
            );
            return None;
        }
        units::factor(value)
            .map_err(|what| self.problem(*line, what))
            .ok()
    }

    pub(super) fn rules(
        &mut self,
        spec: &FieldSpec,
        kind: &Kind,
        null: Option<u8>,
        names: &[&str],
    ) -> Rules {
        if let Some(At { line, value: false }) = spec.required
            && null.is_none()
        {
            let what = format!(
                "`fields.{}.required` can't be false: the schema does not allow null there",
                spec.name
            );
            self.problem(line, what);
        }
        let number = matches!(kind, Kind::Int | Kind::Long | Kind::Float | Kind::Double);
        for (end, key) in [(&spec.min, "min"), (&spec.max, "max")] {
            if let Some(At { line, .. }) = end
                && !number
            {
                self.problem(
                    *line,
                    format!(
                        "`fields.{}.{key}` is for numbers, and the field is none: remove it",
                        spec.name
                    ),
                );
            }
        }
        if let (Some(min), Some(max)) = (&spec.min, &spec.max)
            && min.value > max.value
        {
            let what = format!(
                "`fields.{}` has a range that holds nothing: {} to {}",
                spec.name, min.value, max.value
            );
            self.problem(max.line, what);
        }
        let regex = spec.regex.as_ref().and_then(|At { line, value }| {
            // alone first, so that a message shows the user's own text
            match Regex::new(value).and_then(|_| Regex::new(&format!(r"\A(?:{value})\z"))) {
                Ok(regex) => Some(regex),
                Err(error) => {
                    self.problem(
                        *line,
                        format!(
                            "`fields.{}.regex` is no regular expression: {error}",
                            spec.name
                        ),
                    );
                    None
                }
            }
        });
        Rules {
            required: null.is_none() || spec.required.as_ref().is_some_and(|at| at.value),
            min: spec.min.as_ref().map(|at| at.value),
            max: spec.max.as_ref().map(|at| at.value),
            regex,
            not_before: self.other(spec, &spec.not_before, "not_before", names),
            not_zero_with: self.other(spec, &spec.not_zero_with, "not_zero_with", names),
        }
    }

    /// The number of the field that a rule names.
    fn other(
        &mut self,
        spec: &FieldSpec,
        named: &Option<At<String>>,
        key: &str,
        names: &[&str],
    ) -> Option<usize> {
        let At { line, value } = named.as_ref()?;
        let found = names
            .iter()
            .position(|name| name == value && *value != spec.name);
        if found.is_none() {
            self.problem(
                *line,
                format!(
                    "`fields.{}.{key}` names `{value}`, which is no other field",
                    spec.name
                ),
            );
        }
        found
    }

    /// Rules that look at two fields: both must be of a kind that can be compared.
    pub(super) fn pairs(&mut self, fields: &[Field]) {
        let timed = |field: &Field| {
            matches!(
                field.kind,
                Kind::TimestampMillis(_) | Kind::TimestampMicros(_) | Kind::Date(_)
            )
        };
        let number = |field: &Field| {
            matches!(
                field.kind,
                Kind::Int | Kind::Long | Kind::Float | Kind::Double
            )
        };
        let column = |field: &Field| matches!(field.source, Source::Column { .. });
        for field in fields {
            let Some(spec) = self.file.fields.iter().find(|spec| spec.name == field.name) else {
                continue;
            };
            if let (Some(other), Some(At { line, .. })) = (field.rules.not_before, &spec.not_before)
            {
                let other = &fields[other];
                let alike =
                    std::mem::discriminant(&field.kind) == std::mem::discriminant(&other.kind);
                if !(alike && timed(field) || number(field) && number(other)) {
                    let what = format!(
                        "`{}` and `{}` can't be compared: both must be times of one type, or numbers",
                        field.name, other.name
                    );
                    self.problem(*line, what);
                }
            }
            if let (Some(other), Some(At { line, .. })) =
                (field.rules.not_zero_with, &spec.not_zero_with)
                && !(number(field) && number(&fields[other]))
            {
                let what = format!(
                    "`{}` and `{}` must both be numbers",
                    field.name, fields[other].name
                );
                self.problem(*line, what);
            }
            if let (Source::HaversineKm(of), Some(At { line, .. })) = (&field.source, &spec.origin)
                && of
                    .iter()
                    .any(|index| !number(&fields[*index]) || !column(&fields[*index]))
            {
                self.problem(
                    *line,
                    format!(
                        "`fields.{}.haversine_km` must name numbers that have a column",
                        field.name
                    ),
                );
            }
        }
    }
}
