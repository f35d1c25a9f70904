//! Why a row can't be delivered: the codes that stand in dead letters and metrics.

use std::fmt;

/// Why a row became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Reason {
    TooFewColumns,
    TooManyColumns,
    BadUtf8,
    BadNumber,
    BadDate,
    NonexistentTime,
    BadBoolean,
    BadSymbol,
    BadFormat,
    MissingValue,
    OutOfRange,
    ZeroPair,
    NotInOrder,
    BadQuotes,
    UnclosedQuote,
    RowTooLong,
    ContinuedRow,
    TooLarge,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::TooFewColumns,
        Self::TooManyColumns,
        Self::BadUtf8,
        Self::BadNumber,
        Self::BadDate,
        Self::NonexistentTime,
        Self::BadBoolean,
        Self::BadSymbol,
        Self::BadFormat,
        Self::MissingValue,
        Self::OutOfRange,
        Self::ZeroPair,
        Self::NotInOrder,
        Self::BadQuotes,
        Self::UnclosedQuote,
        Self::RowTooLong,
        Self::ContinuedRow,
        Self::TooLarge,
    ];

    /// The code.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooFewColumns => "too_few_columns",
            Self::TooManyColumns => "too_many_columns",
            Self::BadUtf8 => "bad_utf8",
            Self::BadNumber => "bad_number",
            Self::BadDate => "bad_date",
            Self::NonexistentTime => "nonexistent_time",
            Self::BadBoolean => "bad_boolean",
            Self::BadSymbol => "bad_symbol",
            Self::BadFormat => "bad_format",
            Self::MissingValue => "missing_value",
            Self::OutOfRange => "out_of_range",
            Self::ZeroPair => "zero_pair",
            Self::NotInOrder => "not_in_order",
            Self::BadQuotes => "bad_quotes",
            Self::UnclosedQuote => "unclosed_quote",
            Self::RowTooLong => "row_too_long",
            Self::ContinuedRow => "continued_row",
            Self::TooLarge => "too_large",
        }
    }

    /// What it means, for a row that could not even be taken apart or sent.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::BadQuotes => {
                "text follows a closing quote; a quote inside a quoted field is written twice"
            }
            Self::UnclosedQuote => {
                "a quote is opened and not closed in this row; reading went on at the next line"
            }
            Self::RowTooLong => "the row is longer than 1 MiB; it is cut here",
            Self::ContinuedRow => {
                "the file was read when it ended in the middle of this line, and has grown since: this is the rest of a row that was taken already"
            }
            Self::TooLarge => "the encoded row is larger than the log takes",
            _ => "the row can't be standardised",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
